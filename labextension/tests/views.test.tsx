import { CommandRegistry } from '@lumino/commands';
import { act, fireEvent, render, screen, waitFor, within } from '@testing-library/react';
import * as React from 'react';
import { describe, expect, it, vi } from 'vitest';

import { localTime } from '../src/format';
import type { CortexModel } from '../src/model';
import { Page } from '../src/page';
import { Apis } from '../src/panel';
import { statusOf } from '../src/status';
import { CommandIDs } from '../src/tokens';
import { ENVIRONMENT, json, Server, summary, workload } from './server';

const HISTORY = { step: 1, now: 0, rows: [] };

function commandsOf(...ids: string[]): { commands: CommandRegistry; ran: { id: string; args: any }[] } {
  const commands = new CommandRegistry();
  const ran: { id: string; args: any }[] = [];
  for (const id of ids) {
    commands.addCommand(id, { execute: args => void ran.push({ id, args }) });
  }
  return { commands, ran };
}

function Shown({ model, commands, tab = 'overview', workload: chosen = null }: { model: CortexModel; commands: CommandRegistry; tab?: any; workload?: string | null }): JSX.Element {
  const [state, setState] = React.useState({ tab, workload: chosen });
  return <Page model={model} commands={commands} name="iris" state={state} show={more => setState((before: any) => ({ ...before, ...more }))} />;
}

describe('the sidebar', () => {
  it('lists each API with its state, replicas, queue and failures', async () => {
    const server = new Server();
    const model = await server.live([
      summary('iris', { workloads: { in_queue: 3, in_progress: 1, completed: 9, failed: 2, cancelled: 0 }, failed_hour: 2 }),
      summary('mood', { status: 'error', message: 'version 1 did not start: ImportError' })
    ]);
    render(<Apis model={model} commands={commandsOf().commands} />);
    const [iris, mood] = screen.getAllByRole('listitem');
    expect(iris.textContent).toContain('1 replica · 3 in queue · 1 in progress');
    expect(iris.textContent).toContain('2 failed in the last hour');
    expect(mood.textContent).toContain('ImportError');
  });

  it('does what its buttons say, with the API’s name', async () => {
    const server = new Server();
    const model = await server.live([summary('iris')]);
    const { commands, ran } = commandsOf(CommandIDs.openApi, CommandIDs.logs, CommandIDs.test, CommandIDs.refresh, CommandIDs.remove);
    render(<Apis model={model} commands={commands} />);
    for (const name of ['iris', 'Logs of iris', 'Test iris', 'Fresh replicas of iris, without a gap', 'Delete iris']) {
      fireEvent.click(screen.getByRole('button', { name }));
    }
    expect(ran.map(one => one.id)).toEqual([CommandIDs.openApi, CommandIDs.logs, CommandIDs.test, CommandIDs.refresh, CommandIDs.remove]);
    expect(ran.every(one => one.args.name === 'iris')).toBe(true);
  });

  it('teaches the next step where nothing is deployed', async () => {
    const server = new Server();
    render(<Apis model={await server.live([])} commands={commandsOf().commands} />);
    expect(screen.getByText('No APIs yet')).toBeTruthy();
  });

  it('offers to start a local environment that is down, and says why it did not start', async () => {
    const server = new Server();
    const model = await server.live([], { ...ENVIRONMENT, up: false, message: 'no local environment runs' });
    const commands = new CommandRegistry();
    commands.addCommand(CommandIDs.startEnvironment, { execute: () => model.startEnvironment() });
    server.on('POST environment/start', json({ code: 'environment_problem', title: 'It cannot run', detail: 'the disk is full', status: 503 }, 503));
    render(<Apis model={model} commands={commands} />);
    fireEvent.click(screen.getByRole('button', { name: 'Start the local environment' }));
    expect(await screen.findByText('the disk is full')).toBeTruthy();
    server.on('POST environment/start', json(ENVIRONMENT)).on('GET snapshot', json({ environment: ENVIRONMENT, apis: [summary('iris')], seq: {} }));
    fireEvent.click(screen.getByRole('button', { name: 'Start the local environment' }));
    expect(await screen.findByRole('button', { name: 'iris' })).toBeTruthy();
  });

  it('keeps the keyboard when the environment has started and the button that did it is gone', async () => {
    const server = new Server();
    const model = await server.live([], { ...ENVIRONMENT, up: false, message: 'no local environment runs' });
    const commands = new CommandRegistry();
    commands.addCommand(CommandIDs.startEnvironment, { execute: () => model.startEnvironment() });
    const { container } = render(<Apis model={model} commands={commands} />);
    let started: (answer: Response) => void = () => undefined;
    server.on('POST environment/start', () => new Promise<Response>(resolve => (started = resolve)));
    server.on('GET snapshot', json({ environment: ENVIRONMENT, apis: [summary('iris')], seq: {} }));
    const start = screen.getByRole('button', { name: 'Start the local environment' });
    start.focus();
    fireEvent.click(start);
    await screen.findByText('Starting…');
    expect(document.activeElement).toBe(start);
    started(json(ENVIRONMENT));
    await screen.findByRole('button', { name: 'iris' });
    await waitFor(() => expect(document.activeElement).toBe(container.querySelector('.cx-apis')));
  });

  it('shows what a frame changes, without being asked', async () => {
    const server = new Server();
    const model = await server.live([summary('iris')]);
    render(<Apis model={model} commands={commandsOf().commands} />);
    server.socket.say({ apis: [summary('mood')], gone: ['iris'] });
    expect(await screen.findByRole('button', { name: 'mood' })).toBeTruthy();
    expect(screen.queryByRole('button', { name: 'iris' })).toBeNull();
  });
});

