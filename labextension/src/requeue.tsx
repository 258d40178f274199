/**
 * The Requeue dialog: asks, says how far it is, and what was refused.
 */
import { ReactWidget } from '@jupyterlab/apputils';
import * as React from 'react';

import { asProblem } from './client';
import { FormDialog } from './deploy';
import { count, plural } from './format';
import type { CortexModel } from './model';
import { Button, Loading, ProblemBox, useLoaded } from './parts';
import type { IProblem, IRequeued } from './tokens';

/** Refusals that are told one by one; the rest is counted. */
const TOLD = 20;

export interface IRequeueProps {
  model: CortexModel;
  name: string;
  /** One request, or a group by its fingerprint. */
  id?: string;
  group?: string;
  /** Where it was asked for, for the records: a notebook, or JupyterLab. */
  source: string;
  close: () => void;
}

export async function requeueDialog(about: Omit<IRequeueProps, 'close'>): Promise<void> {
  const body = ReactWidget.create(<RequeueForm {...about} close={() => dialog.reject()} />);
  const dialog: FormDialog = new FormDialog({ title: `Requeue requests of ${about.name}`, body, buttons: [], hasClose: true, focusNodeSelector: '.cx-first' });
  dialog.addClass('cx-deploy-dialog');
  dialog.addClass('cx-requeue-dialog');
  await dialog.launch().catch(() => undefined);
}

interface IWhat {
  count: number;
  type: string;
  versions: number[];
}

export function RequeueForm(props: IRequeueProps): JSX.Element {
  const { model, name } = props;
  const what = useLoaded(() => look(props), '');
  const [phase, setPhase] = React.useState<'asking' | 'working' | 'done'>('asking');
  const [done, setDone] = React.useState<IRequeued>({ requeued: [], refused: [], next: null, remaining: 0 });
  const [problem, setProblem] = React.useState<IProblem | null>(null);
  const alive = React.useRef(true);
  React.useEffect(
    () => () => {
      alive.current = false;
    },
    []
  );

  // The button that was pressed is gone then, and the keyboard with it.
  const first = React.useRef<HTMLButtonElement>(null);
  React.useEffect(() => {
    if (phase !== 'asking') {
      first.current?.focus();
    }
  }, [phase]);

  const requeue = async () => {
    setPhase('working');
    setProblem(null);
    let sum: IRequeued = { requeued: [], refused: [], next: null, remaining: 0 };
    try {
      do {
        const wanted = props.id ? { ids: [props.id] } : { fingerprint: props.group, ...(sum.next ? { next: sum.next } : {}) };
        const said = await model.client.requeue(name, { ...wanted, source: props.source });
        sum = { ...said, requeued: [...sum.requeued, ...said.requeued], refused: [...sum.refused, ...said.refused] };
        setDone(sum);
      } while (sum.next && alive.current);
      setPhase('done');
    } catch (error) {
      // Asking again is safe: what went back already is not failed any more.
      setProblem(asProblem(error));
      setPhase('asking');
    }
  };

  const live = model.api(name)?.live ?? 0;
  const stale = what.value && what.value.versions.includes(live);
  const looked = done.requeued.length + done.refused.length;
  return (
    <div className="cx cx-deploy-form">
      {what.loading && <Loading what="what failed" />}
      {what.problem && <ProblemBox problem={what.problem} />}
      {what.value && phase === 'asking' && (
        <p>
          Run {props.id ? 'this request' : plural(what.value.count, 'request')} that failed with <strong>{what.value.type}</strong> again on version {live || '–'}, under {props.id || what.value.count === 1 ? 'its old id' : 'their old ids'}? Callers who
          still poll get the new result.
        </p>
      )}
      {stale && phase === 'asking' && (
        <div className="cx-notice" role="note">
          Version {live}, on which {props.id || what.value!.count === 1 ? 'it' : 'some of them'} failed, is still live: deploy the fix first, or the same will most likely happen again.
        </div>
      )}
      {phase === 'working' && <progress className="cx-progress" aria-label="Progress" value={looked} max={Math.max(1, looked + done.remaining)} />}
      {phase !== 'asking' && (
        <p role="status">
          {count(done.requeued.length)} requeued{phase === 'working' ? `, ${count(looked)} of ${count(looked + done.remaining)} looked at…` : '.'}
        </p>
      )}
      {done.refused.length > 0 && <Refused refused={done.refused} />}
      {problem && <ProblemBox problem={problem} />}
      <div className="cx-buttons cx-footer">
        <button type="button" ref={first} className={`cx-button jp-mod-styled ${phase === 'done' ? 'jp-mod-accept' : 'cx-plain'} cx-first`} onClick={props.close}>
          {phase === 'done' ? 'Close' : 'Cancel'}
        </button>
        {phase !== 'done' && <Button kind="accept" label={phase === 'working' ? 'Working…' : 'Requeue'} onClick={() => void requeue()} disabled={phase === 'working' || !what.value} />}
      </div>
    </div>
  );
}

/** How many, what and on which versions: as it is now, not as it was when the page was drawn. */
async function look({ model, name, id, group }: IRequeueProps): Promise<IWhat> {
  if (id) {
    const row = await model.client.workload(name, id);
    return { count: 1, type: row.error?.type ?? row.status, versions: row.version ? [row.version] : [] };
  }
  const found = (await model.client.failures(name)).find(one => one.fingerprint === group);
  return found ?? { count: 0, type: 'this mistake', versions: [] };
}

function Refused({ refused }: { refused: IRequeued['refused'] }): JSX.Element {
  return (
    <>
      <h4>{plural(refused.length, 'request')} refused</h4>
      <table className="cx-plain-table">
        <caption className="cx-hidden">What was refused, and why</caption>
        <thead>
          <tr>
            <th scope="col">Request id</th>
            <th scope="col">Why</th>
          </tr>
        </thead>
        <tbody>
          {refused.slice(0, TOLD).map(one => (
            <tr key={one.id}>
              <td className="cx-mono">{one.id}</td>
              <td>{one.reason}</td>
            </tr>
          ))}
        </tbody>
      </table>
      {refused.length > TOLD && <p className="cx-dim">and {count(refused.length - TOLD)} more.</p>}
    </>
  );
}
