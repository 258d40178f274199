import { Notification } from '@jupyterlab/apputils';
import { CommandRegistry } from '@lumino/commands';
import { fireEvent, screen } from '@testing-library/react';
import { afterEach, describe, expect, it, vi } from 'vitest';

import { addCommands } from '../src/commands';
import { RunningApis } from '../src/running';
import { CommandIDs, ISummary } from '../src/tokens';
import { ENVIRONMENT, json, Server, summary, until } from './server';

async function registry(server: Server, apis: ISummary[] | null = [summary('iris', { workloads: { in_queue: 2, in_progress: 1, completed: 0, failed: 0, cancelled: 0 } })]) {
  const model = apis ? await server.live(apis) : server.model();
  const commands = new CommandRegistry();
  const added: any[] = [];
  const opened: any[] = [];
  const pages = { find: () => undefined, add: async () => undefined, save: async () => undefined };
  const contents = { newUntitled: async () => ({ path: 'Untitled.ipynb' }), save: vi.fn(async () => ({})) };
  const app = {
    commands,
    shell: { add: (widget: any, area: string) => added.push([widget, area]), activateById: vi.fn() },
    serviceManager: { contents, kernelspecs: { specs: { kernelspecs: { cortex: {} }, default: 'python3' } } }
  };
  commands.addCommand('docmanager:open', { execute: args => void opened.push(args) });
  const parts = { app, model, notebooks: { currentWidget: null }, pages, watches: new Map(), labShell: {}, browser: null, rendermime: null } as any;
  addCommands(parts);
  return { model, commands, added, opened, contents, parts, app };
}

afterEach(() => Notification.dismiss());

