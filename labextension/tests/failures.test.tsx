import { CommandRegistry } from '@lumino/commands';
import { fireEvent, render, screen, waitFor, within } from '@testing-library/react';
import * as React from 'react';
import { describe, expect, it, vi } from 'vitest';

import type { CortexModel } from '../src/model';
import { Page } from '../src/page';
import { RequeueForm } from '../src/requeue';
import { CommandIDs, IFailureGroup } from '../src/tokens';
import { json, Server, summary, until, workload } from './server';

const FRAMES = [
  { file: 'sklearn/base.py', line: 90, function: 'predict', text: 'return check(x)', place: '', user: false },
  { file: 'handler.py', line: 12, function: 'measurements', text: 'return [float(payload[field])]', place: 'cell 2, line 8', user: true }
];

function group(fingerprint: string, more: Partial<IFailureGroup> = {}): IFailureGroup {
  return { fingerprint, type: 'KeyError', message: "'petal'", place: 'cell 2, line 8', frames: FRAMES, count: 2, first: 1_764_000_000_000, last: 1_764_000_060_000, versions: [1, 2], newest: 'bad-1', ...more };
}

function Shown({ model, commands, tab = 'failures', workload: chosen = null }: { model: CortexModel; commands: CommandRegistry; tab?: any; workload?: string | null }): JSX.Element {
  const [state, setState] = React.useState<any>({ tab, workload: chosen, group: null });
  return <Page model={model} commands={commands} name="iris" state={state} show={more => setState((before: any) => ({ ...before, ...more }))} />;
}

function commandsOf(): { commands: CommandRegistry; ran: any[] } {
  const commands = new CommandRegistry();
  const ran: any[] = [];
  for (const id of [CommandIDs.replay, CommandIDs.requeue, CommandIDs.keepSample, CommandIDs.openCell]) {
    commands.addCommand(id, { execute: args => void ran.push([id, args]) });
  }
  return { commands, ran };
}

const failed = workload('bad-1', 'failed', 2000, { version: 2 });
const details = { ...failed, result: null, failure: { traceback: 'Traceback' }, payload_kept: true, fingerprint: 'abcdef012345' };

function serve(...groups: IFailureGroup[]): Server {
  return new Server()
    .on('GET api/apis/iris/failures', json({ groups }))
    .on('GET api/apis/iris/workloads', json({ workloads: [failed], next: null, scanned: 1 }))
    .on('GET api/apis/iris/workloads/bad-1', json(details))
    .on('GET api/apis/iris/workloads/bad-1/logs', json({ records: [], first: 0, total: 0 }))
    .on('GET api/apis/iris/workloads/bad-1/payload', new Response('{}', { headers: { 'x-payload-content-type': 'application/json' } }))
    .on('GET api/apis/iris/deployments/2/module', json({ path: 'handler.py', source: '', reasons: [], notebook: 'iris.ipynb', cells: { 'cell 2': 'id-2' } }));
}

const asked = (server: Server) => server.asked.filter(one => one.path.startsWith('api/apis/iris/failures')).map(one => one.path);

