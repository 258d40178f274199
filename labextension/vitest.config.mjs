import { readFileSync } from 'node:fs';
import { defineConfig } from 'vitest/config';

/** JupyterLab's packages import their icons as text and their style sheets from JavaScript. */
const assets = {
  name: 'assets-as-text',
  enforce: 'pre',
  load(id) {
    const path = id.split('?')[0];
    if (path.endsWith('.svg')) {
      return `export default ${JSON.stringify(readFileSync(path, 'utf8'))};`;
    }
    return path.endsWith('.css') ? 'export default "";' : undefined;
  }
};

export default defineConfig({
  plugins: [assets],
  test: {
    environment: 'jsdom',
    include: ['tests/**/*.test.{ts,tsx}'],
    setupFiles: ['tests/setup.ts'],
    // JupyterLab's packages are loaded once rather than for each file: 17 s of CPU instead of 42.
    isolate: false,
    server: { deps: { inline: [/@jupyterlab/, /@jupyter/, /@lumino/, /@microsoft/, /lib0/, /y-protocols/, /yjs/] } }
  }
});
