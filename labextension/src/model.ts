/**
 * What the front end knows: one snapshot, kept true by one stream, told by one signal. Views draw it, commands change it on the server.
 */
import { DisposableDelegate, IDisposable } from '@lumino/disposable';
import { ISignal, Signal } from '@lumino/signaling';

import { asProblem, CortexClient, MISSING, timed } from './client';
import type { IEnvironment, IFrame, IMinute, IProblem, ISnapshot, ISummary } from './tokens';

/**
 * idle: nobody has looked yet. loading: the first answer is on its way. live: the stream runs and the environment answers. down: the environment does
 * not answer. lost: the Jupyter server does not answer, and is tried again. missing: it answers but does not know us.
 */
export type Connection = 'idle' | 'loading' | 'live' | 'down' | 'lost' | 'missing';

/** What a signal tells. `reset`: everything may have changed. */
export interface IChange extends IFrame {
  reset?: boolean;
}

/** Minutes of traffic that a summary keeps for its sparkline. */
export const RECENT_MINUTES = 60;
/** The position of a log's end. */
const NOW = '$';
/** Waits between two attempts to reach the server again, in ms; the last one repeats. */
const BACK_OFF = [500, 1000, 2000, 4000, 8000, 15000];

export class CortexModel implements IDisposable {
  constructor(
    readonly client: CortexClient,
    private readonly openSocket: (url: string) => WebSocket = url => new client.settings.WebSocket(url)
  ) {}

  get changed(): ISignal<this, IChange> {
    return this._changed;
  }

  get connection(): Connection {
    return this._connection;
  }

  /** Why the connection is not live, where it is not. */
  get problem(): IProblem | null {
    return this._problem;
  }

  get environment(): IEnvironment | null {
    return this._environment;
  }

