import { CommandRegistry } from '@lumino/commands';
import { fireEvent, render, screen, waitFor, within } from '@testing-library/react';
import * as React from 'react';
import { describe, expect, it } from 'vitest';

import type { CortexModel } from '../src/model';
import { Page } from '../src/page';
import { change } from '../src/rehearsed';
import { CommandIDs, IRehearsal, IRehearsalReport } from '../src/tokens';
import { sentence } from '../src/verdicts';
import { json, Server, summary } from './server';

const told = (more: Partial<IRehearsal> = {}): IRehearsal => ({ version: 2, state: 'rehearsed', message: '', live: 1, total: 4, done: 4, counts: { same_result: 1, changed: 1, fails_here: 1, gone: 1 }, who: 'ada@host', ...more });
const side = (more = {}) => ({ status: 'completed', error: null, place: '', fingerprint: '', traceback: '', run_ms: 5, ...more });
const REPORT: IRehearsalReport = {
  version: 2,
  live: 1,
  began: 1_764_000_000_000,
  ended: 1_764_000_060_000,
  redacted: 0,
  same: false,
  counts: { same_result: 1, changed: 1, fails_here: 1, gone: 1 },
  speed: { production: { median: 10, p95: 20 }, here: { median: 15, p95: 18 } },
  rows: [
    { id: 'as-before', verdict: 'same_result', text: 'the same', production: side(), here: side(), difference: null },
    {
      id: 'differs',
      verdict: 'changed',
      text: '4 differences',
      production: side(),
      here: side(),
      difference: {
        more: 2,
        rows: [
          { path: 'result.label', kind: 'changed', then: '"<b>setosa</b>"', now: '"virginica"' },
          { path: 'result.near', kind: 'close', then: '0.1', now: '0.10000001' },
          ...[1, 2, 3].map(at => ({ path: `result.new[${at}]`, kind: 'added', then: null, now: String(at) }))
        ]
      }
    },
    { id: 'fails', verdict: 'fails_here', text: 'it fails here', production: side(), here: side({ status: 'failed', error: { type: 'KeyError', message: "'petal'" }, place: 'cell 3, line 7', traceback: 'Traceback (most recent call last)' }) },
    { id: 'gone-1', verdict: 'gone', text: 'its payload is not kept any more' }
  ]
};

function Shown({ model, commands, tab = 'overview' }: { model: CortexModel; commands: CommandRegistry; tab?: any }): JSX.Element {
  const [state, setState] = React.useState<any>({ tab, workload: null, group: null });
  return <Page model={model} commands={commands} name="iris" state={state} show={more => setState((before: any) => ({ ...before, ...more }))} />;
}

function commandsOf(): { commands: CommandRegistry; ran: any[] } {
  const commands = new CommandRegistry();
  const ran: any[] = [];
  for (const id of [CommandIDs.promote, CommandIDs.drop, CommandIDs.openCell]) {
    commands.addCommand(id, { execute: args => void ran.push([id, args]) });
  }
  return { commands, ran };
}

const serve = () =>
  new Server()
    .on('GET api/apis/iris/history', json({ step: 1, now: 0, rows: [] }))
    .on('GET api/apis/iris/workloads', json({ workloads: [], next: null, scanned: 0 }))
    .on('GET api/apis/iris/deployments/2/rehearsal', json(REPORT))
    .on('GET api/apis/iris/deployments/2/module', json({ path: 'handler.py', source: '', reasons: [], notebook: 'iris.ipynb', cells: { 'cell 3': 'id-3' } }));

