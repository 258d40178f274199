/**
 * A small Jupyter server: answers requests as the real one does, and has a socket that a test can speak through.
 */
import { ServerConnection } from '@jupyterlab/services';

import { CortexClient } from '../src/client';
import { CortexModel } from '../src/model';
import type { IEnvironment, ISummary, IWorkload, WorkloadStatus } from '../src/tokens';

export const ENVIRONMENT: IEnvironment = {
  name: 'local',
  url: 'http://127.0.0.1:8780',
  local: true,
  up: true,
  message: '',
  version: '0.1.0',
  hub: false,
  python: '/usr/bin/python3'
};

export function summary(name: string, more: Partial<ISummary> = {}): ISummary {
  return {
    name,
    status: 'live',
    message: '',
    endpoint: `/${name}`,
    live: 1,
    wanted: 1,
    stopped: false,
    source: `ada@host:/work/${name}.ipynb`,
    notebook: `${name}.ipynb`,
    requested: 1,
    ready: 1,
    stale: 0,
    capped: '',
    drift: {},
    created: 1000,
    updated: 1000,
    digest: 'd1',
    failed_hour: 0,
    minute: { minute: 60, accepted: 0, completed: 0, failed: 0, cancelled: 0 },
    workloads: { in_queue: 0, in_progress: 0, completed: 0, failed: 0, cancelled: 0 },
    ...more
  };
}

export function workload(id: string, status: WorkloadStatus = 'completed', accepted = 1000, more: Partial<IWorkload> = {}): IWorkload {
  const open = status === 'in_queue' || status === 'in_progress';
  return {
    id,
    status,
    content_type: 'application/json',
    digest: '',
    size: 2,
    accepted,
    started: status === 'in_queue' ? null : accepted + 5,
    finished: open ? null : accepted + 25,
    attempts: status === 'in_queue' ? 0 : 1,
    deaths: 0,
    run: 1,
    replica: 'iris-v1-ab12',
    version: 1,
    error: status === 'failed' ? { type: 'KeyError', message: "'petal'" } : null,
    wait_ms: status === 'in_queue' ? null : 5,
    run_ms: open ? null : 20,
    ...more
  };
}

export type Answer = Response | (() => Response | Promise<Response>);

export function json(body: unknown, status = 200): Response {
  return new Response(JSON.stringify(body), { status, headers: { 'content-type': status < 400 ? 'application/json' : 'application/problem+json' } });
}

export function ndjson(...lines: unknown[]): Response {
  return new Response(lines.map(line => `${JSON.stringify(line)}\n`).join(''), { headers: { 'content-type': 'application/x-ndjson' } });
}

/** A socket whose other end is the test. */
export class FakeSocket {
  onopen: (() => void) | null = null;
  onmessage: ((event: { data: string }) => void) | null = null;
  onclose: (() => void) | null = null;
  readyState = 0;
  readonly sent: any[] = [];

  constructor(readonly url: string) {}

  send(text: string): void {
    this.sent.push(JSON.parse(text));
  }

  close(): void {
    this.readyState = 3;
  }

  open(): void {
    this.readyState = 1;
    this.onopen?.();
  }

  /** A frame with log lines is made after everything that was sent, where the test does not say otherwise. */
  say(frame: any): void {
    const turn = frame.logs ? { turn: this.sent.at(-1)?.turn ?? 0 } : {};
    this.onmessage?.({ data: JSON.stringify({ ...turn, ...frame }) });
  }

  break(): void {
    this.readyState = 3;
    this.onclose?.();
  }
}

export class Server {
  /** ``METHOD path`` below /cortex/ -> what is answered; the last one given counts. */
  readonly answers = new Map<string, Answer>();
  readonly asked: { method: string; path: string; body: string; headers: Headers }[] = [];
  readonly sockets: FakeSocket[] = [];

  readonly settings = ServerConnection.makeSettings({
    baseUrl: 'http://localhost:8888/user/ada/',
    wsUrl: 'ws://localhost:8888/user/ada/',
    appendToken: false,
    token: '',
    fetch: async (input: any) => {
      const request = input as Request;
      // Without the number that JupyterLab appends so that nothing is cached.
      const path = request.url.replace('http://localhost:8888/user/ada/cortex/', '').replace(/[?&]\d{13}$/, '');
      this.asked.push({ method: request.method, path, body: await request.clone().text(), headers: request.headers });
      const answer = this.answers.get(`${request.method} ${path.split('?')[0]}`) ?? this.answers.get(`${request.method} *`);
      if (!answer) {
        return json({ title: 'Nothing is published at this path', status: 404, detail: `no answer for ${request.method} ${path}`, code: 'route_not_found' }, 404);
      }
      return typeof answer === 'function' ? answer() : answer.clone();
    }
  });

  readonly client = new CortexClient(this.settings);

  model(): CortexModel {
    return new CortexModel(this.client, url => {
      const socket = new FakeSocket(url);
      this.sockets.push(socket);
      return socket as unknown as WebSocket;
    });
  }

  get socket(): FakeSocket {
    return this.sockets[this.sockets.length - 1];
  }

  on(what: string, answer: Answer): this {
    this.answers.set(what, answer);
    return this;
  }

  /** A model whose stream runs. */
  async live(apis: ISummary[] = [], environment: IEnvironment = ENVIRONMENT): Promise<CortexModel> {
    this.on('GET snapshot', () => json({ environment, apis, seq: Object.fromEntries(apis.map(api => [api.name, '1-0'])) }));
    const model = this.model();
    model.start();
    await until(() => model.connection !== 'loading');
    this.socket.open();
    return model;
  }
}

/** Wait for a condition. */
export async function until(condition: () => unknown, what = 'the condition'): Promise<void> {
  const deadline = Date.now() + 5000;
  while (!condition()) {
    if (Date.now() > deadline) {
      throw new Error(`waited 5 s in vain for ${what}`);
    }
    await new Promise(resolve => setTimeout(resolve, 5));
  }
}
