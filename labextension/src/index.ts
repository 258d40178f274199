/**
 * The plugin: puts the parts together. Only the notebook tracker is required, so that one bundle serves JupyterLab and Notebook 7.
 */
import { ILabShell, ILayoutRestorer, JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { ICommandPalette, IToolbarWidgetRegistry, MainAreaWidget, WidgetTracker } from '@jupyterlab/apputils';
import { IDefaultFileBrowser } from '@jupyterlab/filebrowser';
import { ILauncher } from '@jupyterlab/launcher';
import { IMainMenu } from '@jupyterlab/mainmenu';
import { INotebookTracker, NotebookPanel } from '@jupyterlab/notebook';
import { IRenderMimeRegistry } from '@jupyterlab/rendermime';
import { IRunningSessionManagers } from '@jupyterlab/running';
import { IStatusBar } from '@jupyterlab/statusbar';
import { Widget } from '@lumino/widgets';

import { CortexClient } from './client';
import { addCommands } from './commands';
import { DeployButton } from './deploy';
import { notebookIcon } from './icons';
import { CortexModel } from './model';
import { NotebookWatch } from './notebooks';
import type { ApiPage } from './page';
import { ApisPanel } from './panel';
import { DRIVE, ReportDrive } from './reports';
import { RunningApis } from './running';
import { StatusItem } from './status';
import { CommandIDs, PLUGIN_ID } from './tokens';

const CATEGORY = 'Cortex';

const plugin: JupyterFrontEndPlugin<void> = {
  id: PLUGIN_ID,
  description: "Publish a notebook's Handler as an asynchronous HTTP API, and watch it.",
  autoStart: true,
  requires: [INotebookTracker],
  optional: [
    IToolbarWidgetRegistry,
    ILabShell,
    ILayoutRestorer,
    ICommandPalette,
    ILauncher,
    IRunningSessionManagers,
    IStatusBar,
    IMainMenu,
    IDefaultFileBrowser,
    IRenderMimeRegistry
  ],
  activate: (
    app: JupyterFrontEnd,
    notebooks: INotebookTracker,
    toolbars: IToolbarWidgetRegistry | null,
    labShell: ILabShell | null,
    restorer: ILayoutRestorer | null,
    palette: ICommandPalette | null,
    launcher: ILauncher | null,
    running: IRunningSessionManagers | null,
    statusBar: IStatusBar | null,
    menu: IMainMenu | null,
    browser: IDefaultFileBrowser | null,
    rendermime: IRenderMimeRegistry | null
  ) => {
    const client = new CortexClient(app.serviceManager.serverSettings);
    const model = new CortexModel(client);
    const pages = new WidgetTracker<MainAreaWidget<ApiPage>>({ namespace: 'jupyter-cortex' });
    const watches = new Map<string, NotebookWatch>();
    const { commands } = app;
    addCommands({ app, model, notebooks, pages, watches, labShell, browser, rendermime });
    app.serviceManager.contents.addDrive(new ReportDrive(client));

    const watchOf = (panel: NotebookPanel): NotebookWatch => {
      let watch = watches.get(panel.id);
      if (!watch) {
        watch = new NotebookWatch(panel, model);
        watches.set(panel.id, watch);
        panel.disposed.connect(() => watches.delete(panel.id));
      }
      return watch;
    };
    toolbars?.addFactory<NotebookPanel>('Notebook', 'cortex-deploy', panel =>
      panel.context.path.startsWith(`${DRIVE}:`) ? new Widget() : new DeployButton(watchOf(panel), commands)
    );

    const panel = new ApisPanel(model, commands);
    app.shell.add(panel, 'left', { rank: 550, type: 'Cortex APIs' });
    restorer?.add(panel as Widget, panel.id);
    if (restorer) {
      void restorer.restore(pages, {
        command: CommandIDs.openApi,
        args: page => ({ name: page.content.name, tab: page.content.state.tab, ...(page.content.state.workload ? { workload: page.content.state.workload } : {}), ...(page.content.state.group ? { group: page.content.state.group } : {}) }),
        name: page => page.content.name
      });
    }

    running?.add(new RunningApis(model, commands));
    // A tile of this category shows a picture, not the command's icon.
    launcher?.add({ command: CommandIDs.newNotebook, category: 'Notebook', rank: 50, kernelIconUrl: `data:image/svg+xml,${encodeURIComponent(notebookIcon.svgstr)}` });
    for (const command of [
      CommandIDs.deploy,
      CommandIDs.newNotebook,
      CommandIDs.openApi,
      CommandIDs.logs,
      CommandIDs.test,
      CommandIDs.refresh,
      CommandIDs.stop,
      CommandIDs.start,
      CommandIDs.remove,
      CommandIDs.showApis,
      CommandIDs.startEnvironment,
      CommandIDs.help
    ]) {
      palette?.addItem({ command, category: CATEGORY, args: { isPalette: true } });
    }
    menu?.helpMenu.addGroup([{ command: CommandIDs.help }], 20);
    statusBar?.registerStatusItem('jupyter-cortex:status', { item: new StatusItem(model, commands), align: 'left', rank: 90, isActive: () => model.connection !== 'idle' });
  }
};

export default plugin;
