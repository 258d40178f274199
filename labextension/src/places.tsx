/**
 * Where and when something happened, and the way there.
 */
import * as React from 'react';

import { localTime } from './format';
import type { CortexModel } from './model';
import { placeIn } from './parts';

export function Place({ place, open }: { place: string; open?: (place: string) => void }): JSX.Element {
  return open && place ? (
    <button type="button" className="cx-link" title="Go to the cell" onClick={() => open(place)}>
      {place}
    </button>
  ) : (
    <span className="cx-mono">{place}</span>
  );
}

/** A moment without its milliseconds. */
export function Moment({ ms }: { ms: number }): JSX.Element {
  return <time dateTime={new Date(ms).toISOString()}>{localTime(ms).replace(/\.\d+/, '')}</time>;
}

/** Goes to a place such as `cell 3, line 7`: which cell the third one was, the version knows in which it happened. */
export async function openPlace(
  model: CortexModel,
  name: string,
  version: number | null,
  place: string,
  open: (cell: string, line: number, ids: Record<string, string>) => void
): Promise<void> {
  const found = placeIn(place);
  if (found) {
    const module = version ? await model.client.module(name, version).catch(() => null) : null;
    open(found.cell, found.line, module?.cells ?? {});
  }
}
