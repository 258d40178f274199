import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';

const plugin: JupyterFrontEndPlugin<void> = {
  id: 'jupyter-cortex:plugin',
  description: "Publish a notebook's Handler as an asynchronous HTTP API.",
  autoStart: true,
  activate: (app: JupyterFrontEnd) => {
    console.debug(`jupyter-cortex in ${app.name}`);
  }
};

export default plugin;