describe('the API page', () => {
  it('says that an API is gone instead of showing an empty page', async () => {
    const server = new Server();
    render(<Shown model={await server.live([])} commands={commandsOf().commands} />);
    expect(screen.getByText('iris is not deployed')).toBeTruthy();
  });

  it('moves between its tabs with the arrows', async () => {
    const server = new Server().on('GET api/apis/iris/history', json(HISTORY)).on('GET api/apis/iris/workloads', json({ workloads: [], next: null, scanned: 0 }));
    render(<Shown model={await server.live([summary('iris')])} commands={commandsOf().commands} />);
    const bar = screen.getByRole('tablist', { name: 'API iris' });
    fireEvent.keyDown(within(bar).getByRole('tab', { name: 'Overview' }), { key: 'ArrowRight' });
    expect(within(bar).getByRole('tab', { name: 'Workloads' }).getAttribute('aria-selected')).toBe('true');
    expect(document.activeElement?.textContent).toBe('Workloads');
    fireEvent.keyDown(within(bar).getByRole('tab', { name: 'Workloads' }), { key: 'End' });
    expect(within(bar).getByRole('tab', { name: 'Test' }).getAttribute('aria-selected')).toBe('true');
  });

  it('shows a call through this server where the gateway is on a machine that the reader is not at', async () => {
    const server = new Server().on('GET api/apis/iris/history', json(HISTORY));
    const model = await server.live([summary('iris')], { ...ENVIRONMENT, hub: true });
    render(<Shown model={model} commands={commandsOf().commands} />);
    expect(screen.getByLabelText('the endpoint').textContent).toBe('http://localhost:8888/user/ada/cortex/run/iris');
    expect(screen.getByLabelText('the curl example').textContent).toContain('token $JUPYTER_TOKEN');
    expect(screen.getByText(/the API stops with the server/)).toBeTruthy();
  });
});

