/**
 * The report of a rehearsal: how fast it was, and what is different, request by request.
 */
import * as React from 'react';

import { count, duration, plural } from './format';
import { Badge, Button, Tabs } from './parts';
import { openPlace, Place } from './places';
import type { IRehearsalProps } from './rehearsal';
import type { IRehearsalReport, IRehearsedRow } from './tokens';
import { SAME, VERDICTS, wordsOf } from './verdicts';

/** Requests that are drawn at once, and differences of one of them. */
const DRAWN = 50;
const DIFFERENCES = 3;

/** "+12 %", "−3 %": a time beside the one before it. */
export function change(before: number, now: number): string {
  if (before <= 0) {
    return '–';
  }
  const part = Math.round(((now - before) / before) * 100);
  return part === 0 ? 'as before' : `${part > 0 ? '+' : '−'}${count(Math.abs(part))} %`;
}

export function Speed({ report }: { report: IRehearsalReport }): JSX.Element {
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
export function Different(props: IRehearsalProps & { report: IRehearsalReport }): JSX.Element {
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
