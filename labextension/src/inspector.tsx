/**
 * One workload, whole: payload, result or error, its log, its way through time.
 */
import * as React from 'react';
import { allExpanded, collapseAllNested, JsonView } from 'react-json-view-lite';

import { asProblem, IPayload } from './client';
import { hasBig, parseExact, written } from './exact';
import { Failure, Remedies, Runs } from './failure';
import { bytes, duration, localTime } from './format';
import type { CortexModel, IChange } from './model';
import { OwnLines } from './ownlines';
import { OwnLog } from './ownlog';
import { Badge, Button, Copy, Loading, ProblemBox, Tabs, useLoaded } from './parts';
import { callOf, curl, curlLookUp } from './snippets';
import type { IModule, IProblem, IProgress, IWorkloadDetails } from './tokens';

export interface IInspectorProps {
  model: CortexModel;
  name: string;
  id: string;
  close: () => void;
  openCell: (cell: string, line: number, ids: Record<string, string>, notebook: string) => void;
  /** One of the commands, for this API. */
  run: (command: string, more: Record<string, any>) => void;
  openGroup: (fingerprint: string) => void;
}

export function Inspector({ model, name, id, close, openCell, run, openGroup }: IInspectorProps): JSX.Element {
  const { value, problem, reload } = useLoaded(() => model.client.workload(name, id), id);
  const [lines] = React.useState(() => new OwnLines(model.client, name, id));
  const heading = React.useRef<HTMLHeadingElement>(null);
  const [refused, setRefused] = React.useState<IProblem | null>(null);
  // What the stream has said since the workload was loaded: a bar that moves ten times a second must not load it ten times.
  const [told, tell] = React.useState<IProgress | null>(null);
  const status = React.useRef('');
  status.current = value?.status ?? '';
  const version = value?.version ?? 0;
  const module = useLoaded<IModule | null>(() => (version ? model.client.module(name, version) : Promise.resolve(null)), `${version}`);

  React.useEffect(() => heading.current?.focus(), []);
  React.useEffect(() => {
    const changed = (_: CortexModel, change: IChange) => {
      const moved = change.changes?.[name];
      const row = moved?.workloads.find(one => one.id === id);
      if (row?.progress && row.status === 'in_progress' && status.current === 'in_progress' && !change.reset && !moved?.gap) {
        tell(row.progress);
      } else if (change.reset || moved?.gap || moved?.more || row) {
        tell(null);
        reload();
      }
    };
    model.changed.connect(changed);
    return () => {
      model.changed.disconnect(changed);
    };
  }, [id]);

  const notebook = model.api(name)?.notebook ?? null;
  const open = notebook && module.value ? (cell: string, line: number) => openCell(cell, line, module.value!.cells, notebook) : undefined;
  const running = value?.status === 'in_queue' || value?.status === 'in_progress';
  const cancel = async () => {
    setRefused(null);
    try {
      await model.client.cancel(model.api(name)?.endpoint ?? `/${name}`, id);
      reload();
    } catch (error) {
      setRefused(asProblem(error));
    }
  };
  return (
    <section
      className="cx-inspector"
      aria-label={`Workload ${id}`}
      onKeyDown={event => {
        if (event.key === 'Escape') {
          close();
        }
      }}
    >
      <header>
        <h3 ref={heading} tabIndex={-1}>
          {value ? <Badge status={value.status} /> : null} <span className="cx-mono">{id}</span>
        </h3>
        <div className="cx-actions">
          <Copy text={id} what="the request id" label="Copy id" />
          <Copy text={curlLookUp(callOf(model, model.api(name)?.endpoint ?? `/${name}`), id)} what="the lookup as curl" label="Copy lookup as curl" />
          {running && <Button label="Cancel" describe="Cancel this workload" onClick={() => void cancel()} />}
          <Button label="Close" describe="Close the inspector" onClick={close} />
        </div>
      </header>
      {refused && <ProblemBox problem={refused} />}
      {problem && (
        <ProblemBox problem={problem}>
          <Button label="Try again" onClick={reload} />
        </ProblemBox>
      )}
      {!value && !problem && <Loading what="the workload" />}
      {value && (
        <>
          <Timeline row={value} />
          {value.status === 'in_progress' && (told ?? value.progress) && <Progress progress={(told ?? value.progress)!} />}
          {value.status === 'in_progress' && value.partial != null && (
            <div role="group" aria-label="Result so far">
              <h4>Result so far</h4>
              <Json value={value.partial} label="Result so far" />
            </div>
          )}
          <Remedies row={value} run={run} />
          {value.error && <Failure row={value} open={open} openGroup={openGroup} />}
          {value.status === 'completed' && (
            <div role="group" aria-label="Result">
              <h4>
                Result <Copy text={() => written(value.result, 2)} what="the result" />
              </h4>
              <Json value={value.result} label="Result" />
            </div>
          )}
          {value.notebook !== undefined && <Executed model={model} name={name} id={id} size={value.notebook} />}
          <Runs requeues={value.requeues ?? []} />
          <Payload model={model} name={name} row={value} />
          <OwnLog lines={lines} status={value.status} finished={value.finished} open={open} />
        </>
      )}
    </section>
  );
}

