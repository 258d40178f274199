/**
 * A Handler's config, as a form or as YAML.
 */
import * as React from 'react';
import * as YAML from 'yaml';

import { Button, Tabs } from './parts';

interface IConfigProps {
  value: Record<string, unknown>;
  change: (value: Record<string, unknown>) => void;
  error: string;
  setError: (error: string) => void;
  fromFile: boolean;
}

export function Config({ value, change, error, setError, fromFile }: IConfigProps): JSX.Element {
  const [how, setHow] = React.useState('form');
  const [text, setText] = React.useState('');
  const choose = (id: string) => {
    if (id === 'yaml') {
      setText(Object.keys(value).length ? YAML.stringify(value) : '');
    } else if (error) {
      return; // the form cannot show what is no map
    }
    setHow(id);
  };
  const told = React.useRef(value);
  React.useEffect(() => {
    if (value !== told.current) {
      // Not from here: another look has found another config.
      told.current = value;
      setText(Object.keys(value).length ? YAML.stringify(value) : '');
      setError('');
    }
  }, [value]);
  const typed = (written: string) => {
    setText(written);
    const found = readConfig(written);
    setError(found.error);
    if (!found.error) {
      told.current = found.value;
      change(found.value);
    }
  };
  return (
    <div className="cx-config" role="group" aria-label="Config">
      <div className="cx-row">
        <span className="cx-label">Config</span>
        <Tabs
          id="cx-config"
          label="How config is edited"
          tabs={[
            { id: 'form', label: 'Form' },
            { id: 'yaml', label: 'YAML' }
          ]}
          chosen={how}
          choose={choose}
        />
        <span className="cx-dim">{fromFile ? 'of cortex.yaml; changes here are for this deploy' : 'what the constructor gets as config'}</span>
      </div>
      <div id="cx-config-panel" role="tabpanel" aria-labelledby={`cx-config-tab-${how}`}>
        {how === 'form' ? (
          <ConfigForm
            value={value}
            change={next => {
              told.current = next;
              change(next);
            }}
          />
        ) : (
          <textarea aria-label="Config as YAML" rows={5} spellCheck={false} value={text} placeholder="threshold: 0.5" onChange={event => typed(event.target.value)} />
        )}
        {error && (
          <p className="cx-bad" role="alert">
            {error}
          </p>
        )}
      </div>
    </div>
  );
}

/** A map from YAML text, or what is wrong with it and where. */
export function readConfig(text: string): { value: Record<string, unknown>; error: string } {
  if (!text.trim()) {
    return { value: {}, error: '' };
  }
  try {
    const value = YAML.parse(text);
    if (value === null || typeof value !== 'object' || Array.isArray(value)) {
      return { value: {}, error: 'Config is a map: write one key a line, as in `threshold: 0.5`.' };
    }
    return { value, error: '' };
  } catch (error) {
    return { value: {}, error: error instanceof Error ? error.message.split('\n')[0].replace(/:$/, '.') : String(error) };
  }
}

function ConfigForm({ value, change }: { value: Record<string, unknown>; change: (value: Record<string, unknown>) => void }): JSX.Element {
  const [key, setKey] = React.useState('');
  const fresh = React.useRef<HTMLInputElement>(null);
  const set = (name: string, next: unknown) => change({ ...value, [name]: next });
  const remove = (name: string) => {
    change(Object.fromEntries(Object.entries(value).filter(([other]) => other !== name)));
    fresh.current?.focus(); // the button that had the keyboard goes with its row
  };
  const add = () => {
    if (key.trim() && !(key.trim() in value)) {
      set(key.trim(), '');
      setKey('');
    }
  };
  return (
    <div className="cx-form">
      {Object.entries(value).map(([name, one]) => (
        <div className="cx-row" key={name}>
          <label>
            <span className="cx-mono">{name}</span>
            <Value name={name} value={one} change={next => set(name, next)} />
          </label>
          <Button label="Remove" describe={`Remove ${name}`} onClick={() => remove(name)} />
        </div>
      ))}
      <div className="cx-row">
        <input
          type="text"
          ref={fresh}
          aria-label="New key"
          placeholder="new key"
          spellCheck={false}
          value={key}
          onChange={event => setKey(event.target.value)}
          onKeyDown={event => event.key === 'Enter' && add()}
        />
        <Button label="Add" onClick={add} disabled={!key.trim() || key.trim() in value} />
      </div>
    </div>
  );
}

/** Whether YAML reads this text as that value: `3.10` is a number, `#ff0000` a comment, so these texts are shown in quotes. */
function readsAs(text: string, value: unknown): boolean {
  try {
    return YAML.parse(text) === value;
  } catch {
    return true; // no YAML at all: it is taken as the text that it is
  }
}

/** One value: a switch for true and false, else a field that reads YAML, so that 0.5 is a number and [1, 2] a list. */
function Value({ name, value, change }: { name: string; value: unknown; change: (value: unknown) => void }): JSX.Element {
  const written = typeof value === 'string' && readsAs(value, value) ? value : JSON.stringify(value);
  const [text, setText] = React.useState(written);
  React.useEffect(() => setText(written), [written]);
  if (typeof value === 'boolean') {
    return <input type="checkbox" aria-label={name} checked={value} onChange={event => change(event.target.checked)} />;
  }
  const read = () => {
    if (text === written) {
      return; // looked at, not edited
    }
    let next: unknown = text;
    try {
      next = YAML.parse(text) ?? '';
    } catch {
      // it is a text then
    }
    change(next);
  };
  return <input type="text" aria-label={name} spellCheck={false} value={text} onChange={event => setText(event.target.value)} onBlur={read} />;
}
