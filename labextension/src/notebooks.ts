/**
 * Notebooks as this extension needs them: what is sent of one, whether it changed since its deploy, and the way to a cell's line.
 */
import type { INotebookContent } from '@jupyterlab/nbformat';
import { NotebookActions, type INotebookTracker, type NotebookPanel } from '@jupyterlab/notebook';
import type { CommandRegistry } from '@lumino/commands';
import { IDisposable } from '@lumino/disposable';
import { ISignal, Signal } from '@lumino/signaling';

import { Problem, problem } from './client';
import type { CortexModel } from './model';
import type { INotebookRequest, IShown, ISummary } from './tokens';

/** What the toolbar's button says of this notebook. */
export type NotebookState = 'none' | 'live' | 'changed' | 'failing' | 'updating' | 'stopped';

/** Wait so long after a cell ran before the kernel is asked whether the module changed: "Run All" is one question, not fifty. */
const SETTLE_MS = 1500;

/** The notebook as it stands in the browser, unsaved edits included, for the server. Raises Problem when no kernel runs. */
export function requestOf(panel: NotebookPanel): INotebookRequest {
  const kernel = panel.sessionContext.session?.kernel;
  if (!kernel) {
    throw new Problem(problem('no_kernel', 409, "This notebook has no running kernel. The checks run where its code runs: start its kernel, then try again."));
  }
  const content = panel.context.model.toJSON() as unknown as INotebookContent;
  // Without a drive's name: with live collaboration a path is ``RTC:work/iris.ipynb``.
  return { path: panel.context.localPath, kernel_id: kernel.id, model: bare(content) };
}

/** Without outputs and attachments: they may be large, and nothing of them is published. */
export function bare(content: INotebookContent): INotebookContent {
  const cells = content.cells.map(cell => {
    const { outputs, attachments, ...rest } = cell as any;
    return rest.cell_type === 'code' ? { ...rest, outputs: [] } : rest;
  });
  return { ...content, cells };
}

/** Follows one notebook: which API it is, and whether what would be published now differs from what is live. */
export class NotebookWatch implements IDisposable {
  constructor(
    readonly panel: NotebookPanel,
    private readonly model: CortexModel
  ) {
    NotebookActions.executed.connect(this._executed, this);
    model.changed.connect(this._modelChanged, this);
    panel.disposed.connect(this.dispose, this);
    model.start();
  }

  get changed(): ISignal<this, void> {
    return this._changed;
  }

  get api(): ISummary | undefined {
    return this.model.ofNotebook(this.panel.context.localPath);
  }

  get state(): NotebookState {
    const api = this.api;
    if (!api || (!api.live && !api.wanted)) {
      return 'none';
    }
    if (api.status === 'stopped' || api.status === 'updating') {
      return api.status;
    }
    if (api.status === 'error') {
      return 'failing';
    }
    // Before failures of the last hour: they stay for so long, also when the cell is mended, and then it is the deploy that is missing.
    return this._differs ? 'changed' : api.failed_hour > 0 ? 'failing' : 'live';
  }

  /** State and reason as a sentence, for the tooltip and the screen reader. */
  get sentence(): string {
    const api = this.api;
    const failed = api?.failed_hour ? `; ${api.failed_hour} failed in the last hour` : '';
    switch (this.state) {
      case 'none':
        return "Deploy: publish this notebook's Handler as an asynchronous HTTP API";
      case 'live':
        return `Deploy: ${api!.name} is live, version ${api!.live}`;
      case 'changed':
        return `Deploy: the notebook changed since ${api!.name} version ${api!.live} went live${failed}`;
      case 'updating':
        return `Deploy: ${api!.name} is being updated`;
      case 'stopped':
        return `Deploy: ${api!.name} is stopped`;
      default:
        return api!.status === 'error' ? `Deploy: ${api!.name} fails: ${api!.message}` : `Deploy: ${api!.name} is live${failed}`;
    }
  }

  /**
   * What a look at the notebook showed; the dialog tells it, so that nobody asks twice. One that could not be published says nothing: in a fresh
   * kernel no Handler has run yet, and what there is of a module differs from any.
   */
  tell(shown: IShown): void {
    if (!shown.surprises.some(row => row.blocks)) {
      this._set(shown.live !== null && shown.live.diff.length > 0);
    }
  }

  get isDisposed(): boolean {
    return this._disposed;
  }

  dispose(): void {
    if (!this._disposed) {
      this._disposed = true;
      clearTimeout(this._timer);
      NotebookActions.executed.disconnect(this._executed, this);
      this.model.changed.disconnect(this._modelChanged, this);
      Signal.clearData(this);
    }
  }

