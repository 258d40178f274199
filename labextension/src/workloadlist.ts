/**
 * The rows of one API's table: pages from the server, kept true by the stream's deltas, filtered.
 */
import type { CortexClient, IWorkloadPage } from './client';
import type { IChanges, IWorkload, WorkloadStatus } from './tokens';

const PAGE = 500;
/** Rows held in the browser; the oldest go. 50,000 are about 30 MB. */
const LIMIT = 50_000;
/** Pages that are asked for again after a burst. */
const RENEWED = 20;

export class WorkloadList {
  constructor(
    private readonly client: CortexClient,
    private readonly api: string
  ) {}

  /** What the filter lets through, newest first. */
  get rows(): readonly IWorkload[] {
    return this._rows;
  }

  get loading(): boolean {
    return this._loading > 0;
  }

  /** Whether the server has no more of what the filter asks for. */
  get complete(): boolean {
    return this._next === null;
  }

  /** How many workloads the server has looked at for what the filter asks for. */
  get scanned(): number {
    return this._scanned;
  }

  /** Counts up with each page that has come. */
  get turn(): number {
    return this._turn;
  }

  /** The newest page, in the place of everything. */
  async reload(): Promise<void> {
    this._byId.clear();
    this._refill();
    await this._page(undefined);
  }

  /** The next page of what the filter asks for. */
  async more(): Promise<void> {
    if (this._next && !this._loading) {
      await this._page(this._next);
    }
  }

  /** Show only these, of what is loaded. What was asked of the server meant another filter: it has not been asked for these yet. */
  filter(status: WorkloadStatus | '', text: string): void {
    this._status = status;
    this._typed = text.trim();
    this._text = this._typed.toLowerCase();
    this._asked++;
    this._next = undefined;
    this._scanned = 0;
    this._refill();
  }

  /** Ask the server for what the filter asks for, from the newest on; without a filter the listing begins anew, without the search's finds. */
  async search(): Promise<void> {
    if (this._renewing) {
      await this._renewing.catch(() => undefined); // it ends with an answer to the filter, too
    }
    if (this._next === undefined) {
      await this._page(undefined);
    }
  }

  /** What is loaded, once more: more has moved than the stream tells one by one. One at a time; who asks meanwhile has it done once more. */
  async renew(): Promise<void> {
    this._behind = true;
    this._renewing ??= this._renew().finally(() => {
      this._renewing = null;
    });
    return this._renewing;
  }

  private async _renew(): Promise<void> {
    while (this._behind) {
      this._behind = false;
      this._loading++; // nobody goes on below meanwhile
      try {
        await this._again();
      } finally {
        this._loading--;
      }
      if (this._status || this._text) {
        await this._page(undefined);
      }
    }
  }

  /** Page after page until all that is loaded has come once more: a burst may have moved any of it anywhere. */
  private async _again(): Promise<void> {
    const missing = new Set(this._byId.keys());
    this._told = new Set();
    this._asked++; // what is on its way is asked for here once more
    let next: string | null = null;
    let page = 0;
    do {
      const answer: IWorkloadPage = await this.client.workloads(this.api, { limit: PAGE, cursor: next ?? undefined });
      for (const row of answer.workloads) {
        missing.delete(row.id);
      }
      this._take(answer.workloads);
      this._refill();
      next = answer.next;
      page++;
    } while (next !== null && page < RENEWED && missing.size > 0);
    if (next !== null) {
      // So far down nothing was asked for again: it comes as it is scrolled to.
      for (const id of missing) {
        if (!this._told.has(id)) {
          this._byId.delete(id);
        }
      }
      this._refill();
    }
    if (!this._status && !this._text) {
      // From here on, also where rows below are known: between them may be some that are not.
      this._next = next;
      this._turn++;
    }
  }

