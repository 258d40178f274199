/**
 * Everything that can be done, by name: for buttons, the palette, menus and other extensions.
 */
import type { ILabShell, JupyterFrontEnd } from '@jupyterlab/application';
import { Dialog, MainAreaWidget, Notification, showDialog, WidgetTracker } from '@jupyterlab/apputils';
import type { IDefaultFileBrowser } from '@jupyterlab/filebrowser';
import type { INotebookTracker } from '@jupyterlab/notebook';
import type { IRenderMimeRegistry } from '@jupyterlab/rendermime';
import type { CommandRegistry } from '@lumino/commands';
import { SplitPanel, type Widget } from '@lumino/widgets';
import type { ReadonlyPartialJSONObject } from '@lumino/coreutils';

import { addDecisions } from './deciding';
import { deployDialog } from './deploy';
import { apiIcon, notebookIcon } from './icons';
import type { CortexModel } from './model';
import { cellPlace, NotebookWatch, openCell, panelOf } from './notebooks';
import { ApiPage, IPageState, pageId, PAGE_TABS, PageTab } from './page';
import { PANEL_ID } from './panel';
import { addRemedies } from './remedies';
import { reportPath } from './reports';
import { ask, described, NAME, saying } from './said';
import { TEMPLATE } from './template';
import { CommandIDs } from './tokens';

export interface IParts {
  app: JupyterFrontEnd;
  model: CortexModel;
  notebooks: INotebookTracker;
  pages: WidgetTracker<MainAreaWidget<ApiPage>>;
  watches: Map<string, NotebookWatch>;
  labShell: ILabShell | null;
  browser: IDefaultFileBrowser | null;
  rendermime: IRenderMimeRegistry | null;
}

export function addCommands(parts: IParts): void {
  const { commands } = parts.app;
  addPublishing(parts, commands);
  addOpening(parts, commands);
  addLifeCycle(parts, commands);
  addDecisions(parts, commands);
  addRemedies(parts, commands);
}

function addPublishing({ app, model, notebooks, watches, browser }: IParts, commands: CommandRegistry): void {
  commands.addCommand(CommandIDs.deploy, {
    label: 'Deploy Notebook as Async API…',
    caption: "Publish the notebook's Handler as an asynchronous HTTP API",
    icon: apiIcon,
    describedBy: described({}),
    isEnabled: () => notebooks.currentWidget !== null,
    execute: async () => {
      const panel = notebooks.currentWidget;
      if (panel) {
        model.start();
        await deployDialog(panel, model, commands, watches.get(panel.id));
      }
    }
  });

  commands.addCommand(CommandIDs.newNotebook, {
    label: args => (args.isPalette ? 'New Async API Notebook' : 'Async API notebook'),
    caption: 'A notebook with a Handler, a payload to try it with, and the line that deploys it',
    icon: args => (args.isPalette ? undefined : notebookIcon),
    describedBy: described({ cwd: { type: 'string', description: 'The directory to make it in' }, isPalette: { type: 'boolean' } }),
    execute: async args => {
      const contents = app.serviceManager.contents;
      const directory = typeof args.cwd === 'string' ? args.cwd : (browser?.model.path ?? '');
      const made = await contents.newUntitled({ path: directory, type: 'notebook' });
      await contents.save(made.path, { type: 'notebook', format: 'json', content: TEMPLATE });
      const kernels = app.serviceManager.kernelspecs.specs?.kernelspecs ?? {};
      return commands.execute('docmanager:open', { path: made.path, factory: 'Notebook', kernel: { name: kernels.cortex ? 'cortex' : app.serviceManager.kernelspecs.specs?.default ?? 'python3' } });
    }
  });
}