describe('the commands', () => {
  it('say why no API can be chosen, and wait for the first answer before they say that there is none', async () => {
    const said = () => Notification.manager.notifications.map(one => one.message);
    const down = new Server();
    const { commands, model } = await registry(down, []);
    model.apply({ environment: { ...ENVIRONMENT, up: false, message: 'no environment runs; start it' } });
    await commands.execute(CommandIDs.logs);
    expect(said()).toEqual(['no environment runs; start it']);
    Notification.dismiss();
    down.on('POST environment/start', json({ code: 'port_in_use', title: 'x', detail: 'port 8780 is taken', status: 409 }, 409));
    await commands.execute(CommandIDs.startEnvironment);
    expect(said()).toEqual(['Start: port 8780 is taken']);
    Notification.dismiss();
    // Nobody has looked yet: the palette is the first to ask.
    const server = new Server().on('GET snapshot', json({ environment: ENVIRONMENT, apis: [summary('iris')], seq: {} }));
    const started: string[] = [];
    server.on('POST api/apis/iris/start', () => (started.push('iris'), json({ message: 'ok' })));
    const early = await registry(server, null);
    await early.commands.execute(CommandIDs.start);
    expect(started).toEqual(['iris']);
  });

  it('delete an API only after asking, saying what is lost', async () => {
    const server = new Server().on('DELETE api/apis/iris', json({ message: 'deleting iris' }));
    const { commands } = await registry(server);
    const first = commands.execute(CommandIDs.remove, { name: 'iris' });
    expect((await screen.findByText(/3 requests that are waiting or running will be lost/)).textContent).toContain('callers get 404');
    fireEvent.click(screen.getByText('Cancel'));
    await first;
    expect(server.asked.some(one => one.method === 'DELETE')).toBe(false);
    const second = commands.execute(CommandIDs.remove, { name: 'iris' });
    await screen.findByText(/will be lost/);
    fireEvent.click(screen.getByText('Delete'));
    await second;
    expect(server.asked.some(one => one.method === 'DELETE' && one.path === 'api/apis/iris')).toBe(true);
  });

  it('bring an earlier version back only after asking', async () => {
    const server = new Server().on('POST api/apis/iris/rollback', json({ message: 'rolling iris back to version 1, as version 3', version: 3 }));
    const { commands } = await registry(server, [summary('iris', { live: 2 })]);
    const first = commands.execute(CommandIDs.rollback, { name: 'iris', version: 1 });
    expect((await screen.findByText(/what waits runs on what came back/)).textContent).toContain('Version 2 serves until it is ready');
    fireEvent.click(screen.getByText('Cancel'));
    await first;
    expect(server.asked.some(one => one.method === 'POST')).toBe(false);
    const second = commands.execute(CommandIDs.rollback, { name: 'iris', version: 1 });
    await screen.findByText(/what waits runs/);
    fireEvent.click(screen.getByText('Make live again'));
    await second;
    expect(JSON.parse(server.asked.find(one => one.path === 'api/apis/iris/rollback')!.body)).toEqual({ version: 1, source: 'iris.ipynb' });
    expect(Notification.manager.notifications.map(one => one.message)).toContain('rolling iris back to version 1, as version 3');
  });

  it('ask before what was rehearsed is promoted or dropped, and say what came of it', async () => {
    const server = new Server()
      .on('POST api/apis/iris/deployments/2/promote', json({ message: 'promoting version 2 of iris', version: 2 }))
      .on('POST api/apis/iris/deployments/2/drop', json({ message: 'dropped version 2 of iris' }));
    const { commands } = await registry(server);
    for (const [id, label, path] of [
      [CommandIDs.promote, 'Promote', 'promote'],
      [CommandIDs.drop, 'Drop', 'drop']
    ]) {
      for (const press of ['Cancel', label]) {
        const asked = server.asked.length;
        const done = commands.execute(id, { name: 'iris', version: 2 });
        await until(() => document.querySelector('.jp-Dialog'));
        expect(document.querySelector('.jp-Dialog')!.textContent).toContain('ersion 2 of iris');
        [...document.querySelectorAll<HTMLElement>('.jp-Dialog button')].find(one => one.textContent === press)!.click();
        await done;
        await until(() => !document.querySelector('.jp-Dialog'));
        expect(server.asked.slice(asked).map(one => one.path)).toEqual(press === 'Cancel' ? [] : [`api/apis/iris/deployments/2/${path}`]);
      }
    }
    const told = Notification.manager.notifications.map(one => one.message);
    expect(told).toContain('promoting version 2 of iris');
    expect(told).toContain('dropped version 2 of iris');
  });

  it('tell a refusal with its remedy as a notification', async () => {
    const server = new Server().on('POST api/apis/iris/refresh', json({ code: 'conflict', title: 'x', detail: 'iris is updating (override with --force)', status: 409 }, 409));
    const { commands } = await registry(server);
    await commands.execute(CommandIDs.refresh, { name: 'iris' });
    expect(Notification.manager.notifications.map(one => one.message)).toContain('iris: iris is updating (override with --force)');
  });

  it('show a refusal whole that is too long for a notification', async () => {
    const detail = `${'a notebook that is not among those of this server; '.repeat(4)}%cortex replay runs it`;
    const server = new Server().on('POST api/apis/iris/refresh', json({ code: 'conflict', title: 'x', detail, status: 409 }, 409));
    const { commands } = await registry(server);
    await commands.execute(CommandIDs.refresh, { name: 'iris' });
    await until(() => document.querySelector('.jp-Dialog'));
    expect(document.querySelector('.jp-Dialog')!.textContent).toContain('%cortex replay runs it');
    document.querySelector<HTMLElement>('.jp-Dialog .jp-Dialog-footer button')!.click();
    await until(() => !document.querySelector('.jp-Dialog'));
  });

  it('open an API’s page at the tab that was asked for, in JupyterLab’s main area and beside the notebook in Notebook 7', async () => {
    const server = new Server();
    const { commands, added, parts } = await registry(server);
    const page: any = await commands.execute(CommandIDs.logs, { name: 'iris' });
    expect(page.content.state.tab).toBe('logs');
    expect(added.at(-1)![1]).toBe('main');
    parts.labShell = null;
    const again = await registry(new Server());
    again.parts.labShell = null;
    const beside = new CommandRegistry();
    again.app.commands = beside;
    addCommands(again.parts);
    await beside.execute(CommandIDs.openApi, { name: 'iris' });
    expect(again.added.at(-1)![1]).toBe('right');
  });

  it('make a notebook from the template with the Cortex kernel', async () => {
    const { commands, opened, contents } = await registry(new Server());
    await commands.execute(CommandIDs.newNotebook, { cwd: 'work' });
    const saved = (contents.save.mock.calls[0] as any[])[1].content;
    expect(saved.cells.some((cell: any) => cell.source.includes('class Handler:'))).toBe(true);
    expect(opened[0]).toMatchObject({ path: 'Untitled.ipynb', kernel: { name: 'cortex' } });
  });

  it('describe their arguments', async () => {
    const { commands } = await registry(new Server());
    for (const id of Object.values(CommandIDs)) {
      expect(commands.hasCommand(id), id).toBe(true);
      expect((await commands.describedBy(id)).args, id).toBeTruthy();
    }
  });
});

describe('the Running panel', () => {
  it('lists what runs, and stops rather than deletes', async () => {
    const server = new Server();
    const model = await server.live([summary('iris'), summary('off', { stopped: true, status: 'stopped' })]);
    const commands = new CommandRegistry();
    const ran: any[] = [];
    for (const id of [CommandIDs.stop, CommandIDs.remove, CommandIDs.openApi]) {
      commands.addCommand(id, { execute: args => void ran.push([id, args.name]) });
    }
    const running = new RunningApis(model, commands);
    expect(running.running().map(item => item.label())).toEqual(['iris']);
    expect(running.running()[0].detail!()).toBe('1 replica');
    const workloads = { in_queue: 3, in_progress: 1, completed: 9, failed: 9, cancelled: 0 };
    server.socket.say({ apis: [summary('iris', { ready: 2, workloads, failed_hour: 4 })] });
    expect(running.running()[0].detail!()).toBe('2 replicas · 3 in queue · 1 in progress · 4 failed');
    running.running()[0].shutdown!();
    running.shutdownAll();
    running.running()[0].open!();
    expect(ran).toEqual([
      [CommandIDs.stop, 'iris'],
      [CommandIDs.stop, 'iris'],
      [CommandIDs.openApi, 'iris']
    ]);
  });
});
