/**
 * The Deploy button of the notebook toolbar and its dialog: what would be published, the checks as they pass, the way to live, the endpoint.
 */
import { Dialog, Notification, ReactWidget } from '@jupyterlab/apputils';
import type { NotebookPanel } from '@jupyterlab/notebook';
import type { CommandRegistry } from '@lumino/commands';
import type { Message } from '@lumino/messaging';
import * as React from 'react';

import { asProblem } from './client';
import { Config } from './config';
import { plural } from './format';
import { apiIcon } from './icons';
import type { CortexModel } from './model';
import { Module } from './module';
import { cellPlace, goTo, NotebookWatch, requestOf } from './notebooks';
import { Badge, Button, Code, placeIn, ProblemBox, Through } from './parts';
import { missingOf, RehearseFirst } from './rehearsing';
import { refused } from './said';
import { callOf, curl } from './snippets';
import { CommandIDs, IDeployed, INotebookRequest, IProblem, IShown, IStep, ISurprise } from './tokens';

// The button -------------------------------------------------------------------------------------------------------------------------------------

export class DeployButton extends ReactWidget {
  constructor(
    private readonly watch: NotebookWatch,
    private readonly commands: CommandRegistry
  ) {
    super();
    this.addClass('cx-deploy-button');
    watch.changed.connect(() => this.update());
  }

  protected render(): JSX.Element {
    const { api, state, sentence } = this.watch;
    const text = state === 'failing' && api?.status !== 'error' ? `${api?.failed_hour} failed` : state;
    return (
      <button type="button" className="cx-toolbar-button" title={sentence} aria-label={sentence} onClick={() => void this.commands.execute(CommandIDs.deploy)}>
        <apiIcon.react tag="span" elementSize="normal" />
        <span>Deploy</span>
        {state !== 'none' && <Badge status={state} text={text} />}
      </button>
    );
  }
}

// The dialog -------------------------------------------------------------------------------------------------------------------------------------

/** A dialog whose body has its own buttons and forms: Enter and the arrows are theirs. */
export class FormDialog extends Dialog<void> {
  /** A click beside it closes no form: what was typed would be gone. */
  protected _evtClick(event: MouseEvent): void {
    if (event.target !== this.node) {
      super._evtClick(event);
    }
  }

  protected onAfterAttach(message: Message): void {
    super.onAfterAttach(message);
    this._gone.observe(this.node, { childList: true, subtree: true });
  }

  protected onAfterDetach(message: Message): void {
    this._gone.disconnect();
    super.onAfterDetach(message);
  }

  protected _evtKeydown(event: KeyboardEvent): void {
    if (event.key === 'Escape') {
      super._evtKeydown(event);
    } else if (event.key === 'Tab') {
      this._keepInside(event);
    }
  }

  /** What goes when it was pressed takes the keyboard along, out of the dialog: then not even Escape is heard. */
  private readonly _gone = new MutationObserver(() => {
    if (document.activeElement === document.body) {
      this.node.querySelector<HTMLElement>('.cx-first')?.focus();
    }
  });

  private _keepInside(event: KeyboardEvent): void {
    const found = [...this.node.querySelectorAll<HTMLElement>('button, input, select, textarea, summary, [tabindex="0"]')].filter(
      node => !(node as HTMLButtonElement).disabled && node.offsetParent !== null && node.tabIndex >= 0
    );
    const edge = event.shiftKey ? found[0] : found[found.length - 1];
    if (document.activeElement === edge) {
      event.preventDefault();
      event.stopPropagation();
      (event.shiftKey ? found[found.length - 1] : found[0]).focus();
    }
  }
}

