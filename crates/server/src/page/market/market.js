// The market: a table of all symbols, the chart of one, and a slow link.
//
// The page subscribes to a channel first and then loads a snapshot. Publications that arrive in between wait, and those that
// the snapshot contains are skipped by their number.

import { Connection, explain, showState } from './connection.js';
import { CandlestickSeries, HistogramSeries, createChart } from './vendor/lightweight-charts-5.2.1.js';

const $ = (id) => document.getElementById(id);

/** Kilobytes per second; the first means no limit. */
const SPEEDS = [null, 16, 8, 6, 4, 2, 1];
const POLICIES = [
  ['disconnect', 'ends the connection once its queue is full. The client connects again and loads a new snapshot.'],
  ['drop_oldest', 'drops the oldest publications of the queue. The client sees a gap, and is behind by the queue at most.'],
  ['latest', 'keeps the latest publication of each key only. The client skips values and stays up to date.'],
];
const UNAVAILABLE = 'Not offered by this server.';
const LATE_MS = 1_000;
const PLOT_SECONDS = 60;
const FIGURES_INTERVAL_MS = 500;

const price = (cents) => (cents / 100).toFixed(2);
const percent = (ratio) => `${ratio >= 0 ? '+' : '−'}${Math.abs(ratio * 100).toFixed(2)} %`;
const direction = (value) => (value > 0 ? 'is-up' : value < 0 ? 'is-down' : '');
const isMotionReduced = matchMedia('(prefers-reduced-motion: reduce)');

const connection = new Connection({});
showState(connection, $('state'));

/** Applies a snapshot, then the publications that it does not contain. */
class Stream {
  #waiting = [];
  #number = null;
  #generation = 0;