/** The notebook that was executed for it, also where it failed. */
export function Executed({ model, name, id, size }: { model: CortexModel; name: string; id: string; size: number }): JSX.Element {
  return (
    <p role="group" aria-label="Executed notebook">
      Executed notebook{' '}
      <a href={model.client.notebookUrl(name, id, 'html')} target="_blank" rel="noopener noreferrer" aria-label="Show the executed notebook as a page">
        as a page
      </a>{' '}
      ·{' '}
      <a href={model.client.notebookUrl(name, id, 'ipynb')} download={`${id}.ipynb`} aria-label="Download the executed notebook">
        ipynb
      </a>{' '}
      <span className="cx-dim">{bytes(size)}</span>
    </p>
  );
}

/** How far it is, as its handler said last. */
export function Progress({ progress }: { progress: IProgress }): JSX.Element {
  return (
    <p className="cx-how-far" role="group" aria-label="Progress">
      <progress value={progress.fraction} max={1} aria-label="How far it is" /> {Math.round(progress.fraction * 100)} % <span className="cx-dim">{progress.text}</span>
    </p>
  );
}

/** Accepted, started, finished: when, and how long between. */
export function Timeline({ row }: { row: IWorkloadDetails }): JSX.Element {
  const steps: [string, number | null, string][] = [
    ['accepted', row.accepted, `${bytes(row.size)} of ${row.content_type || 'no Content-Type'}`],
    ['queued', row.accepted, row.started ? `waited ${duration(row.wait_ms)}` : row.position ? `waiting, ${row.position} in front of it` : 'waiting'],
    ['started', row.started, [row.replica && `on ${row.replica}`, row.version && `version ${row.version}`, row.attempts && `attempt ${row.attempts}`].filter(Boolean).join(', ')],
    [row.finished ? row.status : 'finished', row.finished, row.finished && row.started ? `ran ${duration(row.run_ms)}` : '']
  ];
  const notes = [
    row.deaths ? `${row.deaths} replica${row.deaths > 1 ? 's' : ''} died while running it` : '',
    row.run > 1 ? `run ${row.run}: it was put back after an earlier end` : ''
  ].filter(Boolean);
  return (
    <div role="group" aria-label="Timeline">
      <ol className="cx-timeline">
        {steps.map(([what, when, note]) => (
          <li key={what} className={when ? '' : 'cx-ahead'}>
            <strong>{what}</strong> <time dateTime={when ? new Date(when).toISOString() : undefined}>{when ? localTime(when) : '–'}</time> <span className="cx-dim">{note}</span>
          </li>
        ))}
      </ol>
      {notes.length > 0 && <p className="cx-warn">{notes.join(' · ')}</p>}
    </div>
  );
}

// The payload ------------------------------------------------------------------------------------------------------------------------------------

/** Up to here a payload is fetched and drawn without being asked for, in bytes. */
const INLINE_BYTES = 512 * 1024;
/** Characters or bytes of text and hex that are drawn. */
const SHOWN = 64 * 1024;
/** SVG is not among them: it can hold scripts. */
const IMAGES = ['image/png', 'image/jpeg', 'image/gif', 'image/webp'];

function Payload({ model, name, row }: { model: CortexModel; name: string; row: IWorkloadDetails }): JSX.Element {
  const [wanted, want] = React.useState(row.size <= INLINE_BYTES);
  const key = `${row.payload_kept}:${wanted}`;
  const { value, problem, loading } = useLoaded<IPayload | null>(
    () => (row.payload_kept && wanted ? model.client.payload(name, row.id) : Promise.resolve(null)),
    key
  );
  const call = callOf(model, model.api(name)?.endpoint ?? `/${name}`);
  return (
    <div role="group" aria-label="Payload">
      <h4>
        Payload{' '}
        <span className="cx-dim">
          {row.content_type || 'no Content-Type'}, {bytes(row.size)}
        </span>{' '}
        {value && <Copy text={() => curl(call, value)} what="this request as curl" label="Copy as curl" />}
      </h4>
      {!row.payload_kept && <p className="cx-dim">Not kept{row.payload_gone ? `: ${row.payload_gone}` : ''}.</p>}
      {row.payload_kept && !wanted && <Button label={`Show ${bytes(row.size)}`} onClick={() => want(true)} />}
      {problem && <ProblemBox problem={problem} />}
      {loading && wanted && row.payload_kept && !value && <Loading what="the payload" />}
      {value && <PayloadView payload={value} />}
    </div>
  );
}

/** The ways in which a payload can be looked at; the first one fits it best. */
export function waysOf(payload: IPayload): string[] {
  const type = payload.contentType.split(';')[0].trim().toLowerCase();
  const text = textOf(payload.bytes);
  const ways: string[] = [];
  if (IMAGES.includes(type)) {
    ways.push('image');
  }
  if (text !== null && parsed(text) !== undefined) {
    ways.push('tree');
  }
  if (text !== null) {
    ways.push('text');
  }
  return [...ways, 'hex'];
}

const WAYS: Record<string, string> = { image: 'Image', tree: 'Tree', text: 'Text', hex: 'Hex' };

