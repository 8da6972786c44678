// The admin console: signs in, asks for figures every second, and shows channels.

import { Channel, element } from './channel.js';
import { Charts, count } from './charts.js';
import { SignedOut, call, channels, signIn, signOut, stats } from './server.js';

const $ = (id) => document.getElementById(id);

const STATS_INTERVAL = 1000;
const CHANNELS_INTERVAL = 2000;

const charts = { current: null };
const channel = new Channel({ fail, confirm });
let listed = new Map();
let timers = [];

/** What the next request asks for: samples from this number on, of this run of the server. */
const position = { next: 0, uid: null };

// Sign in and out

function showLogin(message = '') {
  timers.forEach(clearInterval);
  timers = [];
  channel.close();
  $('console').hidden = true;
  $('login').hidden = false;
  $('login-error').hidden = !message;
  $('login-error').textContent = message;
  $('password').focus();
}

function start() {
  $('login').hidden = true;
  $('console').hidden = false;
  // When it is visible, so that the plots know their size.
  charts.current ??= new Charts($('plots'), $('tiles'));
  timers.forEach(clearInterval);
  timers = [
    setInterval(showStats, STATS_INTERVAL),
    setInterval(() => {
      showChannels();
      channel.refresh();
    }, CHANNELS_INTERVAL),
  ];
  showStats();
  showChannels();
  route();
}

/** Handles an error of a request. */
function fail(error) {
  if (error instanceof SignedOut) showLogin('The session has ended.');
  else showState('waiting', 'No answer');
}

$('login-form').addEventListener('submit', async (event) => {
  event.preventDefault();
  const button = event.target.querySelector('button');
  button.disabled = true;
  try {
    await signIn($('password').value);
    $('password').value = '';
    start();
  } catch (error) {
    showLogin(error instanceof TypeError ? 'The server does not answer.' : error.message);
    $('password').select();
  } finally {
    button.disabled = false;
  }
});

$('sign-out').addEventListener('click', async () => {
  try {
    await signOut();
  } catch {
    // The session has ended already, or the server does not answer.
  }
  charts.current.clear();
  position.next = 0;
  showLogin();
});

// Figures

function showState(state, text) {
  $('state').dataset.state = state;
  $('state').querySelector('[data-text]').textContent = text;
}

/** Shows why the server cannot store publications. */
function showProblem(problem) {
  const text = problem ? `Publications to channels with history fail: ${problem}` : '';
  $('problem').hidden = !problem;
  // Screen readers would repeat a text that is set again.
  if ($('problem').textContent !== text) $('problem').textContent = text;
}

function duration(seconds) {
  const units = [[86400, 'd'], [3600, 'h'], [60, 'min'], [1, 's']];
  const [length, unit] = units.find(([length]) => seconds >= length) ?? [1, 's'];
  return `${Math.floor(seconds / length)} ${unit}`;
}

let isAsking = false;

async function showStats() {
  // One at a time, and none for a page that nobody sees.
  if (isAsking || document.hidden) return;
  isAsking = true;
  try {
    let page = await stats(position.next);
    if (position.uid && page.uid !== position.uid) {
      charts.current.clear();
      page = await stats(0);
    }
    position.uid = page.uid;
    position.next = page.first + page.samples.length;
    charts.current.add(page.fields, page.samples);
    $('server-name').textContent = page.name;
    $('facts').textContent = `${page.version} · up ${duration(page.uptime)}`;
    showProblem(page.problem);
    showState(page.draining ? 'waiting' : 'connected', page.draining ? 'Shutting down' : 'Running');
  } catch (error) {
    fail(error);
  } finally {
    isAsking = false;
  }
}

for (const button of document.querySelectorAll('[data-span]')) {
  button.addEventListener('click', () => {
    for (const other of document.querySelectorAll('[data-span]')) other.setAttribute('aria-pressed', other === button);
    charts.current.span = Number(button.dataset.span);
    charts.current.show();
  });
}

// Channels

const isPattern = (text) => /[*?]/.test(text);

/** The text of the field as a pattern: a part of a name matches too. */
function pattern() {
  const text = $('pattern').value.trim();
  return text && !isPattern(text) ? `*${text}*` : text;
}

