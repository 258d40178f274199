/**
 * The Workloads tab: all requests, newest first, live; the table draws only the rows that are seen.
 */
import { useVirtualizer } from '@tanstack/react-virtual';
import * as React from 'react';

import { asProblem } from './client';
import { age, count, duration, localTime } from './format';
import { Inspector } from './inspector';
import type { CortexModel, IChange } from './model';
import { Badge, Button, Empty, Loading, ProblemBox, useNow, words } from './parts';
import { IProblem, IWorkload, STATUSES, WorkloadStatus } from './tokens';
import { WorkloadList } from './workloadlist';

export interface IWorkloadsProps {
  model: CortexModel;
  name: string;
  chosen: string | null;
  choose: (id: string | null) => void;
  openCell: (cell: string, line: number, ids: Record<string, string>, notebook: string) => void;
  test: () => void;
  /** One of the commands, for this API. */
  run: (command: string, more: Record<string, any>) => void;
  openGroup: (fingerprint: string) => void;
}

const ROW = 26;
/** How long a burst is let go on before the table asks for what it missed. */
const BEHIND_MS = 1000;

export function Workloads(props: IWorkloadsProps): JSX.Element {
  const { model, name } = props;
  const [list] = React.useState(() => new WorkloadList(model.client, name));
  const [status, setStatus] = React.useState<WorkloadStatus | ''>('');
  const [text, setText] = React.useState('');
  const [problem, setProblem] = React.useState<IProblem | null>(null);
  const grid = React.useRef<HTMLDivElement>(null);
  const [, draw] = React.useReducer((n: number) => n + 1, 0);

  const load = React.useCallback(
    (action: () => Promise<void>) => {
      setProblem(null);
      action().then(draw, error => setProblem(asProblem(error)));
      draw();
    },
    [list]
  );

  React.useEffect(() => {
    let behind = 0;
    const changed = (_: CortexModel, change: IChange) => {
      const moved = change.changes?.[name];
      if (change.reset || moved?.gap) {
        load(() => list.reload());
        return;
      }
      if (moved && list.apply(moved)) {
        draw();
      }
      // A burst that one frame does not hold: the rest is asked for once it is over.
      if (moved?.more && !behind) {
        behind = window.setTimeout(() => {
          behind = 0;
          load(() => list.renew());
        }, BEHIND_MS);
      }
    };
    model.changed.connect(changed);
    load(() => list.reload());
    return () => {
      clearTimeout(behind);
      clearTimeout(typing.current);
      model.changed.disconnect(changed);
    };
  }, [list]);

  // What is loaded is filtered at once; the server looks through the rest once the typing has paused.
  const typing = React.useRef(0);
  const filter = (nextStatus: WorkloadStatus | '', nextText: string) => {
    setStatus(nextStatus);
    setText(nextText);
    list.filter(nextStatus, nextText);
    draw();
    clearTimeout(typing.current);
    typing.current = window.setTimeout(() => load(() => list.search()), 250);
  };
  const filtered = !!status || !!text.trim();

  // Back to where the keyboard came from, once it is there again; the row that was open is still under its cursor.
  const back = React.useRef(false);
  const close = () => {
    back.current = true;
    props.choose(null);
  };
  React.useEffect(() => {
    if (!props.chosen && back.current) {
      back.current = false;
      grid.current?.focus();
    }
  }, [props.chosen]);
  const counts = model.api(name)?.workloads;
  return (
    <div className="cx-workloads">
      <div className="cx-table-side">
        <div className="cx-row cx-filter" role="search" aria-label="Filter workloads">
          <label>
            <span className="cx-hidden">Status</span>
            <select value={status} onChange={event => filter(event.target.value as WorkloadStatus | '', text)}>
              <option value="">all statuses</option>
              {STATUSES.map(one => (
                <option key={one} value={one}>
                  {words(one)}
                  {counts ? ` (${count(counts[one])})` : ''}
                </option>
              ))}
            </select>
          </label>
          <label className="cx-grow">
            <span className="cx-hidden">Text or id</span>
            <input type="search" placeholder="id, error, replica…" spellCheck={false} value={text} onChange={event => filter(status, event.target.value)} />
          </label>
          <span className="cx-dim" role="status">
            {filtered ? searched(list) : list.loading ? 'loading…' : shown(list)}
          </span>
        </div>
        {problem && (
          <ProblemBox problem={problem}>
            <Button label="Try again" onClick={() => load(() => list.reload())} />
          </ProblemBox>
        )}
        <Table box={grid} list={list} chosen={props.chosen} choose={props.choose} more={() => load(() => list.more())} />
        {!list.rows.length && !problem && list.complete && <Nothing filtered={filtered} test={props.test} />}
        {!list.rows.length && !problem && !list.complete && <Loading what={filtered ? 'what matches' : 'the workloads'} />}
      </div>
      {props.chosen && (
        <Inspector key={props.chosen} model={model} name={name} id={props.chosen} close={close} openCell={props.openCell} run={props.run} openGroup={props.openGroup} />
      )}
    </div>
  );
}