export async function deployDialog(panel: NotebookPanel, model: CortexModel, commands: CommandRegistry, watch: NotebookWatch | undefined): Promise<void> {
  const close = () => dialog.reject();
  const body = ReactWidget.create(
    <DeployForm
      model={model}
      request={() => requestOf(panel)}
      told={shown => watch?.tell(shown)}
      jump={(cell, line, ids) => {
        close();
        void goTo(panel, cellPlace(cell, line, ids));
      }}
      open={(name, tab) => {
        close();
        void commands.execute(CommandIDs.openApi, { name, ...(tab ? { tab } : {}) });
      }}
      close={close}
      runAll={async () => {
        await commands.execute('notebook:run-all-cells');
      }}
    />
  );
  body.addClass('cx-deploy');
  const dialog: FormDialog = new FormDialog({
    title: `Deploy ${panel.context.path.split('/').pop()}`,
    body,
    buttons: [],
    hasClose: true,
    focusNodeSelector: '.cx-first'
  });
  dialog.addClass('cx-deploy-dialog');
  await dialog.launch().catch(() => undefined);
}

export interface IDeployFormProps {
  model: CortexModel;
  /** What goes to the server; raises Problem when there is no kernel. */
  request: () => INotebookRequest;
  told: (shown: IShown) => void;
  jump: (cell: string, line: number, ids: Record<string, string>) => void;
  open: (name: string, tab?: string) => void;
  close: () => void;
  /** Run the notebook from top to bottom. */
  runAll: () => Promise<void>;
}

interface IProgress {
  text: string;
  state: 'running' | 'passed' | 'failed';
}

type Phase = 'looking' | 'ready' | 'working' | 'live';