describe('the workloads', () => {
  const failed = workload('bad-1', 'failed', 2000);
  const details = { ...failed, result: null, failure: { traceback: 'File "handler.py", line 20 (cell 3, line 7), in handle_async' }, payload_kept: true };

  function serve(server: Server): Server {
    return server
      .on('GET api/apis/iris/workloads', json({ workloads: [failed, workload('good-1')], next: null, scanned: 2 }))
      .on('GET api/apis/iris/workloads/bad-1', json(details))
      .on('GET api/apis/iris/workloads/bad-1/logs', json({ records: [{ levelname: 'ERROR', message: '\u001b[31m<img src=x onerror=alert(1)>\u001b[0m', asctime: '2026-11-25 10:00:00,000' }], first: 0, total: 1 }))
      .on('GET api/apis/iris/workloads/bad-1/payload', new Response('{"petal": "<script>alert(1)</script>"}', { headers: { 'x-payload-content-type': 'application/json' } }))
      .on('GET api/apis/iris/deployments/1/module', json({ path: 'handler.py', source: '', reasons: [], notebook: 'iris.ipynb', cells: { 'cell 3': 'id-3' } }));
  }

  it('are walked with the arrows and opened with Enter', async () => {
    const server = serve(new Server());
    render(<Shown model={await server.live([summary('iris')])} commands={commandsOf().commands} tab="workloads" />);
    const grid = await screen.findByRole('grid', { name: 'Workloads' });
    await waitFor(() => expect(within(grid).getAllByRole('row')).toHaveLength(3));
    fireEvent.keyDown(grid, { key: 'ArrowDown' });
    expect(grid.getAttribute('aria-activedescendant')).toBe('cx-row-bad-1');
    fireEvent.keyDown(grid, { key: 'Enter' });
    const inspector = await screen.findByRole('region', { name: 'Workload bad-1' });
    expect(document.activeElement?.tagName).toBe('H3');
    fireEvent.keyDown(inspector, { key: 'Escape' });
    await waitFor(() => expect(screen.queryByRole('region', { name: 'Workload bad-1' })).toBeNull());
    expect(document.activeElement).toBe(grid);
  });

  it('show numbers that are longer than a browser’s own as they were written, also when they are copied', async () => {
    const details = JSON.stringify({ ...workload('long-1'), result: { id: 0 }, payload_kept: true, failure: null });
    const long = '1234567890123456789';
    const copied: string[] = [];
    vi.stubGlobal('navigator', { ...navigator, clipboard: { writeText: async (text: string) => void copied.push(text) } });
    const server = serve(new Server())
      .on('GET api/apis/iris/workloads/long-1', new Response(details.replace('"id":0', `"id":${long}`), { headers: { 'content-type': 'application/json' } }))
      .on('GET api/apis/iris/workloads/long-1/logs', json({ records: [], first: 0, total: 0 }))
      .on('GET api/apis/iris/workloads/long-1/payload', new Response(`{"of": ${long}1}`, { headers: { 'x-payload-content-type': 'application/json' } }));
    render(<Shown model={await server.live([summary('iris')])} commands={commandsOf().commands} tab="workloads" workload="long-1" />);
    expect(await screen.findByText(`${long}n`)).toBeTruthy();
    expect(await screen.findByText(`${long}1n`)).toBeTruthy();
    expect(screen.getAllByText(/its digits are exact/)).toHaveLength(2);
    fireEvent.click(screen.getByRole('button', { name: 'Copy the result' }));
    await waitFor(() => expect(copied).toEqual([`{\n  "id": ${long}\n}`]));
    vi.unstubAllGlobals();
  });

  it('appear and end as the stream says, without a reload', async () => {
    const server = serve(new Server());
    render(<Shown model={await server.live([summary('iris')])} commands={commandsOf().commands} tab="workloads" />);
    await screen.findByText('good-1');
    const move = (status: any) => server.socket.say({ changes: { iris: { seq: '9-0', moves: {}, workloads: [workload('fresh', status, 9000)], more: 0, gap: false } } });
    move('in_queue');
    const row = (await screen.findByText('fresh')).closest('[role=row]')!;
    expect(row.textContent).toContain('in queue');
    move('completed');
    await waitFor(() => expect(screen.getByText('fresh').closest('[role=row]')!.textContent).toContain('completed'));
  });

  it('are asked for again after a burst that one frame does not hold', async () => {
    const server = serve(new Server());
    render(<Shown model={await server.live([summary('iris')])} commands={commandsOf().commands} tab="workloads" />);
    await screen.findByText('good-1');
    server.on('GET api/apis/iris/workloads', json({ workloads: [workload('left-out')], next: null, scanned: 1 }));
    server.socket.say({ changes: { iris: { seq: '9-0', moves: {}, workloads: [], more: 700, gap: false } } });
    expect(await screen.findByText('left-out', {}, { timeout: 3000 })).toBeTruthy();
    expect(screen.getByText('good-1')).toBeTruthy();
  });

  it('are loaded anew after a gap', async () => {
    const server = serve(new Server());
    render(<Shown model={await server.live([summary('iris')])} commands={commandsOf().commands} tab="workloads" />);
    await screen.findByText('good-1');
    server.on('GET api/apis/iris/workloads', json({ workloads: [workload('later')], next: null, scanned: 1 }));
    server.socket.say({ changes: { iris: { seq: '9-0', moves: {}, workloads: [], more: 0, gap: true } } });
    expect(await screen.findByText('later')).toBeTruthy();
  });

  it('lead from a traceback to the cell of the notebook that it was', async () => {
    const server = serve(new Server());
    const { commands, ran } = commandsOf(CommandIDs.openCell);
    render(<Shown model={await server.live([summary('iris')])} commands={commands} tab="workloads" workload="bad-1" />);
    fireEvent.click(await screen.findByRole('button', { name: 'cell 3, line 7' }));
    expect(ran[0].args).toMatchObject({ path: 'iris.ipynb', cell: 'cell 3', line: 7, ids: { 'cell 3': 'id-3' } });
  });

  it('show hostile payloads and log lines as text', async () => {
    const server = serve(new Server());
    const { container } = render(<Shown model={await server.live([summary('iris')])} commands={commandsOf().commands} tab="workloads" workload="bad-1" />);
    expect(await screen.findByText(/<script>alert\(1\)<\/script>/)).toBeTruthy();
    expect(await screen.findByText('<img src=x onerror=alert(1)>')).toBeTruthy();
    expect(container.querySelector('img, script')).toBeNull();
  });

  it('show how far a running one is as its handler says it, without loading it again, and can be cancelled', async () => {
    const running = { ...workload('run-1', 'in_progress'), result: null, failure: null, payload_kept: false, progress: { fraction: 0.25, text: 'decoding', at: 1 }, partial: { lines: 3 } };
    const server = serve(new Server())
      .on('GET api/apis/iris/workloads/run-1', json(running))
      .on('GET api/apis/iris/workloads/run-1/logs', json({ records: [], first: 0, total: 0 }))
      .on('DELETE run/iris/run-1', json({ id: 'run-1', status: 'cancelled' }));
    render(<Shown model={await server.live([summary('iris')])} commands={commandsOf().commands} tab="workloads" workload="run-1" />);
    const bar = await screen.findByRole('group', { name: 'Progress' });
    expect(bar.textContent).toContain('25 % decoding');
    expect(screen.getByRole('group', { name: 'Result so far' }).textContent).toContain('lines');
    const loads = () => server.asked.filter(one => one.path.startsWith('api/apis/iris/workloads/run-1?')).length;
    const before = loads();
    const row = { ...workload('run-1', 'in_progress'), progress: { fraction: 0.5, text: 'scoring', at: 2 } };
    server.socket.say({ changes: { iris: { seq: '9-0', moves: { progress: 1 }, workloads: [row], more: 0, gap: false } } });
    await waitFor(() => expect(screen.getByRole('group', { name: 'Progress' }).textContent).toContain('50 % scoring'));
    expect((screen.getByRole('progressbar') as HTMLProgressElement).value).toBe(0.5);
    expect(loads()).toBe(before);
    server.on('GET api/apis/iris/workloads/run-1', json({ ...running, ...workload('run-1', 'cancelled') }));
    fireEvent.click(screen.getByRole('button', { name: 'Cancel this workload' }));
    await waitFor(() => expect(server.asked.some(one => one.method === 'DELETE')).toBe(true));
    await waitFor(() => expect(screen.queryByRole('group', { name: 'Progress' })).toBeNull());
    expect(screen.queryByRole('button', { name: 'Cancel this workload' })).toBeNull();
  });

  it('link to the notebook that was executed, where there is one', async () => {
    const done = { ...workload('run-2', 'failed'), failure: null, payload_kept: false, notebook: 2048 };
    const server = serve(new Server())
      .on('GET api/apis/iris/workloads/run-2', json(done))
      .on('GET api/apis/iris/workloads/run-2/logs', json({ records: [] }));
    render(<Shown model={await server.live([summary('iris')])} commands={commandsOf().commands} tab="workloads" workload="run-2" />);
    const page = await screen.findByRole('link', { name: 'Show the executed notebook as a page' });
    expect(page.getAttribute('href')).toMatch(/cortex\/api\/apis\/iris\/workloads\/run-2\/notebook\.html$/);
    expect(page.getAttribute('rel')).toContain('noopener');
    expect(screen.getByRole('link', { name: 'Download the executed notebook' }).getAttribute('download')).toBe('run-2.ipynb');
  });

  it('show the lines of a running one as they come, and leave a reader of older ones where he is', async () => {
    const running = { ...workload('run-1', 'in_progress'), result: null, failure: null, payload_kept: false };
    let total = 300;
    const server = serve(new Server()).on('GET api/apis/iris/workloads/run-1', json(running));
    server.on('GET api/apis/iris/workloads/run-1/logs', () => {
      const first = Math.max(0, total - 200);
      return json({ records: Array.from({ length: total - first }, (_, at) => ({ message: `step ${first + at}` })), first, total });
    });
    const scrolled = vi.spyOn(Element.prototype, 'scrollTo');
    render(<Shown model={await server.live([summary('iris')])} commands={commandsOf().commands} tab="workloads" workload="run-1" />);
    expect(await screen.findByText('300 lines')).toBeTruthy();
    total = 301;
    expect(await screen.findByText('301 lines', {}, { timeout: 5000 })).toBeTruthy();
    expect(scrolled).toHaveBeenCalled();
    const log = screen.getByRole('table', { name: "This workload's log" });
    scrollTo(log, 100);
    total = 302;
    expect(await screen.findByText('302 lines', {}, { timeout: 5000 })).toBeTruthy();
    // The scrolling to the end of before has come to its end by now.
    scrolled.mockClear();
    total = 303;
    expect(await screen.findByText('303 lines', {}, { timeout: 5000 })).toBeTruthy();
    expect(scrolled).not.toHaveBeenCalled();
    scrolled.mockRestore();
    server.on('GET api/apis/iris/workloads/run-1', json({ ...running, ...workload('run-1', 'completed'), finished: 2000 }));
    server.socket.say({ changes: { iris: { seq: '9-0', moves: {}, workloads: [workload('run-1')], more: 0, gap: false } } });
    await waitFor(() => expect(screen.getByRole('region', { name: 'Workload run-1' }).textContent).toContain('completed'));
  });

  it('draw a long log from its end, fetch what is scrolled to, and search in all of it', async () => {
    const server = serve(new Server());
    const asked: Record<string, string>[] = [];
    server.on('GET api/apis/iris/workloads/bad-1/logs', () => {
      const { limit, first, q = '' } = Object.fromEntries(new URLSearchParams(server.asked.at(-1)!.path.split('?')[1])) as Record<string, string>;
      asked.push({ limit, first, q });
      const all = Array.from({ length: 10_000 }, (_, at) => `line ${at}`).filter(one => one.includes(q));
      const begin = first === undefined ? Math.max(0, all.length - Number(limit)) : Number(first);
      const records = all.slice(begin, begin + Number(limit)).map(message => ({ levelname: 'INFO', message, asctime: '2026-11-25 10:00:00,000' }));
      return json({ records, first: begin, total: all.length });
    });
    render(<Shown model={await server.live([summary('iris')])} commands={commandsOf().commands} tab="workloads" workload="bad-1" />);
    const log = await screen.findByRole('table', { name: "This workload's log" });
    expect(await within(log).findByText('line 9999')).toBeTruthy();
    expect(log.getAttribute('aria-rowcount')).toBe('10000');
    expect(within(log).getAllByRole('row').length).toBeLessThan(100);
    expect(asked).toEqual([{ limit: '200', first: undefined, q: '' }]);
    log.scrollTop = 5000 * 20;
    fireEvent.scroll(log);
    expect(await within(log).findByText('line 5000')).toBeTruthy();
    expect(asked.slice(1).map(one => one.first)).toContain('5000');
    expect(asked.length).toBeLessThan(5);
    fireEvent.change(screen.getByRole('searchbox', { name: "Search this workload's log" }), { target: { value: 'line 77' } });
    expect(await screen.findByText('111 found')).toBeTruthy();
    expect(within(screen.getByRole('table', { name: "This workload's log" })).getByText('line 7799')).toBeTruthy();
  });

  it('say why a log cannot be shown, and ask again', async () => {
    const server = serve(new Server()).on('GET api/apis/iris/workloads/bad-1/logs', json({ title: 'The store is away', status: 503, detail: 'the store does not answer', code: 'store_unavailable' }, 503));
    render(<Shown model={await server.live([summary('iris')])} commands={commandsOf().commands} tab="workloads" workload="bad-1" />);
    const log = await screen.findByRole('group', { name: 'Log' });
    expect(await within(log).findByText('the store does not answer')).toBeTruthy();
    server.on('GET api/apis/iris/workloads/bad-1/logs', json({ records: [{ message: 'here again' }], first: 0, total: 1 }));
    fireEvent.click(within(log).getByRole('button', { name: 'Try again' }));
    expect(await within(log).findByText('here again')).toBeTruthy();
  });

  it('draw a picture only of the types that hold no scripts', async () => {
    const { waysOf } = await import('../src/inspector');
    const bytes = new TextEncoder().encode('<svg onload="alert(1)"/>');
    expect(waysOf({ contentType: 'image/svg+xml', bytes })).toEqual(['text', 'hex']);
    expect(waysOf({ contentType: 'image/png', bytes: new Uint8Array([0x89, 0x50, 0, 1]) })).toEqual(['image', 'hex']);
  });

  it('are searched page after page until one is found, and meanwhile nobody says that there is none', async () => {
    const server = new Server().on('GET api/apis/iris/workloads', json({ workloads: [workload('good-1')], next: null, scanned: 1 }));
    render(<Shown model={await server.live([summary('iris')])} commands={commandsOf().commands} tab="workloads" />);
    await screen.findByText('good-1');
    const answers: ((answer: Response) => void)[] = [];
    server.on('GET api/apis/iris/workloads', () => new Promise<Response>(resolve => answers.push(resolve)));
    fireEvent.change(screen.getByRole('searchbox'), { target: { value: 'deep-1' } });
    for (const page of [1, 2, 3]) {
      await waitFor(() => expect(answers).toHaveLength(page));
      expect(screen.queryByText('Nothing matches')).toBeNull();
      answers[page - 1](json({ workloads: [], next: `c${page}`, scanned: 20_000 }));
      expect(await screen.findByText(`0+ shown, ${page * 2}0,000 looked at`)).toBeTruthy();
    }
    await waitFor(() => expect(answers).toHaveLength(4));
    expect(server.asked.at(-1)!.path).toContain('cursor=c3');
    answers[3](json({ workloads: [workload('deep-1')], next: null, scanned: 5 }));
    expect(await screen.findByText('deep-1')).toBeTruthy();
    expect(screen.getByText('1 shown')).toBeTruthy();
  });

  it('are asked for no further once the filter has changed', async () => {
    const server = new Server().on('GET api/apis/iris/workloads', json({ workloads: [], next: null, scanned: 0 }));
    render(<Shown model={await server.live([summary('iris')])} commands={commandsOf().commands} tab="workloads" />);
    await screen.findByText('No requests yet');
    const answers: ((answer: Response) => void)[] = [];
    server.on('GET api/apis/iris/workloads', () => new Promise<Response>(resolve => answers.push(resolve)));
    fireEvent.change(screen.getByRole('searchbox'), { target: { value: 'one' } });
    await waitFor(() => expect(answers).toHaveLength(1));
    fireEvent.change(screen.getByRole('searchbox'), { target: { value: 'two' } });
    answers[0](json({ workloads: [], next: 'of-one', scanned: 20_000 }));
    await waitFor(() => expect(answers).toHaveLength(2));
    answers[1](json({ workloads: [], next: null, scanned: 20_000 }));
    expect(await screen.findByText('Nothing matches')).toBeTruthy();
    expect(server.asked.some(one => one.path.includes('of-one'))).toBe(false);
  });

  it('say in the table why nothing is there: no request yet, or none that matches', async () => {
    const server = new Server().on('GET api/apis/iris/workloads', json({ workloads: [], next: null, scanned: 0 }));
    render(<Shown model={await server.live([summary('iris')])} commands={commandsOf().commands} tab="workloads" />);
    expect(await screen.findByText('No requests yet')).toBeTruthy();
    fireEvent.change(screen.getByRole('searchbox'), { target: { value: 'nope' } });
    expect(await screen.findByText('Nothing matches')).toBeTruthy();
  });
});

