import { LabIcon } from '@jupyterlab/ui-components';

/** Three layers with an arrow up: something is published. `jp-icon3` follows the theme. */
export const apiIcon = new LabIcon({
  name: 'jupyter-cortex:api',
  svgstr: `<svg xmlns="http://www.w3.org/2000/svg" width="16" viewBox="0 0 24 24">
  <path class="jp-icon3" fill="#616161" d="M12 2 7 7h3.5v7h3V7H17L12 2z"/>
  <path class="jp-icon3" fill="#616161" d="M4 12.5v2l8 3.6 8-3.6v-2l-4.5-2V12.6l1.9.9L12 16l-5.4-2.5 1.9-.9v-2.1l-4.5 2z"/>
  <path class="jp-icon3" fill="#616161" d="M4 16.6v2L12 22l8-3.4v-2l-8 3.5-8-3.5z"/>
</svg>`
});

/** For the launcher's tile: the same with colour. */
export const notebookIcon = new LabIcon({
  name: 'jupyter-cortex:notebook',
  svgstr: `<svg xmlns="http://www.w3.org/2000/svg" width="32" height="32" viewBox="0 0 24 24">
  <path fill="#1976d2" d="M12 2 7 7h3.5v7h3V7H17L12 2z"/>
  <path fill="#f37726" d="M4 12.5v2l8 3.6 8-3.6v-2l-4.5-2V12.6l1.9.9L12 16l-5.4-2.5 1.9-.9v-2.1l-4.5 2z"/>
  <path fill="#f37726" d="M4 16.6v2L12 22l8-3.4v-2l-8 3.5-8-3.5z"/>
</svg>`
});