export function PayloadView({ payload }: { payload: IPayload }): JSX.Element {
  const ways = React.useMemo(() => waysOf(payload), [payload]);
  const tree = React.useMemo(() => parsed(textOf(payload.bytes) ?? ''), [payload]);
  const [way, choose] = React.useState(ways[0]);
  return (
    <>
      <Tabs id="cx-payload" label="How the payload is shown" tabs={ways.map(id => ({ id, label: WAYS[id] }))} chosen={way} choose={choose} />
      <div id="cx-payload-panel" role="tabpanel" aria-labelledby={`cx-payload-tab-${way}`}>
        {way === 'image' && <Picture payload={payload} />}
        {way === 'tree' && <Json value={tree} label="Payload" />}
        {way === 'text' && <Cut text={textOf(payload.bytes) ?? ''} label="Payload as text" />}
        {way === 'hex' && <Cut text={hex(payload.bytes.subarray(0, SHOWN / 4))} label="Payload as hex" more={payload.bytes.length > SHOWN / 4} />}
      </div>
    </>
  );
}

function Picture({ payload }: { payload: IPayload }): JSX.Element {
  const [url, setUrl] = React.useState('');
  const [size, setSize] = React.useState('');
  React.useEffect(() => {
    const made = URL.createObjectURL(new Blob([payload.bytes as BlobPart], { type: payload.contentType.split(';')[0].trim().toLowerCase() }));
    setUrl(made);
    return () => URL.revokeObjectURL(made);
  }, [payload]);
  return (
    <figure className="cx-picture">
      {url && <img src={url} alt="The payload" onLoad={event => setSize(`${event.currentTarget.naturalWidth} × ${event.currentTarget.naturalHeight}`)} onError={() => setSize('These bytes are no such image.')} />}
      <figcaption className="cx-dim">{size}</figcaption>
    </figure>
  );
}

export function Json({ value, label }: { value: unknown; label: string }): JSX.Element {
  const [small, big] = React.useMemo(() => [written(value).length < 2000, hasBig(value)], [value]);
  if (value === null || typeof value !== 'object') {
    return <pre className="cx-source" tabIndex={0} aria-label={label}>{written(value)}</pre>;
  }
  return (
    <div className="cx-json">
      <JsonView data={value} aria-label={label} shouldExpandNode={small ? allExpanded : level => level < 1 || collapseAllNested(level)} clickToExpandNode style={TREE} />
      {big && <p className="cx-dim">A whole number that ends with n is longer than a browser's own numbers; its digits are exact.</p>}
    </div>
  );
}

const TREE = {
  container: 'cx-tree',
  basicChildStyle: 'cx-tree-child',
  childFieldsContainer: 'cx-tree-fields',
  label: 'cx-tree-label',
  clickableLabel: 'cx-tree-label cx-tree-clickable',
  nullValue: 'cx-tree-literal',
  undefinedValue: 'cx-tree-literal',
  numberValue: 'cx-tree-number',
  stringValue: 'cx-tree-string',
  booleanValue: 'cx-tree-literal',
  otherValue: 'cx-tree-literal',
  punctuation: 'cx-tree-mark',
  expandIcon: 'cx-tree-icon cx-tree-expand',
  collapseIcon: 'cx-tree-icon cx-tree-collapse',
  collapsedContent: 'cx-tree-more',
  noQuotesForStringValues: false,
  quotesForFieldNames: true,
  ariaLables: { collapseJson: 'collapse', expandJson: 'expand' },
  stringifyStringValues: true
};

function Cut({ text, label, more }: { text: string; label: string; more?: boolean }): JSX.Element {
  const cut = text.length > SHOWN;
  return (
    <>
      <pre className="cx-source cx-wrap" tabIndex={0} aria-label={label}>
        {cut ? text.slice(0, SHOWN) : text}
      </pre>
      {(cut || more) && <p className="cx-dim">Only the beginning is shown.</p>}
    </>
  );
}

/** UTF-8 text, null for bytes that are none. */
export function textOf(raw: Uint8Array): string | null {
  try {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(raw);
    // eslint-disable-next-line no-control-regex
    return /[\u0000-\u0008\u000e-\u001a]/.test(text.slice(0, 4096)) ? null : text;
  } catch {
    return null;
  }
}

function parsed(text: string): unknown {
  try {
    const value = parseExact(text);
    return value !== null && typeof value === 'object' ? value : undefined;
  } catch {
    return undefined;
  }
}

/** Sixteen bytes a line: position, bytes, and what is printable of them. */
export function hex(raw: Uint8Array): string {
  const lines: string[] = [];
  for (let at = 0; at < raw.length; at += 16) {
    const row = [...raw.subarray(at, at + 16)];
    const codes = row.map(byte => byte.toString(16).padStart(2, '0')).join(' ');
    const shown = row.map(byte => (byte >= 32 && byte < 127 ? String.fromCharCode(byte) : '.')).join('');
    lines.push(`${at.toString(16).padStart(8, '0')}  ${codes.padEnd(47)}  ${shown}`);
  }
  return lines.join('\n');
}