/** A box as a browser lays it out: jsdom gives no content a height. */
function scrollTo(box: HTMLElement, scrollTop: number, scrollHeight = 10_000): void {
  Object.defineProperties(box, { scrollHeight: { configurable: true, value: scrollHeight }, clientHeight: { configurable: true, value: 600 } });
  box.scrollTop = scrollTop;
  fireEvent.scroll(box);
}

describe('the logs', () => {
  it('show when a line was written as the page’s other times, with date and offset', async () => {
    const at = Date.UTC(2026, 10, 25, 23, 30, 7, 120);
    const line = { message: 'far away', levelname: 'INFO', asctime: '2026-11-25 15:30:07,120', request_id: 'bad-1', at: 'the author’s own' };
    const server = new Server()
      .on('GET api/apis/iris/logs/tail', json({ records: [line], times: [at], position: '5-0' }))
      .on('GET api/apis/iris/workloads', json({ workloads: [], next: null, scanned: 0 }))
      .on('GET api/apis/iris/workloads/bad-1', json({ ...workload('bad-1'), result: null, failure: null, payload_kept: false }))
      .on('GET api/apis/iris/workloads/bad-1/logs', json({ records: [line], times: [at], first: 0, total: 1 }));
    render(<Shown model={await server.live([summary('iris')])} commands={commandsOf().commands} tab="logs" />);
    const shown = await screen.findByTitle(localTime(at));
    expect(shown.textContent).toBe(localTime(at).slice(11, 23));
    expect(screen.getByText('the author’s own')).toBeTruthy();
    server.socket.say({ logs: { iris: { position: '6-0', records: [{ ...line, message: 'later' }], times: [at + 1000], gap: false } } });
    expect((await screen.findByTitle(localTime(at + 1000))).textContent).toContain(':08.120');
    fireEvent.click(screen.getAllByRole('button', { name: 'Open workload bad-1' })[0]);
    expect(await screen.findByTitle(localTime(at))).toBeTruthy();
  });

  const numbered = (from: number, to: number) => Array.from({ length: to - from }, (_, at) => ({ message: `line ${from + at}`, levelname: 'INFO' }));

  it('are looked through by the server where not all that is kept is here, and followed meanwhile', async () => {
    const server = new Server().on('GET api/apis/iris/logs/tail', json({ records: numbered(500, 1500), position: '5-0' }));
    render(<Shown model={await server.live([summary('iris')])} commands={commandsOf().commands} tab="logs" />);
    expect(await screen.findByText('the newest 1,000 lines')).toBeTruthy();
    const answers: ((answer: Response) => void)[] = [];
    server.on('GET api/apis/iris/logs/tail', () => new Promise<Response>(resolve => answers.push(resolve)));
    fireEvent.change(screen.getByRole('searchbox', { name: 'Search the log' }), { target: { value: 'Line 49' } });
    expect(await screen.findByText('Searching…')).toBeTruthy();
    await waitFor(() => expect(answers).toHaveLength(1));
    expect(server.asked.at(-1)!.path).toMatch(/q=Line(%20|\+)49\b/);
    answers[0](json({ records: [...numbered(49, 50), ...numbered(490, 500)], position: '7-0' }));
    expect(await screen.findByText('11 found')).toBeTruthy();
    expect(screen.queryByRole('button', { name: 'Load older' })).toBeNull();
    server.socket.say({ logs: { iris: { position: '8-0', records: [{ message: 'another' }, { message: 'line 4900' }], times: [1, 2], gap: false } } });
    expect(await screen.findByText('12 found')).toBeTruthy();
    fireEvent.change(screen.getByRole('combobox'), { target: { value: '3' } });
    await waitFor(() => expect(answers).toHaveLength(2));
    expect(server.asked.at(-1)!.path).toContain('level=ERROR');
    answers[1](json({ records: [], position: '9-0' }));
    expect(await screen.findByText('Nothing matches')).toBeTruthy();
    expect(screen.queryByText('Nothing logged yet')).toBeNull();
  });

  it('are looked through here where all that is kept is here, and older ones are loaded', async () => {
    const server = new Server().on('GET api/apis/iris/logs/tail', json({ records: numbered(500, 1500), position: '5-0' }));
    render(<Shown model={await server.live([summary('iris')])} commands={commandsOf().commands} tab="logs" />);
    expect(await screen.findByText('the newest 1,000 lines')).toBeTruthy();
    server.on('GET api/apis/iris/logs/tail', json({ records: numbered(0, 1500), position: '5-0' }));
    fireEvent.click(screen.getByRole('button', { name: 'Load older' }));
    expect(await screen.findByText('1,500 lines')).toBeTruthy();
    expect(server.asked.at(-1)!.path).toContain('lines=10000');
    expect(screen.queryByRole('button', { name: 'Load older' })).toBeNull();
    const asked = server.asked.length;
    fireEvent.change(screen.getByRole('searchbox', { name: 'Search the log' }), { target: { value: 'line 499' } });
    expect(await screen.findByText('1 of 1,500 lines')).toBeTruthy();
    fireEvent.change(screen.getByRole('searchbox', { name: 'Search the log' }), { target: { value: 'line 4990' } });
    expect(await screen.findByText('Nothing matches')).toBeTruthy();
    expect(server.asked).toHaveLength(asked);
  });

  it('are followed no longer once the reader goes away from the end, by whatever, and again when he is back', async () => {
    const server = new Server().on('GET api/apis/iris/logs/tail', json({ records: [{ message: 'begun' }], position: '5-0' }));
    render(<Shown model={await server.live([summary('iris')])} commands={commandsOf().commands} tab="logs" />);
    const box = await screen.findByRole('log');
    const follow = screen.getByRole('checkbox', { name: 'Follow' }) as HTMLInputElement;
    scrollTo(box, 9400);
    // The text has grown, and the end is followed a moment later.
    scrollTo(box, 9400, 12_000);
    expect(follow.checked).toBe(true);
    scrollTo(box, 11_400, 12_000);
    scrollTo(box, 9000, 12_000);
    expect(follow.checked).toBe(false);
    scrollTo(box, 10_000, 12_000);
    expect(follow.checked).toBe(false);
    scrollTo(box, 11_390, 12_000);
    expect(follow.checked).toBe(true);
  });

  it('follow the stream, are filtered by level and text, and lead to the workload', async () => {
    const line = (message: string, levelname: string, request_id = '') => ({ message, levelname, request_id, asctime: '2026-11-25 10:00:00,000' });
    const server = new Server()
      .on('GET api/apis/iris/logs/tail', json({ records: [line('begun', 'INFO')], position: '5-0' }))
      .on('GET api/apis/iris/workloads', json({ workloads: [], next: null, scanned: 0 }));
    const model = await server.live([summary('iris')]);
    const { commands, ran } = commandsOf(CommandIDs.openCell);
    render(<Shown model={model} commands={commands} tab="logs" />);
    await screen.findByText('begun');
    await waitFor(() => expect(server.socket.sent.at(-1)).toMatchObject({ logs: { iris: '5-0' } }));
    server.socket.say({ logs: { iris: { position: '6-0', records: [line('boom', 'ERROR', 'req-12345678')], gap: false } } });
    expect(await screen.findByText('boom')).toBeTruthy();
    server.on('GET api/apis/iris/deployments/3/module', json({ path: 'handler.py', source: '', reasons: [], notebook: 'iris.ipynb', cells: { 'cell 2': 'id-2' } }));
    server.socket.say({ logs: { iris: { position: '7-0', records: [{ ...line('at (cell 2, line 9)', 'ERROR'), replica: 'iris-v3-ab12' }], gap: false } } });
    fireEvent.click(await screen.findByRole('button', { name: 'cell 2, line 9' }));
    await waitFor(() => expect(ran[0]?.args).toMatchObject({ path: 'iris.ipynb', cell: 'cell 2', line: 9, ids: { 'cell 2': 'id-2' } }));
    fireEvent.change(screen.getByRole('combobox'), { target: { value: '3' } });
    expect(screen.queryByText('begun')).toBeNull();
    fireEvent.click(screen.getByRole('button', { name: 'Open workload req-12345678' }));
    await waitFor(() => expect(server.socket.sent.at(-1).logs).toEqual({}));
    expect(await screen.findByRole('region', { name: 'Workload req-12345678' })).toBeTruthy();
  });

  it('are loaded anew where everything may have changed', async () => {
    const server = new Server().on('GET api/apis/iris/logs/tail', json({ records: [{ message: 'of this one' }], position: '5-0' }));
    const model = await server.live([summary('iris')]);
    render(<Shown model={model} commands={commandsOf().commands} tab="logs" />);
    await screen.findByText('of this one');
    server.on('GET api/apis/iris/logs/tail', json({ records: [{ message: 'of another' }], position: '5-0' }));
    await act(() => model.load());
    expect(await screen.findByText('of another')).toBeTruthy();
    expect(screen.queryByText('of this one')).toBeNull();
  });
});

