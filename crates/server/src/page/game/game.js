// The game: joins the arena, sends inputs, and shows what the netcode makes of the snapshots.

import { Connection, explain, isInterruption, showState } from './connection.js';
import { Netcode, TICK_MS } from './netcode.js';
import { Pond, tintOf } from './pond.js';
import { decodeSnapshot, encodeInput, encodeJoin, encodeLeave } from './wire.js';

const CHANNEL = 'game:arena';
const SCORES_SHOWN = 8;
/** Ticks that are caught up with after the page was busy. */
const TICKS_AT_ONCE_MAX = 6;
const SCORES_INTERVAL_MS = 400;
const REJOIN_MS = 1_000;
const KEYS = {
  KeyW: 'up', ArrowUp: 'up', KeyS: 'down', ArrowDown: 'down', KeyA: 'left', ArrowLeft: 'left', KeyD: 'right', ArrowRight: 'right',
  Space: 'dash',
};

const $ = (id) => document.getElementById(id);

/** With the Protobuf build of the SDK, the data of publications is binary. */
const connection = new Connection(null);
const channel = connection.subscription(CHANNEL);
const netcode = new Netcode();
const pond = new Pond($('pond'));
/** id -> {name, isMe, isBot} */
let players = new Map();
let name = null;
/** Received since the figures were shown. */
let bytes = 0;
let figuresAt = performance.now();
let joinedAt = 0;

// ---- The network, and what is added to it ----

const added = { delay: 0, loss: 0 };

/** Runs something after half of the added latency, unless it is lost. */
function overNetwork(action) {
  if (Math.random() < added.loss) return;
  if (added.delay === 0) action();
  else setTimeout(action, added.delay / 2);
}

function send(data) {
  if (connection.isConnected) channel.publish(data).catch((error) => isInterruption(error) || announce(error.message));
}

channel.on('publication', ({ data }) => {
  bytes += data.length;
  overNetwork(() => received(decodeSnapshot(data)));
});
channel.on('subscribed', () => {
  netcode.reset();
  players = new Map();
  joinedAt = 0;
  rejoin();
});

function received(snapshot) {
  if (snapshot.names) {
    players = new Map(snapshot.names.map(({ id, name, client }) => [id, {
      name, isBot: client === null, isMe: client !== null && client === connection.client,
    }]));
    const own = [...players].find(([, { isMe }]) => isMe)?.[0] ?? null;
    if (own !== netcode.ownId && own !== null) announce('You are in the game.');
    netcode.ownId = own;
  }
  netcode.handleSnapshot(snapshot, performance.now());
}

/** Joins again after the connection or this page was away for too long. */
function rejoin() {
  const isPlaying = netcode.ownId !== null && netcode.latest?.fish.has(netcode.ownId);
  if (name === null || isPlaying || performance.now() - joinedAt < REJOIN_MS) return;
  joinedAt = performance.now();
  send(encodeJoin(name));
}

// ---- Inputs ----

const held = new Set();
/** The point that the fish swims to, while a pointer is down. */
let target = null;
let isDashing = false;

function currentInput() {
  let x = held.has('right') - held.has('left');
  let y = held.has('down') - held.has('up');
  const own = target && netcode.view(performance.now())?.own;
  if (own) {
    const point = pond.pointAt(target);
    const distance = Math.hypot(point.x - own.x, point.y - own.y);
    const effort = Math.min(1, distance / 80);
    [x, y] = distance > 8 ? [(point.x - own.x) / distance * effort, (point.y - own.y) / distance * effort] : [0, 0];
  }
  const length = Math.hypot(x, y);
  if (length > 1) [x, y] = [x / length, y / length];
  // Rounded as it is sent, so that the server computes with the same numbers.
  [x, y] = [x, y].map((value) => Math.round(value * 1000) / 1000);
  const input = { x, y, dash: isDashing || held.has('dash') };
  isDashing = false;
  return input;
}

let ticksFrom = performance.now();

setInterval(() => {
  const now = performance.now();
  const due = Math.floor((now - ticksFrom) / TICK_MS);
  if (due > TICKS_AT_ONCE_MAX) ticksFrom = now - TICK_MS * TICKS_AT_ONCE_MAX;
  for (; now - ticksFrom >= TICK_MS; ticksFrom += TICK_MS) {
    if (netcode.ownId === null || !connection.isConnected) continue;
    const input = netcode.step(currentInput(), ticksFrom + TICK_MS);
    overNetwork(() => send(encodeInput(input)));
  }
}, TICK_MS / 3);

