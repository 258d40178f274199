import { ReactWidget } from '@jupyterlab/apputils';
import { fireEvent, render, screen, waitFor } from '@testing-library/react';
import * as React from 'react';
import { describe, expect, it, vi } from 'vitest';

import { Problem, problem } from '../src/client';
import { readConfig } from '../src/config';
import { advance, DeployForm, FormDialog } from '../src/deploy';
import type { IShown, ISurprise } from '../src/tokens';
import { ndjson, Server } from './server';

const SHOWN: IShown = {
  name: 'iris',
  executed: true,
  recorded: true,
  module: 'handler.py',
  source: 'class Handler:\n    pass\n',
  reasons: [{ cell: 'cell 5', line: 1, module_line: 3, lines: 2, text: 'class Handler:\n    pass', reasons: ['`Handler`, this is what is published'] }],
  surprises: [],
  travels: [],
  has_config: false,
  live: null,
  document: {},
  config: { threshold: 0.5 },
  replicas: 1,
  python: '/usr/bin/python3',
  cells: { 'cell 5': 'id-5' }
};
const surprise = (more: Partial<ISurprise>): ISurprise => ({ kind: 'edited', place: 'cell 5', message: 'it was edited after it ran', remedy: 'run it', blocks: false, asks: false, ...more });
const LIVE = { deployed: [{ api: 'iris', outcome: 'created', version: 1, message: '', endpoint: '/iris', url: 'http://127.0.0.1:8780/iris', warnings: ['a warning'] }], curl: 'curl -X POST …', warnings: [] };

async function form(server: Server, more: Partial<React.ComponentProps<typeof DeployForm>> = {}) {
  const props = { jump: vi.fn(), open: vi.fn(), close: vi.fn(), told: vi.fn(), runAll: vi.fn(async () => undefined), request: () => ({ path: 'iris.ipynb', kernel_id: 'k1', model: { cells: [] } }), ...more };
  render(<DeployForm model={await server.live()} {...props} />);
  await waitFor(() => expect(screen.queryByText('reading the notebook in its kernel')).toBeNull());
  return props;
}
const sent = (server: Server, verb: string) => JSON.parse(server.asked.filter(one => one.path === `notebook/${verb}`).at(-1)!.body);
const off = (name: string) => screen.getByRole('button', { name }).getAttribute('aria-disabled') === 'true';
const press = (name: string | RegExp) => fireEvent.click(screen.getByRole('button', { name }));

