/**
 * A generated module: its statements with their reasons, what differs from another version, the files beside it.
 */
import * as React from 'react';

import { bytes, plural } from './format';
import { Button, Tabs } from './parts';
import type { IReason, IShown } from './tokens';

export function Module({ shown, jump }: { shown: IShown; jump: (cell: string, line: number) => void }): JSX.Element {
  const [chosen, choose] = React.useState(shown.live?.diff.length ? 'diff' : 'module');
  const tabs = [
    { id: 'module', label: shown.module },
    ...(shown.live ? [{ id: 'diff', label: shown.live.diff.length ? `Changes since version ${shown.live.version}` : `Same as version ${shown.live.version}` }] : []),
    { id: 'files', label: `Files (${shown.travels.length})` }
  ];
  return (
    <details className="cx-module" open={!!shown.live?.diff.length}>
      <summary>
        The generated module: {plural(shown.reasons.length, 'statement')}, {plural(shown.source.split('\n').length - 1, 'line')}
      </summary>
      <Tabs id="cx-module" label="What is published" tabs={tabs} chosen={chosen} choose={choose} />
      <div id="cx-module-panel" role="tabpanel" aria-labelledby={`cx-module-tab-${chosen}`}>
        {chosen === 'module' && <Reasons source={shown.source} reasons={shown.reasons} jump={jump} />}
        {chosen === 'diff' && <Diff lines={shown.live?.diff ?? []} />}
        {chosen === 'files' && <Files shown={shown} />}
      </div>
    </details>
  );
}

/** The module's statements with the reason why each is in it. */
export function Reasons({ source, reasons, jump }: { source: string; reasons: IReason[]; jump?: (cell: string, line: number) => void }): JSX.Element {
  if (!reasons.length) {
    return (
      <pre className="cx-source" tabIndex={0} aria-label="The module">
        {source}
      </pre>
    );
  }
  return (
    <table className="cx-reasons">
      <caption className="cx-hidden">The module's statements, where each comes from and why it is there</caption>
      <thead>
        <tr>
          <th scope="col">Line</th>
          <th scope="col">Statement</th>
          <th scope="col">From</th>
          <th scope="col">Why</th>
        </tr>
      </thead>
      <tbody>
        {reasons.map((row, at) => (
          <tr key={at}>
            <td className="cx-dim">{row.module_line}</td>
            <td>
              <pre>{row.text}</pre>
            </td>
            <td>{jump ? <Button kind="link" label={row.cell} describe={`Go to ${row.cell}, line ${row.line}`} onClick={() => jump(row.cell, row.line)} /> : row.cell}</td>
            <td className="cx-dim">{row.reasons.join('; ')}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

/** Lines of a unified diff; marked by sign and by colour. */
export function Diff({ lines }: { lines: string[] }): JSX.Element {
  if (!lines.length) {
    return <p className="cx-dim">No difference.</p>;
  }
  return (
    <pre className="cx-source" tabIndex={0} aria-label="Difference">
      {lines.map((line, at) => (
        <span key={at} className={line.startsWith('+') ? 'cx-plus' : line.startsWith('-') ? 'cx-minus' : line.startsWith('@') ? 'cx-dim' : undefined}>
          {`${line}\n`}
        </span>
      ))}
    </pre>
  );
}

function Files({ shown }: { shown: IShown }): JSX.Element {
  if (!shown.travels.length) {
    return <p className="cx-dim">Only the module travels; no code names another file.</p>;
  }
  return (
    <table className="cx-plain-table">
      <thead>
        <tr>
          <th scope="col">File</th>
          <th scope="col">Size</th>
          <th scope="col">Why it travels</th>
        </tr>
      </thead>
      <tbody>
        {shown.travels.map(file => (
          <tr key={file.path}>
            <td className="cx-mono">{file.path}</td>
            <td>{bytes(file.bytes)}</td>
            <td className="cx-dim">{file.why}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}
