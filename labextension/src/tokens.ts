/**
 * What everything else speaks of: the shapes that the server sends, and the names of commands. Times are ms since the epoch, in UTC.
 */

export const PLUGIN_ID = 'jupyter-cortex:plugin';

export namespace CommandIDs {
  export const deploy = 'cortex:deploy';
  export const openApi = 'cortex:open-api';
  export const openWorkload = 'cortex:open-workload';
  export const showApis = 'cortex:show-apis';
  export const logs = 'cortex:logs';
  export const test = 'cortex:test';
  export const refresh = 'cortex:refresh';
  export const stop = 'cortex:stop';
  export const start = 'cortex:start';
  export const remove = 'cortex:delete';
  export const startEnvironment = 'cortex:start-environment';
  export const newNotebook = 'cortex:new-notebook';
  export const openCell = 'cortex:open-cell';
  export const openNotebook = 'cortex:open-notebook';
  export const openReport = 'cortex:open-report';
  export const replay = 'cortex:replay';
  export const requeue = 'cortex:requeue';
  export const rollback = 'cortex:rollback';
  export const promote = 'cortex:promote';
  export const drop = 'cortex:drop';
  export const keepSample = 'cortex:keep-sample';
  export const help = 'cortex:help';
}

/** Where the server extension points. `message` says why it is not up. */
export interface IEnvironment {
  name: string;
  url: string;
  local: boolean;
  up: boolean;
  message: string;
  version: string;
  hub: boolean;
  python: string;
  /** Its gateway wants a call token of callers, too. Missing: it does not, as far as is known. */
  guarded?: boolean;
}

/** The traffic of one minute; `minute` is in seconds since the epoch. */
export interface IMinute {
  minute: number;
  accepted: number;
  completed: number;
  failed: number;
  cancelled: number;
}

export type ApiStatus = 'live' | 'updating' | 'error' | 'stopped';
export type WorkloadStatus = 'in_queue' | 'in_progress' | 'completed' | 'failed' | 'cancelled';
export const STATUSES: readonly WorkloadStatus[] = ['in_queue', 'in_progress', 'completed', 'failed', 'cancelled'];

/** One API as lists show it. `live` and `wanted` are versions, 0 for none; `notebook` is a path of the contents manager. */
export interface ISummary {
  name: string;
  status: ApiStatus;
  message: string;
  endpoint: string;
  live: number;
  wanted: number;
  stopped: boolean;
  source: string;
  notebook: string | null;
  requested: number;
  ready: number;
  stale: number;
  capped: string;
  drift: Record<string, unknown>;
  created: number;
  updated: number;
  digest: string;
  failed_hour: number;
  minute: IMinute;
  recent?: IMinute[];
  workloads: Record<WorkloadStatus, number>;
  /** A version that runs kept workloads in the shadow, or has, and waits for a decision. */
  rehearsal?: IRehearsal | null;
}

/** How a rehearsed workload's end stands to production's; `gone`: its payload is not kept any more, so it was not run. */
export type Verdict = 'fails_here' | 'another_failure' | 'changed' | 'fixed' | 'same_result' | 'same_failure' | 'gone';

/** How far a rehearsal is. `live`: the version beside which it runs; `failed`: the version did not start, `message` says why. */
export interface IRehearsal {
  version: number;
  state: 'rehearsing' | 'rehearsed' | 'failed';
  message: string;
  live: number;
  total: number;
  done: number;
  counts: Partial<Record<Verdict, number>>;
  who: string;
}

/** How a workload ended on one of the two versions. */
export interface IRehearsedSide {
  status: string;
  error: { type: string; message: string } | null;
  place: string;
  fingerprint: string;
  traceback: string;
  run_ms: number | null;
  version?: number | null;
}

/** One workload of a rehearsal. A row of `difference` has no `then` where the value is new, and no `now` where it is gone; `close` is the same number but for rounding. */
export interface IRehearsedRow {
  id: string;
  verdict: Verdict;
  text: string;
  redacted?: boolean;
  production?: IRehearsedSide;
  here?: IRehearsedSide;
  difference?: { rows: { path: string; kind: string; then: string | null; now: string | null }[]; more: number } | null;
}

/** What came of a rehearsal. Times are in ms. */
export interface IRehearsalReport {
  version: number;
  live: number;
  began: number;
  ended: number;
  rows: IRehearsedRow[];
  counts: Partial<Record<Verdict, number>>;
  redacted: number;
  same: boolean;
  speed: Record<'production' | 'here', { median: number; p95: number }> | null;
}

/** How far a workload is, as its handler said last. ``at``: ms since the epoch. */
export interface IProgress {
  fraction: number;
  text: string;
  at: number;
}

/** One workload as the table shows it. */
export interface IWorkload {
  id: string;
  status: WorkloadStatus;
  content_type: string;
  digest: string;
  size: number;
  accepted: number;
  started: number | null;
  finished: number | null;
  attempts: number;
  deaths: number;
  run: number;
  replica: string;
  version: number | null;
  error: { type: string; message: string } | null;
  wait_ms: number | null;
  run_ms: number | null;
  progress?: IProgress;
}

/** Everything that is kept of one workload. */
export interface IWorkloadDetails extends IWorkload {
  result: unknown;
  failure: { traceback?: string; [key: string]: unknown } | null;
  payload_kept: boolean;
  /** Why it is not, once the workload has ended. */
  payload_gone?: string;
  /** Which failures are this one; "" where it did not fail. */
  fingerprint?: string;
  /** The payload that is kept is not the caller's any more. */
  redacted?: boolean;
  /** Earlier runs, the last one first. */
  requeues?: IRequeue[];
  /** Of one that has not ended: what its handler has told of the result, and how many wait in front of it. */
  partial?: unknown;
  position?: number | null;
  /** Bytes of the notebook that was executed for it, of a notebook handler. */
  notebook?: number;
}