describe('the Deploy dialog', () => {
  it('deploys what the form says and shows endpoint, curl and warnings', async () => {
    const server = new Server().on('POST notebook/show', ndjson({ result: SHOWN })).on('POST notebook/deploy', ndjson({ step: 'slicing' }, { step: 'iris is live' }, { result: LIVE }));
    const props = await form(server);
    fireEvent.change(screen.getByLabelText('Replicas'), { target: { value: '3' } });
    press('Deploy');
    expect(await screen.findByText('http://127.0.0.1:8780/iris')).toBeTruthy();
    expect(sent(server, 'deploy')).toMatchObject({ name: 'iris', replicas: 3, yes: false, take_over: false });
    expect(sent(server, 'deploy').config, 'nobody touched it: the file has it in its own types').toBeUndefined();
    expect(screen.getByLabelText('the curl line').textContent).toBe('curl -X POST …');
    expect(screen.getByText('a warning')).toBeTruthy();
    press('Open API');
    expect(props.open).toHaveBeenCalledWith('iris');
  });

  it('fills a bar as the deploy goes on, and never back', async () => {
    let say: (line: string) => void = () => undefined;
    let end: () => void = () => undefined;
    const body = new ReadableStream({
      start(controller) {
        say = line => controller.enqueue(new TextEncoder().encode(`${line}\n`));
        end = () => controller.close();
      }
    });
    const server = new Server().on('POST notebook/show', ndjson({ result: SHOWN })).on('POST notebook/deploy', () => new Response(body));
    await form(server);
    press('Deploy');
    say('{"step": "checking", "done": 0.4}');
    const bar = () => (screen.getByRole('progressbar') as HTMLProgressElement).value;
    await waitFor(() => expect(bar()).toBe(0.4));
    say('{"step": "waiting", "done": 0.1}');
    await screen.findByText('waiting');
    expect(bar()).toBe(0.4);
    say(JSON.stringify({ result: LIVE }));
    end();
    await screen.findByText('http://127.0.0.1:8780/iris');
    expect(screen.queryByRole('progressbar')).toBeNull();
  });

  it('offers to rehearse first where both specs consent, and shows the rehearsal then', async () => {
    const shown = { ...SHOWN, document: { rehearse: true }, live: { version: 3, diff: [], keeps_payloads: true } };
    const rehearsing = { ...LIVE, deployed: [{ ...LIVE.deployed[0], outcome: 'rehearsing', version: 4 }] };
    const server = new Server().on('POST notebook/show', ndjson({ result: shown })).on('POST notebook/deploy', ndjson({ result: rehearsing }));
    const props = await form(server);
    const number = screen.getByLabelText('Requests to rehearse with') as HTMLInputElement;
    expect(number.disabled).toBe(true);
    fireEvent.click(screen.getByRole('checkbox', { name: /Rehearse first/ }));
    fireEvent.change(number, { target: { value: '20' } });
    press('Rehearse new version');
    expect(await screen.findByText(/runs requests of production in the shadow/)).toBeTruthy();
    expect(sent(server, 'deploy')).toMatchObject({ name: 'iris', rehearse: 20 });
    press('Show rehearsal');
    expect(props.open).toHaveBeenCalledWith('iris', 'rehearsal');
  });

  it('says in a line what a rehearsal would need', async () => {
    const server = new Server().on('POST notebook/show', ndjson({ result: { ...SHOWN, live: { version: 3, diff: [], keeps_payloads: false } } })).on('POST notebook/deploy', ndjson({ result: LIVE }));
    await form(server);
    expect(screen.getByText(/^To rehearse it on real requests first/).textContent).toMatch(/rehearse: true in cortex.yaml.*; and retain: \{payload: always\} in version 3, which is live/);
    expect(screen.queryByRole('checkbox', { name: /Rehearse first/ })).toBeNull();
    press('Deploy new version');
    await screen.findByText('http://127.0.0.1:8780/iris');
    expect(sent(server, 'deploy')).not.toHaveProperty('rehearse');
  });

  it('keeps what blocks from being deployed, and leads to its cell', async () => {
    const server = new Server().on('POST notebook/show', ndjson({ result: { ...SHOWN, surprises: [surprise({ blocks: true, place: 'cell 5, line 2' })] } }));
    const props = await form(server);
    expect(off('Deploy')).toBe(true);
    press('Go to cell 5, line 2');
    expect(props.jump).toHaveBeenCalledWith('cell 5', 2, { 'cell 5': 'id-5' });
  });

  it('asks about cells that were edited after they ran', async () => {
    const server = new Server().on('POST notebook/show', ndjson({ result: { ...SHOWN, surprises: [surprise({ asks: true })] } })).on('POST notebook/deploy', ndjson({ result: LIVE }));
    await form(server);
    expect(off('Deploy')).toBe(true);
    fireEvent.click(screen.getByLabelText(/Publish what ran/));
    press('Deploy');
    await screen.findByText('is live', { exact: false });
    expect(sent(server, 'deploy').yes).toBe(true);
  });

  it('asks about training that would stay behind, and names what keeps it', async () => {
    const remedy = 'keep the trained one with `%cortex save model`, or publish it as it is with --yes';
    const row = surprise({ asks: true, kind: 'untrained', message: '`train(...)` may train `model`', remedy });
    await form(new Server().on('POST notebook/show', ndjson({ result: { ...SHOWN, surprises: [row] } })));
    expect(off('Deploy')).toBe(true);
    expect(screen.getByRole('list', { name: 'What you should know first' }).textContent).toContain('`%cortex save model`, or tick the box below');
    fireEvent.click(screen.getByLabelText('Publish it as it is, untrained'));
    expect(off('Deploy')).toBe(false);
  });

  it('offers to run a notebook that did not run, then looks again', async () => {
    const waiting = surprise({ kind: 'no_handler', blocks: true, message: 'it defines Handler and has not run in this kernel yet' });
    const server = new Server().on('POST notebook/show', ndjson({ result: { ...SHOWN, surprises: [waiting] } }));
    const props = await form(server);
    server.on('POST notebook/show', ndjson({ result: SHOWN }));
    press('Run all cells');
    await waitFor(() => expect(off('Deploy')).toBe(false));
    expect(props.runAll).toHaveBeenCalled();
  });

  it('shows which check failed, its traceback, and the way to the line', async () => {
    const refused = { code: 'gate_failed', title: 'The checks before the deploy failed', detail: "sample a: KeyError: 'petal'", status: 400, traceback: 'File "handler.py", line 20 (cell 5, line 7), in handle_async' };
    const server = new Server().on('POST notebook/show', ndjson({ result: SHOWN })).on('POST notebook/deploy', ndjson({ step: 'slicing' }, { step: 'checking: sample a' }, { problem: refused }));
    const props = await form(server);
    press('Deploy');
    await screen.findByText("sample a: KeyError: 'petal'");
    expect([...screen.getByRole('list', { name: 'Progress' }).children].map(row => row.textContent)).toEqual(['✓ slicing: passed', '✗ checking: sample a: failed']);
    press('Go to cell 5, line 7');
    expect(props.jump).toHaveBeenCalledWith('cell 5', 7, { 'cell 5': 'id-5' });
  });

  it('checks without deploying', async () => {
    const server = new Server().on('POST notebook/show', ndjson({ result: SHOWN })).on('POST notebook/check', ndjson({ step: 'checking' }, { result: { name: 'iris', surprises: [], samples: ['a'], error: null, ok: true } }));
    await form(server);
    press('Check only');
    expect(await screen.findByText('All checks passed.')).toBeTruthy();
    expect(server.asked.some(one => one.path === 'notebook/deploy')).toBe(false);
  });

  it('takes an API over from another source only when told to', async () => {
    const refused = { code: 'conflict', title: 'x', detail: 'iris was deployed from ben@x', status: 409, source: 'ben@x:/b.ipynb' };
    const server = new Server().on('POST notebook/show', ndjson({ result: SHOWN })).on('POST notebook/deploy', ndjson({ problem: refused }));
    await form(server);
    press('Deploy');
    await screen.findByText('iris was deployed from ben@x');
    expect(sent(server, 'deploy').take_over).toBe(false);
    server.on('POST notebook/deploy', ndjson({ result: LIVE }));
    press('Take over');
    await screen.findByText('http://127.0.0.1:8780/iris');
    expect(sent(server, 'deploy').take_over).toBe(true);
  });

  it('says so when the notebook has no kernel', async () => {
    await form(new Server(), {
      request: () => {
        throw new Problem(problem('no_kernel', 409, 'This notebook has no running kernel.'));
      }
    });
    expect(screen.getByText('This notebook has no running kernel.', { selector: 'p' })).toBeTruthy();
  });

  it('refuses a name that no API can have before anything is sent', async () => {
    const server = new Server().on('POST notebook/show', ndjson({ result: SHOWN }));
    await form(server);
    fireEvent.change(screen.getByLabelText('Name'), { target: { value: 'Iris!' } });
    expect(off('Deploy')).toBe(true);
  });

  it('shows the module with its reasons, and what differs from what is live', async () => {
    const server = new Server().on('POST notebook/show', ndjson({ result: { ...SHOWN, live: { version: 4, diff: ['--- a', '+++ b', '-old', '+new'] } } }));
    const props = await form(server);
    expect(props.told).toHaveBeenCalled();
    expect(screen.getByLabelText('Difference').textContent).toContain('+new');
    fireEvent.click(screen.getByRole('tab', { name: 'handler.py' }));
    expect(screen.getByText('`Handler`, this is what is published')).toBeTruthy();
    expect(screen.getByRole('button', { name: 'Deploy new version' })).toBeTruthy();
  });

  it('leaves config alone that is only looked at, and keeps texts texts that look like something else', async () => {
    const config = { python: '3.10', color: '#ff0000', prompt: 'one\ntwo', plain: 'a: b', n: 0.5 };
    const server = new Server().on('POST notebook/show', ndjson({ result: { ...SHOWN, config } })).on('POST notebook/deploy', ndjson({ result: LIVE }));
    await form(server);
    for (const name of Object.keys(config)) {
      fireEvent.focus(screen.getByLabelText(name));
      fireEvent.blur(screen.getByLabelText(name));
    }
    expect((screen.getByLabelText('python') as HTMLInputElement).value).toBe('"3.10"');
    const edited = screen.getByLabelText('n');
    fireEvent.change(edited, { target: { value: '0.9' } });
    fireEvent.blur(edited);
    press('Deploy');
    await screen.findByText('http://127.0.0.1:8780/iris');
    expect(sent(server, 'deploy').config).toEqual({ ...config, n: 0.9 });
  });

  it('keeps what was typed over another look, also in the YAML box', async () => {
    const server = new Server().on('POST notebook/show', ndjson({ result: SHOWN })).on('POST notebook/deploy', ndjson({ result: LIVE }));
    await form(server);
    fireEvent.click(screen.getByRole('tab', { name: 'YAML' }));
    fireEvent.change(screen.getByLabelText('Config as YAML'), { target: { value: 'threshold: 0.9' } });
    fireEvent.change(screen.getByLabelText('Replicas'), { target: { value: '3' } });
    fireEvent.change(screen.getByLabelText('Name'), { target: { value: 'iris-2' } });
    fireEvent.blur(screen.getByLabelText('Name'));
    await waitFor(() => expect(sent(server, 'show').name).toBe('iris-2'));
    await waitFor(() => expect(off('Deploy')).toBe(false));
    expect((screen.getByLabelText('Config as YAML') as HTMLTextAreaElement).value).toBe('threshold: 0.9');
    press('Deploy');
    await screen.findByText('http://127.0.0.1:8780/iris');
    expect(sent(server, 'deploy')).toMatchObject({ replicas: 3, config: { threshold: 0.9 } });
  });

  it('lets a name be given where none was found', async () => {
    const unnamed = { code: 'spec', title: 'x', detail: 'cortex.yaml has 2 APIs; say which one this notebook is', status: 400 };
    const server = new Server().on('POST notebook/show', ndjson({ problem: unnamed }));
    await form(server);
    expect(screen.getByText(/say which one this notebook is/)).toBeTruthy();
    server.on('POST notebook/show', ndjson({ result: SHOWN }));
    fireEvent.change(screen.getByLabelText('Name'), { target: { value: 'iris' } });
    fireEvent.blur(screen.getByLabelText('Name'));
    await waitFor(() => expect(sent(server, 'show').name).toBe('iris'));
    await waitFor(() => expect(off('Deploy')).toBe(false));
  });

  it('sends config as it stands in the form or in YAML', async () => {
    const server = new Server().on('POST notebook/show', ndjson({ result: SHOWN })).on('POST notebook/deploy', ndjson({ result: LIVE }));
    await form(server);
    fireEvent.change(screen.getByLabelText('threshold'), { target: { value: '0.9' } });
    fireEvent.blur(screen.getByLabelText('threshold'));
    fireEvent.click(screen.getByRole('tab', { name: 'YAML' }));
    const area = screen.getByLabelText('Config as YAML') as HTMLTextAreaElement;
    expect(area.value).toBe('threshold: 0.9\n');
    fireEvent.change(area, { target: { value: 'labels: [a, b]\nfast: [' } });
    expect(off('Deploy')).toBe(true);
    fireEvent.change(area, { target: { value: 'labels: [a, b]\nfast: true' } });
    press('Deploy');
    await screen.findByText('http://127.0.0.1:8780/iris');
    expect(sent(server, 'deploy').config).toEqual({ labels: ['a', 'b'], fast: true });
  });
});