describe('the Failures tab', () => {
  it('shows each mistake once, with place, count and versions, and leads to its cell', async () => {
    const server = serve(group('abcdef012345'), group('000000000000', { type: 'ReplicaDied', message: 'killed', place: '', frames: [], count: 1200, versions: [] }));
    const { commands, ran } = commandsOf();
    render(<Shown model={await server.live([summary('iris')])} commands={commands} />);
    const [first, second] = within(await screen.findByRole('list', { name: 'Groups of failures' })).getAllByRole('listitem');
    expect(first.textContent).toContain("KeyError 'petal'");
    expect(first.textContent).toContain('versions 1, 2');
    expect(first.textContent).toMatch(/last \d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d\d:\d\d/);
    expect(second.textContent).toContain('1,200');
    expect(screen.getByText('1,202 failures in 2 groups')).toBeTruthy();
    fireEvent.click(within(first).getByRole('button', { name: 'cell 2, line 8' }));
    await waitFor(() => expect(ran).toHaveLength(1));
    expect(ran[0][1]).toMatchObject({ path: 'iris.ipynb', cell: 'cell 2', line: 8, ids: { 'cell 2': 'id-2' } });
  });

  it('opens a group to its frames, the author’s first, and to its newest requests, and does what its buttons say', async () => {
    const server = serve(group('abcdef012345'));
    const { commands, ran } = commandsOf();
    render(<Shown model={await server.live([summary('iris')])} commands={commands} />);
    const toggle = await screen.findByRole('button', { name: /^KeyError/ });
    expect(toggle.getAttribute('aria-expanded')).toBe('false');
    fireEvent.click(toggle);
    expect(toggle.getAttribute('aria-expanded')).toBe('true');
    const frames = screen.getByRole('table', { name: /way to the exception/ });
    expect(within(frames).getAllByRole('row').slice(1).map(row => row.textContent)).toEqual([
      'cell 2, line 8measurementsreturn [float(payload[field])]',
      'sklearn/base.py, line 90predictreturn check(x)'
    ]);
    await screen.findByRole('button', { name: 'Open workload bad-1' });
    for (const name of ['Replay the newest KeyError in its notebook', 'Requeue 2 requests that failed with KeyError', 'Keep the newest payload as a sample']) {
      fireEvent.click(screen.getByRole('button', { name }));
    }
    expect(ran).toEqual([
      [CommandIDs.replay, { name: 'iris', id: 'bad-1', version: 2 }],
      [CommandIDs.requeue, { name: 'iris', group: 'abcdef012345' }],
      [CommandIDs.keepSample, { name: 'iris', id: 'bad-1' }]
    ]);
    fireEvent.click(await screen.findByRole('button', { name: 'Open workload bad-1' }));
    expect(await screen.findByRole('region', { name: 'Workload bad-1' })).toBeTruthy();
  });

  it('looks again when something fails or goes back into the queue, and at no other time', async () => {
    const server = serve(group('abcdef012345'));
    render(<Shown model={await server.live([summary('iris')])} commands={commandsOf().commands} />);
    await screen.findByText(/in 1 group/);
    const before = asked(server).length;
    const say = (moves: object, workloads: any[]) => server.socket.say({ changes: { iris: { seq: '9-0', moves, workloads, more: 0, gap: false } } });
    say({ completed: 3, in_queue: 1 }, [workload('good-1'), workload('new-1', 'in_queue')]);
    await new Promise(resolve => setTimeout(resolve, 50));
    expect(asked(server)).toHaveLength(before);
    server.on('GET api/apis/iris/failures', json({ groups: [group('abcdef012345', { count: 3 })] }));
    say({ failed: 1 }, [failed]);
    expect(await screen.findByText('3 failures in 1 group')).toBeTruthy();
    server.on('GET api/apis/iris/failures', json({ groups: [] }));
    say({ in_queue: 1 }, [workload('bad-1', 'in_queue', 3000, { run: 2 })]);
    expect(await screen.findByText('Nothing failed', {}, { timeout: 3000 })).toBeTruthy();
  });

  it('asks once a second at most while everything fails', async () => {
    const server = serve(group('abcdef012345'));
    render(<Shown model={await server.live([summary('iris')])} commands={commandsOf().commands} />);
    await screen.findByText(/in 1 group/);
    const before = asked(server).length;
    for (let at = 0; at < 50; at++) {
      server.socket.say({ changes: { iris: { seq: `${at}-0`, moves: { failed: 1 }, workloads: [failed], more: 0, gap: false } } });
    }
    await new Promise(resolve => setTimeout(resolve, 100));
    expect(asked(server)).toHaveLength(before + 1);
    await until(() => asked(server).length === before + 2, 'the look at the end');
  });

  it('asks for the time that was chosen', async () => {
    const server = serve();
    render(<Shown model={await server.live([summary('iris')])} commands={commandsOf().commands} />);
    expect(await screen.findByText(/No request failed in the last 7 days/)).toBeTruthy();
    fireEvent.change(screen.getByRole('combobox', { name: 'Since' }), { target: { value: '3600' } });
    await waitFor(() => expect(asked(server).at(-1)).toBe('api/apis/iris/failures?since=3600'));
    expect(await screen.findByText(/in the last hour/, { selector: 'p' })).toBeTruthy();
  });

  it('says why it cannot tell, and tries again', async () => {
    const server = serve().on('GET api/apis/iris/failures', json({ code: 'store_unavailable', title: 'The store does not answer', detail: 'it is restarting', status: 503 }, 503));
    render(<Shown model={await server.live([summary('iris')])} commands={commandsOf().commands} />);
    expect(await screen.findByText('it is restarting')).toBeTruthy();
    server.on('GET api/apis/iris/failures', json({ groups: [group('abcdef012345')] }));
    fireEvent.click(screen.getByRole('button', { name: 'Try again' }));
    expect(await screen.findByText(/in 1 group/)).toBeTruthy();
  });
});