/** What a run ended with, and who put it back into the queue, when and from where. */
export interface IRequeue {
  run: number;
  at: number;
  who?: string;
  source?: string;
  version: number | null;
  fingerprint: string;
  error: { type: string; message: string } | null;
}

/** One line on the way to an exception. `place`: `cell 2, line 8` where a notebook is the source. */
export interface IFailureFrame {
  file: string;
  line: number;
  function: string;
  text: string;
  place: string;
  user: boolean;
}

/** Failures that are one mistake. Message and frames are those of `newest`. */
export interface IFailureGroup {
  fingerprint: string;
  type: string;
  message: string;
  place: string;
  frames: IFailureFrame[];
  count: number;
  first: number;
  last: number;
  versions: number[];
  newest: string;
}

/** What a requeue did. `next`: what a group still has is asked for with it; `remaining`: how many those are. */
export interface IRequeued {
  requeued: string[];
  refused: { id: string; reason: string }[];
  next: string | null;
  remaining: number;
}

/** When a line was written, in ms since the epoch: beside what its author has put there, whatever that is called. */
export const WRITTEN: unique symbol = Symbol('written');

/** Log lines as they come. `times`: when each was written; its own `asctime` is its worker's local time. */
export interface ILogLines {
  records: LogRecord[];
  times?: number[];
}

/** Some of a workload's own lines: the first of them is number `first` of `total`, counted from 0. */
export interface ILogPage extends ILogLines {
  first: number;
  total: number;
}

export type LogRecord = { message?: string; levelname?: string; asctime?: string; request_id?: string; [WRITTEN]?: number; [key: string]: unknown };

export interface IDeployment {
  version: number;
  state: string;
  digest: string;
  source: string;
  replicas: number;
  interpreter: string;
  python_version: string;
  host: string;
  distributions: Record<string, string>;
  error: { message?: string; [key: string]: unknown };
  spec: Record<string, any>;
  times: Record<string, number>;
  /** The contents manager's path of the notebook it was published from, where that is still there. */
  notebook?: string | null;
  /** Of a version that brought an earlier one back: which. */
  rollback?: { to?: number; who?: string; source?: string };
}

export interface IApiDetail extends ISummary {
  spec: Record<string, any>;
  api_versions: IDeployment[];
  workers: Record<string, any>;
  exits: any[];
}

/** A version's module. `cells` maps a label ("cell 3") to the id of the cell that it was. */
export interface IModule {
  path: string;
  source: string;
  reasons: IReason[];
  notebook: string;
  cells: Record<string, string>;
}

export interface IReason {
  cell: string;
  line: number;
  module_line: number;
  lines: number;
  text: string;
  reasons: string[];
}

export interface IHistoryRow extends IMinute {
  wait_p50_ms: number | null;
  wait_p95_ms: number | null;
  run_p50_ms: number | null;
  run_p95_ms: number | null;
  open: number;
}

export interface IHistory {
  step: number;
  now: number;
  rows: IHistoryRow[];
}

/** What moved behind a sequence number. `gap`: more than the server still holds, so that what is shown must be loaded anew. */
export interface IChanges {
  seq: string;
  moves: Partial<Record<WorkloadStatus, number>>;
  workloads: IWorkload[];
  more: number;
  gap: boolean;
}

export interface ILogBatch extends ILogLines {
  position: string;
  gap: boolean;
}

/** One frame of the stream. */
export interface IFrame {
  environment?: IEnvironment;
  apis?: ISummary[];
  gone?: string[];
  changes?: Record<string, IChanges>;
  logs?: Record<string, ILogBatch>;
  /** The last message of the page that the server had taken when it made this. */
  turn?: number;
}

export interface ISnapshot {
  environment: IEnvironment;
  apis: ISummary[];
  seq: Record<string, string>;
}

/** Something that would surprise, or that keeps the notebook from being published. */
export interface ISurprise {
  kind: string;
  place: string;
  message: string;
  remedy: string;
  blocks: boolean;
  asks: boolean;
}

/** What would be published of a notebook. */
export interface IShown {
  name: string;
  executed: boolean;
  recorded: boolean;
  module: string;
  source: string;
  reasons: IReason[];
  surprises: ISurprise[];
  travels: { path: string; bytes: number; why: string }[];
  has_config: boolean;
  live: { version: number; diff: string[]; keeps_payloads?: boolean } | null;
  document: Record<string, any>;
  config: Record<string, unknown>;
  replicas: number;
  python: string;
  cells: Record<string, string>;
}

export interface IChecked {
  name: string;
  surprises: ISurprise[];
  samples: string[];
  error: { kind: string; message: string; details: Record<string, any> } | null;
  ok: boolean;
}

export interface IDeployed {
  deployed: { api: string; outcome: string; version: number; message: string; endpoint: string; url: string; warnings: string[] }[];
  curl: string;
  warnings: string[];
}

/** One step of a deploy or a check, as it happens. */
export interface IStep {
  step: string;
  [fact: string]: unknown;
}

/** What goes with a notebook to show, check or deploy it. */
export interface INotebookRequest {
  path: string;
  kernel_id: string;
  model: unknown;
  name?: string;
  config?: Record<string, unknown>;
  replicas?: number;
  yes?: boolean;
  take_over?: boolean;
  force?: boolean;
  /** Run so many of the last kept requests first, in the shadow. */
  rehearse?: number;
}

/** A refusal in the words of RFC 9457. */
export interface IProblem {
  title: string;
  status: number;
  detail: string;
  code: string;
  [fact: string]: any;
}
