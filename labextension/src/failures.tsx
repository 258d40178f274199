/**
 * The Failures tab: what failed, one row for each mistake; where it happened, what it met, and the ways on.
 */
import * as React from 'react';

import { count, plural } from './format';
import type { CortexModel, IChange } from './model';
import { Button, Empty, Loading, ProblemBox, useLoaded, words } from './parts';
import { Moment, openPlace, Place } from './places';
import { CommandIDs, IFailureFrame, IFailureGroup, ISummary, IWorkload } from './tokens';

export interface IFailuresProps {
  model: CortexModel;
  api: ISummary;
  /** The fingerprint of the group that is open. */
  group: string | null;
  choose: (fingerprint: string | null) => void;
  openWorkload: (id: string) => void;
  openCell: (cell: string, line: number, ids: Record<string, string>, notebook: string) => void;
  /** One of the commands, for this API. */
  run: (command: string, more: Record<string, any>) => void;
}

const SPANS = [
  { label: 'the last hour', seconds: 3600 },
  { label: 'the last 24 hours', seconds: 24 * 3600 },
  { label: 'the last 7 days', seconds: 7 * 24 * 3600 }
];
/** However fast requests fail, the groups are asked for no more often. */
const AGAIN_MS = 1000;
/** A group's newest workloads that are shown. */
const NEWEST = 8;

export function Failures(props: IFailuresProps): JSX.Element {
  const { model, api } = props;
  const name = api.name;
  const [seconds, since] = React.useState(SPANS[2].seconds);
  const turn = useMoves(model, name);
  const { value, problem, loading, reload } = useLoaded(() => model.client.failures(name, seconds), `${name}:${seconds}:${turn}`);
  const failed = value?.reduce((sum, one) => sum + one.count, 0) ?? 0;
  return (
    <div className="cx-failures">
      <div className="cx-row cx-filter" role="search" aria-label="Filter failures">
        <label>
          <span className="cx-hidden">Since</span>
          <select value={seconds} onChange={event => since(Number(event.target.value))}>
            {SPANS.map(one => (
              <option key={one.seconds} value={one.seconds}>
                {one.label}
              </option>
            ))}
          </select>
        </label>
        <span className="cx-dim" role="status">
          {!value && loading ? 'loading…' : value?.length ? `${plural(failed, 'failure')} in ${plural(value.length, 'group')}` : ''}
        </span>
      </div>
      {problem && (
        <ProblemBox problem={problem}>
          <Button label="Try again" onClick={reload} />
        </ProblemBox>
      )}
      {!value && !problem && <Loading what="the failures" />}
      {value?.length === 0 && !problem && (
        <Empty title="Nothing failed">
          <p>No request failed in {SPANS.find(one => one.seconds === seconds)!.label}. What fails appears here, grouped by where and how.</p>
        </Empty>
      )}
      {!!value?.length && (
        <ul className="cx-groups" aria-label="Groups of failures">
          {value.map(one => (
            <Group key={one.fingerprint} {...props} one={one} opened={one.fingerprint === props.group} />
          ))}
        </ul>
      )}
    </div>
  );
}

/** A number that counts on when something failed or failed requests went back into the queue: at once, then at most once a second. */
function useMoves(model: CortexModel, name: string): number {
  const [turn, again] = React.useReducer((n: number) => n + 1, 0);
  React.useEffect(() => {
    let timer = 0;
    let waiting = false;
    const look = () => {
      if (timer) {
        waiting = true;
        return;
      }
      again();
      timer = window.setTimeout(() => {
        timer = 0;
        if (waiting) {
          waiting = false;
          look();
        }
      }, AGAIN_MS);
    };
    const changed = (_: CortexModel, change: IChange) => {
      const moved = change.changes?.[name];
      if (change.reset || moved?.gap || moved?.more || moved?.moves.failed || moved?.workloads.some(row => row.run > 1)) {
        look();
      }
    };
    model.changed.connect(changed);
    return () => {
      clearTimeout(timer);
      model.changed.disconnect(changed);
    };
  }, [model, name]);
  return turn;
}

interface IGroupProps extends IFailuresProps {
  one: IFailureGroup;
  opened: boolean;
}

