import { NotebookActions } from '@jupyterlab/notebook';
import { CommandRegistry } from '@lumino/commands';
import { Signal } from '@lumino/signaling';
import { describe, expect, it, vi } from 'vitest';

import { bare, cellPlace, goTo, indexOf, NotebookWatch, openCell, requestOf } from '../src/notebooks';
import { ndjson, Server, summary, until } from './server';

/** A notebook panel as far as this extension uses one. */
function panel(path = 'iris.ipynb', cells: [string, string][] = [['markdown', 'm1'], ['code', 'c1'], ['code', 'c2']], kernel: any = { id: 'k1', status: 'idle' }): any {
  const owner = {};
  const editor = { lineCount: 9, setCursorPosition: vi.fn(), revealPosition: vi.fn(), focus: vi.fn() };
  const widgets = cells.map(([type, id]) => ({
    model: { type, executionCount: 1, sharedModel: { getId: () => id } },
    ready: Promise.resolve(),
    inputHidden: true,
    editor
  }));
  const content: any = { widgets, activeCellIndex: 0, deselectAll: vi.fn(), scrollToItem: vi.fn(async () => undefined), mode: 'command' };
  const made: any = {
    editor,
    content,
    isVisible: true,
    revealed: Promise.resolve(),
    context: { path: `RTC:${path}`, localPath: path, ready: Promise.resolve(), model: { toJSON: () => ({ cells: cells.map(([type, id]) => ({ cell_type: type, id, source: 'x', outputs: [{ big: 1 }], metadata: {} })), metadata: {}, nbformat: 4, nbformat_minor: 5 }) } },
    sessionContext: { session: kernel ? { kernel } : null }
  };
  made.disposed = new Signal<any, void>(owner);
  return made;
}

describe('a notebook', () => {
  it('is sent as it stands in the browser, without outputs', () => {
    const request = requestOf(panel());
    expect(request).toMatchObject({ path: 'iris.ipynb', kernel_id: 'k1' });
    expect((request.model as any).cells[1]).toEqual({ cell_type: 'code', id: 'c1', source: 'x', outputs: [], metadata: {} });
    expect(bare({ cells: [{ cell_type: 'markdown', source: '', attachments: { 'a.png': {} }, metadata: {} }], metadata: {}, nbformat: 4, nbformat_minor: 5 } as any).cells[0]).not.toHaveProperty('attachments');
  });

  it('is not sent without a kernel', () => {
    expect(() => requestOf(panel('a.ipynb', [], null))).toThrow('no running kernel');
  });

  it('finds a cell by its id also after it moved, else by its number', () => {
    const moved = panel('a.ipynb', [['code', 'c2'], ['markdown', 'm'], ['code', 'c1']]);
    expect(indexOf(moved, cellPlace('cell 1', 1, { 'cell 1': 'c1' }))).toBe(2);
    expect(indexOf(moved, cellPlace('cell 2', 1))).toBe(2);
    expect(indexOf(moved, cellPlace('cell 9', 1))).toBe(-1);
  });

  it('is scrolled to the line, with the cursor on it', async () => {
    const one = panel();
    expect(await goTo(one, cellPlace('cell 2', 4))).toBe(true);
    expect(one.content.activeCellIndex).toBe(2);
    expect(one.content.widgets[2].inputHidden).toBe(false);
    expect(one.editor.setCursorPosition).toHaveBeenCalledWith({ line: 3, column: 0 });
    await goTo(one, cellPlace('cell 2', 400));
    expect(one.editor.setCursorPosition).toHaveBeenLastCalledWith({ line: 8, column: 0 });
  });

  it('that is gone, or without the cell, says so', async () => {
    const commands = new CommandRegistry();
    let opened: any = null;
    commands.addCommand('docmanager:open', {
      execute: () => {
        if (!opened) {
          throw new Error('404');
        }
        return opened;
      }
    });
    await expect(openCell(commands, 'a.ipynb', cellPlace('cell 1', 1))).rejects.toThrow('moved or deleted');
    opened = panel('a.ipynb', []);
    await expect(openCell(commands, 'a.ipynb', cellPlace('cell 1', 1))).rejects.toThrow('not in a.ipynb any more');
  });
});

