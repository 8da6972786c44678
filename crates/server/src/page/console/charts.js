// The plots and tiles: from samples of counters to rates.

/* global uPlot */

/** Beyond this number of seconds between two samples, a plot has a gap. */
const GAP = 5;

/** Steps of the vertical axes: whole numbers. */
const INCREMENTS = Array.from({ length: 10 }, (_, power) => [1, 2, 5].map((digit) => digit * 10 ** power)).flat();

const number = new Intl.NumberFormat('en', { maximumSignificantDigits: 3, notation: 'compact' });
const exact = new Intl.NumberFormat('en');

export const count = (value) => (value < 10_000 ? exact.format(Math.round(value)) : number.format(value));
const rate = (value) => (value < 10 ? `${Math.round(value * 10) / 10}` : count(value));
const percent = (value) => `${value < 10 ? Math.round(value * 10) / 10 : Math.round(value)} %`;

export function bytes(value) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${value < 10 && unit > 0 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

/** The series of each plot: the field of the samples, its name, its colour, and whether it is a counter. */
const PLOTS = [
  {
    title: 'Clients', format: count, series: [
      { field: 'clients', name: 'Clients', colour: '--tint-5', fill: true },
      { field: 'connections', name: 'Connections', colour: '--tint-1' },
    ],
  },
  {
    title: 'Per second', format: rate, series: [
      { field: 'deliveries', name: 'Delivered', colour: '--tint-3', counter: true, fill: true },
      { field: 'publications', name: 'Published', colour: '--tint-0', counter: true },
      { field: 'commands', name: 'Commands', colour: '--tint-6', counter: true },
    ],
  },
  {
    title: 'Trouble per second', format: rate, series: [
      { field: 'dropped', name: 'Dropped', colour: '--tint-1', counter: true },
      { field: 'disconnects', name: 'Disconnected', colour: '--tint-0', counter: true },
      { field: 'refusals', name: 'Refused', colour: '--tint-6', counter: true },
      { field: 'errors', name: 'Errors', colour: '--tint-7', counter: true },
    ],
  },
  {
    title: 'CPU of one core', format: percent, series: [
      { field: 'cpu', name: 'CPU', colour: '--tint-4', counter: true, scale: 100, fill: true },
    ],
  },
];

const TILES = [
  { name: 'Clients', field: 'clients', format: count },
  { name: 'Users', field: 'users', format: count },
  { name: 'Channels', field: 'channels', format: count },
  { name: 'Subscriptions', field: 'subscriptions', format: count },
  { name: 'Memory', field: 'memory', format: bytes },
  { name: 'History', field: 'history', format: bytes },
];

/** Keeps the samples of the last minutes, and shows them. */
export class Charts {
  constructor(plots, tiles) {
    this.samples = [];
    this.fields = {};
    this.span = 60;
    this.tiles = TILES.map((tile) => {
      const group = document.createElement('div');
      const [name, value] = [document.createElement('dt'), document.createElement('dd')];
      [name.textContent, value.textContent] = [tile.name, '–'];
      group.append(name, value);
      tiles.append(group);
      return { ...tile, value };
    });
    this.plots = PLOTS.map((plot) => new Plot(plot, plots));
    const redraw = () => {
      this.plots.forEach((plot) => plot.create());
      this.show();
    };
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', redraw);
    new ResizeObserver(() => this.plots.forEach((plot) => plot.resize())).observe(plots);
  }

  add(fields, samples) {
    fields.forEach((field, index) => { this.fields[field] = index; });
    this.samples.push(...samples);
    this.samples.splice(0, Math.max(0, this.samples.length - 600));
    this.show();
  }

  clear() {
    this.samples = [];
  }

  show() {
    const last = this.samples.at(-1);
    if (!last) return;
    for (const { field, format, value } of this.tiles) value.textContent = format(last[this.fields[field]]);
    const now = last[this.fields.time];
    // One more, from which the first rate is computed.
    const first = Math.max(0, this.samples.findIndex((sample) => sample[this.fields.time] > now - this.span) - 1);
    const shown = this.samples.slice(first);
    for (const plot of this.plots) plot.set(shown, this.fields, now - this.span, now);
  }
}

class Plot {
  constructor(plot, container) {
    Object.assign(this, plot);
    const figure = document.createElement('figure');
    const caption = document.createElement('figcaption');
    const title = document.createElement('h3');
    title.textContent = plot.title;
    this.legend = document.createElement('p');
    this.values = plot.series.map(({ name, colour }) => {
      const [entry, mark, value] = ['span', 'i', 'b'].map((tag) => document.createElement(tag));
      mark.style.background = `var(${colour})`;
      value.textContent = '–';
      entry.append(mark, `${name} `, value);
      this.legend.append(entry, ' ');
      return value;
    });
    caption.append(title, this.legend);
    this.area = document.createElement('div');
    this.area.className = 'area';
    this.area.setAttribute('role', 'img');
    this.area.setAttribute('aria-label', `Plot: ${plot.title}`);
    figure.append(caption, this.area);
    container.append(figure);
    this.data = [[], ...plot.series.map(() => [])];
    this.create();
  }

  size() {
    return { width: Math.max(100, this.area.clientWidth), height: Math.max(60, this.area.clientHeight) };
  }

  create() {
    this.chart?.destroy();
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const axis = {
      stroke: colour('--ink-soft'),
      font: '11px system-ui, sans-serif',
      grid: { stroke: colour('--line'), width: 1 },
      ticks: { show: false },
      gap: 4,
    };
    this.chart = new uPlot({
      ...this.size(),
      padding: [8, 24, 0, 0],
      legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false }, sync: { key: 'console' }, points: { size: 6 } },
      scales: { x: { time: true }, y: { range: (_, __, max) => [0, Math.max(1, max * 1.15 || 1)] } },
      axes: [
        { ...axis, space: 80, size: 22, grid: { show: false }, values: [
          [60, '{HH}:{mm}', null, null, null, null, null, null, 1],
          [1, '{HH}:{mm}:{ss}', null, null, null, null, null, null, 1],
        ] },
        { ...axis, space: 26, size: 44, incrs: INCREMENTS, values: (_, values) => values.map((value) => this.format(value)) },
      ],
      series: [{}, ...this.series.map(({ name, colour: of, fill }) => ({
        label: name,
        stroke: colour(of),
        width: 1.75,
        fill: fill ? `${colour(of)}24` : undefined,
        points: { show: false },
      }))],
      hooks: { setCursor: [() => this.showValues()] },
    }, this.data, this.area);
  }

  resize() {
    const { width, height } = this.size();
    if (width !== this.chart.width || height !== this.chart.height) this.chart.setSize({ width, height });
  }

  /** Shows samples between two times. */
  set(samples, fields, min, max) {
    const times = samples.map((sample) => sample[fields.time]);
    this.data = [times, ...this.series.map(({ field, counter, scale = 1 }) => samples.map((sample, index) => {
      const value = sample[fields[field]];
      if (!counter) return value;
      const elapsed = times[index] - times[index - 1];
      const change = value - samples[index - 1]?.[fields[field]];
      return elapsed > 0 && elapsed < GAP && change >= 0 ? change / elapsed * scale : null;
    }))];
    this.chart.setData(this.data, false);
    this.chart.setScale('x', { min, max });
    this.showValues();
  }

  /** Shows the values under the cursor, or the newest ones. */
  showValues() {
    const index = this.chart?.cursor.idx ?? this.data[0].length - 1;
    this.values.forEach((element, series) => {
      const value = this.data[series + 1][index];
      element.textContent = value === null || value === undefined ? '–' : this.format(value);
    });
  }
}