export function DeployForm(props: IDeployFormProps): JSX.Element {
  const [phase, setPhase] = React.useState<Phase>('looking');
  const [shown, setShown] = React.useState<IShown | null>(null);
  const [name, setName] = React.useState('');
  const [replicas, setReplicas] = React.useState(1);
  const [config, setConfig] = React.useState<Record<string, unknown>>({});
  const [configError, setConfigError] = React.useState('');
  const [yes, setYes] = React.useState(false);
  const [rehearse, setRehearse] = React.useState(0);
  const [steps, setSteps] = React.useState<IProgress[]>([]);
  const [problem, setProblem] = React.useState<IProblem | null>(null);
  const [said, setSaid] = React.useState<IDeployed | null>(null);
  const [checked, setChecked] = React.useState(false);
  /** How much is done, 0 to 1. */
  const [amount, setAmount] = React.useState(0);
  const alive = React.useRef(true);
  const touched = React.useRef({ config: false, replicas: false });
  /** Looks that have begun: what is shown is the last one's. */
  const looks = React.useRef(0);

  const step = (one: IStep) => {
    if (alive.current) {
      setSteps(before => advance(before, one.step));
      setAmount(before => (typeof one.done === 'number' ? Math.max(before, one.done) : before));
    }
  };
  const done = (state: 'passed' | 'failed') => setSteps(before => before.map(one => (one.state === 'running' ? { ...one, state } : one)));

  const look = async (named?: string) => {
    const turn = ++looks.current;
    setPhase('looking');
    setProblem(null);
    setSteps([]);
    setChecked(false);
    try {
      const found = await props.model.client.show({ ...props.request(), ...(named ? { name: named } : {}) }, step);
      if (!alive.current || turn !== looks.current) {
        return;
      }
      props.told(found);
      setShown(found);
      if (!named) {
        setName(found.name);
      }
      // What was typed stays typed: a second look is for the notebook, not for the form.
      if (!touched.current.replicas) {
        setReplicas(found.replicas);
      }
      if (!touched.current.config) {
        setConfig(found.config);
      }
    } catch (error) {
      if (turn !== looks.current) {
        return;
      }
      setProblem(asProblem(error));
    }
    setSteps([]);
    setPhase('ready');
  };

  React.useEffect(() => {
    void look();
    return () => {
      alive.current = false;
    };
  }, []);

  // Without a config the file's own is meant, whose 1.0 and long integers JavaScript would not give back as they are.
  const wanted = (): INotebookRequest => ({ ...props.request(), name: name.trim(), ...(touched.current.config ? { config } : {}), replicas, yes });

  const check = async () => {
    setPhase('working');
    setProblem(null);
    setSteps([]);
    setAmount(0);
    setChecked(false);
    try {
      const found = await props.model.client.check(wanted(), step);
      done(found.error ? 'failed' : 'passed');
      setChecked(found.ok);
      if (found.error) {
        setProblem({ title: 'The checks failed', status: 400, detail: found.error.message, code: found.error.kind, ...found.error.details });
      } else if (!found.ok) {
        setShown(before => before && { ...before, surprises: found.surprises });
      }
    } catch (error) {
      done('failed');
      setProblem(asProblem(error));
    }
    setPhase('ready');
  };

  const first = shown?.live && !missingOf(shown).length ? rehearse : 0;

  const deploy = async (takeOver = false) => {
    setPhase('working');
    setProblem(null);
    setSteps([]);
    setAmount(0);
    try {
      const found = await props.model.client.deploy({ ...wanted(), take_over: takeOver, ...(first ? { rehearse: first } : {}) }, step);
      done('passed');
      setSaid(found);
      setPhase('live');
      if (shown && !first) {
        props.told({ ...shown, live: { version: found.deployed[0].version, diff: [] } });
      }
      if (!alive.current) {
        Notification.success(`${name.trim()}: ${found.deployed[0].message}`);
      }
    } catch (error) {
      if (!alive.current) {
        refused(`Deploy ${name.trim()}`, error);
      }
      done('failed');
      setProblem(asProblem(error));
      setPhase('ready');
    }
  };

  const runAll = async () => {
    setPhase('looking');
    setSteps([{ text: 'running all cells', state: 'running' }]);
    await props.runAll();
    await look(named ? name.trim() : undefined);
  };

  const choose = (count: number) => {
    touched.current.replicas = true;
    setReplicas(count);
  };
  const configure = (value: Record<string, unknown>) => {
    touched.current.config = true;
    setConfig(value);
  };
  const blocked = shown?.surprises.some(row => row.blocks) ?? true;
  const asks = shown?.surprises.some(row => row.asks) ?? false;
  const named = /^[a-z]([-a-z0-9]{0,40}[a-z0-9])?$/.test(name.trim());
  const busy = phase === 'looking' || phase === 'working';
  const jump = (cell: string, line: number) => props.jump(cell, line, shown?.cells ?? {});

  if (phase === 'live' && said) {
    return <Live model={props.model} said={said} open={props.open} close={props.close} steps={steps} />;
  }
  return (
    <div className="cx cx-deploy-form">
      <p className="cx-target">{target(props.model, shown)}</p>
      <fieldset disabled={phase === 'working' || (busy && !shown)}>
        <legend className="cx-hidden">What is deployed</legend>
        <div className="cx-row">
          <label>
            Name
            <input
              type="text"
              value={name}
              spellCheck={false}
              aria-invalid={(shown !== null || name.trim() !== '') && !named}
              onChange={event => setName(event.target.value)}
              onBlur={() => named && name.trim() !== shown?.name && void look(name.trim())}
            />
          </label>
          <label className="cx-narrow">
            Replicas
            <input type="number" min={1} max={100} value={replicas} disabled={!shown} onChange={event => choose(Math.max(1, Number(event.target.value) || 1))} />
          </label>
        </div>
        {(shown || name.trim()) && !named && <p className="cx-bad">A name has lower-case letters, digits and dashes, begins with a letter and has at most 42 characters.</p>}
        {shown && <RehearseFirst shown={shown} value={rehearse} change={setRehearse} disabled={phase === 'working'} />}
        <fieldset disabled={!shown}>
          <legend className="cx-hidden">Its config</legend>
          <Config value={config} change={configure} error={configError} setError={setConfigError} fromFile={shown?.has_config ?? false} />
        </fieldset>
      </fieldset>
      {shown && <Surprises rows={shown.surprises} recorded={shown.recorded} jump={jump} />}
      {asks && !blocked && (
        <label className="cx-check">
          <input type="checkbox" checked={yes} onChange={event => setYes(event.target.checked)} disabled={phase === 'working'} />{' '}
          {shown?.surprises.every(row => !row.asks || row.kind === 'untrained') ? 'Publish it as it is, untrained' : 'Publish what ran, not what stands there now'}
        </label>
      )}
      {phase === 'working' && <progress className="cx-progress" aria-label="Progress" value={amount} max={1} />}
      <Steps steps={steps} looking={phase === 'looking'} />
      {checked && !problem && <p className="cx-good">All checks passed.</p>}
      {problem && <Refusal problem={problem} jump={jump} takeOver={() => void deploy(true)} retry={() => void look(named ? name.trim() : undefined)} />}
      {shown && <Module key={`${shown.name}:${shown.live?.version}`} shown={shown} jump={jump} />}
      <div className="cx-buttons cx-footer">
        <Button label="Close" onClick={props.close} />
        <span className="cx-grow" />
        {shown?.surprises.some(row => /has not run in this kernel yet/.test(row.message)) && <Button label="Run all cells" title="From top to bottom, in this notebook's kernel; then look again" onClick={() => void runAll()} disabled={busy} />}
        <Button label="Check only" title="Import, construct and run the samples in a clean process; deploy nothing" onClick={() => void check()} disabled={busy || blocked || !named || !!configError} />
        <Button
          kind="accept"
          first
          label={phase === 'working' ? 'Working…' : first ? 'Rehearse new version' : shown?.live ? 'Deploy new version' : 'Deploy'}
          onClick={() => void deploy()}
          disabled={busy || blocked || !named || !!configError || (asks && !yes)}
        />
      </div>
    </div>
  );
}

