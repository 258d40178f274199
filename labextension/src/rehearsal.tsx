/**
 * The Rehearsal tab: what a version that is not live does with the last kept requests, and what becomes of it.
 */
import type { CommandRegistry } from '@lumino/commands';
import * as React from 'react';

import { count, duration, plural } from './format';
import type { CortexModel } from './model';
import { Badge, Button, Empty, Loading, ProblemBox, Tabs, useLoaded, useModel } from './parts';
import { Moment, openPlace, Place } from './places';
import { CommandIDs, IRehearsal, IRehearsalReport, IRehearsedRow, ISummary, Verdict } from './tokens';

export interface IRehearsalProps {
  model: CortexModel;
  api: ISummary;
  commands: CommandRegistry;
  openWorkload: (id: string) => void;
  openCell: (cell: string, line: number, ids: Record<string, string>, notebook: string) => void;
}

interface IVerdict {
  id: Verdict;
  /** What is counted: one of them. */
  word: string;
  /** What it says of a request. */
  says: string;
  looks: string;
}

/** The verdicts in the words of the shell, those that want a look first. */
const VERDICTS: readonly IVerdict[] = [
  { id: 'fails_here', word: 'new error', says: 'newly failing', looks: 'failed' },
  { id: 'another_failure', word: 'other error', says: 'failing otherwise', looks: 'failed' },
  { id: 'changed', word: 'changed result', says: 'another result', looks: 'changed' },
  { id: 'fixed', word: 'fixed error', says: 'newly succeeding', looks: 'completed' },
  { id: 'same_result', word: 'same result', says: 'as before', looks: 'completed' },
  { id: 'same_failure', word: 'same error', says: 'as before', looks: 'note' },
  { id: 'gone', word: 'not comparable', says: 'payload gone, not run', looks: 'note' }
];

/** "new errors": what so many of them are. */
function wordsOf({ id, word }: IVerdict, many: number): string {
  return many === 1 || id === 'gone' ? word : `${word}s`;
}

const SAME: readonly Verdict[] = ['same_result', 'same_failure'];
/** Requests that are drawn at once, and differences of one of them. */
const DRAWN = 50;
const DIFFERENCES = 3;

/** "version 4 rehearses: 12 of 50 requests" */
export function sentence(told: IRehearsal): string {
  if (told.state === 'failed') {
    return `version ${told.version} did not start, so it could not be rehearsed`;
  }
  if (told.state === 'rehearsing') {
    return `version ${told.version} rehearses: ${count(told.done)} of ${plural(told.total, 'request')}`;
  }
  const other = VERDICTS.filter(one => !SAME.includes(one.id) && told.counts[one.id]);
  return `version ${told.version} was rehearsed with ${plural(told.total, 'request')}: ${other.map(one => `${count(told.counts[one.id]!)} ${wordsOf(one, told.counts[one.id]!)}`).join(', ') || 'all ended as before'}`;
}

/** Above the other tabs, so that nobody has to know where to look. */
export function RehearsalNote({ told, show }: { told: IRehearsal; show: () => void }): JSX.Element {
  return (
    <div className="cx-notice cx-rehearsal-note" role="status">
      <span>{sentence(told).replace(/^v/, 'V')}.</span> <Button kind="link" label="Show rehearsal" onClick={show} />
    </div>
  );
}

export function Rehearsal(props: IRehearsalProps): JSX.Element {
  const { model, api } = props;
  useModel(model, change => !!change.apis?.some(one => one.name === api.name));
  const told = model.api(api.name)?.rehearsal;
  if (!told) {
    return (
      <Empty title="Nothing is rehearsed">
        <p>
          The Deploy dialog runs a new version on the last kept requests first, in the shadow, where cortex.yaml says <code>rehearse: true</code> and <code>retain: {'{payload: always}'}</code>. What came of it stands here until you
          promote or drop it.
        </p>
      </Empty>
    );
  }
  return (
    <div className="cx-rehearsal">
      <Head {...props} told={told} />
      {told.state === 'failed' && (
        <div className="cx-problem" role="alert">
          <strong>Version {told.version} did not start</strong>
          <p>{told.message}</p>
          <p className="cx-dim">Version {told.live} serves as before. Mend the notebook and rehearse again.</p>
        </div>
      )}
      {told.state === 'rehearsing' && <Under told={told} />}
      {told.state === 'rehearsed' && <Report key={told.version} {...props} told={told} />}
    </div>
  );
}

