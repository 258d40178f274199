/**
 * The Versions tab: what was deployed, by whom and when; its module, its report, and what changed.
 */
import type { CommandRegistry } from '@lumino/commands';
import { createTwoFilesPatch } from 'diff';
import * as React from 'react';

import { localTime } from './format';
import type { CortexModel } from './model';
import { Diff, Reasons } from './module';
import { Badge, Button, Loading, ProblemBox, Tabs, useLoaded, useModel } from './parts';
import { CommandIDs, IDeployment, ISummary } from './tokens';

export interface IVersionsProps {
  model: CortexModel;
  api: ISummary;
  commands: CommandRegistry;
  openCell: (cell: string, line: number, ids: Record<string, string>, notebook: string) => void;
}

export function Versions({ model, api, commands, openCell }: IVersionsProps): JSX.Element {
  useModel(model, change => !!change.apis?.some(one => one.name === api.name));
  const { value, problem, reload } = useLoaded(() => model.client.api(api.name), `${api.name}:${api.live}:${api.wanted}:${api.status}:${api.updated}`);
  const [chosen, choose] = React.useState<number | null>(null);
  if (problem && !value) {
    return (
      <ProblemBox problem={problem}>
        <Button label="Try again" onClick={reload} />
      </ProblemBox>
    );
  }
  if (!value) {
    return <Loading what="the versions" />;
  }
  const versions = value.api_versions;
  const shown = versions.find(one => one.version === chosen) ?? versions[0];
  const before = versions.find(one => one.version < (shown?.version ?? 0));
  return (
    <div className="cx-versions">
      <table className="cx-plain-table">
        <caption className="cx-hidden">The newest versions</caption>
        <thead>
          <tr>
            <th scope="col">Version</th>
            <th scope="col">State</th>
            <th scope="col">Deployed</th>
            <th scope="col">From</th>
            <th scope="col">Digest</th>
            <th scope="col">Python</th>
            <th scope="col">Report</th>
            <th scope="col">
              <span className="cx-hidden">Bring back</span>
            </th>
          </tr>
        </thead>
        <tbody>
          {versions.map(one => (
            <Version key={one.version} one={one} chosen={one === shown} choose={choose} report={() => void commands.execute(CommandIDs.openReport, { name: api.name, version: one.version })} again={canComeBack(one, api, versions) ? () => void commands.execute(CommandIDs.rollback, { name: api.name, version: one.version }) : undefined} />
          ))}
        </tbody>
      </table>
      {shown && <Module key={shown.version} model={model} api={api} version={shown} before={before} openCell={openCell} />}
    </div>
  );
}

/** One that served, unless it is what serves now. */
export function canComeBack(one: IDeployment, api: ISummary, versions: IDeployment[]): boolean {
  const live = versions.find(other => other.version === api.live);
  return !!one.times.live_at && one.version !== api.live && live?.rollback?.to !== one.version;
}

interface IVersionProps {
  one: IDeployment;
  chosen: boolean;
  choose: (version: number) => void;
  report: () => void;
  /** Make it live again. */
  again?: () => void;
}

function Version({ one, chosen, choose, report, again }: IVersionProps): JSX.Element {
  const [who, ...path] = one.source.split(':');
  return (
    <tr className={chosen ? 'cx-chosen' : ''}>
      <td>
        <button type="button" className="cx-link" aria-pressed={chosen} onClick={() => choose(one.version)} aria-label={`Show version ${one.version}`}>
          {one.version}
        </button>
      </td>
      <td>
        <Badge status={one.state} />
        {one.rollback?.to ? <div className="cx-dim">a rollback to {one.rollback.to}</div> : null}
        {one.error?.message && <div className="cx-bad">{one.error.message}</div>}
      </td>
      <td>
        <time dateTime={new Date(one.times.created).toISOString()}>{localTime(one.times.created).replace(/\.\d+/, '')}</time>
      </td>
      <td title={one.source}>
        {who} <span className="cx-dim">{path.join(':').split('/').slice(-2).join('/')}</span>
      </td>
      <td className="cx-mono" title={one.digest}>
        {one.digest.slice(0, 12)}
      </td>
      <td title={one.interpreter}>{one.python_version}</td>
      <td>
        <Button kind="link" label="Open" describe={`Open the check report of version ${one.version}`} onClick={report} />
      </td>
      <td>{again && <Button kind="link" label="Make live again" describe={`Make version ${one.version} live again`} title="Its module, files, spec and .env, as a new version; what runs is kept" onClick={again} />}</td>
    </tr>
  );
}

interface IModuleProps {
  model: CortexModel;
  api: ISummary;
  version: IDeployment;
  before: IDeployment | undefined;
  openCell: IVersionsProps['openCell'];
}

function Module({ model, api, version, before, openCell }: IModuleProps): JSX.Element {
  const [how, choose] = React.useState('module');
  const { value, problem } = useLoaded(
    () => Promise.all([model.client.module(api.name, version.version), before ? model.client.module(api.name, before.version) : Promise.resolve(null)]),
    `${version.version}:${before?.version}`
  );
  if (problem) {
    return <ProblemBox problem={problem} />;
  }
  if (!value) {
    return <Loading what={`version ${version.version}`} />;
  }
  const [module, old] = value;
  const tabs = [{ id: 'module', label: module.path }, ...(old ? [{ id: 'diff', label: `Changes since version ${before!.version}` }] : []), { id: 'spec', label: 'Spec' }];
  const notebook = api.notebook;
  return (
    <section aria-label={`Version ${version.version}`}>
      <Tabs id="cx-version" label={`Version ${version.version}`} tabs={tabs} chosen={how} choose={choose} />
      <div id="cx-version-panel" role="tabpanel" aria-labelledby={`cx-version-tab-${how}`}>
        {how === 'module' && (
          <Reasons source={module.source} reasons={module.reasons} jump={notebook ? (cell, line) => openCell(cell, line, module.cells, notebook) : undefined} />
        )}
        {how === 'diff' && old && <Diff lines={differenceOf(old.source, module.source, before!.version, version.version)} />}
        {how === 'spec' && (
          <pre className="cx-source" tabIndex={0} aria-label="Spec">
            {JSON.stringify(version.spec, null, 2)}
          </pre>
        )}
      </div>
    </section>
  );
}

export function differenceOf(old: string, now: string, from: number, to: number): string[] {
  if (old === now) {
    return [];
  }
  return createTwoFilesPatch(`version ${from}`, `version ${to}`, old, now, '', '', { context: 3 }).trimEnd().split('\n').slice(1);
}
