/**
 * The one way to the server: everything goes to the Jupyter server's own routes, with its cookie and XSRF token.
 */
import { URLExt } from '@jupyterlab/coreutils';
import { ServerConnection } from '@jupyterlab/services';

import { parseExact } from './exact';
import { WRITTEN } from './tokens';
import type {
  IApiDetail,
  IChecked,
  IDeployed,
  IEnvironment,
  IFailureGroup,
  IHistory,
  ILogLines,
  ILogPage,
  IModule,
  INotebookRequest,
  IProblem,
  IRehearsalReport,
  IRequeued,
  IShown,
  ISnapshot,
  IStep,
  IWorkload,
  IWorkloadDetails,
  WorkloadStatus
} from './tokens';

/** A refusal: `message` says what, where and what to do. */
export class Problem extends Error {
  constructor(readonly document: IProblem) {
    super(document.detail || document.title);
    this.name = 'Problem';
  }

  get code(): string {
    return this.document.code;
  }
}

/** The code of what answers where the server extension is not loaded. */
export const MISSING = 'extension_missing';
/** The code where nothing answered at all. */
export const UNREACHABLE = 'server_unreachable';

/** The payload of a workload as it came in. */
export interface IPayload {
  contentType: string;
  bytes: Uint8Array;
}

export class CortexClient {
  constructor(readonly settings: ServerConnection.ISettings = ServerConnection.makeSettings()) {}

  // Looking -----------------------------------------------------------------------------------------------------------------------------

  environment(): Promise<IEnvironment> {
    return this.json('environment');
  }

  snapshot(): Promise<ISnapshot> {
    return this.json('snapshot');
  }

  api(name: string): Promise<IApiDetail> {
    return this.json(`api/apis/${part(name)}`);
  }

  workloads(name: string, options: IWorkloadQuery = {}): Promise<IWorkloadPage> {
    return this.json(`api/apis/${part(name)}/workloads${query({ ...options, status: options.status?.join(',') })}`);
  }

  async workload(name: string, id: string): Promise<IWorkloadDetails> {
    // Its lines are asked for by themselves; a failure keeps up to 1 MB of them.
    const answer = await this.request(`api/apis/${part(name)}/workloads/${part(id)}${query({ logs: false })}`);
    return parseExact(await answer.text()) as IWorkloadDetails;
  }

  /** Some of its own lines: from number `first` on, else the last ones; with `q` of those that show this text. */
  async workloadLogs(name: string, id: string, wanted: { limit: number; first?: number; q?: string }): Promise<ILogPage> {
    return timed(await this.json<ILogPage>(`api/apis/${part(name)}/workloads/${part(id)}/logs${query(wanted)}`));
  }

  async payload(name: string, id: string): Promise<IPayload> {
    const answer = await this.request(`api/apis/${part(name)}/workloads/${part(id)}/payload`);
    const contentType = decodeURIComponent(answer.headers.get('x-payload-content-type') ?? '');
    return { contentType, bytes: new Uint8Array(await answer.arrayBuffer()) };
  }

  /** Failures of the last so many seconds, grouped; the group that failed last first. */
  async failures(name: string, since?: number): Promise<IFailureGroup[]> {
    return (await this.json<{ groups: IFailureGroup[] }>(`api/apis/${part(name)}/failures${query({ since })}`)).groups;
  }

  history(name: string, minutes: number, step: number): Promise<IHistory> {
    return this.json(`api/apis/${part(name)}/history${query({ minutes, step })}`);
  }

  /** The newest lines of all replicas; with `q` or `level` of those that show this text, of this level and above, among all that are kept. */
  async logs(name: string, lines: number, sought: { q?: string; level?: string } = {}): Promise<ILogLines & { position: string }> {
    return timed(await this.json<ILogLines & { position: string }>(`api/apis/${part(name)}/logs/tail${query({ lines, ...sought })}`));
  }

  module(name: string, version: number): Promise<IModule> {
    return this.json(`api/apis/${part(name)}/deployments/${version}/module`);
  }

  async report(name: string, version: number): Promise<unknown> {
    return (await this.request(`api/apis/${part(name)}/deployments/${version}/report`)).json();
  }

  /** The documentation of the installed version, in Markdown. */
  async help(): Promise<string> {
    return (await this.request('help')).text();
  }

  // Doing -------------------------------------------------------------------------------------------------------------------------------

  startEnvironment(): Promise<IEnvironment> {
    return this.json('environment/start', { method: 'POST' });
  }