describe('the button’s state', () => {
  it('follows the API of this notebook', async () => {
    const server = new Server();
    const model = await server.live([]);
    const watch = new NotebookWatch(panel(), model);
    expect(watch.state).toBe('none');
    server.socket.say({ apis: [summary('iris', { status: 'updating', live: 0 })] });
    expect(watch.state).toBe('updating');
    server.socket.say({ apis: [summary('iris')] });
    expect(watch.state).toBe('live');
    server.socket.say({ apis: [summary('iris', { failed_hour: 3 })] });
    expect(watch.state).toBe('failing');
    expect(watch.sentence).toContain('3 failed');
    server.socket.say({ apis: [summary('iris', { status: 'stopped', stopped: true })] });
    expect(watch.state).toBe('stopped');
    expect(watch.sentence).toMatch(/^Deploy/);
  });

  it('says "changed" once the kernel says that what would be published differs, and "live" after the next deploy', async () => {
    const shown = { name: 'iris', surprises: [], live: { version: 1, diff: ['+x'] } };
    const server = new Server().on('POST notebook/show', ndjson({ result: shown }));
    const model = await server.live([summary('iris')]);
    const one = panel();
    const watch = new NotebookWatch(one, model);
    (NotebookActions as any).executed; // the signal of all notebooks
    watch.tell(shown as any);
    expect(watch.state).toBe('changed');
    server.socket.say({ apis: [summary('iris', { live: 2 })] });
    expect(watch.state).toBe('live');
    watch.dispose();
    expect(watch.isDisposed).toBe(true);
  });

  it('is not "changed" in a fresh kernel, whatever the counts of a saved notebook say', async () => {
    const surprise = { kind: 'no_handler', place: 'cell 1', message: 'it defines Handler and has not run in this kernel yet', remedy: 'run it', blocks: true, asks: false };
    const shown = { name: 'iris', surprises: [surprise], live: { version: 1, diff: ['-class Handler:'] } };
    const watch = new NotebookWatch(panel(), await new Server().live([summary('iris')]));
    watch.tell(shown as any);
    expect(watch.state).toBe('live');
    watch.tell({ ...shown, surprises: [] } as any);
    expect(watch.state).toBe('changed');
    watch.dispose();
  });

  it('says that a mended cell is not deployed yet, also after failures, but an API that does not run first', async () => {
    const server = new Server();
    const watch = new NotebookWatch(panel(), await server.live([summary('iris', { failed_hour: 3 })]));
    expect(watch.state).toBe('failing');
    watch.tell({ name: 'iris', surprises: [], live: { version: 1, diff: ['+x'] } } as any);
    expect(watch.state).toBe('changed');
    expect(watch.sentence).toBe('Deploy: the notebook changed since iris version 1 went live; 3 failed in the last hour');
    server.socket.say({ apis: [summary('iris', { status: 'error', message: 'it did not start' })] });
    expect(watch.state).toBe('failing');
    expect(watch.sentence).toContain('it did not start');
    watch.dispose();
  });

  it('asks the kernel only while it is idle', async () => {
    const server = new Server().on('POST notebook/show', ndjson({ result: { name: 'iris', surprises: [], live: { version: 1, diff: ['+x'] } } }));
    const kernel = { id: 'k1', status: 'busy' };
    const one = panel('iris.ipynb', undefined, kernel);
    const watch = new NotebookWatch(one, await server.live([]));
    server.socket.say({ apis: [summary('iris')] });
    await new Promise(resolve => setTimeout(resolve, 1700));
    expect(server.asked.some(request => request.path === 'notebook/show')).toBe(false);
    kernel.status = 'idle';
    await until(() => watch.state === 'changed', 'the look');
    watch.dispose();
  }, 10_000);
});
