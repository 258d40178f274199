import { afterEach, describe, expect, it, vi } from 'vitest';

import type { IChange } from '../src/model';
import { ENVIRONMENT, json, Server, summary, until, workload } from './server';

afterEach(() => {
  vi.useRealTimers();
});

describe('the model', () => {
  it('asks nothing until somebody looks', async () => {
    const server = new Server();
    const model = server.model();
    expect(model.connection).toBe('idle');
    expect(server.asked).toHaveLength(0);
  });

  it('has one snapshot and one stream, however many views look', async () => {
    const server = new Server();
    const model = await server.live([summary('iris')]);
    model.start();
    model.start();
    expect(server.asked).toHaveLength(1);
    expect(server.sockets).toHaveLength(1);
    expect(server.socket.sent[0]).toMatchObject({ events: { iris: '1-0' }, logs: {} });
  });

  it('keeps what deltas say: new, changed and gone APIs', async () => {
    const server = new Server();
    const model = await server.live([summary('iris'), summary('mood')]);
    server.socket.say({ apis: [summary('iris', { status: 'error', message: 'boom' }), summary('new')], gone: ['mood'] });
    expect(model.apis.map(api => api.name)).toEqual(['iris', 'new']);
    expect(model.api('iris')!.status).toBe('error');
  });

  it('keeps the minutes of the last hour for the sparkline', async () => {
    const server = new Server();
    const at = (minute: number, accepted: number) => ({ minute: minute * 60, accepted, completed: 0, failed: 0, cancelled: 0 });
    const model = await server.live([summary('iris', { recent: [at(100, 7), at(159, 3)], minute: at(159, 3) })]);
    server.socket.say({ apis: [summary('iris', { minute: at(159, 5) })] });
    server.socket.say({ apis: [summary('iris', { minute: at(161, 1) })] });
    expect(model.api('iris')!.recent!.map(row => row.accepted)).toEqual([5, 1]);
  });

  it('goes on behind the last sequence number after a lost connection', async () => {
    const server = new Server();
    const model = await server.live([summary('iris')]);
    server.socket.say({ changes: { iris: { seq: '7-0', moves: {}, workloads: [], more: 0, gap: false } } });
    server.socket.break();
    expect(model.connection).toBe('lost');
    await until(() => server.sockets.length === 2, 'a second socket');
    server.socket.open();
    expect(server.socket.sent[0].events).toEqual({ iris: '7-0' });
    expect(model.connection).toBe('live');
  });

  it('has the minutes in which the connection was lost, and no API that went meanwhile', async () => {
    const server = new Server();
    const at = (minute: number, accepted: number) => ({ minute: minute * 60, accepted, completed: 0, failed: 0, cancelled: 0 });
    const model = await server.live([summary('iris', { recent: [at(100, 7)], minute: at(100, 7) }), summary('mood')]);
    const apis = [summary('iris', { recent: [at(100, 9), at(101, 40), at(102, 2)], minute: at(102, 2) })];
    server.on('GET snapshot', json({ environment: ENVIRONMENT, apis, seq: { iris: '99-0' } }));
    server.socket.break();
    await until(() => server.sockets.length === 2, 'a second socket');
    server.socket.open();
    expect(model.api('iris')!.recent!.map(row => row.accepted)).toEqual([9, 40, 2]);
    expect(model.apis).toHaveLength(1);
    // What moved is told from where this page was, not from where the snapshot is.
    expect(server.socket.sent[0].events.iris).toBe('1-0');
  });

  it('waits longer after each failed attempt, and starts anew at once when the network is back', async () => {
    const server = new Server();
    const model = await server.live([summary('iris')]);
    vi.useFakeTimers();
    let down = true;
    server.on('GET snapshot', () => {
      if (down) {
        throw new TypeError('Failed to fetch');
      }
      return json({ environment: ENVIRONMENT, apis: [summary('iris')], seq: {} });
    });
    const before = server.asked.length;
    server.socket.break();
    await vi.advanceTimersByTimeAsync(30_000);
    const attempts = server.asked.length - before;
    expect(attempts).toBeGreaterThan(2);
    expect(attempts).toBeLessThan(9);
    expect(model.problem!.code).toBe('server_unreachable');
    down = false;
    window.dispatchEvent(new Event('online'));
    await vi.advanceTimersByTimeAsync(10);
    expect(server.sockets).toHaveLength(2);
  });

  it('tells a missing extension from a lost server', async () => {
    const server = new Server().on('GET snapshot', new Response('no', { status: 404 }));
    const model = server.model();
    model.start();
    await until(() => model.connection === 'missing');
    expect(model.problem!.detail).toContain('pip install');
    model.dispose();
  });

  it('follows an environment that goes down and comes back without a reload', async () => {
    const server = new Server();
    const model = await server.live([summary('iris')]);
    server.socket.say({ environment: { ...ENVIRONMENT, up: false, message: 'the gateway does not answer' } });
    expect(model.connection).toBe('down');
    expect(model.apis).toHaveLength(1);
    server.socket.say({ environment: ENVIRONMENT });
    expect(model.connection).toBe('live');
  });

  it('subscribes to a log while somebody follows it, and no longer', async () => {
    const server = new Server();
    const model = await server.live([summary('iris')]);
    const one = model.followLogs('iris', '5-0');
    const two = model.followLogs('iris', '6-0');
    expect(server.socket.sent.at(-1).logs).toEqual({ iris: '6-0' });
    one.dispose();
    expect(server.socket.sent.at(-1).logs).toEqual({ iris: '6-0' });
    two.dispose();
    expect(server.socket.sent.at(-1).logs).toEqual({});
  });

  it('lets the server go on with the logs that it tells already when another one is followed', async () => {
    const server = new Server();
    const model = await server.live([summary('iris'), summary('mood')]);
    model.followLogs('iris', '5-0');
    model.followLogs('mood', '8-0');
    // Lines of iris may be on their way: its position as we know it would have them told twice.
    expect(server.socket.sent.at(-1).logs).toEqual({ iris: null, mood: '8-0' });
  });

  it('leaves out lines that were on their way when their log was followed anew: they come again', async () => {
    const server = new Server();
    const model = await server.live([summary('iris')]);
    const told: unknown[] = [];
    model.changed.connect((_, change) => told.push(...(change.logs?.iris?.records ?? [])));
    const batch = (position: string, message: string) => ({ iris: { position, records: [{ message }], gap: false } });
    const first = model.followLogs('iris', '5-0');
    const { turn } = server.socket.sent.at(-1);
    first.dispose();
    model.followLogs('iris', '7-0');
    server.socket.say({ turn, logs: batch('8-0', 'eighth') });
    server.socket.say({ logs: batch('8-0', 'eighth') });
    expect(told).toEqual([{ message: 'eighth' }]);
  });

  it('starts anew where the server has come back with another environment', async () => {
    const other = { ...ENVIRONMENT, name: 'team', url: 'https://team.example', local: false };
    const server = new Server();
    const model = await server.live([summary('iris')]);
    model.followLogs('iris', '5-0');
    const resets: boolean[] = [];
    model.changed.connect((_, change) => resets.push(!!change.reset));
    server.on('GET snapshot', json({ environment: other, apis: [summary('iris', { live: 9 })], seq: { iris: '900-0' } }));
    server.socket.break();
    await until(() => server.sockets.length === 2, 'a second socket');
    server.socket.open();
    expect(model.api('iris')!.live).toBe(9);
    expect(resets.at(-1)).toBe(true);
    // The first one's positions mean nothing to the second.
    expect(server.socket.sent[0]).toMatchObject({ events: { iris: '900-0' }, logs: { iris: '$' } });
  });

  it('starts anew also where the other environment was first heard of as down', async () => {
    const other = { ...ENVIRONMENT, name: 'team', url: 'https://team.example', local: false };
    const server = new Server();
    const model = await server.live([summary('iris')]);
    server.on('GET snapshot', json({ environment: other, apis: [], seq: {} }));
    server.socket.say({ environment: { ...other, up: false } });
    server.socket.break();
    await until(() => server.sockets.length === 2, 'a second socket');
    expect(model.apis).toEqual([]);
  });

  it('lets a view know that it must load anew, however old the frame is that says so', async () => {
    const server = new Server();
    const model = await server.live([summary('iris')]);
    const gaps: unknown[] = [];
    model.changed.connect((_, change) => gaps.push(change.logs?.iris?.gap));
    const first = model.followLogs('iris', '5-0');
    const { turn } = server.socket.sent.at(-1);
    first.dispose();
    model.followLogs('iris', '7-0');
    server.socket.say({ turn, logs: { iris: { position: '8-0', records: [], gap: true } } });
    expect(gaps).toEqual([true]);
  });

  it('hands changes on with one signal a frame', async () => {
    const server = new Server();
    const model = await server.live([summary('iris')]);
    const seen: IChange[] = [];
    model.changed.connect((_, change) => seen.push(change));
    server.socket.say({ apis: [summary('iris')], changes: { iris: { seq: '2-0', moves: { completed: 1 }, workloads: [workload('a')], more: 0, gap: false } } });
    expect(seen).toHaveLength(1);
    expect(seen[0].changes!.iris.workloads[0].id).toBe('a');
  });

  it('finds the API of a notebook, the newest where there are several', async () => {
    const server = new Server();
    const model = await server.live([summary('old', { notebook: 'a.ipynb', updated: 1 }), summary('new', { notebook: 'a.ipynb', updated: 2 })]);
    expect(model.ofNotebook('a.ipynb')!.name).toBe('new');
    expect(model.ofNotebook('b.ipynb')).toBeUndefined();
  });
});