  refresh(name: string): Promise<{ message: string; version: number }> {
    return this.json(`api/apis/${part(name)}/refresh`, { method: 'POST' });
  }

  /** Make an earlier version live again, as a new one. */
  rollback(name: string, version: number, source: string): Promise<{ message: string; version: number }> {
    return this.json(`api/apis/${part(name)}/rollback`, { method: 'POST', body: JSON.stringify({ version, source }) });
  }

  /** The report of a version that was rehearsed. */
  rehearsal(name: string, version: number): Promise<IRehearsalReport> {
    return this.json(`api/apis/${part(name)}/deployments/${version}/rehearsal`);
  }

  /** Make what was rehearsed live. */
  promote(name: string, version: number, source: string): Promise<{ message: string; version: number }> {
    return this.json(`api/apis/${part(name)}/deployments/${version}/promote`, { method: 'POST', body: JSON.stringify({ source }) });
  }

  /** End a rehearsal, or what was rehearsed. */
  drop(name: string, version: number): Promise<{ message: string }> {
    return this.json(`api/apis/${part(name)}/deployments/${version}/drop`, { method: 'POST' });
  }

  stop(name: string): Promise<{ message: string }> {
    return this.json(`api/apis/${part(name)}/stop`, { method: 'POST' });
  }

  start(name: string): Promise<{ message: string }> {
    return this.json(`api/apis/${part(name)}/start`, { method: 'POST' });
  }

  remove(name: string): Promise<{ message: string }> {
    return this.json(`api/apis/${part(name)}`, { method: 'DELETE' });
  }

  /** Put failed workloads back under their ids: one call's worth. `next` of the answer, given again, goes on with a group. */
  requeue(name: string, wanted: IRequeueWish): Promise<IRequeued> {
    return this.json(`api/apis/${part(name)}/requeue`, { method: 'POST', body: JSON.stringify(wanted) });
  }

  /** Keep a workload's payload as a sample beside a notebook. */
  keepSample(api: string, id: string, path: string): Promise<{ name: string; file: string; message: string }> {
    return this.json('sample', { method: 'POST', body: JSON.stringify({ api, id, path }) });
  }

  /** `%cortex` works in the notebook's kernel from then on; whether its Handler has run there. */
  prepare(request: INotebookRequest, step: (said: IStep) => void): Promise<{ handler: boolean }> {
    return this.notebook('prepare', request, step);
  }

  show(request: INotebookRequest, step: (said: IStep) => void, signal?: AbortSignal): Promise<IShown> {
    return this.notebook('show', request, step, signal);
  }

  check(request: INotebookRequest, step: (said: IStep) => void, signal?: AbortSignal): Promise<IChecked> {
    return this.notebook('check', request, step, signal);
  }

  deploy(request: INotebookRequest, step: (said: IStep) => void): Promise<IDeployed> {
    return this.notebook('deploy', request, step);
  }

  // Calling -----------------------------------------------------------------------------------------------------------------------------

  /** Send a payload to an API as a caller does; its request id. */
  async submit(endpoint: string, body: BodyInit, contentType: string, requestId?: string): Promise<string> {
    const headers: Record<string, string> = { 'content-type': contentType, ...(requestId ? { 'x-request-id': requestId } : {}) };
    return ((await this.request(`run${endpoint}`, { method: 'POST', body, headers })).json() as Promise<{ id: string }>).then(said => said.id);
  }

  cancel(endpoint: string, id: string): Promise<{ id: string; status: WorkloadStatus }> {
    return this.json(`run${endpoint}/${part(id)}`, { method: 'DELETE' });
  }

  /** Where the stream is. */
  streamUrl(): string {
    const url = URLExt.join(this.settings.wsUrl, 'cortex', 'stream');
    const token = this.settings.appendToken && this.settings.token;
    return token ? `${url}?token=${encodeURIComponent(token)}` : url;
  }

  /** Where a caller outside of Jupyter reaches an API: through this server's own authentication. */
  runUrl(endpoint: string): string {
    return URLExt.join(new URL(this.settings.baseUrl, window.location.href).href, 'cortex/run') + endpoint;
  }

  /** Where the notebook is that was executed for a workload; nothing in the page runs. */
  notebookUrl(name: string, id: string, form: 'html' | 'ipynb'): string {
    return URLExt.join(this.settings.baseUrl, 'cortex') + `/api/apis/${part(name)}/workloads/${part(id)}/notebook.${form}`;
  }

  // The wire ----------------------------------------------------------------------------------------------------------------------------

