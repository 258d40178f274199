/**
 * Replay in notebook: a request of production through the Handler as it stands in the notebook's kernel, in a cell that stays for the next try.
 */
import { Dialog, showDialog } from '@jupyterlab/apputils';
import { NotebookActions, type NotebookPanel } from '@jupyterlab/notebook';

import { CortexClient, Problem, problem } from './client';
import { requestOf } from './notebooks';

export interface IReplay {
  name: string;
  id?: string;
  /** A group by its fingerprint: all of its kept payloads, one after the other. */
  group?: string;
}

/** The notebook to replay a version in. Raises Problem also for a notebook that is the handler: it runs as a whole, in a kernel of its own. */
export async function replayNotebookOf(client: CortexClient, name: string, version: number | null, instead: string): Promise<string> {
  const api = await client.api(name);
  const spec = (api.api_versions.find(one => one.version === version) ?? api).spec;
  if (spec?.handler?.type === 'notebook') {
    const why = `${name} runs ${spec.handler.path} as a whole for each request: it has no Handler that a kernel could replay one with`;
    throw new Problem(problem('notebook_handler', 409, `${why}. The request's page has the notebook as it was executed.`));
  }
  return notebookOf(client, name, version, instead);
}

/** The notebook that a version was published from, else the API's. Raises Problem, with the remedy, where it is not there any more. */
export async function notebookOf(client: CortexClient, name: string, version: number | null, instead: string): Promise<string> {
  const api = await client.api(name);
  const of = api.api_versions.find(one => one.version === version) ?? api.api_versions[0];
  const found = of?.notebook ?? api.notebook;
  if (!found) {
    const source = String(of?.source ?? api.source);
    const where = source.includes('.ipynb') ? `${source} is not among this server's notebooks; it may have been moved or deleted, or is on another machine` : `it was published from ${source || 'elsewhere'}, which is no notebook`;
    throw new Problem(problem('notebook_gone', 404, `No notebook of ${name}: ${where}. Instead, ${instead}.`));
  }
  return found;
}

/** The line for the cell. `version`: run that one's module instead of the notebook's Handler. */
export function replayLine({ name, id, group }: IReplay, version: number | null = null): string {
  return `%cortex replay ${group ? `--group ${group}` : id} --name ${name}${version ? ` --in ${version}` : ''}`;
}

/** A cell that an earlier replay has made: one such line and nothing else. A line with `$name` is its author's. */
const MADE = /^%cortex replay (--group )?[A-Za-z0-9._-]+( --name [-a-z0-9]+)?( --in \d+)?\s*$/;
const HANDLER = /^class Handler\b/m;

export function indexOfHandler(panel: NotebookPanel): number {
  return panel.content.widgets.reduce((found, cell, at) => (cell.model.type === 'code' && HANDLER.test(cell.model.sharedModel.getSource()) ? at : found), -1);
}

/** The replay cell: an earlier one's, else a new one behind the Handler, else at the end; its index. */
export function replayCell(panel: NotebookPanel, line: string): number {
  const { widgets, model } = panel.content;
  const there = widgets.findIndex(cell => cell.model.type === 'code' && MADE.test(cell.model.sharedModel.getSource()));
  if (there >= 0) {
    widgets[there].model.sharedModel.setSource(line);
    return there;
  }
  const handler = indexOfHandler(panel);
  const at = handler >= 0 ? handler + 1 : widgets.length;
  model!.sharedModel.insertCell(at, { cell_type: 'code', source: line, metadata: {} });
  return at;
}

/** Do it in a notebook that is open. `version`: on which it ran in production. Raises Problem; does nothing where its user decides not to. */
export async function replayIn(panel: NotebookPanel, client: CortexClient, what: IReplay, version: number | null): Promise<void> {
  await panel.revealed;
  await panel.context.ready;
  await panel.sessionContext.ready;
  const { handler } = await client.prepare(requestOf(panel), () => undefined);
  const choice = handler ? 'here' : await ask(panel, version);
  if (choice === 'no') {
    return;
  }
  if (choice === 'run') {
    await runToHandler(panel);
  }
  const at = replayCell(panel, replayLine(what, choice === 'version' ? version : null));
  await runCell(panel, at);
}

async function runCell(panel: NotebookPanel, at: number): Promise<void> {
  const notebook = panel.content;
  notebook.activeCellIndex = at;
  notebook.deselectAll();
  await notebook.scrollToItem(at, 'smart');
  await NotebookActions.runCells(notebook, [notebook.widgets[at]], panel.sessionContext);
  // The answer has made it taller.
  await notebook.scrollToItem(at, 'start');
}

/** What to do where no Handler has run yet: its cells are its author's to run. */
async function ask(panel: NotebookPanel, version: number | null): Promise<'run' | 'version' | 'no'> {
  const upto = indexOfHandler(panel);
  const cells = panel.content.widgets.slice(0, upto + 1).filter(cell => cell.model.type === 'code').length;
  const name = panel.context.localPath.split('/').pop();
  const cellsText = cells === 1 ? 'the cell of its Handler' : `the ${cells} code cells up to its Handler`;
  const answer = await showDialog({
    title: 'The Handler has not run here yet',
    body:
      upto < 0
        ? `${name} has no cell with a class Handler any more. The version that failed can be replayed instead, as it was deployed.`
        : `In the kernel of ${name} no Handler is defined. Run ${cellsText}, then replay? Or replay the version that was deployed: no other cell runs then.`,
    buttons: [
      Dialog.cancelButton(),
      ...(version ? [Dialog.createButton({ label: `Replay version ${version}`, accept: true, actions: ['version'] })] : []),
      ...(upto >= 0 ? [Dialog.okButton({ label: 'Run cells and replay', actions: ['run'] })] : [])
    ]
  });
  return answer.button.accept ? (answer.button.actions.includes('run') ? 'run' : 'version') : 'no';
}

async function runToHandler(panel: NotebookPanel): Promise<void> {
  const cells = panel.content.widgets.slice(0, indexOfHandler(panel) + 1).filter(cell => cell.model.type === 'code');
  if (!(await NotebookActions.runCells(panel.content, cells, panel.sessionContext))) {
    throw new Problem(problem('cell_failed', 409, 'A cell above the Handler failed, so there is nothing to replay with yet. Mend it, then press Replay again.'));
  }
}
