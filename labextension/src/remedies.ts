/**
 * The commands for what failed: into its notebook, into the samples, back into the queue.
 */
import { Notification } from '@jupyterlab/apputils';
import type { NotebookPanel } from '@jupyterlab/notebook';
import type { CommandRegistry } from '@lumino/commands';

import type { IParts } from './commands';
import { Problem, problem } from './client';
import { panelOf } from './notebooks';
import { notebookOf, replayIn, replayLine, replayNotebookOf } from './replaying';
import { requeueDialog } from './requeue';
import { described, NAME, saying } from './said';
import { CommandIDs } from './tokens';

const ID = { type: 'string', description: 'The request id' };
const GROUP = { type: 'string', description: "The group's fingerprint" };

export function addRemedies({ app, model, notebooks }: IParts, commands: CommandRegistry): void {
  const { client } = model;
  /** The notebook's panel, in front. */
  const opened = async (path: string): Promise<NotebookPanel> => {
    const shown = panelOf(notebooks, path);
    if (shown) {
      app.shell.activateById(shown.id);
      return shown;
    }
    const panel = (await commands.execute('docmanager:open', { path, factory: 'Notebook' })) as NotebookPanel | undefined;
    if (!panel?.content?.widgets) {
      throw new Problem(problem('notebook_elsewhere', 409, `${path} opens in a browser tab of its own; press Replay again from the API's page there.`));
    }
    return panel;
  };

  commands.addCommand(CommandIDs.replay, {
    label: 'Replay in Notebook',
    caption: "Run a request of production in the notebook's kernel, with its Handler as it is now",
    describedBy: described({ name: NAME, id: ID, version: { type: 'number', description: 'On which it ran' }, group: { ...GROUP, description: 'Replay all of this group; `id` is its newest' } }, ['name', 'id']),
    execute: args =>
      saying('Replay', async () => {
        const [name, id] = [String(args.name), String(args.id)];
        const version = typeof args.version === 'number' ? args.version : (await client.workload(name, id)).version;
        const line = replayLine({ name, id }, version);
        const path = await replayNotebookOf(client, name, version, `\`${line}\` replays it in any notebook`);
        await replayIn(await opened(path), client, { name, id, ...(typeof args.group === 'string' ? { group: args.group } : {}) }, version);
      })
  });

  commands.addCommand(CommandIDs.requeue, {
    label: 'Requeue…',
    caption: 'Run failed requests again on what is live, under their old ids',
    describedBy: described({ name: NAME, id: ID, group: GROUP }, ['name']),
    execute: async args => {
      const name = String(args.name);
      const one = typeof args.id === 'string' ? { id: args.id } : { group: String(args.group) };
      await requeueDialog({ model, name, ...one, source: model.api(name)?.notebook ?? 'JupyterLab' });
    }
  });

  commands.addCommand(CommandIDs.keepSample, {
    label: 'Keep as Sample',
    caption: "Keep a request's payload beside the notebook; the checks before each deploy run it",
    describedBy: described({ name: NAME, id: ID }, ['name', 'id']),
    execute: args =>
      saying('Keep as sample', async () => {
        const [name, id] = [String(args.name), String(args.id)];
        const { version } = await client.workload(name, id);
        const path = await notebookOf(client, name, version, `\`cortex sample --from ${id} --name ${name}\` keeps it in a project's directory`);
        const kept = await client.keepSample(name, id, path);
        Notification.success(`Kept ${kept.file} beside ${path}: ${kept.message}`, { autoClose: 8000 });
      })
  });
}
