/**
 * What all views are made of. Everything that comes from a payload, a log or an error is a React text node: inert by construction.
 */
import * as React from 'react';

import { asProblem, MISSING, UNREACHABLE } from './client';
import type { CortexModel, IChange } from './model';
import type { ICall } from './snippets';
import type { IProblem } from './tokens';

/** Draw again when the model changes in a way that matters here. */
export function useModel(model: CortexModel, matters: (change: IChange) => boolean = () => true): number {
  const [turn, draw] = React.useReducer((n: number) => n + 1, 0);
  const latest = React.useRef(matters);
  latest.current = matters;
  React.useEffect(() => {
    const changed = (_: CortexModel, change: IChange) => {
      if (change.reset || change.environment || Object.keys(change).length === 0 || latest.current(change)) {
        draw();
      }
    };
    model.changed.connect(changed);
    // What changed between the first drawing and this effect.
    draw();
    return () => {
      model.changed.disconnect(changed);
    };
  }, [model]);
  return turn;
}

export interface ILoaded<T> {
  value: T | null;
  problem: IProblem | null;
  loading: boolean;
  reload: () => void;
}

/** The answer to a question, asked anew when `key` changes. What was there stays while the next answer is on its way. */
export function useLoaded<T>(load: () => Promise<T>, key: string): ILoaded<T> {
  const [state, setState] = React.useState<{ value: T | null; problem: IProblem | null; loading: boolean }>({ value: null, problem: null, loading: true });
  const [again, reload] = React.useReducer((n: number) => n + 1, 0);
  React.useEffect(() => {
    let wanted = true;
    setState(before => ({ ...before, loading: true }));
    load().then(
      value => wanted && setState({ value, problem: null, loading: false }),
      error => wanted && setState(before => ({ ...before, problem: asProblem(error), loading: false }))
    );
    return () => {
      wanted = false;
    };
  }, [key, again]);
  return { ...state, reload };
}

/** The time, moving: for ages. */
export function useNow(everyMs = 1000): number {
  const [now, setNow] = React.useState(Date.now());
  React.useEffect(() => {
    const timer = window.setInterval(() => setNow(Date.now()), everyMs);
    return () => window.clearInterval(timer);
  }, [everyMs]);
  return now;
}

// Words ------------------------------------------------------------------------------------------------------------------------------------------

const KINDS: Record<string, string> = {
  live: 'good',
  completed: 'good',
  passed: 'good',
  updating: 'warn',
  starting: 'warn',
  pending: 'warn',
  draining: 'warn',
  rehearsing: 'warn',
  rehearsed: 'warn',
  in_progress: 'warn',
  changed: 'warn',
  error: 'bad',
  failed: 'bad',
  failing: 'bad'
};
const WORDS: Record<string, string> = { in_queue: 'in queue', in_progress: 'in progress' };

/** A state as a word with a mark; never by colour alone. */
export function Badge({ status, text }: { status: string; text?: string }): JSX.Element {
  return <span className={`cx-badge cx-${KINDS[status] ?? 'dim'}`}>{text ?? words(status)}</span>;
}

export function words(status: string): string {
  return WORDS[status] ?? status;
}

/** `disabled`: as it is told, not as the browser has it: that would take the keyboard from a button just because it was pressed. */
export function Button(props: {
  label: string;
  onClick: () => void;
  kind?: 'accept' | 'warn' | 'plain' | 'link';
  disabled?: boolean;
  /** Where a dialog begins. */
  first?: boolean;
  title?: string;
  describe?: string;
}): JSX.Element {
  const kind = props.kind ?? 'plain';
  const classes = { accept: 'jp-mod-styled jp-mod-accept', warn: 'jp-mod-styled jp-mod-warn', plain: 'jp-mod-styled cx-plain', link: 'cx-link' };
  return (
    <button
      type="button"
      className={`cx-button ${classes[kind]}${props.first ? ' cx-first' : ''}`}
      onClick={() => !props.disabled && props.onClick()}
      aria-disabled={props.disabled || undefined}
      title={props.title}
      aria-label={props.describe}
    >
      {props.label}
    </button>
  );
}

