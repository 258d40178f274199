/**
 * The APIs in JupyterLab's own Running panel, and in Notebook 7's Running tab.
 */
import type { IRunningSessions } from '@jupyterlab/running';
import type { CommandRegistry } from '@lumino/commands';

import { count, plural } from './format';
import { apiIcon } from './icons';
import type { CortexModel } from './model';
import { CommandIDs, ISummary } from './tokens';

export class RunningApis implements IRunningSessions.IManager {
  readonly name = 'Cortex APIs';
  readonly shutdownLabel = 'Stop';
  readonly shutdownAllLabel = 'Stop All';
  readonly shutdownAllConfirmationText = 'Stop the replicas of all APIs? Requests are still accepted and wait until they are started again.';

  constructor(
    private readonly model: CortexModel,
    private readonly commands: CommandRegistry
  ) {}

  get runningChanged(): CortexModel['changed'] {
    return this.model.changed;
  }

  running(): IRunningSessions.IRunningItem[] {
    this.model.start();
    return this.model.apis.filter(api => !api.stopped).map(api => this.item(api));
  }

  refreshRunning(): void {
    if (this.model.connection !== 'loading') {
      void this.model.load();
    }
  }

  shutdownAll(): void {
    for (const api of this.model.apis.filter(one => !one.stopped)) {
      void this.commands.execute(CommandIDs.stop, { name: api.name });
    }
  }

  private item(api: ISummary): IRunningSessions.IRunningItem {
    const name = api.name;
    return {
      icon: () => apiIcon,
      label: () => name,
      labelTitle: () => `${name}: ${api.status}${api.message ? `, ${api.message}` : ''}`,
      detail: () => detail(api),
      open: () => void this.commands.execute(CommandIDs.openApi, { name }),
      shutdown: () => void this.commands.execute(CommandIDs.stop, { name })
    };
  }
}

/** "2 replicas · 3 in queue · 1 in progress · 4 failed": the column is narrow, so that what is none is not said. */
function detail(api: ISummary): string {
  const { in_queue: waiting, in_progress: running } = api.workloads;
  const facts = [
    api.status === 'live' ? plural(api.ready, 'replica') : api.status,
    waiting && `${count(waiting)} in queue`,
    running && `${count(running)} in progress`,
    api.failed_hour && `${count(api.failed_hour)} failed`
  ];
  return facts.filter(Boolean).join(' · ');
}
