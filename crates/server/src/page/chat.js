// The chat: rooms, members, messages, and unsent messages.
//
// A room is the channel "chat:<name>". A message is `{id, text}`. The server attaches information about the author, but
// name and id in it are chosen by the author and may be forged. The reader's own messages are therefore recognized by the
// client ids that the server assigned to the connections of this browser.
// Data from others is always inserted as text, never as markup.

import { Connection } from './protocol.js';
import { icon, initials, make, messageNodes, tint, withLinks } from './view.js';

const HISTORY_LENGTH = 100;
const MESSAGES_MAX = 500;
const ROOMS_MAX = 60;
const NEAR_END_PX = 80;
const CROWD_MS = 4_000;
const OWN_CLIENTS_MAX = 500;
const FIRST_ROOM = 'general';

const $ = (id) => document.getElementById(id);
const ui = Object.fromEntries([
  'copy-link', 'composer', 'empty', 'hint', 'join', 'join-name', 'jump', 'jump-text', 'main', 'me-avatar', 'me-name', 'messages',
  'name', 'notice', 'notice-text', 'open-people', 'open-rooms', 'other-unread', 'pending', 'people', 'people-count',
  'people-panel', 'rename', 'retry', 'room-list', 'room-name', 'rooms', 'round-trip', 'scrim', 'scroller', 'state',
  'state-text', 'text', 'welcome', 'welcome-form', 'welcome-submit',
].map((id) => [id.replace(/-./g, ([, letter]) => letter.toUpperCase()), $(id)]));

/** What outlives the page; a browser that keeps nothing still chats. Even asking for the storage may be forbidden. */
const keeping = (open) => ({
  get(key, otherwise) {
    try { return JSON.parse(open().getItem(`sockeye.${key}`)) ?? otherwise; } catch { return otherwise; }
  },
  set(key, value) {
    try { open().setItem(`sockeye.${key}`, JSON.stringify(value)); } catch { /* It is not kept, then. */ }
  },
});
/** All tabs of the browser share it: they are one person. */
const storage = keeping(() => localStorage);
/** The tab's own: what two tabs wrote and could not send yet must not meet. */
const tabStorage = keeping(() => sessionStorage);

const me = storage.get('me', null) ?? { id: randomId(), name: '' };
/** The ids that the server gave to connections of this browser, in whichever tab, the newest last. */
let ownClients = new Set(storage.get('clients', []));
/** Messages not yet known to be in their room: {id, room, text, at, error?}. */
let outbox = tabStorage.get('outbox', []);
/** Ids of those that are on their way. */
const sending = new Set();
const rooms = new Map();
let current = null;
let connection = null;
let drafts = {};

// ---- Rooms ----

class Room {
  constructor(name) {
    this.name = name;
    this.messages = [];
    this.ids = new Set();
    this.people = new Map();
    this.unread = 0;
    this.firstUnread = null;
    this.error = null;
    this.enteredAt = 0;
    this.enteredAs = null;
    connection.subscribe(this.channel, {
      subscribed: (how) => this.#entered(how),
      publication: (publication) => this.#heard(publication, true),
      join: (info) => this.#came(info),
      leave: (info) => this.#went(info),
      failed: (error) => this.#refused(error),
    });
  }

  get channel() { return `chat:${this.name}`; }

