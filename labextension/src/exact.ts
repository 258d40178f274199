/**
 * JSON whose whole numbers stay what was written. A browser's own numbers are exact up to 2^53; ids and hashes from Python are often longer.
 */
import { isInteger, parse, stringify } from 'lossless-json';

/** 2^53 has 16 digits: a text without so many in a row, other than behind a point, has nothing to lose. */
const LONG = /(?<![\d.])\d{16}/;

/** The value of a JSON text; whole numbers that a number cannot hold are bigints. Throws SyntaxError. */
export function parseExact(text: string): unknown {
  if (!LONG.test(text)) {
    return JSON.parse(text);
  }
  try {
    // Of a key that comes twice the last one counts, as everywhere.
    return parse(text, undefined, { parseNumber: exact, onDuplicateKey: ({ newValue }) => newValue });
  } catch {
    return JSON.parse(text);
  }
}

/** A value as JSON, bigints as the numbers that they were. */
export function written(value: unknown, indent?: number): string {
  return hasBig(value) ? stringify(value, undefined, indent)! : JSON.stringify(value, null, indent);
}

/** Whether there is a bigint in it anywhere. */
export function hasBig(value: unknown): boolean {
  return typeof value === 'bigint' || (value !== null && typeof value === 'object' && Object.values(value).some(hasBig));
}

function exact(text: string): number | bigint {
  const value = Number(text);
  return isInteger(text) && !Number.isSafeInteger(value) ? BigInt(text) : value;
}