function shown(list: WorkloadList): string {
  return `${count(list.rows.length)}${list.complete ? '' : '+'} shown`;
}

/** How far a search is: a page of it looks at so many workloads and may have found nothing. */
function searched(list: WorkloadList): string {
  return list.complete ? shown(list) : list.scanned ? `${shown(list)}, ${count(list.scanned)} looked at` : 'searching…';
}

function Nothing({ filtered, test }: { filtered: boolean; test: () => void }): JSX.Element {
  return filtered ? (
    <Empty title="Nothing matches">
      <p>No workload of the last 7 days has this status and text.</p>
    </Empty>
  ) : (
    <Empty title="No requests yet">
      <p>POST a payload to the endpoint, and it appears here.</p>
      <Button kind="accept" label="Send one" onClick={test} />
    </Empty>
  );
}

const COLUMNS = ['Status', 'Request id', 'Age', 'Wait', 'Run', 'Version', 'Replica'];

/** A grid as WAI-ARIA wants it: one stop for Tab, arrows move along the rows, Enter opens. */
function Table({ box, list, chosen, choose, more }: { box: React.RefObject<HTMLDivElement>; list: WorkloadList; chosen: string | null; choose: (id: string) => void; more: () => void }): JSX.Element {
  const now = useNow();
  const rows = list.rows;
  const [cursor, setCursor] = React.useState<string | null>(chosen);
  const virtual = useVirtualizer({ count: rows.length, getScrollElement: () => box.current, estimateSize: () => ROW, overscan: 12 });
  const shown = virtual.getVirtualItems();
  const last = shown.length ? shown[shown.length - 1].index : -1;
  // Also while nothing is found yet: each page that came asks for the next one until the view is full.
  React.useEffect(() => {
    if (!list.complete && !list.loading && last >= rows.length - 50) {
      more();
    }
  }, [last, rows.length, list.turn]);

  const keys = (event: React.KeyboardEvent) => {
    const at = rows.findIndex(row => row.id === cursor);
    const page = Math.max(1, Math.floor((box.current?.clientHeight ?? 400) / ROW) - 2);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + page, PageUp: at - page, Home: 0, End: rows.length - 1 }[event.key];
    if (to !== undefined && rows.length) {
      event.preventDefault();
      const index = Math.min(rows.length - 1, Math.max(0, to));
      setCursor(rows[index].id);
      virtual.scrollToIndex(index);
    } else if ((event.key === 'Enter' || event.key === ' ') && cursor) {
      event.preventDefault();
      choose(cursor);
    }
  };
  return (
    <div
      className="cx-table"
      role="grid"
      aria-label="Workloads"
      aria-rowcount={rows.length + 1}
      aria-colcount={COLUMNS.length}
      aria-activedescendant={cursor && rows.some(row => row.id === cursor) ? `cx-row-${cursor}` : undefined}
      tabIndex={0}
      ref={box}
      onKeyDown={keys}
      hidden={!rows.length}
    >
      <div role="rowgroup" className="cx-table-head">
        <div role="row" aria-rowindex={1}>
          {COLUMNS.map(column => (
            <span role="columnheader" key={column}>
              {column}
            </span>
          ))}
        </div>
      </div>
      <div role="rowgroup" style={{ height: virtual.getTotalSize(), position: 'relative' }}>
        {shown.map(item => (
          <Row
            key={rows[item.index].id}
            row={rows[item.index]}
            index={item.index}
            top={item.start}
            now={now}
            chosen={rows[item.index].id === chosen}
            cursor={rows[item.index].id === cursor}
            choose={id => {
              setCursor(id);
              choose(id);
            }}
          />
        ))}
      </div>
    </div>
  );
}

interface IRowProps {
  row: IWorkload;
  index: number;
  top: number;
  now: number;
  chosen: boolean;
  cursor: boolean;
  choose: (id: string) => void;
}

function Row({ row, index, top, now, chosen, cursor, choose }: IRowProps): JSX.Element {
  const waiting = row.status === 'in_queue';
  const cells: React.ReactNode[] = [
    <Badge status={row.status} />,
    <span className="cx-mono">{row.id}</span>,
    age(row.accepted, now),
    duration(waiting ? Math.max(0, now - row.accepted) : row.wait_ms),
    duration(row.status === 'in_progress' && row.started ? Math.max(0, now - row.started) : row.run_ms),
    row.version ?? '–',
    row.replica || '–'
  ];
  return (
    <div
      role="row"
      id={`cx-row-${row.id}`}
      aria-rowindex={index + 2}
      aria-selected={chosen}
      className={`cx-row-line${chosen ? ' cx-chosen' : ''}${cursor ? ' cx-cursor' : ''}`}
      style={{ transform: `translateY(${top}px)` }}
      title={`${localTime(row.accepted)}${row.error ? `\n${row.error.type}: ${row.error.message}` : ''}`}
      onClick={() => choose(row.id)}
    >
      {cells.map((cell, at) => (
        <span role="gridcell" key={COLUMNS[at]}>
          {cell}
        </span>
      ))}
    </div>
  );
}