  /** `load` returns a snapshot with its number `n`; `apply` takes a publication. */
  constructor(channel, load, apply) {
    this.channel = channel;
    const onPublication = ({ data }) => {
      if (this.#number === null) this.#waiting.push(data);
      else if (data.n > this.#number) apply(data);
    };
    const onSubscribed = async () => {
      const generation = ++this.#generation;
      this.#number = null;
      this.#waiting = [];
      const number = await load(() => generation === this.#generation);
      if (generation !== this.#generation || number === null) return;
      this.#number = number;
      for (const data of this.#waiting.splice(0)) if (data.n > number) apply(data);
    };
    connection.subscription(channel).on('publication', onPublication).on('subscribed', onSubscribed).subscribe();
  }

  close() {
    this.#generation += 1;
    connection.unsubscribe(this.channel);
  }
}

async function loadJson(path) {
  try {
    const response = await fetch(path, { cache: 'no-store' });
    return response.ok ? await response.json() : null;
  } catch {
    return null;
  }
}

// ---- The table ----

/** {index, ticker, name, last, open, row, lastCell, changeCell} in the order of the server. */
let symbols = [];
let selected = null;
let sorting = { by: 'ticker', isDescending: false };
const changed = new Set();
let ticks = null;

function showSymbols(snapshot) {
  if (symbols.length !== snapshot.symbols.length) {
    symbols = snapshot.symbols.map(([ticker, name], index) => symbolRow(index, ticker, name));
    sortRows();
  }
  for (const [index, [, , last, open]] of snapshot.symbols.entries()) {
    Object.assign(symbols[index], { last, open, previous: last });
    changed.add(symbols[index]);
  }
  showPolicies(snapshot.feeds);
  renderChanged();
  if (!selected) select(symbols.find(({ ticker }) => ticker === location.hash.slice(1)) ?? symbols[0]);
}

function symbolRow(index, ticker, name) {
  const row = document.createElement('tr');
  const head = document.createElement('th');
  head.scope = 'row';
  const button = document.createElement('button');
  button.type = 'button';
  const [bold, small] = ['b', 'small'].map((tag) => document.createElement(tag));
  bold.textContent = ticker;
  small.textContent = name;
  button.append(bold, small);
  head.append(button);
  const [lastCell, changeCell] = [row.insertCell(), row.insertCell()];
  row.prepend(head);
  const symbol = { index, ticker, name, last: 0, open: 0, previous: 0, row, button, lastCell, changeCell };
  row.onclick = () => select(symbol);
  return symbol;
}

function renderChanged() {
  for (const symbol of changed) {
    const { last, open, previous, lastCell, changeCell } = symbol;
    lastCell.textContent = price(last);
    changeCell.textContent = percent(last / open - 1);
    changeCell.className = direction(last - open);
    if (last !== previous && !isMotionReduced.matches) flash(lastCell, last > previous);
    symbol.previous = last;
    if (symbol === selected) renderQuote();
  }
  changed.clear();
}

function flash(cell, isUp) {
  const color = getComputedStyle(document.documentElement).getPropertyValue(isUp ? '--good-tint' : '--bad-tint');
  for (const animation of cell.getAnimations()) animation.cancel();
  cell.animate([{ backgroundColor: color }, { backgroundColor: 'transparent' }], { duration: 700, easing: 'ease-out' });
}

let frame = 0;

function applyTicks({ x }) {
  for (const [index, last] of x) {
    symbols[index].last = last;
    changed.add(symbols[index]);
  }
  frame ||= requestAnimationFrame(() => {
    frame = 0;
    renderChanged();
  });
}

function sortRows() {
  const { by, isDescending } = sorting;
  const change = ({ last, open }) => last / open;
  const orders = {
    ticker: (a, b) => a.ticker.localeCompare(b.ticker),
    last: (a, b) => a.last - b.last,
    change: (a, b) => change(a) - change(b),
  };
  const sorted = [...symbols].sort(orders[by]);
  if (isDescending) sorted.reverse();
  $('rows').append(...sorted.map(({ row }) => row));
  for (const button of document.querySelectorAll('[data-sort]')) {
    const order = isDescending ? 'descending' : 'ascending';
    if (button.dataset.sort === by) button.parentElement.setAttribute('aria-sort', order);
    else button.parentElement.removeAttribute('aria-sort');
  }
}

for (const button of document.querySelectorAll('[data-sort]')) {
  button.onclick = () => {
    const by = button.dataset.sort;
    // Numbers are most useful with the largest first.
    sorting = { by, isDescending: sorting.by === by ? !sorting.isDescending : by !== 'ticker' };
    sortRows();
  };
}

$('filter').oninput = () => {
  const text = $('filter').value.trim().toLowerCase();
  for (const { row, ticker, name } of symbols) row.hidden = !`${ticker} ${name}`.toLowerCase().includes(text);
  $('none').hidden = symbols.some(({ row }) => !row.hidden);
};

// ---- The chart ----

const chart = createChart($('chart'), {
  autoSize: true,
  // The credit below the chart has the link to TradingView.
  layout: { attributionLogo: false, background: { color: 'transparent' } },
  timeScale: { timeVisible: true, secondsVisible: true, rightOffset: 3, barSpacing: 7 },
  crosshair: { mode: 0 },
});
const candles = chart.addSeries(CandlestickSeries, { borderVisible: false });
const volumes = chart.addSeries(HistogramSeries, { priceScaleId: 'volume', priceFormat: { type: 'volume' }, lastValueVisible: false, priceLineVisible: false });
chart.priceScale('volume').applyOptions({ scaleMargins: { top: 0.84, bottom: 0 } });
chart.priceScale('right').applyOptions({ scaleMargins: { top: 0.08, bottom: 0.2 } });

function colourChart() {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  chart.applyOptions({
    layout: { textColor: colour('--ink-soft'), fontFamily: getComputedStyle(document.body).fontFamily },
    grid: { vertLines: { color: colour('--sunken') }, horzLines: { color: colour('--sunken') } },
    rightPriceScale: { borderColor: colour('--line') },
    timeScale: { borderColor: colour('--line') },
  });
  const [up, down] = [colour('--good'), colour('--bad')];
  candles.applyOptions({ upColor: up, downColor: down, wickUpColor: up, wickDownColor: down });
  volumes.applyOptions({ color: colour('--line') });
}

colourChart();
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', colourChart);

let interval = 5_000;
let candle = null;
let trades = null;

/** The chart shows the times of its data as UTC. */
const local = (ms) => (ms - new Date(ms).getTimezoneOffset() * 60_000) / 1000;

function select(symbol) {
  if (symbol === selected) return;
  selected?.row.classList.remove('is-selected');
  selected?.button.removeAttribute('aria-current');
  selected = symbol;
  symbol.row.classList.add('is-selected');
  symbol.button.setAttribute('aria-current', 'true');
  history.replaceState(null, '', `#${symbol.ticker}`);
  renderQuote();
  trades?.close();
  trades = new Stream(`market:${symbol.ticker}`, (isCurrent) => loadCandles(symbol, isCurrent), applyTrade);
}

async function loadCandles({ ticker }, isCurrent) {
  const snapshot = await loadJson(`/market/candles.json?symbol=${ticker}`);
  if (!snapshot || !isCurrent()) return null;
  const all = snapshot.candles.map(([start, open, high, low, close, volume]) => ({ start, open, high, low, close, volume }));
  candles.setData(all.map(bar));
  volumes.setData(all.map(volumeBar));
  candle = all.at(-1);
  chart.timeScale().scrollToRealTime();
  return snapshot.n;
}

function applyTrade({ t, p, v }) {
  const start = t - (t % interval);
  if (!candle || start > candle.start) candle = { start, open: candle?.close ?? p, high: p, low: p, close: p, volume: 0 };
  candle.high = Math.max(candle.high, p, candle.open);
  candle.low = Math.min(candle.low, p, candle.open);
  candle.close = p;
  candle.volume += v;
  candles.update(bar(candle));
  volumes.update(volumeBar(candle));
}

const bar = ({ start, open, high, low, close }) => ({
  time: local(start), open: open / 100, high: high / 100, low: low / 100, close: close / 100,
});
const volumeBar = ({ start, volume }) => ({ time: local(start), value: volume });

function renderQuote() {
  const { ticker, name, last, open } = selected;
  $('symbol').textContent = ticker;
  $('symbol-name').textContent = name;
  $('last').textContent = price(last);
  $('change').textContent = percent(last / open - 1);
  $('change').className = `change ${direction(last - open)}`;
  document.title = `${price(last)} ${ticker} · Sockeye`;
}

// ---- The slow link ----

/** The smallest difference between the clock of this machine and the time of a publication: skew and network. */
let leastMs = Infinity;
let lastNumber = null;
let counts = { updates: 0, bytes: 0, since: performance.now() };
let skipped = 0;
/** Delays of the last minute, one per figures interval. */
let delays = [];
let newest = null;

function measure({ data }) {
  leastMs = Math.min(leastMs, Date.now() - data.t);
  if (lastNumber !== null && data.n > lastNumber + 1) skipped += data.n - lastNumber - 1;
  lastNumber = Math.max(lastNumber, data.n);
  newest = Math.max(newest, data.t);
  counts.updates += 1;
  counts.bytes += JSON.stringify(data).length;
}

function showFigures() {
  const seconds = (performance.now() - counts.since) / 1000;
  const isLive = connection.isConnected && newest !== null;
  // Also grows while nothing arrives.
  const delay = isLive ? Math.max(0, Date.now() - newest - leastMs) : null;
  $('delay').textContent = delay === null ? '–' : delay < 1000 ? `${Math.round(delay)} ms` : `${(delay / 1000).toFixed(1)} s`;
  $('delay').classList.toggle('is-late', delay > LATE_MS);
  $('updates').textContent = isLive ? `${Math.round(counts.updates / seconds)} /s` : '–';
  $('received').textContent = isLive ? `${(counts.bytes / seconds / 1000).toFixed(1)} kB/s` : '–';
  $('skipped').textContent = String(skipped);
  counts = { updates: 0, bytes: 0, since: performance.now() };
  delays.push(delay);
  delays = delays.slice(-PLOT_SECONDS * 1000 / FIGURES_INTERVAL_MS);
  drawDelays();
}

function drawDelays() {
  const canvas = $('delay-plot');
  const { clientWidth: width, clientHeight: height } = canvas;
  canvas.width = width * devicePixelRatio;
  canvas.height = height * devicePixelRatio;
  const context = canvas.getContext('2d');
  context.scale(devicePixelRatio, devicePixelRatio);
  const style = getComputedStyle(canvas);
  const top = Math.max(2_000, ...delays);
  const count = PLOT_SECONDS * 1000 / FIGURES_INTERVAL_MS;
  const x = (at) => width * (at + count - delays.length) / (count - 1);
  const y = (ms) => height - 2 - (height - 16) * ms / top;
  context.strokeStyle = style.getPropertyValue('--accent');
  context.lineWidth = 1.6;
  context.beginPath();
  delays.forEach((ms, at) => {
    if (ms === null) return;
    if (at > 0 && delays[at - 1] !== null) context.lineTo(x(at), y(ms));
    else context.moveTo(x(at), y(ms));
  });
  context.stroke();
  context.fillStyle = style.getPropertyValue('--ink-soft');
  context.font = `11px ${style.fontFamily}`;
  context.fillText(`${(top / 1000).toFixed(0)} s`, 2, 11);
}

function showSpeed() {
  const speed = SPEEDS[$('link').value];
  const text = speed === null ? 'No limit' : `${speed} kB/s`;
  $('link-value').textContent = text;
  $('link').setAttribute('aria-valuetext', text);
}

let sentSpeed = null;

function sendSpeed() {
  const speed = SPEEDS[$('link').value];
  if (!ticks || speed === sentSpeed) return;
  sentSpeed = speed;
  const link = speed === null ? null : speed * 1000;
  connection.subscription(ticks.channel).publish({ link }).catch(() => { /* Sent again after the next subscription. */ });
}

$('link').oninput = showSpeed;
$('link').onchange = () => {
  skipped = 0;
  $('event').textContent = '';
  sendSpeed();
};

/** `feeds` are the policies that the server offers, each with its channel. */
function showPolicies(feeds) {
  if ($('policies').childElementCount) return;
  const channels = new Map(feeds);
  $('policies').replaceChildren(...POLICIES.map(([name, effect]) => {
    const label = document.createElement('label');
    const input = document.createElement('input');
    Object.assign(input, { type: 'radio', name: 'policy', value: name, checked: name === feeds[0][0], disabled: !channels.has(name) });
    input.onchange = () => follow(channels.get(name));
    const [bold, text] = ['b', 'span'].map((tag) => document.createElement(tag));
    bold.textContent = name;
    text.textContent = channels.has(name) ? effect : `${effect} ${UNAVAILABLE}`;
    label.append(input, bold, text);
    return label;
  }));
}

function follow(channel) {
  ticks?.close();
  const load = async (isCurrent) => {
    const snapshot = await loadJson('/market/symbols.json');
    if (!snapshot || !isCurrent()) return null;
    interval = snapshot.interval;
    showSymbols(snapshot);
    return snapshot.n;
  };
  ticks = new Stream(channel, load, applyTicks);
  lastNumber = null;
  connection.subscription(channel).on('publication', measure).on('subscribed', () => {
    lastNumber = null;
    newest = null;
    // The server forgets the limit with the connection.
    sentSpeed = null;
    sendSpeed();
  });
}

// ---- The connection ----

connection.addEventListener('state', ({ detail }) => {
  const text = explain(detail);
  $('notice').hidden = !text;
  $('notice-text').textContent = detail.state === 'waiting' ? `${text} Trying again.` : text;
  $('retry').textContent = detail.state === 'ended' ? 'Connect again' : 'Try now';
  if (detail.state === 'waiting' && detail.code >= 3000 && sentSpeed) {
    const time = new Date().toLocaleTimeString();
    $('event').textContent = `${time}: the server disconnected this client, ${detail.detail} (${detail.code}), and it connected again.`;
  }
});
$('retry').onclick = () => connection.retryNow();

showSpeed();
setInterval(showFigures, FIGURES_INTERVAL_MS);
loadJson('/market/symbols.json').then((snapshot) => {
  follow(snapshot?.feeds[0][1] ?? 'market:ticks');
  connection.connect();
});