/** Each step is done when the next one begins; a text that only counts on (an upload's megabytes), and an installer's next line, replace the one before. */
export function advance(steps: IProgress[], text: string): IProgress[] {
  const stem = (one: string) => (one.startsWith('installing: ') ? 'installing' : one.replace(/[\d.,]+/g, '#'));
  const last = steps[steps.length - 1];
  const kept = last && last.state === 'running' && stem(last.text) === stem(text) ? steps.slice(0, -1) : steps;
  return [...kept.map(one => (one.state === 'running' ? { ...one, state: 'passed' as const } : one)), { text, state: 'running' }];
}

function target(model: CortexModel, shown: IShown | null): string {
  const environment = model.environment;
  const where = !environment ? '' : environment.local ? 'to this machine' : `to ${environment.name} (${environment.url})`;
  const python = shown ? `, with ${shown.python}` : '';
  const started = environment?.local && !environment.up ? '. The local environment is started first' : '';
  return shown?.live ? `Version ${shown.live.version} is live; this deploys the next one ${where}${python}${started}.` : `Publishes this notebook's Handler ${where}${python}${started}.`;
}

function Steps({ steps, looking }: { steps: IProgress[]; looking: boolean }): JSX.Element | null {
  if (!steps.length && !looking) {
    return null;
  }
  const rows = steps.length ? steps : [{ text: 'reading the notebook in its kernel', state: 'running' as const }];
  return (
    <ul className="cx-steps" aria-live="polite" aria-label="Progress">
      {rows.map((one, at) => (
        <li key={at} className={`cx-${one.state}`}>
          <span aria-hidden="true">{one.state === 'running' ? <span className="cx-spinner" /> : one.state === 'passed' ? '✓' : '✗'}</span> {one.text}
          <span className="cx-hidden">: {one.state}</span>
        </li>
      ))}
    </ul>
  );
}

function Jump({ place, jump }: { place: string; jump: (cell: string, line: number) => void }): JSX.Element | null {
  const found = placeIn(place);
  return found ? <Button kind="link" label={place} describe={`Go to ${place}`} onClick={() => jump(found.cell, found.line)} /> : place ? <span>{place}</span> : null;
}

