/**
 * The check notebooks of versions as a read-only drive, so that a report opens like any notebook and nothing is written into anybody's folder.
 */
import type { Contents, ServerConnection } from '@jupyterlab/services';
import { ISignal, Signal } from '@lumino/signaling';

import type { CortexClient } from './client';

export const DRIVE = 'CortexReports';

export function reportPath(name: string, version: number): string {
  return `${DRIVE}:${name}/${version}/${name}-v${version}-checks.ipynb`;
}

export class ReportDrive implements Contents.IDrive {
  readonly name = DRIVE;

  constructor(private readonly client: CortexClient) {}

  get serverSettings(): ServerConnection.ISettings {
    return this.client.settings;
  }

  get fileChanged(): ISignal<this, Contents.IChangedArgs> {
    return this._fileChanged;
  }

  get isDisposed(): boolean {
    return this._disposed;
  }

  dispose(): void {
    this._disposed = true;
    Signal.clearData(this);
  }

  /** Raises Problem when there is no report of that version. */
  async get(path: string, options?: Contents.IFetchOptions): Promise<Contents.IModel> {
    const [api, version] = path.split('/');
    const common = { name: path.split('/').pop()!, path, created: EPOCH, last_modified: EPOCH, writable: false };
    if (!path.endsWith('.ipynb')) {
      return { ...common, type: 'directory', mimetype: '', format: 'json', content: [] };
    }
    const content = options?.content === false ? null : await this.client.report(api, Number(version));
    return { ...common, type: 'notebook', mimetype: '', format: 'json', content };
  }

  async getDownloadUrl(path: string): Promise<string> {
    const [api, version] = path.split('/');
    return `${this.client.settings.baseUrl}cortex/api/apis/${encodeURIComponent(api)}/deployments/${Number(version)}/report`;
  }

  newUntitled(): Promise<Contents.IModel> {
    return refused();
  }

  delete(): Promise<void> {
    return refused();
  }

  rename(): Promise<Contents.IModel> {
    return refused();
  }

  save(): Promise<Contents.IModel> {
    return refused();
  }

  copy(): Promise<Contents.IModel> {
    return refused();
  }

  createCheckpoint(): Promise<Contents.ICheckpointModel> {
    return refused();
  }

  async listCheckpoints(): Promise<Contents.ICheckpointModel[]> {
    return [];
  }

  restoreCheckpoint(): Promise<void> {
    return refused();
  }

  deleteCheckpoint(): Promise<void> {
    return refused();
  }

  private _disposed = false;
  private readonly _fileChanged = new Signal<this, Contents.IChangedArgs>(this);
}

const EPOCH = new Date(0).toISOString();

function refused(): Promise<never> {
  return Promise.reject(new Error('A report is read-only; download it to keep a copy of your own.'));
}
