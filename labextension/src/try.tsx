/**
 * The Test tab: a request put together as a caller would, sent, and followed to its end.
 */
import * as React from 'react';

import { asProblem } from './client';
import { bytes, duration } from './format';
import { Json, textOf } from './inspector';
import type { CortexModel, IChange } from './model';
import { Badge, Button, Copy, Places, ProblemBox } from './parts';
import type { ISample } from './samples';
import { callOf, curl } from './snippets';
import type { IProblem, ISummary, IWorkloadDetails } from './tokens';

/** The types that the notebook's workbench offers, too. */
const TYPES = ['application/json', 'text/plain', 'application/octet-stream', 'application/x-www-form-urlencoded', 'image/png', 'image/jpeg', 'text/csv'];

interface ISent {
  id: string;
  at: number;
  details: IWorkloadDetails | null;
}

export function Test({ model, api, samples, open }: { model: CortexModel; api: ISummary; samples: ISample[]; open: (id: string) => void }): JSX.Element {
  const [type, setType] = React.useState('application/json');
  const [text, setText] = React.useState('{}');
  const [file, setFile] = React.useState<{ name: string; bytes: Uint8Array } | null>(null);
  const [requestId, setRequestId] = React.useState('');
  const [problem, setProblem] = React.useState<IProblem | null>(null);
  const [busy, setBusy] = React.useState(false);
  const [sent, setSent] = React.useState<ISent[]>([]);
  const waiting = React.useRef(new Set<string>());

  const look = async (id: string) => {
    try {
      const details = await model.client.workload(api.name, id);
      if (details.finished) {
        waiting.current.delete(id);
      }
      setSent(before => before.map(one => (one.id === id ? { ...one, details } : one)));
    } catch {
      // the next change asks again
    }
  };
  React.useEffect(() => {
    const changed = (_: CortexModel, change: IChange) => {
      const moved = change.changes?.[api.name];
      for (const id of waiting.current) {
        if (change.reset || moved?.gap || moved?.more || moved?.workloads.some(row => row.id === id)) {
          void look(id);
        }
      }
    };
    model.changed.connect(changed);
    return () => {
      model.changed.disconnect(changed);
    };
  }, [api.name]);

  const body = () => file?.bytes ?? new TextEncoder().encode(text);
  const send = async () => {
    setBusy(true);
    setProblem(null);
    try {
      const id = await model.client.submit(api.endpoint, body() as unknown as BodyInit, type, requestId.trim() || undefined);
      waiting.current.add(id);
      setSent(before => [{ id, at: Date.now(), details: null }, ...before.filter(one => one.id !== id)].slice(0, 20));
      void look(id);
    } catch (error) {
      setProblem(asProblem(error));
    }
    setBusy(false);
  };
  const load = (name: string) => {
    const sample = samples.find(one => one.name === name);
    if (sample) {
      setType(sample.contentType);
      const written = textOf(sample.bytes);
      setText(written ?? '');
      setFile(written === null ? { name: `sample ${name}`, bytes: sample.bytes } : null);
    }
  };
  const choose = async (chosen: File | undefined) => {
    if (chosen) {
      setFile({ name: chosen.name, bytes: new Uint8Array(await chosen.arrayBuffer()) });
      setType(chosen.type || 'application/octet-stream');
    }
  };
  return (
    <div className="cx-test">
      <form
        aria-label="Request"
        onSubmit={event => {
          event.preventDefault();
          if (!busy) {
            void send();
          }
        }}
      >
        <div className="cx-row">
          <label>
            Content-Type
            <input type="text" list="cx-types" value={type} spellCheck={false} onChange={event => setType(event.target.value)} />
          </label>
          <datalist id="cx-types">
            {TYPES.map(one => (
              <option key={one} value={one} />
            ))}
          </datalist>
          {samples.length > 0 && (
            <label>
              Sample
              <select defaultValue="" onChange={event => load(event.target.value)}>
                <option value="">of the notebook…</option>
                {samples.map(one => (
                  <option key={one.name}>{one.name}</option>
                ))}
              </select>
            </label>
          )}
          <label>
            Request id
            <input type="text" value={requestId} placeholder="a new one" spellCheck={false} onChange={event => setRequestId(event.target.value)} />
          </label>
          <label>
            File
            <input type="file" onChange={event => void choose(event.target.files?.[0])} />
          </label>
        </div>
        {file ? (
          <p>
            {file.name}, {bytes(file.bytes.length)} <Button label="Send text instead" onClick={() => setFile(null)} />
          </p>
        ) : (
          <label>
            Body
            <textarea rows={7} value={text} spellCheck={false} onChange={event => setText(event.target.value)} />
          </label>
        )}
        <div className="cx-buttons">
          <Copy text={() => curl(callOf(model, api.endpoint), { contentType: type, bytes: body() })} what="this request as curl" label="Copy as curl" />
          <button type="submit" className="cx-button jp-mod-styled jp-mod-accept" aria-disabled={busy || undefined}>
            {busy ? 'Sending…' : 'Send'}
          </button>
        </div>
      </form>
      {problem && <ProblemBox problem={problem} />}
      <div aria-live="polite">
        {sent.map(one => (
          <Answer key={one.id} sent={one} open={open} />
        ))}
      </div>
    </div>
  );
}

/** Drawn anew only with news of its own: a result may have many items, and the tab is kept while others are looked at. */
const Answer = React.memo(AnswerOf, (before, now) => before.sent === now.sent);

function AnswerOf({ sent, open }: { sent: ISent; open: (id: string) => void }): JSX.Element {
  const { id, details } = sent;
  return (
    <article className="cx-answer" aria-label={`Request ${id}`}>
      <header>
        <Badge status={details?.status ?? 'in_queue'} /> <Button kind="link" label={id} describe={`Open workload ${id}`} onClick={() => open(id)} />
        {details?.finished && (
          <span className="cx-dim">
            waited {duration(details.wait_ms)}, ran {duration(details.run_ms)}
          </span>
        )}
      </header>
      {details?.status === 'completed' && <Json value={details.result} label="Result" />}
      {details?.error && (
        <p className="cx-bad">
          <strong>{details.error.type}</strong>: <Places text={details.error.message} />
        </p>
      )}
    </article>
  );
}