function addOpening({ app, model, notebooks, pages, labShell, rendermime }: IParts, commands: CommandRegistry): void {
  const open = async (name: string, state: Partial<IPageState>): Promise<MainAreaWidget<ApiPage>> => {
    let page = pages.find(one => one.content.name === name);
    if (!page) {
      const content = new ApiPage(model, commands, name, app.serviceManager.contents, state);
      page = new MainAreaWidget({ content });
      // MainAreaWidget makes its content a region, and names it "main area content".
      content.node.setAttribute('aria-label', `API ${name}`);
      page.id = `${pageId(name)}-main`;
      page.title.label = name;
      page.title.icon = apiIcon;
      page.toolbar.hide();
      const opened = page;
      content.stateChanged.connect(() => void pages.save(opened));
      await pages.add(page);
    } else if (Object.keys(state).length) {
      page.content.display(state);
    }
    if (!page.isAttached) {
      // Notebook 7's main area holds one document; the page stands beside it there.
      app.shell.add(page, labShell ? 'main' : 'right', { type: 'Cortex API' });
    }
    app.shell.activateById(page.id);
    if (!labShell) {
      widen(page);
    }
    return page;
  };

  commands.addCommand(CommandIDs.openApi, {
    label: args => (args.name ? `Open API ${args.name}` : 'Open API…'),
    icon: apiIcon,
    describedBy: described({
      name: NAME,
      tab: { type: 'string', enum: [...PAGE_TABS], description: 'The tab to show' },
      workload: { type: 'string', description: 'The request id to show in the Workloads tab' },
      group: { type: 'string', description: 'The fingerprint of the group to open in the Failures tab' }
    }),
    isVisible: () => model.connection !== 'missing',
    execute: async args => {
      const name = typeof args.name === 'string' ? args.name : await ask(model);
      return name ? open(name, stateOf(args)) : undefined;
    }
  });
  for (const [id, label, tab] of [
    [CommandIDs.logs, 'Logs of an API…', 'logs'],
    [CommandIDs.test, 'Test an API…', 'test']
  ] as const) {
    commands.addCommand(id, {
      label,
      describedBy: described({ name: NAME }),
      execute: args => commands.execute(CommandIDs.openApi, { ...args, tab })
    });
  }
  commands.addCommand(CommandIDs.openWorkload, {
    label: 'Open Workload',
    describedBy: described({ name: NAME, id: { type: 'string', description: 'The request id' } }, ['name', 'id']),
    execute: args => commands.execute(CommandIDs.openApi, { name: args.name as string, tab: 'workloads', workload: args.id as string })
  });
  commands.addCommand(CommandIDs.openCell, {
    label: 'Go to Cell',
    describedBy: described(
      {
        path: { type: 'string', description: "The notebook's path" },
        cell: { type: 'string', description: '`cell 3`: the third code cell' },
        line: { type: 'number', description: 'The line in the cell, from 1' },
        ids: { type: 'object', description: 'Ids of the cells by such a label' }
      },
      ['path', 'cell']
    ),
    execute: args =>
      saying('Go to cell', () => {
        const path = String(args.path);
        const shown = panelOf(notebooks, path);
        if (shown) {
          app.shell.activateById(shown.id);
        }
        return openCell(commands, path, cellPlace(String(args.cell), Number(args.line ?? 1), (args.ids ?? {}) as Record<string, string>), shown);
      })
  });
  commands.addCommand(CommandIDs.openNotebook, {
    label: "Open an API's Notebook",
    describedBy: described({ path: { type: 'string', description: "The notebook's path" } }, ['path']),
    execute: args =>
      saying('Notebook', async () => {
        // Where it is open, Notebook 7 would open a second browser tab.
        const shown = panelOf(notebooks, String(args.path));
        await (shown ? app.shell.activateById(shown.id) : commands.execute('docmanager:open', { path: String(args.path) }));
      })
  });
  commands.addCommand(CommandIDs.openReport, {
    label: 'Open Check Report',
    describedBy: described({ name: NAME, version: { type: 'number', description: 'The version' } }, ['name', 'version']),
    execute: args =>
      saying('Report', async () => {
        // Asked first: a missing report is one sentence rather than an empty notebook.
        await model.client.report(String(args.name), Number(args.version));
        await commands.execute('docmanager:open', {
          path: reportPath(String(args.name), Number(args.version)),
          factory: 'Notebook',
          kernelPreference: { shouldStart: false, canStart: false, autoStartDefault: false }
        });
      })
  });
  commands.addCommand(CommandIDs.showApis, {
    label: 'Show Cortex APIs',
    icon: args => (args.toolbar ? apiIcon : undefined),
    describedBy: described({}),
    execute: () => app.shell.activateById(PANEL_ID)
  });
  commands.addCommand(CommandIDs.help, {
    label: 'Cortex Documentation',
    caption: 'The documentation of the installed version',
    describedBy: described({}),
    isVisible: () => rendermime !== null,
    execute: () =>
      saying('Documentation', async () => {
        const page = rendermime!.createRenderer('text/markdown');
        // Pictures are in the repository, not in the package.
        const text = (await model.client.help()).replace(/^!\[.*\]\(.*\)$/gm, '');
        await page.renderModel(rendermime!.createModel({ data: { 'text/markdown': text } }));
        page.addClass('cx-help');
        const widget = new MainAreaWidget({ content: page });
        widget.title.label = 'Cortex';
        widget.title.icon = apiIcon;
        widget.toolbar.hide();
        app.shell.add(widget, labShell ? 'main' : 'right');
        app.shell.activateById(widget.id);
        if (!labShell) {
          widen(widget);
        }
      })
  });
}

