/**
 * Log lines as a table, and the Logs tab that follows them.
 */
import { useVirtualizer } from '@tanstack/react-virtual';
import * as React from 'react';
import stripAnsi from 'strip-ansi';

import { count, localTime, plural } from './format';
import type { CortexModel, IChange } from './model';
import { Button, Empty, Loading, Places, ProblemBox, useLoaded } from './parts';
import { openPlace } from './places';
import { LogRecord, WRITTEN } from './tokens';

const LEVELS = ['DEBUG', 'INFO', 'WARNING', 'ERROR', 'CRITICAL'];
/** What every record has; everything else is the author's. */
const USUAL = new Set(['asctime', 'levelname', 'message', 'process', 'exc_info', 'labels', 'replica', 'run', 'request_id']);
/** Newest lines that are asked for at first; at most, which is what the gateway gives; and what is held in the browser while more come. */
const FIRST = 1000;
const MOST = 10_000;
const HELD = 5000;
const ROW = 20;
/** Without a key for so long, the text is what is sought. */
const PAUSE_MS = 250;

interface ISought {
  text: string;
  level: number;
}

const EVERYTHING: ISought = { text: '', level: 0 };

/** A line's text, inert: colour codes and other control characters are left out. */
export function messageOf(record: LogRecord): string {
  const message = record.message === undefined ? JSON.stringify(record) : String(record.message);
  const error = record.exc_info ? `\n${String(record.exc_info)}` : '';
  // eslint-disable-next-line no-control-regex
  return stripAnsi(message + error).replace(/[\u0000-\u0008\u000b-\u001f\u007f]/g, '');
}

export function extrasOf(record: LogRecord): [string, unknown][] {
  return record.message === undefined ? [] : Object.entries(record).filter(([key]) => !USUAL.has(key));
}

function textOf(value: unknown): string {
  return stripAnsi(typeof value === 'string' ? value : JSON.stringify(value));
}

/** What a line says, with what its author has put beside it. */
export function Said({ record, open }: { record: LogRecord; open?: (cell: string, line: number) => void }): JSX.Element {
  return (
    <>
      <Places text={messageOf(record)} open={open} />
      <Extras record={record} />
    </>
  );
}

/** When a line was written, as the page's other times; its worker's own time where a gateway says no more. */
export function LineTime({ record }: { record: LogRecord }): JSX.Element {
  const ms = record[WRITTEN];
  if (ms === undefined) {
    const said = String(record.asctime ?? '');
    return <span title={said && `${said}, by its worker's clock`}>{said.slice(11)}</span>;
  }
  const local = localTime(ms);
  return (
    <time dateTime={new Date(ms).toISOString()} title={local}>
      {local.slice(11, 23)}
    </time>
  );
}

function Extras({ record }: { record: LogRecord }): JSX.Element | null {
  const extras = extrasOf(record);
  return extras.length ? (
    <span className="cx-extras">
      {extras.map(([key, value]) => (
        <span key={key}>
          {key}=<b>{textOf(value)}</b>{' '}
        </span>
      ))}
    </span>
  ) : null;
}

/** The newest lines of all replicas, merged; more as they come. */
export interface ILogsProps {
  model: CortexModel;
  name: string;
  openWorkload: (id: string) => void;
  /** Where the notebook is known. */
  openCell?: (cell: string, line: number, ids: Record<string, string>) => void;
}