  async #entered({ isNew, isRecovered, isSameEpoch, lastOffset }) {
    this.error = null;
    this.enteredAt = Date.now();
    const isBack = this.enteredAs !== connection.client;
    this.enteredAs = connection.client;
    try {
      const presence = connection.request('presence', { channel: this.channel });
      if (isNew || !isRecovered) {
        const params = { channel: this.channel, limit: HISTORY_LENGTH, reverse: true };
        const { publications, offset } = await connection.request('history', params);
        const oldest = publications?.at(-1)?.offset ?? offset + 1;
        this.#fill((publications ?? []).reverse());
        if (!isNew && this === current) {
          // The history of this room can be evicted although the server did not restart.
          if (!isSameEpoch) hint(`The server ${isBack ? 'was restarted; it ' : ''}remembers nothing from before.`);
          else if (oldest > lastOffset + 1) hint('Some of what was said meanwhile is no longer kept.');
        }
      }
      const { presence: clients } = await presence;
      this.people = new Map(Object.entries(clients ?? {}));
      if (this === current) renderPeople();
    } catch (error) {
      if (error.code !== 0 && error.code !== 106) this.error = error.message;
    }
    sendWaiting(this);
  }

  #fill(publications) {
    for (const publication of publications) this.#heard(publication, false);
    // Offsets restart with the server; timestamps do not.
    this.messages.sort((a, b) => a.at - b.at || a.offset - b.offset);
    if (this === current) renderMessages();
  }

  #heard(publication, isLive) {
    const message = read(publication);
    if (!message || this.ids.has(idOf(message))) return;
    this.ids.add(idOf(message));
    this.messages.push(message);
    if (this.messages.length > MESSAGES_MAX) this.ids.delete(idOf(this.messages.shift()));
    const wasWaiting = message.isMine && settle(message.id);
    if (!isLive) return;
    const isSeen = this === current && document.visibilityState === 'visible';
    if (!isSeen && !message.isMine) {
      this.unread += 1;
      this.firstUnread ??= message.id;
      renderRooms();
    }
    if (this === current) showMessage(message, wasWaiting);
  }

  #came(info) {
    const isNew = !this.has(info);
    this.people.set(info.client, info);
    if (this !== current) return;
    renderPeople();
    // After a restart all members rejoin together, which is not worth showing.
    const isCrowd = Date.now() - this.enteredAt < CROWD_MS;
    if (isNew && !isCrowd && person(info).key !== me.id) hint(`${person(info).name} came in`);
  }

  #went(info) {
    this.people.delete(info.client);
    if (this !== current) return;
    renderPeople();
    if (!this.has(info)) hint(`${person(info).name} left`);
  }

  #refused(error) {
    this.error = `You cannot be in this room: ${error.message}.`;
    if (this === current) renderNotice();
  }

  /** Whether the person is here through any connection. */
  has(info) {
    return [...this.people.values()].some((other) => isSamePerson(other, info));
  }
}