function Head({ told, api, commands }: IRehearsalProps & { told: IRehearsal }): JSX.Element {
  const run = (command: string) => void commands.execute(command, { name: api.name, version: told.version });
  return (
    <header>
      <Badge status={told.state} />
      <h3>
        Version {told.version} beside version {told.live}
      </h3>
      {told.who && <span className="cx-dim">by {told.who}</span>}
      <div className="cx-actions">
        {told.state === 'rehearsed' && <Button kind="accept" label="Promote…" describe={`Make version ${told.version} live`} onClick={() => run(CommandIDs.promote)} />}
        {told.state !== 'failed' && <Button kind="warn" label="Drop…" describe={`Drop version ${told.version}`} onClick={() => run(CommandIDs.drop)} />}
      </div>
    </header>
  );
}

/** While it runs: how far it is, and what is known so far. */
function Under({ told }: { told: IRehearsal }): JSX.Element {
  return (
    <>
      <p className="cx-how-far" role="group" aria-label="Progress">
        <progress value={told.done} max={Math.max(1, told.total)} aria-label="How far it is" />
        <span>
          {count(told.done)} of {plural(told.total, 'request')} of production
        </span>
      </p>
      {!told.done && <p className="cx-dim">The version is being started. Callers are answered by version {told.live} as before.</p>}
      <Counts counts={told.counts} />
    </>
  );
}

function Counts({ counts }: { counts: IRehearsal['counts'] }): JSX.Element | null {
  const found = VERDICTS.filter(one => counts[one.id]);
  return found.length ? (
    <ul className="cx-tiles" aria-label="What came of them">
      {found.map(one => (
        <li key={one.id}>
          <b>{count(counts[one.id]!)}</b>
          <Badge status={one.looks} text={wordsOf(one, counts[one.id]!)} />
          <span className="cx-dim">{one.says}</span>
        </li>
      ))}
    </ul>
  ) : null;
}

function Report(props: IRehearsalProps & { told: IRehearsal }): JSX.Element {
  const { model, api, told } = props;
  const { value, problem, reload } = useLoaded(() => model.client.rehearsal(api.name, told.version), `${api.name}:${told.version}`);
  if (problem && !value) {
    return (
      <ProblemBox problem={problem}>
        <Button label="Try again" onClick={reload} />
      </ProblemBox>
    );
  }
  if (!value) {
    return <Loading what="the report" />;
  }
  return (
    <>
      <p className="cx-dim">
        {plural(value.rows.length, 'request')} of production, <Moment ms={value.ended} />
        {value.redacted ? `; ${count(value.redacted)} with a redacted payload` : ''}. Undecided, it is dropped after a day.
      </p>
      <Counts counts={value.counts} />
      <Speed report={value} />
      <Different {...props} report={value} />
    </>
  );
}

/** "+12 %", "−3 %": a time beside the one before it. */
export function change(before: number, now: number): string {
  if (before <= 0) {
    return '–';
  }
  const part = Math.round(((now - before) / before) * 100);
  return part === 0 ? 'as before' : `${part > 0 ? '+' : '−'}${count(Math.abs(part))} %`;
}

function Speed({ report }: { report: IRehearsalReport }): JSX.Element {
  const { speed } = report;
  return (
    <>
      <h4>Time of a request</h4>
      {speed ? (
        <table className="cx-plain-table cx-speed">
          <caption className="cx-hidden">How long a request took, before and with this version</caption>
          <thead>
            <tr>
              <th scope="col">
                <span className="cx-hidden">Quantile</span>
              </th>
              <th scope="col">Version {report.live}</th>
              <th scope="col">Version {report.version}</th>
              <th scope="col">Difference</th>
            </tr>
          </thead>
          <tbody>
            {(['median', 'p95'] as const).map(which => (
              <tr key={which}>
                <th scope="row">{which === 'median' ? 'p50' : which}</th>
                <td>{duration(speed.production[which])}</td>
                <td>{duration(speed.here[which])}</td>
                <td>{change(speed.production[which], speed.here[which])}</td>
              </tr>
            ))}
          </tbody>
        </table>
      ) : (
        <p className="cx-dim">No request was timed on both sides.</p>
      )}
      {speed && <p className="cx-dim">Production&apos;s are in whole ms and include writing the end down; here one runs after the other, with nothing beside it.</p>}
    </>
  );
}