  private async json<T>(path: string, init: RequestInit = {}): Promise<T> {
    return (await this.request(path, init)).json() as Promise<T>;
  }

  private async request(path: string, init: RequestInit = {}): Promise<Response> {
    const url = URLExt.join(this.settings.baseUrl, 'cortex') + `/${path}`;
    let answer: Response;
    try {
      answer = await ServerConnection.makeRequest(url, init, this.settings);
    } catch (error) {
      if (init.signal?.aborted) {
        throw error;
      }
      throw new Problem(problem(UNREACHABLE, 503, 'The Jupyter server does not answer; is it still running, and the network up?'));
    }
    if (!answer.ok) {
      throw await refusal(answer);
    }
    return answer;
  }

  /** One JSON object a line: steps, then the result or a problem. */
  private async notebook<T>(verb: string, body: INotebookRequest, step: (said: IStep) => void, signal?: AbortSignal): Promise<T> {
    const answer = await this.request(`notebook/${verb}`, { method: 'POST', body: JSON.stringify(body), signal });
    const look = verb === 'deploy' ? 'look in the list of APIs whether it went live.' : 'try again.';
    const cutOff = () => new Problem(problem('cut_off', 502, `The connection ended before the answer; ${look}`));
    let result: { result: T } | null = null;
    for await (const said of lines(answer, error => (signal?.aborted ? error : cutOff()))) {
      if (said.problem) {
        throw new Problem(said.problem);
      } else if ('result' in said) {
        result = said as { result: T };
      } else {
        step(said as IStep);
      }
    }
    if (!result) {
      throw cutOff();
    }
    return result.result;
  }
}

export interface IWorkloadQuery {
  status?: WorkloadStatus[];
  limit?: number;
  cursor?: string;
  q?: string;
  fingerprint?: string;
}

/** `ids`, or a group by its `fingerprint`, of the last `since` seconds. `source`: where it was asked for. */
export interface IRequeueWish {
  ids?: string[];
  fingerprint?: string;
  since?: number;
  next?: string;
  source?: string;
}

export interface IWorkloadPage {
  workloads: IWorkload[];
  next: string | null;
  scanned: number;
}

/** Objects of an NDJSON answer as they arrive. `broken`: what is thrown where the connection breaks; a browser says "network error". */
async function* lines(answer: Response, broken: (error: unknown) => unknown): AsyncGenerator<any> {
  const decoder = new TextDecoder();
  const reader = answer.body!.getReader();
  let rest = '';
  for (;;) {
    const { done, value } = await reader.read().catch(error => {
      throw broken(error);
    });
    rest += decoder.decode(value, { stream: !done });
    const whole = rest.split('\n');
    rest = done ? '' : whole.pop()!;
    for (const line of whole.filter(one => one.trim())) {
      yield JSON.parse(line);
    }
    if (done) {
      return;
    }
  }
}

async function refusal(answer: Response): Promise<Problem> {
  try {
    const document = await answer.clone().json();
    if (document && typeof document.code === 'string') {
      return new Problem(document);
    }
  } catch {
    // no JSON: not one of ours
  }
  if (answer.status === 404) {
    return new Problem(
      problem(MISSING, 404, 'This Jupyter server does not run the jupyter-cortex extension. Install it beside the server: pip install jupyter-cortex')
    );
  }
  if (answer.status === 401 || answer.status === 403) {
    return new Problem(problem('forbidden', answer.status, 'The Jupyter server refused this; sign in again by reloading the page.'));
  }
  return new Problem(problem('internal', answer.status, `The Jupyter server answered ${answer.status} ${answer.statusText}.`));
}

/** Lines with their times put to each of them. */
export function timed<T extends ILogLines>(lines: T): T {
  lines.times?.forEach((ms, at) => {
    lines.records[at][WRITTEN] = ms;
  });
  return lines;
}

export function problem(code: string, status: number, detail: string): IProblem {
  return { code, status, detail, title: detail.split('.')[0] };
}

/** What any error is as a problem, to be drawn. */
export function asProblem(error: unknown): IProblem {
  return error instanceof Problem ? error.document : problem('internal', 0, error instanceof Error ? error.message : String(error));
}

function part(text: string): string {
  return /^\.+$/.test(text) ? text.replace(/\./g, '%2E') : encodeURIComponent(text);
}

function query(values: object): string {
  const given = Object.entries(values).filter(([, value]) => value !== undefined && value !== '');
  return given.length ? `?${given.map(([key, value]) => `${key}=${encodeURIComponent(String(value))}`).join('&')}` : '';
}