async function showChannels() {
  if (document.hidden) return;
  const asked = pattern();
  try {
    const { total, channels: found } = await channels(asked);
    if (asked !== pattern()) return;
    listed = new Map(found.map((channel) => [channel.name, channel]));
    $('channels-count').textContent = found.length < total ? `${found.length} of ${count(total)}` : count(total);
    drawChannels(found);
    $('channels-none').hidden = found.length > 0;
    $('channels-none').textContent = asked ? 'No channel with subscribers matches.' : 'No channel has subscribers.';
    if (channel.name !== null) await describeChannel();
  } catch (error) {
    fail(error);
  }
}

/** Shows rows in order. Rows that stay keep the focus. */
function drawChannels(found) {
  const rows = new Map([...$('channel-list').children].map((row) => [row.dataset.name, row]));
  found.forEach(({ name, clients, position: at }, index) => {
    const row = rows.get(name) ?? channelRow(name);
    rows.delete(name);
    const [, clientsCell, offsetCell] = row.firstElementChild.children;
    clientsCell.textContent = count(clients);
    offsetCell.textContent = at ? count(at.offset) : '–';
    row.firstElementChild.setAttribute('aria-current', name === channel.name);
    const before = $('channel-list').children[index];
    if (before !== row) $('channel-list').insertBefore(row, before ?? null);
  });
  for (const row of rows.values()) row.remove();
}

function channelRow(name) {
  const row = element('li');
  row.dataset.name = name;
  const link = element('a');
  link.href = `#/${encodeURIComponent(name)}`;
  link.append(element('span', 'name', name), element('span', 'number'), element('span', 'number'));
  row.append(link);
  return row;
}

async function describeChannel() {
  const { name } = channel;
  if (listed.has(name)) {
    channel.describe(listed.get(name));
    return;
  }
  // A channel without subscribers, or one that the pattern excludes.
  const escaped = name.replace(/[*?]/g, '?');
  const { channels: found } = await channels(escaped);
  if (name === channel.name) channel.describe(found.find((one) => one.name === name));
}

function route() {
  let name = '';
  try {
    if (location.hash.startsWith('#/')) name = decodeURIComponent(location.hash.slice(2));
  } catch {
    // Not an address of this page.
  }
  if ($('console').hidden) return;
  channel.open(name || null);
  document.body.dataset.view = name ? 'channel' : 'overview';
  document.title = name ? `${name} · Sockeye` : 'Console · Sockeye';
  if (name) {
    describeChannel().catch(fail);
    scrollTo(0, 0);
  }
  for (const link of document.querySelectorAll('#channel-list a')) {
    link.setAttribute('aria-current', link.parentElement.dataset.name === name);
  }
}

addEventListener('hashchange', route);
document.addEventListener('visibilitychange', () => {
  if (!document.hidden && !$('console').hidden) {
    showStats();
    showChannels();
  }
});

let typing;
$('pattern').addEventListener('input', () => {
  clearTimeout(typing);
  typing = setTimeout(showChannels, 200);
});

$('find').addEventListener('submit', (event) => {
  event.preventDefault();
  const name = $('pattern').value.trim();
  if (name && !isPattern(name)) location.hash = `/${encodeURIComponent(name)}`;
});

$('user-form').addEventListener('submit', async (event) => {
  event.preventDefault();
  const user = $('user').value.trim();
  const answer = await confirm({
    title: 'Disconnect the user?',
    text: `All clients of ${user} leave all their channels.`,
    yes: 'Disconnect',
    reconnect: true,
  });
  if (!answer) return;
  try {
    await call('disconnect', { user, ...answer.disconnect });
    $('user').value = '';
  } catch (error) {
    fail(error);
  }
});

// Questions

/** Asks before something is changed. Resolves to nothing if the answer is no. */
function confirm({ title, text, yes, reconnect = false }) {
  const dialog = $('confirm');
  $('confirm-title').textContent = title;
  $('confirm-text').textContent = text;
  $('confirm-yes').textContent = yes;
  $('confirm-option').hidden = !reconnect;
  $('may-reconnect').checked = false;
  dialog.returnValue = 'no';
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener('close', () => {
      if (dialog.returnValue !== 'yes') {
        resolve(null);
        return;
      }
      const again = { disconnect: { code: 3011, reason: 'force reconnect' } };
      resolve({ disconnect: reconnect && $('may-reconnect').checked ? again : {} });
    }, { once: true });
  });
}

// A session from an earlier visit continues.
try {
  await stats(0);
  start();
} catch (error) {
  showLogin(error instanceof SignedOut ? '' : 'The server does not answer.');
}
