/**
 * The sidebar: every API at a glance.
 */
import { ReactWidget } from '@jupyterlab/apputils';
import type { CommandRegistry } from '@lumino/commands';
import { useVirtualizer } from '@tanstack/react-virtual';
import * as React from 'react';

import { Spark } from './charts';
import { count, plural } from './format';
import { apiIcon } from './icons';
import type { CortexModel } from './model';
import { Badge, ConnectionState, Empty, useModel, useNow } from './parts';
import { CommandIDs, ISummary } from './tokens';

export const PANEL_ID = 'jupyter-cortex-apis';

export class ApisPanel extends ReactWidget {
  constructor(
    private readonly model: CortexModel,
    private readonly commands: CommandRegistry
  ) {
    super();
    this.id = PANEL_ID;
    this.addClass('cx-panel');
    this.title.icon = apiIcon;
    this.title.caption = 'Cortex APIs';
    this.node.setAttribute('role', 'region');
    this.node.setAttribute('aria-label', 'Cortex APIs');
  }

  protected onBeforeShow(): void {
    this.model.start();
  }

  protected render(): JSX.Element {
    return <Apis model={this.model} commands={this.commands} />;
  }
}

/** An API's row and its buttons, in px. */
const ROW = 88;

export function Apis({ model, commands }: { model: CortexModel; commands: CommandRegistry }): JSX.Element {
  React.useEffect(() => model.start(), [model]);
  useModel(model, change => !!(change.apis || change.gone));
  const now = useNow(30_000);
  const box = React.useRef<HTMLDivElement>(null);
  const apis = model.apis;
  const rows = useVirtualizer({ count: apis.length, getScrollElement: () => box.current, estimateSize: () => ROW, overscan: 6, getItemKey: at => apis[at].name });
  // A server that never answered said nothing about APIs.
  const known = model.connection === 'live' || (model.connection === 'lost' && model.environment !== null);
  return (
    <div className="cx cx-apis">
      <header>
        <h2>APIs</h2>
        {model.environment && (
          <span className="cx-dim" title={model.environment.url}>
            {model.environment.local ? 'this machine' : model.environment.name}
          </span>
        )}
      </header>
      <ConnectionState model={model} start={() => commands.execute(CommandIDs.startEnvironment, { quiet: true })} />
      {known && !apis.length && (
        <Empty title="No APIs yet">
          <p>Open a notebook with a class <code>Handler</code>, run it, and press <strong>Deploy</strong> in its toolbar.</p>
          <button type="button" className="cx-link" onClick={() => void commands.execute(CommandIDs.newNotebook)}>
            Start from a template
          </button>
        </Empty>
      )}
      <div className="cx-scroll" ref={box} tabIndex={-1}>
        <ul aria-label="APIs" style={{ height: rows.getTotalSize() }}>
          {rows.getVirtualItems().map(row => (
            <li key={row.key} style={{ transform: `translateY(${row.start}px)`, height: ROW }} aria-setsize={apis.length} aria-posinset={row.index + 1}>
              <Api api={apis[row.index]} commands={commands} now={now} />
            </li>
          ))}
        </ul>
      </div>
    </div>
  );
}

function Api({ api, commands, now }: { api: ISummary; commands: CommandRegistry; now: number }): JSX.Element {
  const run = (command: string, more: Record<string, string> = {}) => void commands.execute(command, { name: api.name, ...more });
  const actions: [string, string, () => void][] = [
    ['Logs', `Logs of ${api.name}`, () => run(CommandIDs.logs)],
    ['Test', `Test ${api.name}`, () => run(CommandIDs.test)],
    api.stopped ? ['Start', `Start ${api.name}`, () => run(CommandIDs.start)] : ['Refresh', `Fresh replicas of ${api.name}, without a gap`, () => run(CommandIDs.refresh)],
    ['Delete', `Delete ${api.name}`, () => run(CommandIDs.remove)]
  ];
  return (
    <div className="cx-api">
      <div className="cx-api-head">
        <button type="button" className="cx-link cx-name" onClick={() => run(CommandIDs.openApi)} title={`Open ${api.name}`}>
          {api.name}
        </button>
        <Badge status={api.status} />
        <Spark minutes={api.recent ?? []} now={now} />
      </div>
      <div className="cx-dim cx-facts" title={api.message}>
        {api.message && api.status === 'error' ? <span className="cx-bad">{api.message}</span> : facts(api)}
      </div>
      {api.failed_hour > 0 && <div className="cx-bad cx-facts">{failures(api)}</div>}
      <div className="cx-actions">
        {actions.map(([label, describe, act]) => (
          <button type="button" key={label} className="cx-small" onClick={act} aria-label={describe} title={describe}>
            {label}
          </button>
        ))}
      </div>
    </div>
  );
}

/** "2 replicas · 3 in queue · 1 in progress" */
export function facts(api: ISummary): string {
  const ready = api.ready === api.requested ? plural(api.ready, 'replica') : `${api.ready} of ${plural(api.requested, 'replica')}`;
  return `${ready} · ${count(api.workloads.in_queue)} in queue · ${count(api.workloads.in_progress)} in progress`;
}

export function failures(api: ISummary): string {
  return `${count(api.failed_hour)} failed in the last hour`;
}