export function Logs({ model, name, openWorkload, openCell }: ILogsProps): JSX.Element {
  const [asked, ask] = React.useState(FIRST);
  /** What the server was asked for: as long as all that is kept is here, everything; the browser looks through that by itself. */
  const [sought, seek] = React.useState<ISought>(EVERYTHING);
  const { value, problem, loading, reload } = useLoaded(
    async () => ({ ...(await model.client.logs(name, asked, { q: sought.text || undefined, level: sought.level ? LEVELS[sought.level] : undefined })), sought }),
    `${name}:${asked}:${sought.level}:${sought.text}`
  );
  const held = Math.max(HELD, asked);
  const [more, add] = React.useReducer(
    (before: LogRecord[], records: LogRecord[] | null) => (records === null ? [] : [...before, ...records].slice(-MOST)),
    [] as LogRecord[]
  );
  const [follow, setFollow] = React.useState(true);
  const [level, setLevel] = React.useState(0);
  const [text, setText] = React.useState('');

  React.useEffect(() => {
    if (!value) {
      return;
    }
    add(null);
    const following = model.followLogs(name, value.position);
    const changed = (_: CortexModel, change: IChange) => {
      const batch = change.logs?.[name];
      if (change.reset || batch?.gap) {
        reload();
      } else if (batch?.records.length) {
        add(batch.records);
      }
    };
    model.changed.connect(changed);
    return () => {
      model.changed.disconnect(changed);
      following.dispose();
    };
  }, [value]);

  // A replica's name says its version, and the version which cell its third one was.
  const openRecord =
    openCell &&
    ((record: LogRecord, cell: string, line: number) => {
      const version = Number(/-v(\d+)-/.exec(String(record.replica ?? ''))?.[1] ?? 0);
      void openPlace(model, name, version, `${cell}, line ${line}`, openCell);
    });
  const wanted = text.trim();
  /** What the lines that are here were found by. */
  const { text: by, level: from } = value?.sought ?? EVERYTHING;
  const came = React.useMemo(() => more.filter(record => rank(record) >= from && shows(record, by)), [more, from, by]);
  const all = React.useMemo(() => [...(value?.records ?? []), ...came].slice(-held), [value, came, held]);
  /** Whether older lines may be kept than are here: then what is not found here may be there. */
  const cut = !!value && (value.records.length >= asked || value.records.length + came.length > all.length);
  const searched = !!by || from > 0;
  const shown = React.useMemo(() => all.filter(record => rank(record) >= level && (wanted === by || shows(record, wanted))), [all, level, wanted, by]);
  React.useEffect(() => {
    if ((wanted === sought.text && level === sought.level) || (!cut && sought === EVERYTHING)) {
      return undefined;
    }
    const timer = window.setTimeout(() => seek(wanted || level ? { text: wanted, level } : EVERYTHING), PAUSE_MS);
    return () => window.clearTimeout(timer);
  }, [wanted, level, cut, sought]);
  /** Until its answer is here, what is shown is what there is of it among the lines before. */
  const asking = (cut || searched) && !problem && (loading || wanted !== by || level !== from);
  const among = `${cut ? 'the newest ' : ''}${plural(all.length, 'line')}`;
  const found = asking
    ? `${count(shown.length)} so far`
    : searched
      ? `${cut ? 'the newest ' : ''}${count(shown.length)} found`
      : shown.length < all.length
        ? `${count(shown.length)} of ${among}`
        : among;
  return (
    <div className="cx-logs">
      <div className="cx-row cx-filter" role="search" aria-label="Filter log lines">
        <label>
          <span className="cx-hidden">Level</span>
          <select value={level} onChange={event => setLevel(Number(event.target.value))}>
            {LEVELS.map((one, at) => (
              <option key={one} value={at}>
                {at ? `${one} and above` : 'all levels'}
              </option>
            ))}
          </select>
        </label>
        <label className="cx-grow">
          <span className="cx-hidden">Search the log</span>
          <input type="search" placeholder="search" spellCheck={false} maxLength={200} value={text} onChange={event => setText(event.target.value)} />
        </label>
        <label className="cx-check">
          <input type="checkbox" checked={follow} onChange={event => setFollow(event.target.checked)} /> Follow
        </label>
        <span className="cx-dim" role="status">
          {found}
        </span>
        {cut && asked < MOST && <Button label="Load older" title={`Up to ${count(MOST)} lines`} onClick={() => ask(MOST)} disabled={loading} />}
      </div>
      {problem && (
        <ProblemBox problem={problem}>
          <Button label="Try again" onClick={reload} />
        </ProblemBox>
      )}
      {!value && !problem && <Loading what="the log" />}
      {value && !all.length && !searched && (
        <Empty title="Nothing logged yet">
          <p>
            What the Handler prints or logs appears here as it comes: <code>logger.info("…", extra={'{"key": value}'})</code>
          </p>
        </Empty>
      )}
      {value && !problem && (all.length > 0 || searched) && !shown.length && (
        <Empty title={asking ? 'Searching…' : 'Nothing matches'}>
          <p>{asking ? 'All lines that are kept are looked through.' : 'No line that is kept has this level and text.'}</p>
        </Empty>
      )}
      {value && shown.length > 0 && (
        <Lines records={shown} follow={follow} setFollow={setFollow} openWorkload={openWorkload} openRecord={openRecord} />
      )}
    </div>
  );
}

