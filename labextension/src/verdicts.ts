/**
 * What a rehearsal says of a request, and of all of them, in words.
 */
import { count, plural } from './format';
import type { IRehearsal, Verdict } from './tokens';

export interface IVerdict {
  id: Verdict;
  /** What is counted: one of them. */
  word: string;
  /** What it says of a request. */
  says: string;
  looks: string;
}

/** The verdicts in the words of the shell, those that want a look first. */
export const VERDICTS: readonly IVerdict[] = [
  { id: 'fails_here', word: 'new error', says: 'newly failing', looks: 'failed' },
  { id: 'another_failure', word: 'other error', says: 'failing otherwise', looks: 'failed' },
  { id: 'changed', word: 'changed result', says: 'another result', looks: 'changed' },
  { id: 'fixed', word: 'fixed error', says: 'newly succeeding', looks: 'completed' },
  { id: 'same_result', word: 'same result', says: 'as before', looks: 'completed' },
  { id: 'same_failure', word: 'same error', says: 'as before', looks: 'note' },
  { id: 'gone', word: 'not comparable', says: 'payload gone, not run', looks: 'note' }
];

/** "new errors": what so many of them are. */
export function wordsOf({ id, word }: IVerdict, many: number): string {
  return many === 1 || id === 'gone' ? word : `${word}s`;
}

export const SAME: readonly Verdict[] = ['same_result', 'same_failure'];

/** "version 4 rehearses: 12 of 50 requests" */
export function sentence(told: IRehearsal): string {
  if (told.state === 'failed') {
    return `version ${told.version} did not start, so it could not be rehearsed`;
  }
  if (told.state === 'rehearsing') {
    return `version ${told.version} rehearses: ${count(told.done)} of ${plural(told.total, 'request')}`;
  }
  const other = VERDICTS.filter(one => !SAME.includes(one.id) && told.counts[one.id]);
  return `version ${told.version} was rehearsed with ${plural(told.total, 'request')}: ${other.map(one => `${count(told.counts[one.id]!)} ${wordsOf(one, told.counts[one.id]!)}`).join(', ') || 'all ended as before'}`;
}