window.addEventListener('keydown', (event) => {
  const action = KEYS[event.code];
  if (!action || netcode.ownId === null || event.ctrlKey || event.metaKey || event.altKey) return;
  // Keys keep their meaning in controls.
  if (event.target.closest('input, button, a')) return;
  event.preventDefault();
  held.add(action);
});
window.addEventListener('keyup', ({ code }) => held.delete(KEYS[code]));
window.addEventListener('blur', () => held.clear());
$('pond').addEventListener('pointerdown', (event) => {
  $('pond').setPointerCapture(event.pointerId);
  target = event;
});
$('pond').addEventListener('pointermove', (event) => { if (target) target = event; });
for (const type of ['pointerup', 'pointercancel']) $('pond').addEventListener(type, () => { target = null; });
$('dash').addEventListener('pointerdown', () => { isDashing = true; });

// ---- The page ----

function announce(text) {
  $('announcement').textContent = text;
}

function playing(isPlaying) {
  $('join').hidden = isPlaying;
  $('pond').classList.toggle('is-playing', isPlaying);
  $('leave').hidden = !isPlaying;
  $('dash').hidden = !isPlaying || !matchMedia('(pointer: coarse)').matches;
}

const stored = (key) => { try { return JSON.parse(localStorage.getItem(key)); } catch { return null; } };

$('name').value = stored('sockeye.game')?.name ?? stored('sockeye.me')?.name ?? '';
$('join').onsubmit = (event) => {
  event.preventDefault();
  name = $('name').value.trim();
  if (!name) { name = null; return; }
  try { localStorage.setItem('sockeye.game', JSON.stringify({ name })); } catch { /* Works without. */ }
  joinedAt = 0;
  rejoin();
  playing(true);
  $('pond').focus();
};
$('leave').onclick = () => {
  name = null;
  netcode.ownId = null;
  send(encodeLeave());
  playing(false);
  $('name').focus();
};

for (const [id, unit] of [['delay', 'ms'], ['loss', '%']]) {
  $(id).oninput = () => {
    const value = Number($(id).value);
    $(`${id}-value`).textContent = `${value} ${unit}`;
    $(id).setAttribute('aria-valuetext', `${value} ${unit}`);
    added[id] = id === 'loss' ? value / 100 : value;
  };
}
$('prediction').onchange = () => { netcode.isPredicting = $('prediction').checked; };
$('interpolation').onchange = () => { netcode.isInterpolating = $('interpolation').checked; };

function showScores() {
  const { latest } = netcode;
  if (!latest) return;
  const fish = [...latest.fish.values()].sort((a, b) => b.score - a.score || a.id - b.id);
  const shown = fish.slice(0, SCORES_SHOWN);
  const own = fish.find(({ id }) => id === netcode.ownId);
  if (own && !shown.includes(own)) shown[SCORES_SHOWN - 1] = own;
  $('scores').replaceChildren(...shown.map(({ id, score }) => {
    const { name, isMe, isBot } = players.get(id) ?? { name: '' };
    const item = document.createElement('li');
    item.className = `${isMe ? 'is-me' : ''} ${tintOf({ id, isMe, isBot }).replace('--accent', 'tint-me').replace('--', '')}`;
    const [dot, label, kind, points] = ['i', 'bdi', 'small', 'span'].map((tag) => document.createElement(tag));
    dot.setAttribute('aria-hidden', 'true');
    label.textContent = name;
    kind.textContent = isMe ? 'you' : isBot ? 'bot' : '';
    points.textContent = String(score);
    item.append(dot, label, kind, points);
    return item;
  }));
}

function showFigures() {
  const { responseMs, lostPart, perSecond, correction } = netcode.statistics(performance.now());
  $('response').textContent = responseMs === null ? '–' : `${Math.round(responseMs)} ms`;
  $('lost').textContent = lostPart === null ? '–' : `${Math.round(lostPart * 100)} %`;
  const seconds = (performance.now() - figuresAt) / 1000;
  $('snapshots').textContent = `${Math.round(perSecond)} /s`;
  $('received').textContent = `${(bytes / seconds / 1000).toFixed(1)} kB/s`;
  [bytes, figuresAt] = [0, performance.now()];
  $('correction').textContent = correction === null ? '–' : correction.toFixed(2);
}

setInterval(() => {
  showScores();
  showFigures();
  rejoin();
}, SCORES_INTERVAL_MS);

function drawFrame() {
  pond.draw(netcode.view(performance.now()), players, { isGhostShown: $('ghost').checked });
  requestAnimationFrame(drawFrame);
}

showState(connection, $('state'));
connection.addEventListener('state', ({ detail }) => {
  const text = explain(detail);
  $('notice').hidden = !text;
  $('notice-text').textContent = detail.state === 'waiting' ? `${text} Trying again.` : text;
  $('retry').textContent = detail.state === 'ended' ? 'Connect again' : 'Try now';
  if (detail.state !== 'connected') netcode.ownId = null;
});
$('retry').onclick = () => connection.retryNow();

playing(false);
channel.subscribe();
connection.connect();
requestAnimationFrame(drawFrame);