  /** All APIs, by name. */
  get apis(): ISummary[] {
    return [...this._apis.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  api(name: string): ISummary | undefined {
    return this._apis.get(name);
  }

  /** The API that was published from a notebook; the newest one where several were. */
  ofNotebook(path: string): ISummary | undefined {
    const found = [...this._apis.values()].filter(api => api.notebook === path);
    return found.sort((a, b) => b.updated - a.updated)[0];
  }

  get isDisposed(): boolean {
    return this._disposed;
  }

  dispose(): void {
    this._disposed = true;
    clearTimeout(this._timer);
    this._socket?.close();
    Signal.clearData(this);
  }

  /** Look, and go on looking. Calling it again changes nothing. */
  start(): void {
    if (this._connection === 'idle') {
      window.addEventListener('online', this._retryNow);
      this._set('loading');
      void this.load();
    }
  }

  /** Everything anew: after a gap, or when somebody presses Retry. */
  async load(): Promise<void> {
    clearTimeout(this._timer);
    try {
      const snapshot = await this.client.snapshot();
      if (!this._disposed) {
        this._begin(snapshot);
      }
    } catch (error) {
      this._lose(error);
    }
  }

  private _begin(snapshot: ISnapshot): void {
    if (this._known !== null && !same(this._known, snapshot.environment)) {
      // Its logs are others, whatever their names; each view asks for the end of its own.
      this._logs = Object.fromEntries(Object.keys(this._logs).map(name => [name, NOW]));
    }
    this._environment = this._known = snapshot.environment;
    this._apis = new Map(snapshot.apis.map(api => [api.name, api]));
    this._seq = { ...snapshot.seq };
    this._attempt = 0;
    this._connect();
    this._set(snapshot.environment.up ? 'live' : 'down', null, { reset: true });
  }

  /** Start the local environment; raises Problem with the reason. */
  async startEnvironment(): Promise<void> {
    this._environment = await this.client.startEnvironment();
    await this.load();
  }

  /** Get an API's log lines from `position` on with the frames, until disposed. */
  followLogs(api: string, position: string): IDisposable {
    this._followers.set(api, (this._followers.get(api) ?? 0) + 1);
    this._logs[api] = position;
    this._from[api] = this._turn + 1;
    this._subscribe({ [api]: position });
    return new DisposableDelegate(() => {
      const left = (this._followers.get(api) ?? 1) - 1;
      this._followers.set(api, left);
      if (left === 0) {
        this._followers.delete(api);
        delete this._logs[api];
        delete this._from[api];
        this._subscribe({});
      }
    });
  }

  // The stream --------------------------------------------------------------------------------------------------------------------------

  private _connect(): void {
    const old = this._socket;
    this._socket = null;
    old?.close();
    const socket = this.openSocket(this.client.streamUrl());
    this._socket = socket;
    socket.onopen = () => {
      // The server goes on behind these, whatever happened in between.
      socket.send(JSON.stringify({ events: this._seq, logs: this._logs, turn: ++this._turn }));
    };
    socket.onmessage = event => {
      if (socket === this._socket) {
        this._attempt = 0;
        this.apply(JSON.parse(event.data as string) as IFrame);
      }
    };
    socket.onclose = () => {
      if (socket === this._socket && !this._disposed) {
        this._socket = null;
        this._lose(null);
      }
    };
  }

  /** The server knows better than we how far it has told those that it told before: only a new one comes with its position. */
  private _subscribe(added: Record<string, string>): void {
    const logs = Object.fromEntries(Object.keys(this._logs).map(name => [name, added[name] ?? null]));
    if (this._socket?.readyState === 1) {
      this._socket.send(JSON.stringify({ logs, turn: ++this._turn }));
    }
  }

  private _lose(error: unknown): void {
    if (this._disposed) {
      return;
    }
    const problem = error === null ? null : asProblem(error);
    const wait = BACK_OFF[Math.min(this._attempt++, BACK_OFF.length - 1)];
    clearTimeout(this._timer);
    // A fifth more or less: a server that comes back is not met by all tabs at the same moment.
    this._timer = window.setTimeout(() => void this._retry(), wait * (0.8 + 0.4 * Math.random()));
    this._set(problem?.code === MISSING ? 'missing' : 'lost', problem);
  }

  private readonly _retryNow = (): void => {
    if (this._connection === 'lost' || this._connection === 'missing') {
      this._attempt = 0;
      void this._retry();
    }
  };

  /**
   * A socket's failure does not say why, an ordinary request does. What happened meanwhile comes by the stream, behind the sequence numbers; but its
   * summaries have the current minute only, and those before it are the snapshot's.
   */
  private async _retry(): Promise<void> {
    clearTimeout(this._timer);
    try {
      const snapshot = await this.client.snapshot();
      if (this._disposed) {
        return;
      }
      if (this._known === null || !same(this._known, snapshot.environment)) {
        return this._begin(snapshot);
      }
      this._environment = snapshot.environment;
      if (snapshot.environment.up) {
        this._apis = new Map(snapshot.apis.map(api => [api.name, api]));
      }
      this._connect();
      this._set(snapshot.environment.up ? 'live' : 'down');
    } catch (error) {
      this._lose(error);
    }
  }

  /** Take a frame in and tell of it. */
  apply(frame: IFrame): void {
    if (frame.environment) {
      this._environment = frame.environment;
      this._connection = frame.environment.up ? 'live' : 'down';
      this._known = frame.environment.up ? frame.environment : this._known;
    }
    for (const summary of frame.apis ?? []) {
      this._apis.set(summary.name, withRecent(summary, this._apis.get(summary.name)));
    }
    for (const name of frame.gone ?? []) {
      this._apis.delete(name);
      delete this._seq[name];
    }
    for (const [name, changes] of Object.entries(frame.changes ?? {})) {
      this._seq[name] = changes.seq;
    }
    for (const [name, batch] of Object.entries(frame.logs ?? {})) {
      if ((frame.turn ?? 0) < (this._from[name] ?? 0) && !batch.gap) {
        // On its way when this log was followed anew: its lines come again, behind the position that was asked for.
        delete frame.logs![name];
      } else if (name in this._logs) {
        this._logs[name] = batch.position;
        timed(batch);
      }
    }
    this._changed.emit(frame);
  }

  private _set(connection: Connection, problem: IProblem | null = null, change: IChange = {}): void {
    this._connection = connection;
    this._problem = problem;
    this._changed.emit(change);
  }

  private _connection: Connection = 'idle';
  private _problem: IProblem | null = null;
  private _environment: IEnvironment | null = null;
  /** The one whose APIs and positions these are: one that is down has told none. */
  private _known: IEnvironment | null = null;
  private _apis = new Map<string, ISummary>();
  private _seq: Record<string, string> = {};
  private _logs: Record<string, string> = {};
  private _followers = new Map<string, number>();
  /** How often the server was told what is followed; and for each log the first time that it was. */
  private _turn = 0;
  private _from: Record<string, number> = {};
  private _socket: WebSocket | null = null;
  private _attempt = 0;
  private _timer = 0;
  private _disposed = false;
  private readonly _changed = new Signal<this, IChange>(this);
}

/** Whether it is one environment: what was known of the first holds for the second. */
function same(one: IEnvironment, other: IEnvironment): boolean {
  return one.name === other.name && one.url === other.url;
}

/** A summary of a delta has the current minute only; the minutes before it are what was known. */
function withRecent(summary: ISummary, known: ISummary | undefined): ISummary {
  const oldest = summary.minute.minute - RECENT_MINUTES * 60;
  const minutes = new Map<number, IMinute>();
  for (const row of [...(known?.recent ?? []), ...(summary.recent ?? []), summary.minute]) {
    if (row.minute > oldest) {
      minutes.set(row.minute, row);
    }
  }
  return { ...summary, recent: [...minutes.values()].sort((a, b) => a.minute - b.minute) };
}