describe('the versions', () => {
  const version = (number: number, state: string, more: object = {}) => ({ version: number, state, digest: 'd'.repeat(64), source: 'ada@host:/iris.ipynb', python_version: '3.12', interpreter: 'python', error: {}, spec: {}, times: { created: 1000, live_at: 2000 }, ...more });

  it('can be made live again where they served and do not serve now', async () => {
    const rows = [version(4, 'live', { rollback: { to: 1 } }), version(3, 'failed', { times: { created: 1000 } }), version(2, 'stopped'), version(1, 'stopped')];
    const server = new Server().on('GET api/apis/iris', json({ ...summary('iris', { live: 4 }), api_versions: rows }));
    for (const one of [3, 4]) {
      server.on(`GET api/apis/iris/deployments/${one}/module`, json({ path: 'handler.py', source: 'x', reasons: [], notebook: '', cells: {} }));
    }
    const { commands, ran } = commandsOf(CommandIDs.rollback);
    render(<Shown model={await server.live([summary('iris', { live: 4 })])} commands={commands} tab="versions" />);
    const buttons = await screen.findAllByRole('button', { name: /live again/ });
    expect(buttons.map(one => one.getAttribute('aria-label'))).toEqual(['Make version 2 live again']);
    expect(screen.getByText('a rollback to 1')).toBeTruthy();
    fireEvent.click(buttons[0]);
    expect(ran[0].args).toEqual({ name: 'iris', version: 2 });
  });
});