describe('a rehearsal', () => {
  it('is told above every tab as it goes on, and has a tab only then', async () => {
    const server = serve();
    const { commands } = commandsOf();
    render(<Shown model={await server.live([summary('iris')])} commands={commands} />);
    expect(screen.queryByRole('tab', { name: 'Rehearsal' })).toBeNull();
    server.socket.say({ apis: [summary('iris', { rehearsal: told({ state: 'rehearsing', done: 12, total: 50, counts: { same_result: 12 } }) })] });
    expect(await screen.findByText('Version 2 rehearses: 12 of 50 requests.')).toBeTruthy();
    fireEvent.click(screen.getByRole('button', { name: 'Show rehearsal' }));
    const bar = screen.getByRole('progressbar', { name: 'How far it is' }) as HTMLProgressElement;
    expect([bar.value, bar.max]).toEqual([12, 50]);
    server.socket.say({ apis: [summary('iris', { rehearsal: told({ state: 'rehearsing', done: 13, total: 50, counts: { same_result: 12, changed: 1 } }) })] });
    await waitFor(() => expect(bar.value).toBe(13));
    expect(screen.getByRole('list', { name: 'What came of them' }).textContent).toContain('1changed result');
    expect(screen.queryByRole('button', { name: 'Make version 2 live' })).toBeNull();
    expect(server.asked.filter(one => one.path.includes('rehearsal'))).toHaveLength(0);
  });

  it('that is done shows what changed by path, what fails and where, and how fast it was', async () => {
    const server = serve();
    const { commands, ran } = commandsOf();
    const { container } = render(<Shown model={await server.live([summary('iris', { rehearsal: told() })])} commands={commands} tab="rehearsal" />);
    const changed = await screen.findByRole('list', { name: 'What changed in differs' });
    expect(changed.textContent).toContain('result.label before: "<b>setosa</b>" → now: "virginica"');
    expect(changed.textContent).not.toContain('result.near');
    expect(container.querySelector('b b')).toBeNull();
    expect(within(changed).getAllByRole('listitem')).toHaveLength(3);
    fireEvent.click(screen.getByRole('button', { name: '1 more difference' }));
    expect(changed.textContent).toContain('result.new[3] before: nothing → now: 3');
    expect(screen.getByText('and 2 more differences')).toBeTruthy();
    const rows = within(screen.getByRole('table', { name: 'Requests that did not end as before' })).getAllByRole('row');
    expect(rows.slice(1).map(row => within(row).getAllByRole('button')[0].textContent)).toEqual(['fails', 'differs', 'gone-1']);
    expect(screen.getByRole('table', { name: /How long a request took/ }).textContent).toContain('p5010 ms15 ms+50 %p9520 ms18 ms−10 %');
    fireEvent.click(screen.getByRole('button', { name: 'cell 3, line 7' }));
    await waitFor(() => expect(ran).toHaveLength(1));
    expect(ran[0]).toMatchObject([CommandIDs.openCell, { path: 'iris.ipynb', cell: 'cell 3', line: 7, ids: { 'cell 3': 'id-3' } }]);
    fireEvent.click(screen.getByRole('tab', { name: 'new errors (1)' }));
    expect(screen.queryByRole('button', { name: 'Open workload differs' })).toBeNull();
    fireEvent.click(screen.getByRole('button', { name: 'Open workload fails' }));
    expect(screen.getByRole('tab', { name: 'Workloads' }).getAttribute('aria-selected')).toBe('true');
  });

  it('is decided by its buttons, and its tab stays for whoever is in it', async () => {
    const server = serve();
    const { commands, ran } = commandsOf();
    render(<Shown model={await server.live([summary('iris', { rehearsal: told() })])} commands={commands} tab="rehearsal" />);
    fireEvent.click(await screen.findByRole('button', { name: 'Make version 2 live' }));
    fireEvent.click(screen.getByRole('button', { name: 'Drop version 2' }));
    expect(ran).toEqual([
      [CommandIDs.promote, { name: 'iris', version: 2 }],
      [CommandIDs.drop, { name: 'iris', version: 2 }]
    ]);
    server.socket.say({ apis: [summary('iris', { live: 2, wanted: 2, rehearsal: null })] });
    expect(await screen.findByText('Nothing is rehearsed')).toBeTruthy();
    fireEvent.click(screen.getByRole('tab', { name: 'Overview' }));
    expect(screen.queryByRole('tab', { name: 'Rehearsal' })).toBeNull();
  });

  it('whose version did not start says why, and one whose report cannot be read offers to try again', async () => {
    const server = serve();
    const { commands } = commandsOf();
    render(<Shown model={await server.live([summary('iris', { rehearsal: told({ state: 'failed', message: 'no such model', done: 0, counts: {} }) })])} commands={commands} tab="rehearsal" />);
    expect(screen.getByRole('alert').textContent).toContain('no such model');
    expect(screen.queryByRole('button', { name: 'Drop version 2' })).toBeNull();
    server.on('GET api/apis/iris/deployments/2/rehearsal', json({ title: 'Away', status: 503, detail: 'the store does not answer', code: 'store_unavailable' }, 503));
    server.socket.say({ apis: [summary('iris', { rehearsal: told() })] });
    expect(await screen.findByText('the store does not answer')).toBeTruthy();
    server.on('GET api/apis/iris/deployments/2/rehearsal', json({ ...REPORT, rows: [REPORT.rows[0]], counts: { same_result: 1 }, speed: null }));
    fireEvent.click(screen.getByRole('button', { name: 'Try again' }));
    expect(await screen.findByText('Every request ended as in production.')).toBeTruthy();
    expect(screen.getByText('No request was timed on both sides.')).toBeTruthy();
  });

  it('is said in a sentence', () => {
    expect(sentence(told())).toBe('version 2 was rehearsed with 4 requests: 1 new error, 1 changed result, 1 not comparable');
    expect(sentence(told({ counts: { same_result: 4 } }))).toContain('all ended as before');
    expect([change(10, 10), change(10, 25), change(20, 19), change(0, 3)]).toEqual(['as before', '+150 %', '−5 %', '–']);
  });
});