/** Requests that did not end as before, by what is different. */
function Different(props: IRehearsalProps & { report: IRehearsalReport }): JSX.Element {
  const { report } = props;
  const rows = React.useMemo(() => {
    const order = VERDICTS.map(one => one.id);
    return report.rows.filter(row => !SAME.includes(row.verdict)).sort((a, b) => order.indexOf(a.verdict) - order.indexOf(b.verdict));
  }, [report]);
  const [kind, choose] = React.useState('all');
  const [drawn, draw] = React.useState(DRAWN);
  if (!rows.length) {
    return <p className="cx-good">Every request ended as in production.</p>;
  }
  const kinds = VERDICTS.filter(one => rows.some(row => row.verdict === one.id));
  const tabs = [{ id: 'all', label: `All (${count(rows.length)})` }, ...kinds.map(one => ({ id: one.id, label: `${wordsOf(one, 2)} (${count(rows.filter(row => row.verdict === one.id).length)})` }))];
  const shown = rows.filter(row => kind === 'all' || row.verdict === kind);
  return (
    <>
      <h4>What is different</h4>
      {kinds.length > 1 && <Tabs id="cx-different" label="What is different" tabs={tabs} chosen={kind} choose={choose} />}
      <div id="cx-different-panel" role={kinds.length > 1 ? 'tabpanel' : undefined} aria-labelledby={kinds.length > 1 ? `cx-different-tab-${kind}` : undefined}>
        <table className="cx-plain-table cx-different">
          <caption className="cx-hidden">Requests that did not end as before</caption>
          <thead>
            <tr>
              <th scope="col">Request id</th>
              <th scope="col">Outcome</th>
              <th scope="col">What is different</th>
            </tr>
          </thead>
          <tbody>
            {shown.slice(0, drawn).map(row => (
              <Row key={row.id} row={row} {...props} />
            ))}
          </tbody>
        </table>
        {shown.length > drawn && <Button label={`Show ${count(Math.min(DRAWN, shown.length - drawn))} more of ${count(shown.length)}`} onClick={() => draw(drawn + DRAWN)} />}
      </div>
    </>
  );
}

function Row({ row, model, api, report, openWorkload, openCell }: IRehearsalProps & { report: IRehearsalReport; row: IRehearsedRow }): JSX.Element {
  const verdict = VERDICTS.find(one => one.id === row.verdict)!;
  const notebook = api.notebook;
  const go = notebook ? (place: string) => void openPlace(model, api.name, report.version, place, (cell, line, ids) => openCell(cell, line, ids, notebook)) : undefined;
  return (
    <tr>
      <td className="cx-mono">
        <Button kind="link" label={row.id} describe={`Open workload ${row.id}`} onClick={() => openWorkload(row.id)} />
      </td>
      <td>
        <Badge status={verdict.looks} text={verdict.says} />
        {row.redacted && <div className="cx-dim">payload redacted</div>}
      </td>
      <td>
        {row.verdict === 'changed' ? <Changes row={row} /> : row.verdict === 'gone' ? <span className="cx-dim">{row.text}</span> : <Failed row={row} go={go} />}
      </td>
    </tr>
  );
}

/** Each value that is another one: its path, production's and this version's. */
function Changes({ row }: { row: IRehearsedRow }): JSX.Element {
  const [all, showAll] = React.useState(false);
  const found = (row.difference?.rows ?? []).filter(one => one.kind !== 'close');
  const more = row.difference?.more ?? 0;
  const shown = all ? found : found.slice(0, DIFFERENCES);
  return (
    <>
      <ul className="cx-changes" aria-label={`What changed in ${row.id}`}>
        {shown.map(one => (
          <li key={one.path}>
            <span className="cx-mono">{one.path}</span> <Value text={one.then} side="before" /> <span aria-hidden="true">→</span> <Value text={one.now} side="now" />
          </li>
        ))}
      </ul>
      {found.length > shown.length && <Button kind="link" label={`${plural(found.length - shown.length, 'more difference')}`} onClick={() => showAll(true)} />}
      {found.length === shown.length && more > 0 && <span className="cx-dim">and {plural(more, 'more difference')}</span>}
    </>
  );
}

function Value({ text, side }: { text: string | null; side: 'before' | 'now' }): JSX.Element {
  return (
    <>
      <span className="cx-hidden">{side}: </span>
      {text === null ? <span className="cx-dim">nothing</span> : <span className={`cx-mono ${side === 'now' ? 'cx-plus' : 'cx-minus'}`}>{text}</span>}
    </>
  );
}

/** The error of the side that has one: production's where it is fixed, else this version's. */
function Failed({ row, go }: { row: IRehearsedRow; go?: (place: string) => void }): JSX.Element {
  const side = (row.verdict === 'fixed' ? row.production : row.here)!;
  const before = row.verdict === 'another_failure' ? row.production : undefined;
  return (
    <>
      <div>
        <strong>{side.error?.type ?? side.status}</strong> {side.error?.message} {side.place && <Place place={side.place} open={row.verdict !== 'fixed' && side.place.startsWith('cell ') ? go : undefined} />}
        {row.verdict === 'fixed' && <span className="cx-dim"> in production</span>}
      </div>
      {before && (
        <div className="cx-dim">
          in production: {before.error?.type} {before.error?.message} {before.place}
        </div>
      )}
      {row.verdict !== 'fixed' && side.traceback && (
        <details>
          <summary>Traceback</summary>
          <pre className="cx-traceback" tabIndex={0} aria-label={`Traceback of ${row.id}`}>
            {side.traceback}
          </pre>
        </details>
      )}
    </>
  );
}