  /** Take a delta in; whether anything that is shown changed. */
  apply(changes: IChanges): boolean {
    // Put in after the loop: among rows in any order none is found by halving, and it would be there twice.
    const added: IWorkload[] = [];
    let seen = false;
    for (const row of changes.workloads) {
      const known = this._byId.get(row.id);
      if (known && older(row, known)) {
        continue; // a page that was asked for later is newer than this delta
      }
      this._byId.set(row.id, row);
      this._told.add(row.id);
      const at = known && this._lets(known) ? this._find(known) : -1;
      if (!this._lets(row)) {
        if (at >= 0) {
          this._rows.splice(at, 1);
          seen = true;
        }
      } else if (at >= 0) {
        this._rows[at] = row;
        seen = true;
      } else {
        added.push(row);
        seen = true;
      }
    }
    if (added.length) {
      this._rows.push(...added);
      this._sort();
    }
    return seen;
  }

  private async _page(cursor: string | undefined): Promise<void> {
    const asked = ++this._asked;
    this._loading++;
    if (cursor === undefined) {
      this._told = new Set();
    }
    try {
      const status = this._status ? [this._status] : undefined;
      const page = await this.client.workloads(this.api, { limit: PAGE, cursor, status, q: this._typed || undefined });
      if (asked !== this._asked) {
        return; // the filter changed meanwhile: another answer is on its way
      }
      if (cursor === undefined && !this._status && !this._text) {
        this._keep(page.workloads);
      }
      this._take(page.workloads);
      this._next = page.next;
      this._scanned = (cursor === undefined ? 0 : this._scanned) + page.scanned;
      this._turn++;
      this._refill();
    } finally {
      this._loading--;
    }
  }

  /** Only these and what has been told meanwhile: between what a search found further down lies what was never loaded. */
  private _keep(rows: IWorkload[]): void {
    const kept = new Set(rows.map(row => row.id));
    for (const id of this._byId.keys()) {
      if (!kept.has(id) && !this._told.has(id)) {
        this._byId.delete(id);
      }
    }
  }

  private _take(rows: IWorkload[]): void {
    for (const row of rows) {
      const known = this._byId.get(row.id);
      if (!known || !older(row, known)) {
        this._byId.set(row.id, row);
      }
    }
  }

  private _lets(row: IWorkload): boolean {
    if (this._status && row.status !== this._status) {
      return false;
    }
    if (!this._text) {
      return true;
    }
    const error = row.error ? `${row.error.type} ${row.error.message}` : '';
    return `${row.id} ${error} ${row.replica} ${row.content_type}`.toLowerCase().includes(this._text);
  }

  private _refill(): void {
    this._rows = [...this._byId.values()].filter(row => this._lets(row));
    this._sort();
  }

  private _sort(): void {
    this._rows.sort(newestFirst);
    if (this._byId.size > LIMIT) {
      for (const row of [...this._byId.values()].sort(newestFirst).slice(LIMIT * 0.9)) {
        this._byId.delete(row.id);
      }
      this._rows = this._rows.filter(row => this._byId.has(row.id));
    }
  }

  /** By halving: rows are sorted, and a workload's acceptance never changes. */
  private _find(row: IWorkload): number {
    let low = 0;
    let high = this._rows.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (newestFirst(this._rows[middle], row) < 0) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return this._rows[low]?.id === row.id ? low : -1;
  }

  private readonly _byId = new Map<string, IWorkload>();
  private _rows: IWorkload[] = [];
  private _status: WorkloadStatus | '' = '';
  /** As it was typed: an id has letters of both cases, and one that is whole is found at once. */
  private _typed = '';
  private _text = '';
  /** The cursor of the page behind what was asked for; null at the end, undefined before the first answer. */
  private _next: string | null | undefined = undefined;
  private _scanned = 0;
  private _turn = 0;
  private _loading = 0;
  private _asked = 0;
  private _behind = false;
  /** What deltas told since the last renewal began. */
  private _told = new Set<string>();
  private _renewing: Promise<void> | null = null;
}

function newestFirst(a: IWorkload, b: IWorkload): number {
  return b.accepted - a.accepted || (a.id < b.id ? -1 : a.id > b.id ? 1 : 0);
}

/** Whether the first knows less than the second: only a new run leads out of a final state. */
function older(row: IWorkload, known: IWorkload): boolean {
  return row.run < known.run || (row.run === known.run && isOpen(row) && !isOpen(known));
}

function isOpen(row: IWorkload): boolean {
  return row.status === 'in_queue' || row.status === 'in_progress';
}
