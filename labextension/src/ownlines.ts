/**
 * A workload's own log lines, a page at a time: the last ones first, those before them when they are looked at.
 */
import type { CortexClient } from './client';
import type { LogRecord } from './tokens';

/** Lines of one answer: a screen has some thirty, and 10,000 take half a second on their way. */
export const PAGE = 200;

export class OwnLines {
  constructor(
    private readonly client: CortexClient,
    private readonly name: string,
    private readonly id: string
  ) {
    this.first = this.load('');
    this.first.catch(() => undefined);
  }

  /** The first answer, asked for at once: the inspector draws what it knows of the workload meanwhile. */
  readonly first: Promise<void>;

  private readonly _records = new Map<number, LogRecord>();
  private readonly _asked = new Set<number>();

  /** Lines there are, of those that show `text`; null until the first answer. */
  total: number | null = null;
  /** The same without a text. */
  all = 0;
  text = '';

  at(index: number): LogRecord | undefined {
    return this._records.get(index);
  }

  /** Counts up with each answer that makes the lines before it old. */
  get turn(): number {
    return this._turn;
  }

  /** The last lines, and with them how many there are. What is shown stays until they are here. `more`: lines may only have been added. */
  async load(text: string, more = false): Promise<void> {
    const turn = ++this._turn;
    const page = await this.client.workloadLogs(this.name, this.id, { limit: PAGE, q: text });
    if (turn !== this._turn) {
      return;
    }
    if (!more || text !== this.text || page.total < (this.total ?? 0)) {
      this._records.clear();
    }
    this._asked.clear();
    this.text = text;
    this.total = page.total;
    if (!text) {
      this.all = page.total;
    }
    this._take(page.first, page.records);
  }

  /** Have the lines of these numbers; true when some of them came. */
  async need(from: number, to: number): Promise<boolean> {
    const turn = this._turn;
    const wanted: number[] = [];
    for (let page = Math.floor(Math.max(0, from) / PAGE); page * PAGE <= Math.min(to, (this.total ?? 0) - 1); page++) {
      if (!this._asked.has(page) && this._lacks(page)) {
        this._asked.add(page);
        wanted.push(page);
      }
    }
    const found = await Promise.all(wanted.map(page => this._ask(page, turn)));
    return found.some(came => came);
  }

  private async _ask(page: number, turn: number): Promise<boolean> {
    try {
      const found = await this.client.workloadLogs(this.name, this.id, { limit: PAGE, first: page * PAGE, q: this.text });
      if (turn !== this._turn) {
        return false;
      }
      this._take(found.first, found.records);
      return true;
    } catch (error) {
      this._asked.delete(page);
      throw error;
    }
  }

  private _lacks(page: number): boolean {
    const end = Math.min((page + 1) * PAGE, this.total ?? 0);
    for (let at = page * PAGE; at < end; at++) {
      if (!this._records.has(at)) {
        return true;
      }
    }
    return false;
  }

  private _take(first: number, records: LogRecord[]): void {
    records.forEach((record, at) => this._records.set(first + at, record));
  }

  private _turn = 0;
}
