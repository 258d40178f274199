/**
 * What jsdom lacks and JupyterLab's packages or ours ask for.
 */
import { cleanup } from '@testing-library/react';
import { afterEach, vi } from 'vitest';

const missing: Record<string, unknown> = {
  DragEvent: class DragEvent extends Event {},
  ResizeObserver: class {
    constructor(private readonly tell: (entries: unknown[]) => void) {}
    observe(node: Element): void {
      this.tell([{ target: node, borderBoxSize: [{ inlineSize: 800, blockSize: 600 }] }]);
    }
    unobserve(): void {}
    disconnect(): void {}
  },
  IntersectionObserver: class {
    observe(): void {}
    unobserve(): void {}
    disconnect(): void {}
  },
  requestIdleCallback: (run: () => void) => setTimeout(run, 0),
  cancelIdleCallback: clearTimeout,
  matchMedia: () => ({ matches: false, addListener() {}, removeListener() {}, addEventListener() {}, removeEventListener() {} })
};
for (const [name, value] of Object.entries(missing)) {
  (globalThis as any)[name] ??= value;
  (window as any)[name] ??= value;
}
// Every element has a size, so that a virtual list draws its rows.
Object.defineProperties(HTMLElement.prototype, {
  offsetHeight: { configurable: true, get: () => 600 },
  offsetWidth: { configurable: true, get: () => 800 },
  offsetParent: { configurable: true, get: () => document.body }
});
Element.prototype.scrollTo ??= () => undefined;
// uPlot draws on a canvas, which jsdom has not; what it draws is looked at in a real browser.
vi.mock('uplot', () => ({
  default: class {
    setData(): void {}
    setSize(): void {}
    redraw(): void {}
    destroy(): void {}
  }
}));
afterEach(cleanup);