describe('a workload that failed', () => {
  it('leads to its group, tells its earlier runs, and can be replayed, requeued and kept', async () => {
    const requeues = [{ run: 1, at: 1_764_000_000_000, who: 'ada@host', source: 'iris.ipynb', version: 1, fingerprint: 'f', error: { type: 'ValueError', message: 'x' } }];
    const server = serve(group('abcdef012345')).on('GET api/apis/iris/workloads/bad-1', json({ ...details, run: 2, requeues }));
    const { commands, ran } = commandsOf();
    render(<Shown model={await server.live([summary('iris')])} commands={commands} tab="workloads" workload="bad-1" />);
    const runs = await screen.findByRole('group', { name: 'Earlier runs' });
    expect(runs.textContent).toMatch(/run 1 failed with ValueError on version 1; put back .* by ada@host from iris.ipynb/);
    for (const name of ['Replay in notebook', 'Requeue this request', 'Keep as sample']) {
      fireEvent.click(screen.getByRole('button', { name }));
    }
    expect(ran.map(([id, args]) => [id, args.id])).toEqual([
      [CommandIDs.replay, 'bad-1'],
      [CommandIDs.requeue, 'bad-1'],
      [CommandIDs.keepSample, 'bad-1']
    ]);
    fireEvent.click(screen.getByRole('button', { name: 'Open the group of failures abcdef012345' }));
    expect((await screen.findByRole('button', { name: /^KeyError/ })).getAttribute('aria-expanded')).toBe('true');
  });

  it('offers nothing that cannot work: no payload any more, or a redacted one', async () => {
    const server = serve().on('GET api/apis/iris/workloads/bad-1', json({ ...details, payload_kept: false, payload_gone: 'it has 11,000,000 bytes' }));
    const { unmount } = render(<Shown model={await server.live([summary('iris')])} commands={commandsOf().commands} tab="workloads" workload="bad-1" />);
    await screen.findByText('Not kept: it has 11,000,000 bytes.');
    expect(screen.queryByRole('button', { name: 'Replay in notebook' })).toBeNull();
    unmount();
    server.on('GET api/apis/iris/workloads/bad-1', json({ ...details, redacted: true }));
    render(<Shown model={await server.live([summary('iris')])} commands={commandsOf().commands} tab="workloads" workload="bad-1" />);
    expect(await screen.findByRole('button', { name: 'Replay in notebook' })).toBeTruthy();
    expect(screen.queryByRole('button', { name: 'Requeue this request' })).toBeNull();
  });
});

describe('the Requeue dialog', () => {
  it('asks, warns while what failed is live still, goes on to the end of the group, and tells what was refused', async () => {
    const server = serve(group('abcdef012345', { count: 1500, versions: [1] }));
    const model = await server.live([summary('iris')]);
    const answers = [
      { requeued: ['a'], refused: [{ id: 'b', reason: 'it is completed, not failed' }], next: 'c1', remaining: 500 },
      { requeued: ['c'], refused: [], next: null, remaining: 0 }
    ];
    server.on('POST api/apis/iris/requeue', () => json(answers.shift()));
    const close = vi.fn();
    render(<RequeueForm model={model} name="iris" group="abcdef012345" source="iris.ipynb" close={close} />);
    expect((await screen.findByText(/Run 1,500 requests that failed with/)).textContent).toContain('under their old ids');
    expect(screen.getByRole('note').textContent).toContain('deploy the fix first');
    expect(server.asked.some(one => one.method === 'POST')).toBe(false);
    fireEvent.click(screen.getByRole('button', { name: 'Requeue' }));
    expect(await screen.findByText('2 requeued.')).toBeTruthy();
    expect(document.activeElement?.textContent, 'the keyboard is still in the dialog').toBe('Close');
    expect(screen.getByText('it is completed, not failed')).toBeTruthy();
    expect(server.asked.filter(one => one.method === 'POST').map(one => JSON.parse(one.body))).toEqual([
      { fingerprint: 'abcdef012345', source: 'iris.ipynb' },
      { fingerprint: 'abcdef012345', next: 'c1', source: 'iris.ipynb' }
    ]);
    fireEvent.click(screen.getByRole('button', { name: 'Close' }));
    expect(close).toHaveBeenCalled();
  });

  it('says why it was refused whole, and can be pressed again', async () => {
    const server = serve().on('POST api/apis/iris/requeue', json({ code: 'store_unavailable', title: 'x', detail: 'the store is full', status: 503 }, 503));
    render(<RequeueForm model={await server.live([summary('iris', { live: 3 })])} name="iris" id="bad-1" source="JupyterLab" close={() => undefined} />);
    await screen.findByText(/Run this request that failed with/);
    expect(screen.queryByRole('note')).toBeNull();
    fireEvent.click(screen.getByRole('button', { name: 'Requeue' }));
    expect(await screen.findByText('the store is full')).toBeTruthy();
    server.on('POST api/apis/iris/requeue', json({ requeued: ['bad-1'], refused: [], next: null, remaining: 0 }));
    fireEvent.click(screen.getByRole('button', { name: 'Requeue' }));
    expect(await screen.findByText('1 requeued.')).toBeTruthy();
    expect(JSON.parse(server.asked.filter(one => one.method === 'POST').at(-1)!.body)).toEqual({ ids: ['bad-1'], source: 'JupyterLab' });
  });
});
