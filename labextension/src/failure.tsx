/**
 * What the inspector says of a failure, and the ways on from a request that has ended: replay it, keep it, put it back.
 */
import * as React from 'react';

import { Button, Copy, Places } from './parts';
import { Moment } from './places';
import { CommandIDs, IRequeue, IWorkloadDetails } from './tokens';

export interface IFailureProps {
  row: IWorkloadDetails;
  open?: (cell: string, line: number) => void;
  openGroup: (fingerprint: string) => void;
}

export function Failure({ row, open, openGroup }: IFailureProps): JSX.Element {
  const traceback = String(row.failure?.traceback ?? '');
  return (
    <div className="cx-problem" role="group" aria-label="Error">
      <strong>{row.error!.type}</strong>
      <p>
        <Places text={row.error!.message} open={open} />
      </p>
      {traceback && (
        <>
          <pre className="cx-traceback" tabIndex={0} aria-label="Traceback">
            <Places text={traceback} open={open} />
          </pre>
          <Copy text={traceback} what="the traceback" label="Copy traceback" />
        </>
      )}
      {row.fingerprint && (
        <p>
          One of the group <Button kind="link" label={row.fingerprint} describe={`Open the group of failures ${row.fingerprint}`} onClick={() => openGroup(row.fingerprint!)} />
        </p>
      )}
    </div>
  );
}

/** For one that has ended and whose payload is kept. */
export function Remedies({ row, run }: { row: IWorkloadDetails; run: (command: string, more: Record<string, any>) => void }): JSX.Element | null {
  const ended = row.status === 'completed' || row.status === 'failed';
  if (!ended || !row.payload_kept) {
    return null;
  }
  return (
    <div className="cx-buttons" role="group" aria-label="What can be done with it">
      <Button kind={row.status === 'failed' ? 'accept' : 'plain'} label="Replay in notebook" title="Run it in the notebook's kernel, with the Handler as it is there now" onClick={() => run(CommandIDs.replay, { id: row.id, ...(row.version ? { version: row.version } : {}) })} />
      {row.status === 'failed' && !row.redacted && <Button label="Requeue…" describe="Requeue this request" title="Run it again on what is live, under its old id" onClick={() => run(CommandIDs.requeue, { id: row.id })} />}
      <Button label="Keep as sample" title="The checks before each deploy then run it" onClick={() => run(CommandIDs.keepSample, { id: row.id })} />
    </div>
  );
}

/** Earlier runs: what they ended with, and who put the request back. */
export function Runs({ requeues }: { requeues: IRequeue[] }): JSX.Element | null {
  return requeues.length ? (
    <div role="group" aria-label="Earlier runs">
      <h4>Earlier runs</h4>
      <ul className="cx-runs">
        {requeues.map(one => (
          <li key={one.run}>
            <strong>run {one.run}</strong> failed{one.error ? ` with ${one.error.type}` : ''}
            {one.version ? ` on version ${one.version}` : ''}; put back <Moment ms={one.at} />
            {one.who ? ` by ${one.who}` : ''}
            {one.source ? (
              <>
                {' '}
                from <span className="cx-mono">{one.source}</span>
              </>
            ) : null}
          </li>
        ))}
      </ul>
    </div>
  ) : null;
}
