import { describe, expect, it } from 'vitest';

import { WorkloadList } from '../src/workloadlist';
import type { IChanges, IWorkload } from '../src/tokens';
import { json, Server, workload } from './server';

const changes = (...workloads: IWorkload[]): IChanges => ({ seq: '1-0', moves: {}, workloads, more: 0, gap: false });
const PATH = 'GET api/apis/iris/workloads';

async function listOf(...workloads: IWorkload[]): Promise<{ list: WorkloadList; server: Server }> {
  const server = new Server().on(PATH, json({ workloads, next: null, scanned: workloads.length }));
  const list = new WorkloadList(server.client, 'iris');
  await list.reload();
  return { list, server };
}

describe('the list of workloads', () => {
  it('shows the newest first, whatever the order of pages and deltas', async () => {
    const { list } = await listOf(workload('b', 'completed', 2000), workload('a', 'completed', 3000));
    list.apply(changes(workload('d', 'in_queue', 1000), workload('c', 'in_queue', 4000)));
    expect(list.rows.map(row => row.id)).toEqual(['c', 'a', 'b', 'd']);
  });

  it('changes a row in its place', async () => {
    const { list } = await listOf(workload('a', 'in_queue', 2000), workload('b', 'in_queue', 1000));
    expect(list.apply(changes(workload('b', 'completed', 1000)))).toBe(true);
    expect(list.rows.map(row => row.status)).toEqual(['in_queue', 'completed']);
  });

  it('shows a row once where one delta brings new rows and changes those before them', async () => {
    const { list } = await listOf(workload('a', 'in_progress', 1000), workload('b', 'in_queue', 2000));
    list.apply(changes(workload('d', 'in_queue', 4000), workload('c', 'in_queue', 3000), workload('b', 'completed', 2000), workload('a', 'completed', 1000)));
    expect(list.rows.map(row => `${row.id} ${row.status}`)).toEqual(['d in_queue', 'c in_queue', 'b completed', 'a completed']);
  });

  it('never goes back from an end to a state before it, except in a new run', async () => {
    const { list } = await listOf(workload('a', 'failed'));
    list.apply(changes(workload('a', 'in_progress')));
    expect(list.rows[0].status).toBe('failed');
    list.apply(changes(workload('a', 'in_queue', 1000, { run: 2 })));
    expect(list.rows[0].status).toBe('in_queue');
  });

  it('takes a row out and in as it enters and leaves the status that is asked for', async () => {
    const { list } = await listOf(workload('a', 'in_queue'));
    list.filter('in_progress', '');
    expect(list.rows).toHaveLength(0);
    list.apply(changes(workload('a', 'in_progress')));
    expect(list.rows).toHaveLength(1);
    list.apply(changes(workload('a', 'completed')));
    expect(list.rows).toHaveLength(0);
  });

  it('finds text in ids and errors, in any case', async () => {
    const { list } = await listOf(workload('abc'), workload('x', 'failed'));
    list.filter('', 'keyERROR');
    expect(list.rows.map(row => row.id)).toEqual(['x']);
    list.filter('', 'ABC');
    expect(list.rows.map(row => row.id)).toEqual(['abc']);
  });

  it('asks the server for what the filter wants beyond what is loaded', async () => {
    const { list, server } = await listOf(workload('a'));
    list.filter('failed', 'petal');
    server.on(PATH, json({ workloads: [workload('old', 'failed', 5)], next: null, scanned: 9000 }));
    await list.search();
    expect(server.asked.at(-1)!.path).toContain('status=failed');
    expect(server.asked.at(-1)!.path).toContain('q=petal');
    expect(list.rows.map(row => row.id)).toEqual(['old']);
  });

  it('loads page after page by the cursor until there is none', async () => {
    const server = new Server().on(PATH, json({ workloads: [workload('a', 'completed', 3)], next: 'c1', scanned: 1 }));
    const list = new WorkloadList(server.client, 'iris');
    await list.reload();
    expect(list.complete).toBe(false);
    server.on(PATH, json({ workloads: [workload('b', 'completed', 2)], next: null, scanned: 1 }));
    await list.more();
    expect(server.asked.at(-1)!.path).toContain('cursor=c1');
    expect(list.rows.map(row => row.id)).toEqual(['a', 'b']);
    await list.more();
    expect(server.asked).toHaveLength(2);
  });

  it('asks for an id as it was typed, in its own case, and says how many were looked at', async () => {
    const { list, server } = await listOf(workload('a'));
    list.filter('', ' Req-A1 ');
    expect(list.complete).toBe(false);
    server.on(PATH, json({ workloads: [], next: 'c1', scanned: 20_000 }));
    await list.search();
    expect(server.asked.at(-1)!.path).toContain('q=Req-A1');
    expect([list.complete, list.scanned]).toEqual([false, 20_000]);
    server.on(PATH, json({ workloads: [workload('Req-A1')], next: null, scanned: 300 }));
    await list.more();
    expect(list.rows.map(row => row.id)).toEqual(['Req-A1']);
    expect([list.complete, list.scanned]).toEqual([true, 20_300]);
  });

  it.each([null, 'deep'])('begins anew when the filter is cleared, whatever the search had come to (%s)', async end => {
    const server = new Server().on(PATH, json({ workloads: [workload('new', 'completed', 9000)], next: 'c1', scanned: 1 }));
    const list = new WorkloadList(server.client, 'iris');
    await list.reload();
    list.filter('failed', '');
    server.on(PATH, json({ workloads: [workload('old', 'failed', 5)], next: end, scanned: 9000 }));
    await list.search();
    list.filter('', '');
    expect(list.complete).toBe(false);
    server.on(PATH, json({ workloads: [workload('new', 'completed', 9000)], next: 'c1', scanned: 1 }));
    const coming = list.search();
    list.apply(changes(workload('told', 'in_queue', 9500)));
    await coming;
    // Between the newest page and what the search had found lie others that were never loaded.
    expect(list.rows.map(row => row.id)).toEqual(['told', 'new']);
    expect(list.complete).toBe(false);
    server.on(PATH, json({ workloads: [workload('middle', 'completed', 50), workload('old', 'failed', 5)], next: null, scanned: 2 }));
    await list.more();
    expect(server.asked.at(-1)!.path).toContain('cursor=c1');
    expect(list.rows.map(row => row.id)).toEqual(['told', 'new', 'middle', 'old']);
    expect(list.complete).toBe(true);
  });

  it('has no hole where the filter is cleared while all is asked for once more', async () => {
    const { list, server } = await listOf(...rows(500, 'in_queue'));
    list.filter('failed', '');
    const pages = [1000, 500].map(from => json({ workloads: rows(from, 'completed'), next: from > 500 ? 'below500' : null, scanned: 500 }));
    server.on(PATH, () => pages.shift()!);
    const renewing = list.renew();
    list.filter('', '');
    await Promise.all([renewing, list.search()]);
    expect(list.rows).toHaveLength(1000);
    expect(list.complete).toBe(true);
  });

  const rows = (from: number, status: any, run = 1) => Array.from({ length: 500 }, (_, at) => workload(`w${from - at}`, status, from - at, { run }));

  it('asks for all that is loaded once more after a burst, also for what the burst pushed down', async () => {
    const server = new Server().on(PATH, json({ workloads: rows(500, 'failed'), next: null, scanned: 500 }));
    const list = new WorkloadList(server.client, 'iris');
    await list.reload();
    // All are requeued at once, and 1,000 new ones come: none of it was told one by one.
    const pages = [1500, 1000, 500].map(from => json({ workloads: rows(from, 'in_queue', 2), next: from > 500 ? `below${from}` : null, scanned: 500 }));
    server.on(PATH, () => pages.shift()!);
    await list.renew();
    expect(list.rows).toHaveLength(1500);
    expect(new Set(list.rows.map(row => row.status))).toEqual(new Set(['in_queue']));
    expect(list.complete).toBe(true);
  });

  it('forgets what lies too far down to be asked for again, without emptying the table, and goes on there', async () => {
    const server = new Server().on(PATH, json({ workloads: rows(500, 'in_queue'), next: null, scanned: 500 }));
    const list = new WorkloadList(server.client, 'iris');
    await list.reload();
    // None of the 500 that were open is among them.
    let from = 50_000;
    const sizes: number[] = [];
    server.on(PATH, () => {
      sizes.push(list.rows.length);
      const page = json({ workloads: rows(from, 'completed'), next: `below${from - 500}`, scanned: 500 });
      from -= 500;
      return page;
    });
    await list.renew();
    expect(Math.min(...sizes)).toBe(500);
    expect(list.rows).toHaveLength(10_000);
    expect(list.rows.at(-1)!.id).toBe('w40001');
    await list.more();
    expect(server.asked.at(-1)!.path).toContain('cursor=below40000');
  });

  it('asks once more where a burst goes on while it asks, and not twice at a time', async () => {
    const { list, server } = await listOf(workload('a'));
    const before = server.asked.length;
    let open = 0;
    server.on(PATH, async () => {
      expect(++open).toBe(1);
      await new Promise(resolve => setTimeout(resolve, 5));
      open--;
      return json({ workloads: [workload('a')], next: null, scanned: 1 });
    });
    await Promise.all([list.renew(), list.renew(), list.renew()]);
    expect(server.asked.length - before).toBe(2);
  });

  it('forgets the answer to a filter that was changed meanwhile', async () => {
    const { list, server } = await listOf();
    const answers: ((answer: Response) => void)[] = [];
    server.on(PATH, () => new Promise<Response>(resolve => answers.push(resolve)));
    list.filter('failed', '');
    const first = list.search();
    list.filter('completed', '');
    const second = list.search();
    await new Promise(resolve => setTimeout(resolve, 10));
    answers[1](json({ workloads: [workload('new', 'completed')], next: null, scanned: 1 }));
    await second;
    answers[0](json({ workloads: [workload('old', 'failed')], next: 'cursor', scanned: 1 }));
    await first;
    expect(list.rows.map(row => row.id)).toEqual(['new']);
    expect(list.complete).toBe(true);
  });
});