/** Copies a text and says so. `label` where more than one thing could be meant. */
/** `text`: or what makes it, where that is work that only a click is worth. */
export function Copy({ text, what, label = 'Copy' }: { text: string | (() => string); what: string; label?: string }): JSX.Element {
  const [copied, setCopied] = React.useState(false);
  const copy = async () => {
    await copyText(typeof text === 'string' ? text : text());
    setCopied(true);
    window.setTimeout(() => setCopied(false), 1500);
  };
  return (
    <button type="button" className="cx-small cx-copy" aria-label={copied ? 'Copied' : `Copy ${what}`} title={`Copy ${what}`} onClick={() => void copy()}>
      {copied ? 'Copied' : label}
    </button>
  );
}

/** Also where the page is not served securely, and the clipboard's interface is not there. */
export async function copyText(text: string): Promise<void> {
  if (navigator.clipboard) {
    return navigator.clipboard.writeText(text);
  }
  const area = document.createElement('textarea');
  area.value = text;
  document.body.appendChild(area);
  area.select();
  document.execCommand('copy');
  area.remove();
}

/** One line of code with its copy button. */
export function Code({ text, what }: { text: string; what: string }): JSX.Element {
  return (
    <div className="cx-code">
      <pre tabIndex={0} aria-label={what}>
        {text}
      </pre>
      <Copy text={text} what={what} />
    </div>
  );
}

/** What a call needs that is not in the snippet, and what one by way of the Jupyter server means. */
export function Through({ call }: { call: ICall }): JSX.Element | null {
  if (!call.through && call.headers.Authorization) {
    return (
      <p className="cx-dim">
        This gateway wants its call token: <code>JUPYTER_CORTEX_CALL_TOKEN</code> is what it was started with.
      </p>
    );
  }
  return call.through ? (
    <p className="cx-dim">
      It leads through this Jupyter server: calls need a Jupyter token, and the API stops with the server. For one that stays, deploy to a team's environment:{' '}
      <code>cortex env add team https://… --token …</code>, then <code>cortex env use team</code>.
    </p>
  ) : null;
}

// States -----------------------------------------------------------------------------------------------------------------------------------------

export function Loading({ what }: { what: string }): JSX.Element {
  return (
    <p className="cx-loading" role="status">
      <span className="cx-spinner" aria-hidden="true" /> Loading {what}…
    </p>
  );
}

/** An empty list that says what comes next. */
export function Empty({ title, children }: React.PropsWithChildren<{ title: string }>): JSX.Element {
  return (
    <div className="cx-empty">
      <h3>{title}</h3>
      {children}
    </div>
  );
}

export function ProblemBox({ problem, children }: React.PropsWithChildren<{ problem: IProblem }>): JSX.Element {
  return (
    <div className="cx-problem" role="alert">
      <strong>{problem.title && problem.title !== problem.detail ? problem.title : 'This did not work'}</strong>
      <p>{problem.detail}</p>
      {children}
    </div>
  );
}

function sentence(text: string): string {
  return /[.!?]$/.test(text) ? text : `${text}.`;
}

