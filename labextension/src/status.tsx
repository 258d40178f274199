/**
 * The status bar's item: how the APIs are, in four words.
 */
import { ReactWidget } from '@jupyterlab/apputils';
import type { CommandRegistry } from '@lumino/commands';
import * as React from 'react';

import { plural } from './format';
import type { CortexModel } from './model';
import { useModel } from './parts';
import { CommandIDs } from './tokens';

export class StatusItem extends ReactWidget {
  constructor(
    private readonly model: CortexModel,
    private readonly commands: CommandRegistry
  ) {
    super();
    this.addClass('cx-status');
  }

  protected render(): JSX.Element {
    return <Status model={this.model} open={() => void this.commands.execute(CommandIDs.showApis)} />;
  }
}

export function Status({ model, open }: { model: CortexModel; open: () => void }): JSX.Element | null {
  useModel(model, change => !!(change.apis || change.gone));
  const text = statusOf(model);
  return text ? (
    <button type="button" className="cx-status-button" title="Cortex APIs" onClick={open}>
      {text}
    </button>
  ) : null;
}

export function statusOf(model: CortexModel): string {
  const apis = model.apis;
  switch (model.connection) {
    case 'live': {
      const bad = apis.filter(api => api.status === 'error' || api.failed_hour > 0).length;
      return apis.length ? `${plural(apis.length, 'API')}${bad ? `, ${bad} failing` : ''}` : '';
    }
    case 'lost':
      return 'Cortex: reconnecting';
    case 'down':
      return apis.length ? 'Cortex: not running' : '';
    default:
      return '';
  }
}