function addLifeCycle({ model, pages }: IParts, commands: CommandRegistry): void {
  commands.addCommand(CommandIDs.startEnvironment, {
    label: 'Start the Local Cortex Environment',
    describedBy: described({ quiet: { type: 'boolean', description: 'A refusal is thrown, for whoever shows it beside its button' } }),
    isEnabled: () => !model.environment?.up,
    execute: args => (args.quiet ? model.startEnvironment() : saying('Start', () => model.startEnvironment()))
  });
  const act = (id: string, label: string, done: string, action: (name: string) => Promise<unknown>) =>
    commands.addCommand(id, {
      label: args => (args.name ? `${label} ${args.name}` : `${label} an API…`),
      describedBy: described({ name: NAME }),
      execute: async args => {
        const name = typeof args.name === 'string' ? args.name : await ask(model);
        if (name) {
          await saying(name, async () => {
            await action(name);
            Notification.success(`${name}: ${done}`, { autoClose: 4000 });
          });
        }
      }
    });
  act(CommandIDs.refresh, 'Refresh', 'fresh replicas are starting; the old ones serve until they are ready', name => model.client.refresh(name));
  act(CommandIDs.stop, 'Stop', 'stopping; requests are still accepted and wait', name => model.client.stop(name));
  act(CommandIDs.start, 'Start', 'starting', name => model.client.start(name));

  commands.addCommand(CommandIDs.rollback, {
    label: args => `Make Version ${args.version ?? ''} Live Again`,
    describedBy: described({ name: NAME, version: { type: 'number', description: 'The version to bring back' } }, ['name', 'version']),
    execute: async args => {
      const [name, version] = [String(args.name), Number(args.version)];
      const answer = await showDialog({
        title: `Make version ${version} of ${name} live again?`,
        body: `Its module, files, spec and .env come back as a new version. Version ${model.api(name)?.live ?? ''} serves until it is ready; what runs ends where it runs, and what waits runs on what came back. The notebook stays as it is.`,
        buttons: [Dialog.cancelButton(), Dialog.okButton({ label: 'Make live again' })]
      });
      if (answer.button.accept) {
        await saying(name, async () => {
          const said = await model.client.rollback(name, version, model.api(name)?.notebook ?? 'JupyterLab');
          Notification.success(said.message, { autoClose: 6000 });
        });
      }
    }
  });

  commands.addCommand(CommandIDs.remove, {
    label: args => (args.name ? `Delete ${args.name}…` : 'Delete an API…'),
    describedBy: described({ name: NAME }),
    execute: async args => {
      const name = typeof args.name === 'string' ? args.name : await ask(model);
      if (!name) {
        return;
      }
      const open = (model.api(name)?.workloads.in_queue ?? 0) + (model.api(name)?.workloads.in_progress ?? 0);
      const lost = open ? ` ${open} request${open > 1 ? 's that are' : ' that is'} waiting or running will be lost.` : '';
      const answer = await showDialog({
        title: `Delete ${name}?`,
        body: `The API, its queue and all its results are removed; callers get 404.${lost} The notebook stays as it is.`,
        buttons: [Dialog.cancelButton(), Dialog.warnButton({ label: 'Delete' })],
        defaultButton: 0
      });
      if (answer.button.accept) {
        await saying(name, async () => {
          await model.client.remove(name);
          pages.find(one => one.content.name === name)?.close();
          Notification.success(`${name} is deleted`, { autoClose: 4000 });
        });
      }
    }
  });
}

/** The part of the window that a page beside a notebook has at least. */
const BESIDE = 0.42;

/** Wide enough to read beside a notebook. Whoever made it wider keeps that. */
export function widen(widget: Widget): void {
  let child: Widget = widget;
  while (child.parent && !(child.parent instanceof SplitPanel && child.parent.orientation === 'horizontal')) {
    child = child.parent;
  }
  const split = child.parent as SplitPanel | null;
  if (split) {
    const sizes = split.relativeSizes();
    const at = split.widgets.indexOf(child);
    const rest = sizes.reduce((sum, size, other) => (other === at ? sum : sum + size), 0);
    if (sizes[at] < BESIDE && rest > 0) {
      split.setRelativeSizes(sizes.map((size, other) => (other === at ? BESIDE : (size / rest) * (1 - BESIDE))));
    }
  }
}

function stateOf(args: ReadonlyPartialJSONObject): Partial<IPageState> {
  return {
    ...(PAGE_TABS.includes(args.tab as PageTab) ? { tab: args.tab as PageTab } : {}),
    ...(typeof args.workload === 'string' ? { workload: args.workload } : {}),
    ...(typeof args.group === 'string' ? { group: args.group } : {})
  };
}