/** Why nothing is shown, or nothing new, and what to do: drawn above every view. Null while all is well. */
export function ConnectionState({ model, start }: { model: CortexModel; start: () => Promise<void> }): JSX.Element | null {
  useModel(model);
  const [busy, setBusy] = React.useState(false);
  const [failed, setFailed] = React.useState<IProblem | null>(null);
  const run = async (action: () => Promise<void>) => {
    setBusy(true);
    setFailed(null);
    try {
      await action();
    } catch (error) {
      setFailed(asProblem(error));
    }
    setBusy(false);
  };
  const { connection, environment, problem } = model;
  // What had the keyboard goes with the notice: it stays in this view.
  const view = React.useRef<HTMLElement | null>(null);
  React.useEffect(() => {
    if (connection === 'live' && view.current?.isConnected && document.activeElement === document.body) {
      view.current.tabIndex = -1;
      view.current.focus();
    }
    view.current = null;
  }, [connection]);
  const keep = (event: React.FocusEvent<HTMLElement>) => {
    view.current = event.currentTarget.parentElement;
  };
  if (connection === 'idle' || connection === 'loading') {
    return <Loading what="the APIs" />;
  }
  if (connection === 'live') {
    return null;
  }
  if (connection === 'missing') {
    return (
      <div className="cx-notice" role="alert" onFocus={keep}>
        <strong>The server extension is missing</strong>
        <p>{problem?.code === MISSING ? problem.detail : 'This Jupyter server does not know jupyter-cortex.'} Then restart the server.</p>
        <Button label="Try again" onClick={() => void run(() => model.load())} disabled={busy} />
      </div>
    );
  }
  if (connection === 'lost') {
    return (
      <div className="cx-notice" role="status" onFocus={keep}>
        <span className="cx-spinner" aria-hidden="true" /> <strong>{problem && problem.code !== UNREACHABLE ? 'The Jupyter server cannot answer' : 'Reconnecting'}</strong>
        <p>{sentence(problem?.detail ?? 'The connection to the Jupyter server was lost')} What you see may be old; it is caught up as soon as the server answers.</p>
        <Button label="Try now" onClick={() => void run(() => model.load())} disabled={busy} />
      </div>
    );
  }
  return (
    <div className="cx-notice" role="status" onFocus={keep}>
      <strong>{environment?.local ? 'The local environment is not running' : `${environment?.name ?? 'The environment'} does not answer`}</strong>
      <p>{environment?.message || 'It is started with the first deploy, too.'}</p>
      {environment?.local && (
        <Button kind="accept" label={busy ? 'Starting…' : 'Start'} describe="Start the local environment" onClick={() => void run(start)} disabled={busy} />
      )}
      {!environment?.local && <Button label="Try again" onClick={() => void run(() => model.load())} disabled={busy} />}
      {failed && <ProblemBox problem={failed} />}
    </div>
  );
}

// Navigation -------------------------------------------------------------------------------------------------------------------------------------

/** Tabs as WAI-ARIA wants them: one stop for Tab, arrows move, Home and End. */
export function Tabs(props: { label: string; tabs: { id: string; label: string }[]; chosen: string; choose: (id: string) => void; id: string }): JSX.Element {
  const { tabs, chosen } = props;
  const bar = React.useRef<HTMLDivElement>(null);
  const move = (event: React.KeyboardEvent) => {
    const at = tabs.findIndex(tab => tab.id === chosen);
    const to = { ArrowRight: (at + 1) % tabs.length, ArrowLeft: (at + tabs.length - 1) % tabs.length, Home: 0, End: tabs.length - 1 }[event.key];
    if (to !== undefined) {
      event.preventDefault();
      props.choose(tabs[to].id);
      (bar.current?.children[to] as HTMLElement | undefined)?.focus();
    }
  };
  return (
    <div className="cx-tabs" role="tablist" aria-label={props.label} ref={bar} onKeyDown={move}>
      {tabs.map(tab => (
        <button
          type="button"
          key={tab.id}
          id={`${props.id}-tab-${tab.id}`}
          role="tab"
          aria-selected={tab.id === chosen}
          aria-controls={`${props.id}-panel`}
          tabIndex={tab.id === chosen ? 0 : -1}
          onClick={() => props.choose(tab.id)}
        >
          {tab.label}
        </button>
      ))}
    </div>
  );
}

const PLACE = /(cell \d+), line (\d+)/g;

/** A text in which each ``cell 3, line 4`` leads there. */
export function Places({ text, open }: { text: string; open?: (cell: string, line: number) => void }): JSX.Element {
  if (!open) {
    return <>{text}</>;
  }
  const parts: React.ReactNode[] = [];
  let at = 0;
  for (const found of text.matchAll(PLACE)) {
    parts.push(text.slice(at, found.index));
    parts.push(
      <button type="button" className="cx-link" key={found.index} title="Go to the cell" onClick={() => open(found[1], Number(found[2]))}>
        {found[0]}
      </button>
    );
    at = found.index! + found[0].length;
  }
  parts.push(text.slice(at));
  return <>{parts}</>;
}

/** The first place that a text names. */
export function placeIn(text: string): { cell: string; line: number } | null {
  const found = /(cell \d+), line (\d+)/.exec(text) ?? /(cell \d+)/.exec(text);
  return found ? { cell: found[1], line: Number(found[2] ?? 1) } : null;
}