describe('the keyboard', () => {
  it('stays on a button that is busy, which then does nothing', async () => {
    const server = new Server().on('POST notebook/show', ndjson({ result: SHOWN })).on('POST notebook/deploy', () => new Promise<Response>(() => undefined));
    await form(server);
    const deploy = screen.getByRole('button', { name: 'Deploy' });
    deploy.focus();
    press('Deploy');
    await screen.findByRole('button', { name: 'Working…' });
    // From what is disabled in its own way a browser takes the keyboard.
    expect((deploy as HTMLButtonElement).disabled).toBe(false);
    expect(document.activeElement).toBe(deploy);
    press('Working…');
    expect(server.asked.filter(one => one.path === 'notebook/deploy')).toHaveLength(1);
  });

  it('goes on from the name to the next field while the notebook is looked at under it', async () => {
    const server = new Server().on('POST notebook/show', ndjson({ result: SHOWN }));
    await form(server);
    const answers: ((answer: Response) => void)[] = [];
    server.on('POST notebook/show', () => new Promise<Response>(resolve => answers.push(resolve)));
    fireEvent.change(screen.getByLabelText('Name'), { target: { value: 'first' } });
    fireEvent.blur(screen.getByLabelText('Name'));
    await waitFor(() => expect(answers).toHaveLength(1));
    expect(screen.getByLabelText('Replicas').closest('fieldset')!.disabled).toBe(false);
    fireEvent.change(screen.getByLabelText('Name'), { target: { value: 'second' } });
    fireEvent.blur(screen.getByLabelText('Name'));
    await waitFor(() => expect(answers).toHaveLength(2));
    answers[1](ndjson({ result: { ...SHOWN, name: 'second', source: 'x = 2\n', live: { version: 2, diff: [] } } }));
    expect(await screen.findByText(/Version 2 is live/)).toBeTruthy();
    answers[0](ndjson({ result: { ...SHOWN, name: 'first', live: { version: 1, diff: [] } } }));
    await new Promise(resolve => setTimeout(resolve, 20));
    expect(screen.getByText(/Version 2 is live/)).toBeTruthy();
    expect((screen.getByLabelText('Name') as HTMLInputElement).value).toBe('second');
  });

  it('begins a dialog on what it is for, and stays in it when what was pressed goes away', async () => {
    const server = new Server().on('POST notebook/show', ndjson({ problem: { ...problem('no_handler', 400, 'no cell defines a class Handler'), title: 'x' } }));
    const model = await server.live();
    const props = { jump: vi.fn(), open: vi.fn(), close: vi.fn(), told: vi.fn(), runAll: vi.fn(async () => undefined), request: () => ({ path: 'iris.ipynb', kernel_id: 'k1', model: { cells: [] } }) };
    const dialog: FormDialog = new FormDialog({ title: 'Deploy', body: ReactWidget.create(<DeployForm model={model} {...props} />), buttons: [], focusNodeSelector: '.cx-first' });
    const closed = dialog.launch().then(() => 'closed', () => 'closed');
    const again = await screen.findByText('Look again');
    await waitFor(() => expect(document.activeElement!.textContent).toBe('Deploy'));
    again.focus();
    fireEvent.click(again);
    await waitFor(() => expect(again.isConnected).toBe(false));
    await waitFor(() => expect(document.activeElement!.textContent).toBe('Deploy'));
    fireEvent.keyDown(document.activeElement!, { key: 'Escape', keyCode: 27 });
    expect(await closed).toBe('closed');
  });
});

describe('config and steps', () => {
  it('reads a map from YAML and says where it is wrong', () => {
    expect(readConfig('')).toEqual({ value: {}, error: '' });
    expect(readConfig('a: 1\nb: [x]')).toEqual({ value: { a: 1, b: ['x'] }, error: '' });
    expect(readConfig('- a').error).toContain('map');
    expect(readConfig('a: [1').error).toMatch(/line 1|column/);
  });

  it('replaces a step that only counts on', () => {
    let steps = advance([], 'uploading model 16 of 400 MiB');
    steps = advance(steps, 'uploading model 32 of 400 MiB');
    steps = advance(steps, 'installing: Collecting xgboost');
    steps = advance(steps, 'installing: Installing collected packages: xgboost');
    steps = advance(steps, 'starting iris');
    expect(steps).toEqual([
      { text: 'uploading model 32 of 400 MiB', state: 'passed' },
      { text: 'installing: Installing collected packages: xgboost', state: 'passed' },
      { text: 'starting iris', state: 'running' }
    ]);
  });
});
