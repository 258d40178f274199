/**
 * How commands are described, and how they say what went wrong.
 */
import { InputDialog, Notification, showErrorMessage } from '@jupyterlab/apputils';
import type { ReadonlyJSONObject } from '@lumino/coreutils';

import { asProblem } from './client';
import type { CortexModel } from './model';

export const NAME = { type: 'string', description: "The API's name" };

/** Do it; a refusal becomes a notification with its remedy. */
export async function saying(what: string, action: () => Promise<unknown>): Promise<void> {
  try {
    await action();
  } catch (error) {
    refused(what, error);
  }
}

/** What JupyterLab shows of a notification's text. The remedy stands at a sentence's end. */
const SHOWN = 140;

/** Say why something was not done; what is too long for a notification in a dialog, whole. */
export function refused(what: string, error: unknown): void {
  const { detail } = asProblem(error);
  if (`${what}: ${detail}`.length > SHOWN) {
    void showErrorMessage(what, detail);
  } else {
    Notification.error(`${what}: ${detail}`, { autoClose: false });
  }
}

/** Which API, where a command from the palette does not say. */
export async function ask(model: CortexModel): Promise<string | null> {
  model.start();
  await answered(model);
  if (model.connection !== 'live' && !model.apis.length) {
    const why = model.problem?.detail ?? model.environment?.message;
    Notification.error(why || 'The Cortex environment does not answer; the Cortex sidebar says more.', { autoClose: false });
    return null;
  }
  const items = model.apis.map(api => api.name);
  if (!items.length) {
    Notification.info('No API is deployed yet: open a notebook with a Handler and press Deploy.');
    return null;
  }
  return items.length === 1 ? items[0] : (await InputDialog.getItem({ title: 'Which API?', items })).value;
}

/** Until the first look has come back, whatever it brought. */
async function answered(model: CortexModel): Promise<void> {
  while (model.connection === 'loading') {
    await new Promise<void>(resolve => {
      const once = () => {
        model.changed.disconnect(once);
        resolve();
      };
      model.changed.connect(once);
    });
  }
}

export function described(properties: Record<string, object>, required: string[] = []): { args: ReadonlyJSONObject } {
  return { args: { type: 'object', properties, required } as unknown as ReadonlyJSONObject };
}