describe('the Test tab', () => {
  it('sends what stands in the form and follows it to its result', async () => {
    const server = new Server().on('POST run/iris', json({ id: 'w1' }));
    server.on('GET api/apis/iris/workloads/w1', json({ ...workload('w1', 'in_queue'), result: null, failure: null, payload_kept: true }));
    const model = await server.live([summary('iris')]);
    render(<Shown model={model} commands={commandsOf().commands} tab="test" />);
    fireEvent.change(screen.getByLabelText('Body'), { target: { value: '{"petal": 1}' } });
    fireEvent.click(screen.getByRole('button', { name: 'Send' }));
    expect((await screen.findByRole('article', { name: 'Request w1' })).textContent).toContain('in queue');
    expect(server.asked.find(one => one.method === 'POST')!.body).toBe('{"petal": 1}');
    server.on('GET api/apis/iris/workloads/w1', json({ ...workload('w1'), result: { label: 'setosa' }, failure: null, payload_kept: false }));
    server.socket.say({ changes: { iris: { seq: '9-0', moves: {}, workloads: [workload('w1')], more: 0, gap: false } } });
    expect(await screen.findByText('"setosa"')).toBeTruthy();
    // A look at the log on the way takes neither the form nor the answers away.
    server.on('GET api/apis/iris/logs/tail', json({ records: [], position: '5-0' }));
    fireEvent.click(screen.getByRole('tab', { name: 'Logs' }));
    expect(await screen.findByText('Nothing logged yet')).toBeTruthy();
    expect(screen.queryByRole('button', { name: 'Send' })).toBeNull();
    fireEvent.click(screen.getByRole('tab', { name: 'Test' }));
    expect((screen.getByLabelText('Body') as HTMLTextAreaElement).value).toBe('{"petal": 1}');
    expect(screen.getByText('"setosa"')).toBeTruthy();
  });

  it('leaves the keyboard on Send while it sends, once', async () => {
    const server = new Server().on('POST run/iris', () => new Promise<Response>(() => undefined));
    render(<Shown model={await server.live([summary('iris')])} commands={commandsOf().commands} tab="test" />);
    const send = screen.getByRole('button', { name: 'Send' });
    send.focus();
    fireEvent.click(send);
    await screen.findByText('Sending…');
    fireEvent.click(send);
    // From what is disabled in its own way a browser takes the keyboard.
    expect((send as HTMLButtonElement).disabled).toBe(false);
    expect(document.activeElement).toBe(send);
    expect(server.asked.filter(one => one.method === 'POST')).toHaveLength(1);
  });

  it('shows why the gateway refused a payload', async () => {
    const server = new Server().on('POST run/iris', json({ code: 'invalid_payload', title: 'The payload cannot be parsed', detail: 'the body is not valid JSON', status: 400 }, 400));
    render(<Shown model={await server.live([summary('iris')])} commands={commandsOf().commands} tab="test" />);
    fireEvent.click(screen.getByRole('button', { name: 'Send' }));
    expect(await screen.findByText('the body is not valid JSON')).toBeTruthy();
  });
});

describe('the status item', () => {
  it('counts the APIs and those that fail', async () => {
    const server = new Server();
    expect(statusOf(await server.live([summary('a'), summary('b', { failed_hour: 1 })]))).toBe('2 APIs, 1 failing');
    expect(statusOf(await new Server().live([]))).toBe('');
  });
});

vi.setConfig({ testTimeout: 20_000 });