function Group({ one, opened, ...props }: IGroupProps): JSX.Element {
  const id = `cx-group-${one.fingerprint}`;
  const { model, api } = props;
  // The newest failure says in which version it happened; asked for when somebody wants to go there.
  const open =
    api.notebook && one.place.startsWith('cell ')
      ? async (place: string) => {
          const { version } = await model.client.workload(api.name, one.newest).catch(() => ({ version: null }));
          await openPlace(model, api.name, version, place, (cell, line, ids) => props.openCell(cell, line, ids, api.notebook!));
        }
      : undefined;
  return (
    <li className={opened ? 'cx-group cx-open' : 'cx-group'} aria-label={`${one.type} at ${one.place || 'an unknown place'}`}>
      <div className="cx-group-head">
        <button type="button" className="cx-group-toggle" aria-expanded={opened} aria-controls={id} onClick={() => props.choose(opened ? null : one.fingerprint)}>
          <span className="cx-chevron" aria-hidden="true" />
          <strong>{one.type}</strong> <span className="cx-group-message">{one.message}</span>
        </button>
        <Place place={one.place} open={open} />
        <span className="cx-group-count">
          {count(one.count)}
          <span aria-hidden="true">×</span>
          <span className="cx-hidden"> times</span>
        </span>
      </div>
      <p className="cx-group-facts cx-dim">
        last <Moment ms={one.last} /> · first <Moment ms={one.first} /> · {plural(one.versions.length, 'version').replace(/^\d+ /, '')} {one.versions.join(', ') || '–'} ·{' '}
        <span className="cx-mono">{one.fingerprint}</span>
      </p>
      {opened && <Opened {...props} id={id} one={one} open={open} />}
    </li>
  );
}

function Opened({ one, id, open, ...props }: IFailuresProps & { one: IFailureGroup; id: string; open?: (place: string) => void }): JSX.Element {
  const { model, api, run } = props;
  const { value, problem } = useLoaded(() => model.client.workloads(api.name, { fingerprint: one.fingerprint, limit: NEWEST }), `${one.fingerprint}:${one.count}:${one.last}`);
  const rows = value?.workloads ?? [];
  const version = rows.find(row => row.id === one.newest)?.version;
  const about = { id: one.newest, ...(version ? { version } : {}) };
  return (
    <div id={id} className="cx-group-body">
      <div className="cx-buttons">
        <Button kind="accept" label="Replay in notebook" describe={`Replay the newest ${one.type} in its notebook`} title="Run the newest of them in the notebook's kernel, with the Handler as it is there now" onClick={() => run(CommandIDs.replay, about)} />
        {one.count > 1 && <Button label="Replay all" describe={`Replay all of this group in the notebook`} title="%cortex replay --group: each kept payload, one after the other" onClick={() => run(CommandIDs.replay, { ...about, group: one.fingerprint })} />}
        <Button label="Requeue…" describe={`Requeue ${plural(one.count, 'request')} that failed with ${one.type}`} title="Run them again on what is live, under their old ids" onClick={() => run(CommandIDs.requeue, { group: one.fingerprint })} />
        <Button label="Keep as sample" describe="Keep the newest payload as a sample" title="The checks before each deploy then run it, so that it never fails again" onClick={() => run(CommandIDs.keepSample, { id: one.newest })} />
      </div>
      <Frames frames={one.frames} open={open} />
      <h3>Newest requests</h3>
      {problem && <ProblemBox problem={problem} />}
      {!value && !problem && <Loading what="the requests" />}
      {rows.length > 0 && <Newest rows={rows} open={props.openWorkload} />}
    </div>
  );
}

/** The way to the exception: the author's lines first, libraries' below them. */
export function Frames({ frames, open }: { frames: IFailureFrame[]; open?: (place: string) => void }): JSX.Element {
  if (!frames.length) {
    return <p className="cx-dim">No line of code raised this: the replica ended, or its time was over. The newest request says more.</p>;
  }
  const sorted = [...frames.filter(one => one.user), ...frames.filter(one => !one.user)];
  return (
    <table className="cx-plain-table cx-frames">
      <caption className="cx-hidden">The way to the exception, the author's lines first</caption>
      <thead className="cx-hidden">
        <tr>
          <th scope="col">Place</th>
          <th scope="col">Function</th>
          <th scope="col">Code</th>
        </tr>
      </thead>
      <tbody>
        {sorted.map((one, at) => (
          <tr key={at} className={one.user ? '' : 'cx-dim'}>
            <td>
              <Place place={one.place || `${one.file}, line ${one.line}`} open={one.place ? open : undefined} />
            </td>
            <td className="cx-mono">{one.function}</td>
            <td className="cx-mono">{one.text}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function Newest({ rows, open }: { rows: IWorkload[]; open: (id: string) => void }): JSX.Element {
  return (
    <table className="cx-plain-table">
      <caption className="cx-hidden">The newest requests of this group</caption>
      <thead>
        <tr>
          <th scope="col">Request id</th>
          <th scope="col">Failed</th>
          <th scope="col">Version</th>
          <th scope="col">Run</th>
        </tr>
      </thead>
      <tbody>
        {rows.map(row => (
          <tr key={row.id}>
            <td className="cx-mono">
              <Button kind="link" label={row.id} describe={`Open workload ${row.id}`} onClick={() => open(row.id)} />
            </td>
            <td>{row.status === 'failed' && row.finished ? <Moment ms={row.finished} /> : words(row.status)}</td>
            <td>{row.version ?? '–'}</td>
            <td>{row.run}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}