  private _executed(_: unknown, ran: { notebook: unknown }): void {
    if (ran.notebook === this.panel.content) {
      this._later();
    }
  }

  private _modelChanged(): void {
    const live = this.api?.live ?? 0;
    if (live !== this._live) {
      this._live = live;
      // A new version is what stands here, until a look says otherwise.
      this._differs = false;
      if (live) {
        this._later();
      }
    }
    this._changed.emit();
  }

  private _later(): void {
    clearTimeout(this._timer);
    if (this.api?.live) {
      this._timer = window.setTimeout(() => void this._look(), SETTLE_MS);
    }
  }

  private async _look(): Promise<void> {
    const kernel = this.panel.sessionContext.session?.kernel;
    if (this._disposed || !this.panel.isVisible || !this._hasRun() || !kernel) {
      return;
    }
    if (kernel.status !== 'idle') {
      return this._later();
    }
    try {
      this.tell(await this.model.client.show({ ...requestOf(this.panel), name: this.api?.name }, () => undefined));
    } catch {
      // Nothing is known then; the dialog says what is wrong.
    }
  }

  /** Whether asking is worth while. The counts of a saved notebook may be those of an earlier kernel; what this one lacks, the look itself says. */
  private _hasRun(): boolean {
    return this.panel.content.widgets.some(cell => cell.model.type === 'code' && (cell.model as any).executionCount !== null);
  }

  private _set(differs: boolean): void {
    if (differs !== this._differs) {
      this._differs = differs;
      this._changed.emit();
    }
  }

  private _live = 0;
  private _differs = false;
  private _timer = 0;
  private _disposed = false;
  private readonly _changed = new Signal<this, void>(this);
}

/** Where a line of a cell is: by the cell's id, else by its number among the code cells (1 is the first). */
export interface ICellPlace {
  id?: string;
  number?: number;
  line: number;
}

/** ``cell 3`` and a version's (or notebook's) map of ids as a place. */
export function cellPlace(label: string, line: number, ids: Record<string, string> = {}): ICellPlace {
  return { id: ids[label], number: Number(/\d+/.exec(label)?.[0] ?? 0) || undefined, line };
}

/** The index of a cell in a notebook, -1 where it is gone. */
export function indexOf(panel: NotebookPanel, place: ICellPlace): number {
  const cells = panel.content.widgets.map(cell => cell.model);
  const byId = place.id ? cells.findIndex(cell => cell.sharedModel.getId() === place.id) : -1;
  if (byId >= 0 || !place.number) {
    return byId;
  }
  const code = cells.map((cell, at) => (cell.type === 'code' ? at : -1)).filter(at => at >= 0);
  return code[place.number - 1] ?? -1;
}

/** Show a line of a cell and put the cursor there. False when the cell is not in the notebook any more. */
export async function goTo(panel: NotebookPanel, place: ICellPlace): Promise<boolean> {
  await panel.context.ready;
  const at = indexOf(panel, place);
  if (at < 0) {
    return false;
  }
  const notebook = panel.content;
  notebook.activeCellIndex = at;
  notebook.deselectAll();
  const cell = notebook.widgets[at];
  cell.inputHidden = false;
  await notebook.scrollToItem(at, 'smart');
  await cell.ready;
  const editor = cell.editor;
  if (editor) {
    const position = { line: Math.min(Math.max(0, place.line - 1), editor.lineCount - 1), column: 0 };
    notebook.mode = 'edit';
    editor.setCursorPosition(position);
    editor.revealPosition(position);
    editor.focus();
  }
  return true;
}

/** Open a notebook, unless it is `shown`, and go to a line of a cell. Raises Problem when either is gone. */
export async function openCell(commands: CommandRegistry, path: string, place: ICellPlace, shown?: NotebookPanel): Promise<void> {
  let panel = shown;
  try {
    panel ??= (await commands.execute('docmanager:open', { path })) as NotebookPanel | undefined;
  } catch {
    throw new Problem(problem('notebook_gone', 404, `${path} cannot be opened; it may have been moved or deleted since it was deployed.`));
  }
  if (!panel?.content?.widgets) {
    return; // Notebook 7 opens another notebook in a browser tab of its own
  }
  await panel.revealed;
  if (!(await goTo(panel, place))) {
    throw new Problem(problem('cell_gone', 404, `This cell is not in ${path} any more; the Versions tab shows what it was.`));
  }
}

/** The panel of a path, where it is open. */
export function panelOf(tracker: INotebookTracker, path: string): NotebookPanel | undefined {
  return tracker.find(panel => panel.context.localPath === path);
}
