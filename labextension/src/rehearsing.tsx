/**
 * The Deploy dialog's wish to rehearse first, or what it would need.
 */
import * as React from 'react';

import type { IShown } from './tokens';

/** As many as a deploy may rehearse with. */
const MOST = 1000;
export const USUAL = 50;

/** What is missing for a rehearsal of this notebook; empty where it can be. */
export function missingOf(shown: IShown): string[] {
  const live = shown.live;
  return [
    ...(shown.document.rehearse === true ? [] : ['`rehearse: true` in cortex.yaml beside the notebook, since its Handler runs real requests a second time then']),
    ...(live?.keeps_payloads ? [] : [`\`retain: {payload: always}\` in version ${live?.version}, which is live, so that there are payloads`])
  ];
}

/** `value`: how many requests; 0 deploys at once. Nothing while no version is live. */
export function RehearseFirst({ shown, value, change, disabled }: { shown: IShown; value: number; change: (value: number) => void; disabled: boolean }): JSX.Element | null {
  if (!shown.live) {
    return null;
  }
  const missing = missingOf(shown);
  if (missing.length) {
    return (
      <p className="cx-dim">
        To rehearse it on real requests first, it takes{' '}
        {missing.map((one, at) => (
          <React.Fragment key={at}>
            {at ? '; and ' : ''}
            {one.split('`').map((part, odd) => (odd % 2 ? <code key={odd}>{part}</code> : part))}
          </React.Fragment>
        ))}
        .
      </p>
    );
  }
  return (
    <div className="cx-row cx-rehearse-first">
      <label className="cx-check">
        <input type="checkbox" checked={value > 0} disabled={disabled} onChange={event => change(event.target.checked ? USUAL : 0)} /> Rehearse first, on the last
      </label>
      <input
        type="number"
        aria-label="Requests to rehearse with"
        min={1}
        max={MOST}
        value={value || USUAL}
        disabled={disabled || !value}
        onChange={event => change(Math.min(MOST, Math.max(1, Number(event.target.value) || 1)))}
      />
      <span>requests: version {shown.live.version} stays live until you have seen what changes</span>
    </div>
  );
}