function Surprises({ rows, recorded, jump }: { rows: ISurprise[]; recorded: boolean; jump: (cell: string, line: number) => void }): JSX.Element | null {
  if (!rows.length && recorded) {
    return null;
  }
  return (
    <ul className="cx-surprises" aria-label="What you should know first">
      {rows.map((row, at) => (
        <li key={at} className={row.blocks ? 'cx-bad' : 'cx-warn'}>
          <Badge status={row.blocks ? 'failed' : 'changed'} text={row.blocks ? 'must be mended' : row.asks ? 'your answer is needed' : 'note'} /> <Jump place={row.place} jump={jump} /> {row.message}
          {row.remedy && <span className="cx-dim">; {row.asks && !row.blocks ? row.remedy.replace(/, or publish .*--yes$/, ', or tick the box below') : row.remedy}</span>}
        </li>
      ))}
      {!recorded && (
        <li className="cx-dim">
          <Badge status="note" text="note" /> This kernel did not record what ran, so the cells are taken as they stand. <code>%load_ext jupyter_cortex</code> in the first cell records it.
        </li>
      )}
    </ul>
  );
}

function Refusal({ problem, jump, takeOver, retry }: { problem: IProblem; jump: (cell: string, line: number) => void; takeOver: () => void; retry: () => void }): JSX.Element {
  const place = placeIn(String(problem.place ?? '')) ?? placeIn(problem.detail) ?? placeIn(String(problem.traceback ?? '').split('\n').reverse().join('\n'));
  const logs: unknown[] = Array.isArray(problem.logs) ? problem.logs : [];
  return (
    <ProblemBox problem={problem}>
      {problem.traceback && (
        <pre className="cx-traceback" tabIndex={0} aria-label="Traceback">
          {String(problem.traceback)}
        </pre>
      )}
      {logs.length > 0 && (
        <pre className="cx-traceback" tabIndex={0} aria-label="The last log lines">
          {logs.map(line => (typeof line === 'string' ? line : JSON.stringify(line))).join('\n')}
        </pre>
      )}
      <div className="cx-buttons">
        {place && <Button label={`Go to ${place.cell}, line ${place.line}`} onClick={() => jump(place.cell, place.line)} />}
        {problem.code === 'conflict' && problem.source && <Button kind="warn" label="Take over" title={`It was deployed from ${problem.source}`} onClick={takeOver} />}
        <Button label="Look again" onClick={retry} />
      </div>
    </ProblemBox>
  );
}

function Live({ model, said, open, close, steps }: { model: CortexModel; said: IDeployed; open: IDeployFormProps['open']; close: () => void; steps: IProgress[] }): JSX.Element {
  const one = said.deployed[0];
  const call = callOf(model, one.endpoint);
  const rehearsing = one.outcome === 'rehearsing';
  const first = React.useRef<HTMLDivElement>(null);
  React.useEffect(() => first.current?.querySelector('button')?.focus(), []);
  return (
    <div className="cx cx-deploy-form">
      {rehearsing ? (
        <p className="cx-live" role="status">
          <Badge status="rehearsing" /> <strong>{one.api}</strong> version {one.version} runs requests of production in the shadow. What is live answers callers as before, until you promote the new version.
        </p>
      ) : (
        <>
          <p className="cx-live" role="status">
            <Badge status="live" /> <strong>{one.api}</strong> version {one.version} {one.outcome === 'up_to_date' ? 'is live already: nothing changed' : 'is live'}
          </p>
          <h4>Endpoint</h4>
          <Code text={call.through ? call.url : one.url} what="the endpoint" />
          <h4>Try it in a shell</h4>
          <Code text={call.headers.Authorization ? curl(call) : said.curl} what="the curl line" />
          <Through call={call} />
        </>
      )}
      {[...said.warnings, ...one.warnings].map((warning, at) => (
        <p key={at} className="cx-warn">
          {warning}
        </p>
      ))}
      <details>
        <summary>{plural(steps.length, 'step')}</summary>
        <Steps steps={steps} looking={false} />
      </details>
      <div className="cx-buttons cx-footer" ref={first}>
        {rehearsing ? <Button kind="accept" label="Show rehearsal" onClick={() => open(one.api, 'rehearsal')} /> : <Button kind="accept" label="Open API" onClick={() => open(one.api)} />}
        <Button label="Close" onClick={close} />
      </div>
    </div>
  );
}