/** A room's name as everybody writes it, so that "General" and "general" meet. Empty if there is nothing left of it. */
function roomName(text) {
  const name = text.normalize('NFC').toLowerCase().replace(/^[#\s]+/, '').replace(/[#\s\p{C}]+/gu, '-').replace(/^-+|-+$/g, '');
  return [...name].slice(0, 40).join('');
}

function enter(name) {
  if (current?.name === name) return;
  if (current) drafts[current.name] = ui.text.value;
  if (!rooms.has(name)) {
    if (rooms.size >= ROOMS_MAX) return hint(`You are in ${ROOMS_MAX} rooms already. Leave one first.`);
    rooms.set(name, new Room(name));
    saveRooms();
  }
  const room = rooms.get(name);
  current = room;
  storage.set('room', name);
  ui.roomName.textContent = name;
  ui.scroller.setAttribute('aria-label', `Messages in ${name}`);
  ui.text.placeholder = `Message #${name}`;
  ui.text.value = drafts[name] ?? '';
  hint('');
  fitText();
  renderMessages();
  seen(room);
  renderRooms();
  renderPeople();
  renderNotice();
}

function leave(name) {
  connection.unsubscribe(rooms.get(name).channel);
  rooms.delete(name);
  outbox = outbox.filter((message) => message.room !== name);
  saveOutbox();
  saveRooms();
  if (current?.name !== name) return renderRooms();
  current = null;
  location.hash = hashOf(rooms.keys().next().value ?? FIRST_ROOM);
}

function saveRooms() {
  storage.set('rooms', [...rooms.keys()]);
}

const hashOf = (name) => `#${encodeURIComponent(name)}`;

function roomOfHash() {
  try { return roomName(decodeURIComponent(location.hash.slice(1))); } catch { return ''; }
}

/** The room was looked at. The line above what is new stays until the next visit. */
function seen(room) {
  room.unread = 0;
  room.firstUnread = null;
}

// ---- Messages ----

/** A publication as a message, or null if it is not one: anybody may publish anything. */
function read({ data, info, offset, time }) {
  if (typeof data?.text !== 'string' || typeof data.id !== 'string' || !data.text.trim()) return null;
  const author = person(info);
  return {
    id: data.id.slice(0, 64),
    text: data.text.slice(0, 8000),
    author,
    isMine: isOwn(info),
    at: time ?? Date.now(),
    offset: offset ?? 0,
  };
}

function person(info) {
  const claimed = info?.conn_info?.unverified;
  const name = typeof claimed?.name === 'string' ? claimed.name.trim().slice(0, 40) : '';
  const key = typeof claimed?.id === 'string' ? claimed.id.slice(0, 64) : info?.client ?? '';
  return { key, name: name || 'Somebody' };
}

/** Whether it is about a connection of this browser. What only looks like one is somebody else's. */
function isOwn(info) {
  if (!info?.client) return false;
  // Another tab may have connected in the meantime.
  if (!ownClients.has(info.client) && person(info).key === me.id) {
    for (const client of storage.get('clients', [])) ownClients.add(client);
  }
  return ownClients.has(info.client);
}

function isSamePerson(info, other) {
  return isOwn(info) === isOwn(other) && person(info).key === person(other).key;
}

function rememberOwnClient(client) {
  const all = new Set([...storage.get('clients', []), ...ownClients, client]);
  ownClients = new Set([...all].slice(-OWN_CLIENTS_MAX));
  storage.set('clients', [...ownClients]);
}

/** What tells whether a message was heard before. Nobody can make one that passes for the reader's, and so hide it. */
function idOf({ id, isMine }) {
  return `${isMine ? 'own' : 'other'} ${id}`;
}

function say(text) {
  const message = { id: randomId(), room: current.name, text, at: Date.now() };
  outbox.push(message);
  saveOutbox();
  renderPending();
  scrollToEnd();
  if (connection.isConnected) send(message);
}

/** Publishes everything that waits for a room, in the order it was written. */
function sendWaiting(room) {
  for (const message of outbox) {
    if (message.room === room.name && !message.error) send(message);
  }
}

async function send(message) {
  const room = rooms.get(message.room);
  if (!room || sending.has(message.id)) return;
  sending.add(message.id);
  try {
    await connection.request('publish', { channel: room.channel, data: { id: message.id, text: message.text } });
  } catch (error) {
    // Without a connection the message stays unsent; after resubscribing, the history shows whether it was published.
    if (error.code !== 0) {
      message.error = error.message;
      saveOutbox();
      renderPending();
    }
  }
  sending.delete(message.id);
}

/** A message was heard: it waits no longer. Returns whether it did. */
function settle(id) {
  const before = outbox.length;
  outbox = outbox.filter((message) => message.id !== id);
  if (outbox.length === before) return false;
  saveOutbox();
  renderPending();
  return true;
}

function saveOutbox() {
  tabStorage.set('outbox', outbox);
}

// ---- Rendering ----

function renderMessages() {
  const { messages, firstUnread } = current;
  const nodes = [];
  messages.forEach((message, index) => nodes.push(...messageNodes(message, messages[index - 1], message.id === firstUnread)));
  // Screen readers should not announce the whole history of a room.
  ui.scroller.setAttribute('aria-busy', 'true');
  ui.messages.replaceChildren(...nodes);
  requestAnimationFrame(() => ui.scroller.removeAttribute('aria-busy'));
  renderPending();
  const divider = ui.messages.querySelector('.divider.new');
  if (divider) divider.scrollIntoView({ block: 'center' });
  else scrollToEnd();
  updateJump();
}

function showMessage(message, wasWaiting) {
  const wasAtEnd = isAtEnd();
  const { messages, firstUnread } = current;
  const nodes = messageNodes(message, messages[messages.length - 2], message.id === firstUnread);
  if (!wasWaiting) nodes.at(-1).classList.add('fresh');
  ui.messages.append(...nodes);
  while (ui.messages.childElementCount > MESSAGES_MAX * 1.2) ui.messages.firstElementChild.remove();
  ui.empty.hidden = true;
  if (wasAtEnd || message.isMine) scrollToEnd();
  else missed += 1;
  updateJump();
}

function renderPending() {
  if (!current) return;
  const waiting = outbox.filter((message) => message.room === current.name);
  ui.pending.replaceChildren(...waiting.map((message) => {
    const how = message.error ? 'failed' : connection.isConnected ? 'sending' : 'waiting';
    const node = make('li', { class: `message mine ${how}` });
    node.append(make('div', { class: 'body' }, ...withLinks(message.text)));
    if (message.error) {
      const again = make('button', { type: 'button' }, 'Try again');
      again.onclick = () => { delete message.error; renderPending(); send(message); };
      const discard = make('button', { type: 'button' }, 'Discard');
      discard.onclick = () => settle(message.id);
      node.append(make('div', { class: 'note' }, `Not sent: ${message.error}`, again, discard));
    } else if (!connection.isConnected) {
      node.append(make('div', { class: 'note' }, 'Will be sent when you are back'));
    }
    return node;
  }));
  ui.empty.hidden = current.messages.length > 0 || waiting.length > 0;
}

function renderRooms() {
  ui.roomList.replaceChildren(...[...rooms.values()].map((room) => {
    const link = make('a', { href: hashOf(room.name) }, make('span', { 'aria-hidden': 'true' }, '#'), make('bdi', {}, room.name));
    if (room === current) link.setAttribute('aria-current', 'page');
    if (room.unread) {
      link.classList.add('has-unread');
      const count = room.unread > 99 ? '99+' : String(room.unread);
      link.append(make('span', { class: 'badge' }, count, make('span', { class: 'visually-hidden' }, ' unread')));
    }
    const item = make('li', {}, link);
    if (rooms.size > 1) {
      const button = make('button', { type: 'button', class: 'icon leave', 'aria-label': `Leave ${room.name}`, title: 'Leave this room' });
      button.append(icon('M5 5l10 10M15 5L5 15'));
      button.onclick = () => leave(room.name);
      item.append(button);
    }
    return item;
  }));
  const unread = [...rooms.values()].reduce((sum, room) => sum + room.unread, 0);
  const elsewhere = unread - (current?.unread ?? 0);
  ui.otherUnread.hidden = elsewhere === 0;
  ui.otherUnread.textContent = elsewhere > 99 ? '99+' : String(elsewhere);
  ui.openRooms.setAttribute('aria-label', elsewhere ? `Rooms, ${elsewhere} unread` : 'Rooms');
  document.title = `${unread ? `(${unread}) ` : ''}#${current?.name ?? ''} · Sockeye`;
}

function renderPeople() {
  const people = new Map();
  for (const info of current.people.values()) {
    const { key, name } = person(info);
    if (isOwn(info)) people.set('you', { key: me.id, name: me.name, isMe: true });
    // A forged id with another name must not replace the name of its owner.
    else people.set(`${key} ${name}`, { key, name, isMe: false });
  }
  const sorted = [...people.values()].sort((a, b) => b.isMe - a.isMe || a.name.localeCompare(b.name));
  ui.people.replaceChildren(...sorted.map(({ key, name, isMe }) => {
    const item = make('li', {},
      make('span', { class: `avatar ${tint(key)}`, 'aria-hidden': 'true' }, initials(name)), make('bdi', { class: 'name' }, name));
    if (isMe) item.append(make('span', { class: 'you' }, 'you'));
    return item;
  }));
  ui.peopleCount.textContent = String(people.size);
  ui.openPeople.setAttribute('aria-label', `People here: ${people.size}`);
  $('people-title').textContent = people.size > 1 ? `Here now · ${people.size}` : 'Here now';
}

function renderMe() {
  ui.meName.textContent = me.name;
  ui.meAvatar.textContent = initials(me.name);
  ui.meAvatar.className = `avatar ${tint(me.id)}`;
}

// ---- Scroll position ----

let missed = 0;
let isFollowing = true;

const isAtEnd = () => ui.scroller.scrollHeight - ui.scroller.scrollTop - ui.scroller.clientHeight < NEAR_END_PX;

function scrollToEnd() {
  ui.scroller.scrollTop = ui.scroller.scrollHeight;
  isFollowing = true;
  missed = 0;
  updateJump();
}

function updateJump() {
  ui.jump.hidden = isAtEnd();
  ui.jumpText.textContent = missed === 0 ? 'Newest messages' : missed === 1 ? '1 new message' : `${missed} new messages`;
}

// ---- The connection ----

/** Why the connection was lost first; the attempts that fail afterwards say less. */
let interruption = null;
let lastRefusal = '';
let countdown = 0;

function stateChanged({ state, reason, refusal, retryAt, client }) {
  clearInterval(countdown);
  if (client) rememberOwnClient(client);
  ui.state.dataset.state = state;
  ui.people.classList.toggle('is-stale', state !== 'connected');
  const texts = { connecting: 'Connecting', connected: 'Connected', waiting: 'Offline', ended: 'Disconnected' };
  ui.stateText.textContent = texts[state];
  ui.stateText.className = state === 'connected' ? 'usual' : '';
  if (state !== 'connected') ui.roundTrip.textContent = '';
  if (state === 'waiting') {
    // The hint was about the previous connection, or is less urgent now.
    if (!interruption) hint('');
    interruption = reason === 'offline' || reason === 'refused' ? reason : interruption ?? reason;
    if (refusal) lastRefusal = refusal;
    const why = {
      offline: 'You are offline.',
      restart: 'The server is restarting.',
      refused: `The server refuses this page: ${lastRefusal.replace(/\.?$/, '.')}`,
    }[interruption] ?? 'The connection was lost.';
    const tick = () => {
      const seconds = Math.max(0, Math.ceil((retryAt - Date.now()) / 1000));
      notice(`${why} Trying again ${seconds > 1 ? `in ${seconds} seconds` : 'now'}. What you write is kept.`, 'Try now');
    };
    tick();
    countdown = setInterval(tick, 1000);
  } else if (state === 'ended') {
    interruption = 'ended';
    notice(`The server ended the connection: ${reason || 'no reason given'}.`, 'Connect again');
  } else if (state === 'connected') {
    renderNotice();
    if (interruption) hint('You are back.');
    interruption = null;
  }
  if (current) renderPending();
}

function notice(text, action) {
  ui.notice.hidden = false;
  if (ui.noticeText.textContent !== text) ui.noticeText.textContent = text;
  ui.retry.hidden = !action;
  if (action) ui.retry.textContent = action;
}

/** What the notice says while there is a connection: nothing, or what is wrong with the room. */
function renderNotice() {
  if (!connection.isConnected) return;
  if (current?.error) notice(current.error, null);
  else ui.notice.hidden = true;
}

let hintTimer = 0;

function hint(text) {
  clearTimeout(hintTimer);
  ui.hint.textContent = text;
  if (text) hintTimer = setTimeout(() => { ui.hint.textContent = ''; }, 5000);
}

// ---- Helpers ----

function randomId() {
  return [...crypto.getRandomValues(new Uint8Array(12))].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}

function randomName() {
  const pick = (words) => words[crypto.getRandomValues(new Uint8Array(1))[0] % words.length];
  return `${pick(['Quiet', 'Swift', 'Silver', 'Early', 'Bright', 'Patient', 'Merry', 'Bold'])} `
    + pick(['Otter', 'Heron', 'Salmon', 'Dipper', 'Osprey', 'Beaver', 'Kingfisher', 'Trout']);
}

// ---- User actions ----

function fitText() {
  ui.text.style.height = 'auto';
  ui.text.style.height = `${ui.text.scrollHeight}px`;
  ui.composer.querySelector('button').disabled = !ui.text.value.trim();
}

/** Where focusing does not open a keyboard over half of the page. */
function focusText() {
  if (!matchMedia('(pointer: coarse)').matches) ui.text.focus();
}

function openPanel(panel, opener) {
  panel.classList.add('is-open');
  opener.setAttribute('aria-expanded', 'true');
  ui.scrim.hidden = false;
  ui.main.inert = true;
  panel.querySelector('[data-close]').focus();
}

function closePanels({ isFocusKept = false } = {}) {
  ui.main.inert = false;
  for (const [panel, opener] of [[ui.rooms, ui.openRooms], [ui.peoplePanel, ui.openPeople]]) {
    if (!panel.classList.contains('is-open')) continue;
    panel.classList.remove('is-open');
    opener.setAttribute('aria-expanded', 'false');
    if (!isFocusKept) opener.focus();
  }
  ui.scrim.hidden = true;
}

function askName() {
  ui.name.value = me.name || randomName();
  ui.welcomeSubmit.textContent = me.name ? 'Save' : 'Start talking';
  ui.welcome.showModal();
  ui.name.select();
}

function named(event) {
  event.preventDefault();
  const name = ui.name.value.replace(/\p{C}/gu, '').trim();
  if (!name) return;
  ui.welcome.close();
  if (name === me.name) return;
  me.name = name;
  storage.set('me', me);
  introduce();
}

/** Goes by a name, at first or anew. */
function introduce() {
  renderMe();
  if (rooms.size) connection.reconnectAs({ id: me.id, name: me.name });
  else start();
}

/** Another tab of this browser wrote something down. */
function otherTabStored({ key }) {
  if (key === 'sockeye.clients') {
    const clients = storage.get('clients', []);
    for (const client of clients) ownClients.add(client);
    // Both tabs may have written at the same time.
    if (connection?.client && !clients.includes(connection.client)) rememberOwnClient(connection.client);
    if (current) renderPeople();
  } else if (key === 'sockeye.me') {
    const { id, name } = storage.get('me', me);
    if (!name || (id === me.id && name === me.name)) return;
    Object.assign(me, { id, name });
    ui.welcome.close();
    introduce();
  }
}

function listen() {
  ui.composer.onsubmit = (event) => {
    event.preventDefault();
    const text = ui.text.value.trim();
    if (!text || !current) return;
    ui.text.value = '';
    fitText();
    say(text);
  };
  ui.text.oninput = fitText;
  ui.text.onkeydown = (event) => {
    if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    ui.composer.requestSubmit();
  };
  ui.join.onsubmit = (event) => {
    event.preventDefault();
    const name = roomName(ui.joinName.value);
    if (!name) return;
    ui.joinName.value = '';
    closePanels({ isFocusKept: true });
    location.hash = hashOf(name);
    focusText();
  };
  ui.roomList.onclick = (event) => event.target.closest('a') && closePanels();
  ui.scroller.onscroll = () => {
    isFollowing = isAtEnd();
    if (isFollowing) missed = 0;
    updateJump();
  };
  // Stay at the end when the keyboard of a phone opens or the window shrinks.
  new ResizeObserver(() => isFollowing && scrollToEnd()).observe(ui.scroller);
  ui.jump.onclick = () => { scrollToEnd(); focusText(); };
  ui.retry.onclick = () => (ui.state.dataset.state === 'ended' ? connection.connect() : connection.retryNow());
  ui.rename.onclick = askName;
  ui.welcome.oncancel = (event) => me.name || event.preventDefault();
  ui.welcomeForm.onsubmit = named;
  ui.openRooms.onclick = () => openPanel(ui.rooms, ui.openRooms);
  ui.openPeople.onclick = () => openPanel(ui.peoplePanel, ui.openPeople);
  ui.scrim.onclick = () => closePanels();
  for (const button of document.querySelectorAll('[data-close]')) button.onclick = () => closePanels();
  document.addEventListener('keydown', ({ key }) => key === 'Escape' && closePanels());
  ui.copyLink.onclick = async () => {
    try {
      await navigator.clipboard.writeText(location.href);
      hint('The link to this room is in your clipboard.');
    } catch {
      hint(location.href);
    }
  };
  window.onhashchange = () => enter(roomOfHash() || FIRST_ROOM);
  window.addEventListener('storage', otherTabStored);
  document.addEventListener('visibilitychange', () => {
    if (document.visibilityState !== 'visible' || !current?.unread) return;
    renderMessages();
    seen(current);
    renderRooms();
  });
}

function start() {
  const scheme = location.protocol === 'https:' ? 'wss:' : 'ws:';
  const data = { id: me.id, name: me.name };
  connection = new Connection(`${scheme}//${location.host}/connection/websocket`, '/connection/check', data);
  connection.addEventListener('state', ({ detail }) => stateChanged(detail));
  connection.addEventListener('roundtrip', ({ detail }) => {
    ui.roundTrip.textContent = detail.ms < 1 ? '<1 ms' : `${Math.round(detail.ms)} ms`;
  });
  const wanted = roomOfHash() || storage.get('room', FIRST_ROOM);
  for (const name of new Set([...storage.get('rooms', [FIRST_ROOM]), wanted])) rooms.set(name, new Room(name));
  saveRooms();
  if (location.hash !== hashOf(wanted)) history.replaceState(null, '', hashOf(wanted));
  enter(wanted);
  connection.connect();
  focusText();
}

listen();
if (me.name) introduce();
else askName();
