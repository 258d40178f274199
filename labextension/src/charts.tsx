/**
 * uPlot with the theme's colours, and a sentence for who cannot see it.
 */
import * as React from 'react';
import uPlot from 'uplot';

import { clock, localTime } from './format';
import type { IMinute } from './tokens';

/** One line of a chart; `color` is a CSS variable of the theme. */
export interface ILine {
  label: string;
  color: string;
  values: (number | null)[];
  fill?: boolean;
  /** Whether values may be missing. */
  sparse?: boolean;
}

export function color(variable: string): string {
  return getComputedStyle(document.body).getPropertyValue(variable).trim() || '#888';
}

/** A chart over time; `times` are seconds since the epoch. `summary` is what it says, in words. */
export function Chart(props: { title: string; summary: string; times: number[]; lines: ILine[]; unit: (value: number) => string; whole?: boolean; height?: number }): JSX.Element {
  const box = React.useRef<HTMLDivElement>(null);
  const plot = React.useRef<uPlot | null>(null);
  const height = props.height ?? 140;
  const shape = props.lines.map(line => line.label).join('|');
  const unit = React.useRef(props.unit);
  unit.current = props.unit;

  React.useEffect(() => {
    const node = box.current!;
    const axis = { stroke: () => color('--jp-ui-font-color2'), grid: { stroke: () => color('--jp-border-color2'), width: 1 }, ticks: { show: false }, font: '11px sans-serif' };
    plot.current = new uPlot(
      {
        width: Math.max(120, node.clientWidth),
        height,
        cursor: { y: false, points: { size: 6 } },
        legend: { live: true },
        scales: { y: { range: (_, __, max) => [0, max > 0 ? max * 1.1 : 1] } },
        axes: [
          // The plot stays while the time span changes: what it shows now decides.
          { ...axis, space: 70, size: 26, values: (shown, ticks) => ticks.map(tick => (shown.data[0].length > 100 ? localTime(tick * 1000).slice(5, 16) : clock(tick * 1000).slice(0, 5))) },
          // A count has no half.
          { ...axis, size: 56, space: 26, ...(props.whole ? { incrs: WHOLE } : {}), values: (_, ticks) => ticks.map(tick => unit.current(tick)) }
        ],
        series: [
          { label: 'time', value: (_, tick) => (tick === null || tick === undefined ? '–' : localTime(tick * 1000).slice(0, 16)) },
          ...props.lines.map(line => ({
            label: line.label,
            stroke: () => color(line.color),
            fill: line.fill ? () => `color-mix(in srgb, ${color(line.color)} 18%, transparent)` : undefined,
            width: 1.5,
            // A minute with traffic between two without is a point, not a line.
            points: line.sparse ? { size: 4 } : { show: false },
            spanGaps: true,
            value: (_: uPlot, value: number | null) => (value === null || value === undefined ? '–' : unit.current(value))
          }))
        ]
      },
      data(props.times, props.lines),
      node
    );
    const watch = new ResizeObserver(() => {
      if (node.clientWidth > 0) {
        plot.current?.setSize({ width: node.clientWidth, height });
      }
    });
    watch.observe(node);
    const theme = new MutationObserver(() => plot.current?.redraw());
    theme.observe(document.body, { attributes: true, attributeFilter: ['data-jp-theme-name'] });
    return () => {
      watch.disconnect();
      theme.disconnect();
      plot.current?.destroy();
      plot.current = null;
    };
  }, [shape, height]);

  React.useEffect(() => {
    plot.current?.setData(data(props.times, props.lines));
  });

  return (
    <figure className="cx-chart">
      <figcaption>
        <strong>{props.title}</strong> <span className="cx-dim">{props.summary}</span>
      </figcaption>
      <div ref={box} role="img" aria-label={`${props.title}: ${props.summary}`} />
    </figure>
  );
}

const WHOLE = [1, 2, 5].flatMap(step => Array.from({ length: 9 }, (_, at) => step * 10 ** at)).sort((a, b) => a - b);

function data(times: number[], lines: ILine[]): uPlot.AlignedData {
  return [times, ...lines.map(line => line.values)] as uPlot.AlignedData;
}

const SPARK = { width: 64, height: 18 };

/** Requests of the last hour, tiny: accepted as an area, failed as a line in red. */
export function Spark({ minutes, now }: { minutes: IMinute[]; now: number }): JSX.Element {
  const box = React.useRef<HTMLDivElement>(null);
  const plot = React.useRef<uPlot | null>(null);
  React.useEffect(() => {
    plot.current = new uPlot(
      {
        ...SPARK,
        cursor: { show: false },
        legend: { show: false },
        padding: [1, 0, 1, 0],
        axes: [{ show: false }, { show: false }],
        scales: { x: { time: false }, y: { range: (_, __, max) => [0, max || 1] } },
        series: [
          {},
          { stroke: () => color('--jp-brand-color1'), fill: () => `color-mix(in srgb, ${color('--jp-brand-color1')} 25%, transparent)`, width: 1, points: { show: false } },
          { stroke: () => color('--jp-error-color1'), width: 1, points: { show: false } }
        ]
      },
      [[0], [0], [0]],
      box.current!
    );
    return () => plot.current?.destroy();
  }, []);
  const last = Math.floor(now / 60000) * 60;
  const known = new Map(minutes.map(row => [row.minute, row]));
  const span = Array.from({ length: 60 }, (_, at) => last - (59 - at) * 60);
  const accepted = span.map(minute => known.get(minute)?.accepted ?? 0);
  const failed = span.map(minute => known.get(minute)?.failed ?? 0);
  const total = accepted.reduce((sum, value) => sum + value, 0);
  const drawn = `${last}:${accepted.join()}:${failed.join()}`;
  React.useEffect(() => {
    plot.current?.setData([span, accepted, failed.some(Boolean) ? failed : failed.map(() => null)] as uPlot.AlignedData);
  }, [drawn]);
  return <div className="cx-spark" ref={box} role="img" aria-label={`${total} requests in the last hour`} title={`${total} requests in the last hour`} />;
}
