/**
 * One API's page in the main area.
 */
import { ReactWidget } from '@jupyterlab/apputils';
import type { Contents } from '@jupyterlab/services';
import type { CommandRegistry } from '@lumino/commands';
import { ISignal, Signal } from '@lumino/signaling';
import * as React from 'react';

import { Failures } from './failures';
import { apiIcon } from './icons';
import { Logs } from './logs';
import type { CortexModel } from './model';
import { Overview } from './overview';
import { Badge, Button, ConnectionState, Empty, Tabs, useLoaded, useModel } from './parts';
import { Rehearsal, RehearsalNote } from './rehearsal';
import { samplesOf } from './samples';
import { CommandIDs } from './tokens';
import { Test } from './try';
import { Versions } from './versions';
import { Workloads } from './workloads';

export const PAGE_TABS = ['overview', 'workloads', 'failures', 'logs', 'versions', 'rehearsal', 'test'] as const;
export type PageTab = (typeof PAGE_TABS)[number];

const LABELS: Record<PageTab, string> = {
  overview: 'Overview',
  workloads: 'Workloads',
  failures: 'Failures',
  logs: 'Logs',
  versions: 'Versions',
  rehearsal: 'Rehearsal',
  test: 'Test'
};

/** What a page shows; kept over a reload. */
export interface IPageState {
  tab: PageTab;
  workload: string | null;
  /** The fingerprint of the group that is open in the Failures tab. */
  group: string | null;
}

export class ApiPage extends ReactWidget {
  constructor(
    readonly model: CortexModel,
    readonly commands: CommandRegistry,
    readonly name: string,
    private readonly contents: Contents.IManager,
    state: Partial<IPageState> = {}
  ) {
    super();
    this._state = { tab: state.tab ?? 'overview', workload: state.workload ?? null, group: state.group ?? null };
    this.id = pageId(name);
    this.addClass('cx-page-widget');
    this.title.label = name;
    this.title.icon = apiIcon;
    this.title.closable = true;
    this.title.caption = `API ${name}`;
    model.start();
  }

  get state(): IPageState {
    return this._state;
  }

  /** When it shows something else: for the layout restorer. */
  get stateChanged(): ISignal<this, void> {
    return this._stateChanged;
  }

  display(state: Partial<IPageState>): void {
    this._state = { ...this._state, ...state };
    this.update();
    this._stateChanged.emit();
  }

  protected render(): JSX.Element {
    return <Page model={this.model} commands={this.commands} name={this.name} state={this._state} show={state => this.display(state)} contents={this.contents} />;
  }

  private _state: IPageState;
  private readonly _stateChanged = new Signal<this, void>(this);
}

export function pageId(name: string): string {
  return `jupyter-cortex-api-${name}`;
}

export interface IPageProps {
  model: CortexModel;
  commands: CommandRegistry;
  name: string;
  state: IPageState;
  show: (state: Partial<IPageState>) => void;
  /** Where the samples beside the notebook are read from. */
  contents?: Contents.IManager;
}

export function Page({ model, commands, name, state, show, contents }: IPageProps): JSX.Element {
  useModel(model, change => !!(change.gone?.includes(name) || change.apis?.some(api => api.name === name)));
  const api = model.api(name);
  const notebook = api?.notebook;
  const samples = useLoaded(async () => (notebook && contents ? samplesOf(contents, notebook) : []), `${notebook}:${state.tab === 'test'}`).value ?? [];
  const run = (command: string, more: Record<string, any> = {}) => void commands.execute(command, { name, ...more });
  const openCell = (cell: string, line: number, ids: Record<string, string>, notebook: string) => run(CommandIDs.openCell, { path: notebook, cell, line, ids });
  // There while a version is rehearsed; whoever is in it when that was decided is not thrown out.
  const tabs = PAGE_TABS.filter(id => id !== 'rehearsal' || api?.rehearsal || state.tab === 'rehearsal');
  // Once it was looked at, the form and what was sent stay while other tabs are.
  const tested = React.useRef(false);
  tested.current ||= state.tab === 'test';
  const known = model.connection === 'live' || (model.connection === 'lost' && model.environment !== null) || (model.connection === 'down' && !!api);
  return (
    <div className="cx cx-page">
      <header>
        <h2>{name}</h2>
        {api && <Badge status={api.status} />}
        {api?.live ? <span className="cx-dim">version {api.live}</span> : null}
        <div className="cx-actions">
          {api?.notebook && <Button label="Notebook" describe={`Open ${api.notebook}`} title={api.notebook} onClick={() => run(CommandIDs.openNotebook, { path: api.notebook })} />}
          {api && (api.stopped ? <Button label="Start" describe={`Start ${name}`} onClick={() => run(CommandIDs.start)} /> : <Button label="Stop" describe={`Stop ${name}`} title="Stop the replicas; requests are still accepted and wait" onClick={() => run(CommandIDs.stop)} />)}
          {api && <Button label="Refresh" describe={`Fresh replicas of ${name}`} title="Fresh replicas of what is deployed, without a gap" onClick={() => run(CommandIDs.refresh)} />}
          {api && <Button kind="warn" label="Delete" describe={`Delete ${name}`} onClick={() => run(CommandIDs.remove)} />}
        </div>
      </header>
      <ConnectionState model={model} start={() => commands.execute(CommandIDs.startEnvironment, { quiet: true })} />
      {known && !api && (
        <Empty title={`${name} is not deployed`}>
          <p>It was deleted, or it was published in another environment. Deploy its notebook again to bring it back.</p>
        </Empty>
      )}
      {known && api && (
        <>
          {api.rehearsal && state.tab !== 'rehearsal' && <RehearsalNote told={api.rehearsal} show={() => show({ tab: 'rehearsal' })} />}
          <Tabs id="cx-page" label={`API ${name}`} tabs={tabs.map(id => ({ id, label: LABELS[id] }))} chosen={state.tab} choose={tab => show({ tab: tab as PageTab })} />
          <div id="cx-page-panel" className={`cx-tab-panel cx-tab-${state.tab}`} role="tabpanel" aria-labelledby={`cx-page-tab-${state.tab}`}>
            {state.tab === 'overview' && <Overview model={model} api={api} samples={samples} />}
            {state.tab === 'workloads' && (
              <Workloads model={model} name={name} chosen={state.workload} choose={workload => show({ workload })} openCell={openCell} test={() => show({ tab: 'test' })} run={run} openGroup={group => show({ tab: 'failures', group })} />
            )}
            {state.tab === 'failures' && (
              <Failures model={model} api={api} group={state.group} choose={group => show({ group })} openWorkload={workload => show({ tab: 'workloads', workload })} openCell={openCell} run={run} />
            )}
            {state.tab === 'logs' && <Logs model={model} name={name} openWorkload={workload => show({ tab: 'workloads', workload })} openCell={notebook ? (cell, line, ids) => openCell(cell, line, ids, notebook) : undefined} />}
            {state.tab === 'versions' && <Versions model={model} api={api} commands={commands} openCell={openCell} />}
            {state.tab === 'rehearsal' && <Rehearsal model={model} api={api} commands={commands} openWorkload={workload => show({ tab: 'workloads', workload })} openCell={openCell} />}
            {tested.current && (
              <div hidden={state.tab !== 'test'}>
                <Test key={model.environment?.url} model={model} api={api} samples={samples} open={workload => show({ tab: 'workloads', workload })} />
              </div>
            )}
          </div>
        </>
      )}
    </div>
  );
}
