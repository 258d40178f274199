/**
 * The Rehearsal tab: what a version that is not live does with the last kept requests, and what becomes of it.
 */
import type { CommandRegistry } from '@lumino/commands';
import * as React from 'react';

import { count, plural } from './format';
import type { CortexModel } from './model';
import { Badge, Button, Empty, Loading, ProblemBox, useLoaded, useModel } from './parts';
import { Moment } from './places';
import { Different, Speed } from './rehearsed';
import { CommandIDs, IRehearsal, ISummary } from './tokens';
import { sentence, VERDICTS, wordsOf } from './verdicts';

export interface IRehearsalProps {
  model: CortexModel;
  api: ISummary;
  commands: CommandRegistry;
  openWorkload: (id: string) => void;
  openCell: (cell: string, line: number, ids: Record<string, string>, notebook: string) => void;
}

/** Above the other tabs, so that nobody has to know where to look. */
export function RehearsalNote({ told, show }: { told: IRehearsal; show: () => void }): JSX.Element {
  return (
    <div className="cx-notice cx-rehearsal-note" role="status">
      <span>{sentence(told).replace(/^v/, 'V')}.</span> <Button kind="link" label="Show rehearsal" onClick={show} />
    </div>
  );
}

export function Rehearsal(props: IRehearsalProps): JSX.Element {
  const { model, api } = props;
  useModel(model, change => !!change.apis?.some(one => one.name === api.name));
  const told = model.api(api.name)?.rehearsal;
  if (!told) {
    return (
      <Empty title="Nothing is rehearsed">
        <p>
          The Deploy dialog runs a new version on the last kept requests first, in the shadow, where cortex.yaml says <code>rehearse: true</code> and <code>retain: {'{payload: always}'}</code>. What came of it stands here until you
          promote or drop it.
        </p>
      </Empty>
    );
  }
  return (
    <div className="cx-rehearsal">
      <Head {...props} told={told} />
      {told.state === 'failed' && (
        <div className="cx-problem" role="alert">
          <strong>Version {told.version} did not start</strong>
          <p>{told.message}</p>
          <p className="cx-dim">Version {told.live} serves as before. Mend the notebook and rehearse again.</p>
        </div>
      )}
      {told.state === 'rehearsing' && <Under told={told} />}
      {told.state === 'rehearsed' && <Report key={told.version} {...props} told={told} />}
    </div>
  );
}

function Head({ told, api, commands }: IRehearsalProps & { told: IRehearsal }): JSX.Element {
  const run = (command: string) => void commands.execute(command, { name: api.name, version: told.version });
  return (
    <header>
      <Badge status={told.state} />
      <h3>
        Version {told.version} beside version {told.live}
      </h3>
      {told.who && <span className="cx-dim">by {told.who}</span>}
      <div className="cx-actions">
        {told.state === 'rehearsed' && <Button kind="accept" label="Promote…" describe={`Make version ${told.version} live`} onClick={() => run(CommandIDs.promote)} />}
        {told.state !== 'failed' && <Button kind="warn" label="Drop…" describe={`Drop version ${told.version}`} onClick={() => run(CommandIDs.drop)} />}
      </div>
    </header>
  );
}

/** While it runs: how far it is, and what is known so far. */
function Under({ told }: { told: IRehearsal }): JSX.Element {
  return (
    <>
      <p className="cx-how-far" role="group" aria-label="Progress">
        <progress value={told.done} max={Math.max(1, told.total)} aria-label="How far it is" />
        <span>
          {count(told.done)} of {plural(told.total, 'request')} of production
        </span>
      </p>
      {!told.done && <p className="cx-dim">The version is being started. Callers are answered by version {told.live} as before.</p>}
      <Counts counts={told.counts} />
    </>
  );
}

function Counts({ counts }: { counts: IRehearsal['counts'] }): JSX.Element | null {
  const found = VERDICTS.filter(one => counts[one.id]);
  return found.length ? (
    <ul className="cx-tiles" aria-label="What came of them">
      {found.map(one => (
        <li key={one.id}>
          <b>{count(counts[one.id]!)}</b>
          <Badge status={one.looks} text={wordsOf(one, counts[one.id]!)} />
          <span className="cx-dim">{one.says}</span>
        </li>
      ))}
    </ul>
  ) : null;
}

function Report(props: IRehearsalProps & { told: IRehearsal }): JSX.Element {
  const { model, api, told } = props;
  const { value, problem, reload } = useLoaded(() => model.client.rehearsal(api.name, told.version), `${api.name}:${told.version}`);
  if (problem && !value) {
    return (
      <ProblemBox problem={problem}>
        <Button label="Try again" onClick={reload} />
      </ProblemBox>
    );
  }
  if (!value) {
    return <Loading what="the report" />;
  }
  return (
    <>
      <p className="cx-dim">
        {plural(value.rows.length, 'request')} of production, <Moment ms={value.ended} />
        {value.redacted ? `; ${count(value.redacted)} with a redacted payload` : ''}. Undecided, it is dropped after a day.
      </p>
      <Counts counts={value.counts} />
      <Speed report={value} />
      <Different {...props} report={value} />
    </>
  );
}
