/**
 * The log of one workload in its inspector. However long it is, only what is seen is fetched and drawn; the search looks through all of it.
 */
import { useVirtualizer } from '@tanstack/react-virtual';
import * as React from 'react';

import { asProblem } from './client';
import { count, plural } from './format';
import { LineTime, Said } from './logs';
import { OwnLines, PAGE } from './ownlines';
import { Button, ProblemBox } from './parts';
import type { IProblem, LogRecord } from './tokens';

export interface IOwnLogProps {
  lines: OwnLines;
  /** Its status, and when it ended: then there are more lines than before. */
  status: string;
  finished: number | null;
  open?: (cell: string, line: number) => void;
}

/** Workers ship log lines in batches: the last ones may come a moment after the result. */
const LATE_MS = 1000;
/** While it runs its new lines are asked for after so long, or so many times what the last answer took: a long log is long to look through. */
const RUNNING_MS = 2000;
const RUNNING_TIMES = 5;
const LABEL = "This workload's log";
const ROW = 20;

export function OwnLog({ lines, status, finished, open }: IOwnLogProps): JSX.Element {
  const [text, setText] = React.useState('');
  const [problem, setProblem] = React.useState<IProblem | null>(null);
  const [, draw] = React.useReducer((n: number) => n + 1, 0);
  const wanted = React.useRef('');
  wanted.current = text.trim();
  const wait = (coming: Promise<void>) => {
    setProblem(null);
    coming.then(draw, error => setProblem(asProblem(error)));
  };
  const load = (more = false) => wait(lines.load(wanted.current, more));
  const before = React.useRef('');
  React.useEffect(() => {
    if (before.current) {
      load();
    } else {
      wait(lines.first);
    }
    before.current = status;
    if (finished && Date.now() - finished < 5000) {
      const timer = window.setTimeout(() => load(true), LATE_MS);
      return () => window.clearTimeout(timer);
    }
    return undefined;
  }, [status]);
  React.useEffect(() => {
    if (status !== 'in_progress') {
      return undefined;
    }
    let timer = 0;
    let over = false;
    const look = async () => {
      const begun = performance.now();
      await lines.load(wanted.current, true).then(draw, () => undefined); // the next time may be better
      later(performance.now() - begun);
    };
    const later = (took: number) => {
      if (!over) {
        timer = window.setTimeout(() => void look(), Math.max(RUNNING_MS, RUNNING_TIMES * took));
      }
    };
    later(0);
    return () => {
      over = true;
      window.clearTimeout(timer);
    };
  }, [status]);
  React.useEffect(() => {
    if (lines.total === null || lines.text === text.trim()) {
      return undefined;
    }
    const timer = window.setTimeout(() => load(), 250);
    return () => window.clearTimeout(timer);
  }, [text]);

  const { total } = lines;
  return (
    <div role="group" aria-label="Log">
      <h4>
        Log {lines.all > 0 && <span className="cx-dim">{plural(lines.all, 'line')}</span>}
      </h4>
      {lines.all > PAGE && (
        <div className="cx-row cx-filter" role="search" aria-label="Filter this workload's log">
          <label className="cx-grow">
            <span className="cx-hidden">Search this workload&apos;s log</span>
            <input type="search" placeholder="search all lines" spellCheck={false} maxLength={200} value={text} onChange={event => setText(event.target.value)} />
          </label>
          <span className="cx-dim" role="status">
            {lines.text ? `${count(total ?? 0)} found` : ''}
          </span>
        </div>
      )}
      {problem && (
        <ProblemBox problem={problem}>
          <Button label="Try again" onClick={() => load()} />
        </ProblemBox>
      )}
      {total === null && !problem && <p className="cx-dim">Loading…</p>}
      {total === 0 && <p className="cx-dim">{lines.text ? 'No line shows this text.' : 'It logged nothing, or its lines are not kept any more.'}</p>}
      {!!total && (total > PAGE ? <Long key={lines.text} lines={lines} total={total} failed={error => setProblem(asProblem(error))} open={open} /> : <Short lines={lines} total={total} open={open} />)}
    </div>
  );
}

interface ILinesProps {
  lines: OwnLines;
  total: number;
  open: IOwnLogProps['open'];
}

/** All of it at once, each line whole. */
function Short({ lines, total, open }: ILinesProps): JSX.Element {
  const records = Array.from({ length: total }, (_, at) => lines.at(at)).filter((one): one is LogRecord => !!one);
  return (
    <table className="cx-log">
      <caption className="cx-hidden">{LABEL}</caption>
      <thead className="cx-hidden">
        <tr>
          <th scope="col">Time</th>
          <th scope="col">Level</th>
          <th scope="col">Message</th>
        </tr>
      </thead>
      <tbody>
        {records.map((record, at) => (
          <tr key={at} className={levelOf(record)}>
            <td className="cx-dim">
              <LineTime record={record} />
            </td>
            <td>{record.levelname ?? ''}</td>
            <td>
              <Said record={record} open={open} />
            </td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

/** A box that begins at the last line; the lines before come as it is scrolled. */
function Long({ lines, total, failed, open }: ILinesProps & { failed: (error: unknown) => void }): JSX.Element {
  const box = React.useRef<HTMLDivElement>(null);
  const [, draw] = React.useReducer((n: number) => n + 1, 0);
  const virtual = useVirtualizer({ count: total, getScrollElement: () => box.current, estimateSize: () => ROW, overscan: 10, initialOffset: total * ROW });
  const shown = virtual.getVirtualItems();
  const [from, to] = shown.length ? [shown[0].index, shown[shown.length - 1].index] : [0, -1];
  // New lines of one that runs leave a reader of its older ones where he is.
  const end = React.useRef(true);
  React.useLayoutEffect(() => {
    if (end.current) {
      virtual.scrollToIndex(total - 1, { align: 'end' });
    }
  }, [total]);
  const scrolled = ({ currentTarget: { scrollTop, scrollHeight, clientHeight } }: React.UIEvent<HTMLDivElement>) => {
    end.current = scrollHeight - scrollTop - clientHeight <= 2 * ROW;
  };
  React.useEffect(() => {
    // A bar that is dragged through 10,000 lines asks for where it comes to rest.
    const timer = window.setTimeout(() => void lines.need(from, to).then(came => came && draw(), failed), 50);
    return () => window.clearTimeout(timer);
  }, [from, to, lines.turn]);
  return (
    <div className="cx-lines cx-own-lines" ref={box} tabIndex={0} role="table" aria-label={LABEL} aria-rowcount={total} onScroll={scrolled}>
      <div role="rowgroup" style={{ height: virtual.getTotalSize(), position: 'relative' }}>
        {shown.map(item => {
          const record = lines.at(item.index);
          return (
            <div
              key={item.index}
              data-index={item.index}
              ref={virtual.measureElement}
              role="row"
              aria-rowindex={item.index + 1}
              className={`cx-line ${record ? levelOf(record) : 'cx-dim'}`}
              style={{ transform: `translateY(${item.start}px)` }}
            >
              <span role="cell" className="cx-dim">
                {record ? <LineTime record={record} /> : '…'}
              </span>
              <span role="cell" className="cx-level">
                {record?.levelname ?? ''}
              </span>
              <span role="cell" className="cx-text">
                {record && <Said record={record} open={open} />}
              </span>
            </div>
          );
        })}
      </div>
    </div>
  );
}

function levelOf(record: LogRecord): string {
  return `cx-level-${String(record.levelname ?? '').toLowerCase()}`;
}
