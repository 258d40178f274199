/**
 * The Overview tab: where the API is, how it is called, how it is doing.
 */
import * as React from 'react';

import { Chart } from './charts';
import { count, duration } from './format';
import type { CortexModel, IChange } from './model';
import { failures, facts } from './panel';
import { Badge, Button, Code, Loading, ProblemBox, Tabs, Through, useLoaded, useModel, useNow } from './parts';
import type { ISample } from './samples';
import { callOf, curl, javascript, python } from './snippets';
import type { IHistory, ISummary } from './tokens';

/** The largest sample that an example holds, in bytes. */
const SHOWN_BYTES = 1000;
/** How long traffic is gathered before the charts ask again. */
const SETTLE_MS = 1500;
/** Spans of the charts: minutes, and minutes of one point. */
const SPANS: Record<string, { label: string; minutes: number; step: number }> = {
  '15m': { label: '15 min', minutes: 15, step: 1 },
  '6h': { label: '6 h', minutes: 360, step: 5 },
  '7d': { label: '7 d', minutes: 10080, step: 60 }
};

export function Overview({ model, api, samples }: { model: CortexModel; api: ISummary; samples: ISample[] }): JSX.Element {
  return (
    <div className="cx-overview">
      <Facts api={api} />
      <Snippets model={model} api={api} samples={samples} />
      <Charts model={model} api={api} />
    </div>
  );
}

function Facts({ api }: { api: ISummary }): JSX.Element {
  const drifted = Object.entries(api.drift);
  return (
    <section aria-label="State">
      <p>
        <Badge status={api.status} /> {api.live ? `version ${api.live}` : 'never live yet'} · {facts(api)}
        {api.failed_hour > 0 && <span className="cx-bad"> · {failures(api)}</span>}
      </p>
      {api.message && <p className={api.status === 'error' ? 'cx-bad' : 'cx-warn'}>{api.message}</p>}
      {api.capped && <p className="cx-warn">{api.capped}</p>}
      {drifted.length > 0 && (
        <p className="cx-warn">
          Packages moved since the deploy: {drifted.map(([name, versions]) => `${name} ${Array.isArray(versions) ? versions.join(' → ') : JSON.stringify(versions)}`).join(', ')}.
          Deploy again to check it with them.
        </p>
      )}
    </section>
  );
}

function Snippets({ model, api, samples }: { model: CortexModel; api: ISummary; samples: ISample[] }): JSX.Element {
  useModel(model, () => false);
  const [language, choose] = React.useState('curl');
  const call = callOf(model, api.endpoint);
  // What the author tried shows more than a made-up payload.
  const sample = samples.find(one => one.bytes.length <= SHOWN_BYTES);
  const text = language === 'curl' ? curl(call, sample) : language === 'python' ? python(call, sample) : javascript(call, sample);
  return (
    <section aria-label="How to call it">
      <h3>Endpoint</h3>
      <Code text={call.url} what="the endpoint" />
      <Through call={call} />
      <Tabs
        id="cx-snippet"
        label="Language"
        tabs={[
          { id: 'curl', label: 'curl' },
          { id: 'python', label: 'Python' },
          { id: 'javascript', label: 'JavaScript' }
        ]}
        chosen={language}
        choose={choose}
      />
      <div id="cx-snippet-panel" role="tabpanel" aria-labelledby={`cx-snippet-tab-${language}`}>
        <Code text={text} what={`the ${language} example`} />
      </div>
      <p className="cx-dim">
        POST answers with an id; GET <code>{call.url}/&lt;id&gt;</code> gives status and, for 7 days, the result.
      </p>
    </section>
  );
}

function Charts({ model, api }: { model: CortexModel; api: ISummary }): JSX.Element {
  const [span, choose] = React.useState('15m');
  const { minutes, step } = SPANS[span];
  const now = useNow(10_000);
  const moved = React.useRef(0);
  const [turn, again] = React.useReducer((n: number) => n + 1, 0);
  // Anew a moment after traffic, but not with each of its moves: the points are minutes.
  React.useEffect(() => {
    const changed = (_: CortexModel, change: IChange) => {
      if ((change.reset || change.changes?.[api.name]) && !moved.current) {
        moved.current = window.setTimeout(() => {
          moved.current = 0;
          again();
        }, SETTLE_MS);
      }
    };
    model.changed.connect(changed);
    return () => {
      model.changed.disconnect(changed);
      clearTimeout(moved.current);
      moved.current = 0;
    };
  }, [model, api.name]);
  const { value, problem, reload } = useLoaded(() => model.client.history(api.name, minutes, step), `${span}:${Math.floor(now / 60_000)}:${turn}`);
  return (
    <section aria-label="Traffic">
      <div className="cx-row">
        <h3>Traffic</h3>
        <Tabs id="cx-span" label="Time span" tabs={Object.entries(SPANS).map(([id, one]) => ({ id, label: one.label }))} chosen={span} choose={choose} />
      </div>
      <div id="cx-span-panel" role="tabpanel" aria-labelledby={`cx-span-tab-${span}`}>
        {problem && (
          <ProblemBox problem={problem}>
            <Button label="Try again" onClick={reload} />
          </ProblemBox>
        )}
        {!value && !problem && <Loading what="the history" />}
        {value && <Plots history={value} />}
      </div>
    </section>
  );
}

export function Plots({ history }: { history: IHistory }): JSX.Element {
  const { rows, step } = history;
  const times = rows.map(row => row.minute);
  const sum = (field: 'accepted' | 'completed' | 'failed') => rows.reduce((total, row) => total + row[field], 0);
  const last = [...rows].reverse().find(row => row.run_p50_ms !== null);
  const rate = (value: number) => (value >= 10 || Number.isInteger(value) ? count(Math.round(value)) : value.toFixed(1));
  const most = Math.max(0, ...rows.map(row => row.open));
  return (
    <div className="cx-charts">
      <Chart
        title="Requests a minute"
        summary={`${count(sum('accepted'))} accepted, ${count(sum('completed'))} completed`}
        times={times}
        unit={rate}
        lines={[
          { label: 'accepted', color: '--jp-brand-color1', values: rows.map(row => row.accepted / step), fill: true },
          { label: 'completed', color: '--jp-success-color1', values: rows.map(row => row.completed / step) }
        ]}
      />
      <Chart
        title="Run time"
        summary={last ? `last: p50 ${duration(last.run_p50_ms)}, p95 ${duration(last.run_p95_ms)}` : 'nothing ran'}
        times={times}
        unit={duration}
        lines={[
          { label: 'p50', color: '--jp-brand-color1', values: rows.map(row => row.run_p50_ms), sparse: true },
          { label: 'p95', color: '--jp-warn-color1', values: rows.map(row => row.run_p95_ms), sparse: true },
          { label: 'wait p95', color: '--jp-ui-font-color3', values: rows.map(row => row.wait_p95_ms), sparse: true }
        ]}
      />
      <Chart
        title="In queue and running"
        summary={`now ${count(rows[rows.length - 1]?.open ?? 0)}, at most ${count(most)}`}
        times={times}
        unit={value => count(Math.round(value))}
        whole
        lines={[{ label: 'open', color: '--jp-brand-color1', values: rows.map(row => row.open), fill: true }]}
      />
      <Chart
        title="Failures"
        summary={`${count(sum('failed'))} failed`}
        times={times}
        unit={value => count(Math.round(value))}
        whole
        lines={[{ label: 'failed', color: '--jp-error-color1', values: rows.map(row => row.failed), fill: true }]}
      />
    </div>
  );
}
