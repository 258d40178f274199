/**
 * The commands for what was rehearsed: live, or gone.
 */
import { Dialog, Notification, showDialog } from '@jupyterlab/apputils';
import type { CommandRegistry } from '@lumino/commands';

import type { IParts } from './commands';
import { described, NAME, saying } from './said';
import { CommandIDs } from './tokens';
import { sentence } from './verdicts';

const VERSION = { type: 'number', description: 'The version that was rehearsed' };

export function addDecisions({ model }: IParts, commands: CommandRegistry): void {
  commands.addCommand(CommandIDs.promote, {
    label: args => `Promote Version ${args.version ?? ''}`,
    describedBy: described({ name: NAME, version: VERSION }, ['name', 'version']),
    execute: async args => {
      const [name, version] = [String(args.name), Number(args.version)];
      const api = model.api(name);
      const told = api?.rehearsal;
      const found = told?.version === version ? `${sentence(told).replace(/^v/, 'V')}. ` : '';
      const answer = await showDialog({
        title: `Make version ${version} of ${name} live?`,
        body: `${found}It goes live as any deploy does: version ${api?.live ?? ''} serves until it is ready, and what runs ends where it runs.`,
        buttons: [Dialog.cancelButton(), Dialog.okButton({ label: 'Promote' })]
      });
      if (answer.button.accept) {
        await saying(name, async () => {
          const said = await model.client.promote(name, version, api?.notebook ?? 'JupyterLab');
          Notification.success(said.message, { autoClose: 6000 });
        });
      }
    }
  });
  commands.addCommand(CommandIDs.drop, {
    label: args => `Drop Version ${args.version ?? ''}`,
    describedBy: described({ name: NAME, version: VERSION }, ['name', 'version']),
    execute: async args => {
      const [name, version] = [String(args.name), Number(args.version)];
      const running = model.api(name)?.rehearsal?.state === 'rehearsing';
      const answer = await showDialog({
        title: `Drop version ${version} of ${name}?`,
        body: `${running ? 'Its rehearsal ends, and nothing of it stays' : 'Its report goes with it'}. Version ${model.api(name)?.live ?? ''} serves as before, and the notebook stays as it is.`,
        buttons: [Dialog.cancelButton(), Dialog.warnButton({ label: 'Drop' })],
        defaultButton: 0
      });
      if (answer.button.accept) {
        await saying(name, async () => {
          const said = await model.client.drop(name, version);
          Notification.success(said.message, { autoClose: 6000 });
        });
      }
    }
  });
}
