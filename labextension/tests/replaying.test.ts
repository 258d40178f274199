import { Notification } from '@jupyterlab/apputils';
import { NotebookActions } from '@jupyterlab/notebook';
import { CommandRegistry } from '@lumino/commands';
import { fireEvent, screen } from '@testing-library/react';
import { afterEach, describe, expect, it, vi } from 'vitest';

import { addRemedies } from '../src/remedies';
import { notebookOf, replayCell, replayIn, replayLine, replayNotebookOf } from '../src/replaying';
import { CommandIDs } from '../src/tokens';
import { json, ndjson, Server, summary, workload, until } from './server';

const HANDLER = 'import x\n\nclass Handler:\n    pass';

/** A notebook panel as far as a replay needs one; inserted cells appear in it. */
function panel(...sources: string[]): any {
  const cell = (source: string, type = 'code') => {
    const made = { source, model: { type, sharedModel: { getSource: () => made.source, setSource: (text: string) => void (made.source = text) } } };
    return made;
  };
  const widgets: any[] = sources.map(source => cell(source.replace(/^#md /, ''), source.startsWith('#md ') ? 'markdown' : 'code'));
  const sharedModel = { insertCell: (at: number, one: any) => void widgets.splice(at, 0, cell(one.source, one.cell_type)) };
  return {
    content: { widgets, activeCellIndex: 0, deselectAll: vi.fn(), scrollToItem: vi.fn(async () => undefined), model: { sharedModel } },
    revealed: Promise.resolve(),
    context: { localPath: 'work/iris.ipynb', ready: Promise.resolve(), model: { toJSON: () => ({ cells: [], metadata: {}, nbformat: 4, nbformat_minor: 5 }) } },
    sessionContext: { ready: Promise.resolve(), session: { kernel: { id: 'k1' } } }
  };
}

const sources = (one: any) => one.content.widgets.map((widget: any) => widget.source);
const ran = () => vi.spyOn(NotebookActions, 'runCells').mockResolvedValue(true);
const ready = (handler: boolean) => new Server().on('POST notebook/prepare', ndjson({ result: { handler } }));

afterEach(() => {
  vi.restoreAllMocks();
  Notification.dismiss();
});

describe('a replay', () => {
  it('is a cell behind the Handler, or at the end where there is none', () => {
    const one = panel('a = 1', HANDLER, '#md text');
    expect(replayCell(one, replayLine({ name: 'iris', id: 'w-1' }))).toBe(2);
    expect(sources(one)).toEqual(['a = 1', HANDLER, '%cortex replay w-1 --name iris', 'text']);
    expect(replayCell(panel('a = 1'), 'x')).toBe(1);
  });

  it('takes the cell of an earlier one, and never a line that somebody has written', () => {
    const one = panel('%cortex replay $request_id', HANDLER, '%cortex replay w-1 --name iris --in 2', '%cortex replay w-0\nprint(1)');
    expect(replayCell(one, replayLine({ name: 'iris', id: 'w-2', group: 'abc' }))).toBe(2);
    expect(sources(one)).toEqual(['%cortex replay $request_id', HANDLER, '%cortex replay --group abc --name iris', '%cortex replay w-0\nprint(1)']);
  });

  it('runs at once where the Handler has run, and is scrolled to', async () => {
    const run = ran();
    const one = panel(HANDLER);
    await replayIn(one, ready(true).client, { name: 'iris', id: 'w-1' }, 1);
    expect(run.mock.calls.map(call => (call[1] as any[]).map(cell => cell.source))).toEqual([['%cortex replay w-1 --name iris']]);
    expect(one.content.activeCellIndex).toBe(1);
    expect(one.content.scrollToItem).toHaveBeenLastCalledWith(1, 'start');
  });

  it('asks before it runs cells that nobody has run', async () => {
    const run = ran();
    const one = panel('import x', '#md text', HANDLER, 'submit()');
    const replaying = replayIn(one, ready(false).client, { name: 'iris', id: 'w-1' }, 3);
    await screen.findByText(/Run the 2 code cells up to its Handler/);
    expect(run).not.toHaveBeenCalled();
    fireEvent.click(screen.getByText('Run cells and replay'));
    await replaying;
    expect(run.mock.calls.map(call => (call[1] as any[]).map(cell => cell.source))).toEqual([['import x', HANDLER], ['%cortex replay w-1 --name iris']]);
  });

  it('can run the version that failed instead, and nothing at all', async () => {
    const run = ran();
    const one = panel(HANDLER);
    const first = replayIn(one, ready(false).client, { name: 'iris', id: 'w-1' }, 3);
    fireEvent.click(await screen.findByText('Cancel'));
    await first;
    expect(run).not.toHaveBeenCalled();
    const second = replayIn(one, ready(false).client, { name: 'iris', id: 'w-1' }, 3);
    fireEvent.click(await screen.findByText('Replay version 3'));
    await second;
    expect(sources(one)).toEqual([HANDLER, '%cortex replay w-1 --name iris --in 3']);
  });

  it('stops where a cell above the Handler fails', async () => {
    vi.spyOn(NotebookActions, 'runCells').mockResolvedValue(false);
    const one = panel(HANDLER);
    const replaying = replayIn(one, ready(false).client, { name: 'iris', id: 'w-1' }, 3).catch((error: Error) => error.message);
    fireEvent.click(await screen.findByText('Run cells and replay'));
    expect(await replaying).toContain('Mend it');
    expect(sources(one)).toEqual([HANDLER]);
  });
});

describe('the notebook of a request', () => {
  it('is that of the version that ran it', async () => {
    const versions = [{ version: 2, notebook: 'new.ipynb', source: '' }, { version: 1, notebook: 'old.ipynb', source: '' }];
    const server = new Server().on('GET api/apis/iris', json({ ...summary('iris'), api_versions: versions }));
    expect(await notebookOf(server.client, 'iris', 1, '')).toBe('old.ipynb');
    expect(await notebookOf(server.client, 'iris', null, '')).toBe('new.ipynb');
  });

  it('that is gone is told with what can be done instead', async () => {
    const server = new Server()
      .on('GET api/apis/iris', json({ ...summary('iris', { notebook: null }), api_versions: [{ version: 1, notebook: null, source: 'ada@host:/work/iris.ipynb' }] }))
      .on('GET api/apis/iris/workloads/w-1', json({ ...workload('w-1', 'failed'), result: null, failure: null, payload_kept: true }));
    const commands = new CommandRegistry();
    addRemedies({ app: { shell: {} }, model: await server.live([summary('iris')]), notebooks: { find: () => undefined } } as any, commands);
    await commands.execute(CommandIDs.replay, { name: 'iris', id: 'w-1' });
    const dialog = (await screen.findByText(/ada@host:.work.iris.ipynb is not among this server/)).closest('.jp-Dialog')!;
    expect(dialog.textContent).toContain('%cortex replay w-1 --name iris --in 1');
    dialog.querySelector<HTMLElement>('.jp-Dialog-footer button')!.click();
    await until(() => !document.querySelector('.jp-Dialog'));
  });

  it('that is itself the handler is not replayed: no cell of it is a Handler', async () => {
    const spec = { handler: { type: 'notebook', path: 'report.ipynb' } };
    const server = new Server().on('GET api/apis/iris', json({ ...summary('iris'), spec, api_versions: [{ version: 1, notebook: 'work/report.ipynb', source: '', spec }] }));
    await expect(replayNotebookOf(server.client, 'iris', 1, '')).rejects.toThrow('iris runs report.ipynb as a whole');
    expect(await notebookOf(server.client, 'iris', 1, '')).toBe('work/report.ipynb');
  });

  it('gets the sample beside it', async () => {
    const server = new Server()
      .on('GET api/apis/iris', json({ ...summary('iris'), api_versions: [{ version: 1, notebook: 'work/iris.ipynb', source: '' }] }))
      .on('GET api/apis/iris/workloads/w-1', json({ ...workload('w-1', 'failed'), result: null, failure: null, payload_kept: true }))
      .on('POST sample', json({ name: 'failed-ab', file: 'samples/failed-ab.yaml', message: 'it must not fail any more' }));
    const commands = new CommandRegistry();
    addRemedies({ app: { shell: {} }, model: await server.live([summary('iris')]), notebooks: {} } as any, commands);
    await commands.execute(CommandIDs.keepSample, { name: 'iris', id: 'w-1' });
    expect(JSON.parse(server.asked.at(-1)!.body)).toEqual({ api: 'iris', id: 'w-1', path: 'work/iris.ipynb' });
    expect(Notification.manager.notifications[0].message).toContain('Kept samples/failed-ab.yaml beside work/iris.ipynb');
  });
});