/** Whether a reader would find the text in it, in whatever case: as the gateway judges. */
export function shows(record: LogRecord, text: string): boolean {
  if (!text) {
    return true;
  }
  const seen = [record.asctime, record.levelname, messageOf(record), record.request_id, record.replica, ...extrasOf(record).map(([key, value]) => `${key}=${textOf(value)}`)];
  return seen.join('\n').toLowerCase().includes(text.toLowerCase());
}

function rank(record: LogRecord): number {
  const found = LEVELS.indexOf(String(record.levelname ?? 'INFO'));
  return found < 0 ? 1 : found;
}

interface ILinesProps {
  records: LogRecord[];
  follow: boolean;
  /** The reader scrolled away from the end, where following would take the text away; or came back to it. */
  setFollow: (follow: boolean) => void;
  openWorkload: (id: string) => void;
  openRecord?: (record: LogRecord, cell: string, line: number) => void;
}

function Lines({ records, follow, setFollow, openWorkload, openRecord }: ILinesProps): JSX.Element {
  const several = React.useMemo(() => new Set(records.map(record => record.replica)).size > 1, [records]);
  const box = React.useRef<HTMLDivElement>(null);
  const virtual = useVirtualizer({ count: records.length, getScrollElement: () => box.current, estimateSize: () => ROW, overscan: 20 });
  React.useEffect(() => {
    if (follow && records.length) {
      virtual.scrollToIndex(records.length - 1, { align: 'end' });
    }
  }, [records.length, follow]);
  // By wheel, keys or bar. What is put in at the end and drawn higher than reckoned moves the text up, never down.
  const top = React.useRef(0);
  const scrolled = ({ currentTarget: { scrollTop, scrollHeight, clientHeight } }: React.UIEvent<HTMLDivElement>) => {
    const away = scrollHeight - scrollTop - clientHeight > 2 * ROW;
    if (!away || scrollTop < top.current) {
      setFollow(!away);
    }
    top.current = scrollTop;
  };
  return (
    <div className="cx-lines" ref={box} tabIndex={0} role="log" aria-label="Log lines" aria-live="off" onScroll={scrolled}>
      <div style={{ height: virtual.getTotalSize(), position: 'relative' }}>
        {virtual.getVirtualItems().map(item => {
          const record = records[item.index];
          const id = record.request_id;
          return (
            <div
              key={item.index}
              data-index={item.index}
              ref={virtual.measureElement}
              className={`cx-line cx-level-${String(record.levelname ?? '').toLowerCase()}`}
              style={{ transform: `translateY(${item.start}px)` }}
            >
              <span className="cx-dim">
                <LineTime record={record} />
              </span>{' '}
              <span className="cx-level">{record.levelname ?? ''}</span>{' '}
              {several && (
                <span className="cx-dim cx-replica" title={String(record.replica ?? '')}>
                  {String(record.replica ?? '').split('-').pop()}
                </span>
              )}
              <span className="cx-text">
                <Said record={record} open={openRecord && ((cell, line) => openRecord(record, cell, line))} />
              </span>
              {id && (
                <button type="button" className="cx-link cx-mono" title={`Open workload ${id}`} aria-label={`Open workload ${id}`} onClick={() => openWorkload(id)}>
                  {id.slice(0, 8)}
                </button>
              )}
            </div>
          );
        })}
      </div>
    </div>
  );
}
