// The chat: rooms, members, messages, and unsent messages.
//
// A room is the channel "chat:<name>". A message is `{id, text, at}`, where `at` is the author's clock. The server attaches
// information about the author, but name and id in it are chosen by the author and may be forged. The reader's own messages
// are therefore recognized by the client ids that the server assigned to the connections of this browser.
// "room:<name>:typing" carries who is typing; nobody recovers or reads the history of it.
// Data from others is always inserted as text, never as markup.

import { Connection, explain, isInterruption, showState } from './connection.js';
import * as snippets from './snippets.js';
import { formatted, icon, initials, make, messageNodes, tint } from './view.js';

const HISTORY_LENGTH = 100;
const MESSAGES_MAX = 500;
const ROOMS_MAX = 60;
const NEAR_END_PX = 80;
const CROWD_MS = 4_000;
const OWN_CLIENTS_MAX = 500;
const FIRST_ROOM = 'general';
const LEAVE_SHOWN_AFTER_MS = 2_000;
const TYPING_SENT_EVERY_MS = 2_500;
const TYPING_SHOWN_MS = 5_000;
const UNSUBSCRIBED_BY_PAGE = 0;

const $ = (id) => document.getElementById(id);
const ui = Object.fromEntries([
  'close-connect', 'connect', 'copy-link', 'composer', 'empty', 'hint', 'join', 'join-name', 'jump', 'jump-text', 'main',
  'me-avatar', 'me-name', 'messages', 'name', 'notice', 'notice-text', 'open-connect', 'open-people', 'open-rooms',
  'other-unread', 'pending', 'people', 'people-count', 'people-panel', 'rename', 'retry', 'room-list', 'room-name', 'rooms',
  'scrim', 'scroller', 'snippet-curl', 'snippet-javascript', 'state', 'text', 'typing', 'welcome', 'welcome-submit',
].map((id) => [id.replace(/-./g, ([, letter]) => letter.toUpperCase()), $(id)]));

/** Storage that may be unavailable: even the access to it may throw. */
const keeping = (open) => ({
  get(key, otherwise) {
    try { return JSON.parse(open().getItem(`sockeye.${key}`)) ?? otherwise; } catch { return otherwise; }
  },
  set(key, value) {
    try { open().setItem(`sockeye.${key}`, JSON.stringify(value)); } catch { /* Works without it, until the page is closed. */ }
  },
});
/** All tabs of the browser share it: they are one person. */
const storage = keeping(() => localStorage);
/** The tab's own: what two tabs wrote and could not send yet must not meet. */
const tabStorage = keeping(() => sessionStorage);

const me = storage.get('me', null) ?? { id: randomId(), name: randomName() };
let isNamed = storage.get('me', null) !== null;
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
    /** The offset of the newest message, and the epoch that it belongs to. */
    this.offset = 0;
    this.epoch = '';
    /** Counts epochs: offsets of different ones are not comparable. */
    this.era = 0;
    this.typists = new Map();
    /** The names of those who left a moment ago, by their id. */
    this.left = new Map();
    const options = { recoverable: true, positioned: true, joinLeave: true };
    this.subscription = connection.subscription(this.channel, options)
      .on('subscribed', (how) => this.#entered(how))
      .on('publication', (publication) => this.#heard(publication, true))
      .on('join', ({ info }) => this.#came(info))
      .on('leave', ({ info }) => this.#went(info))
      .on('unsubscribed', ({ code, reason }) => code !== UNSUBSCRIBED_BY_PAGE && this.#refused(reason));
    this.subscription.subscribe();
  }

  get channel() { return `chat:${this.name}`; }

  async #entered({ wasRecovering, recovered, streamPosition }) {
    this.error = null;
    this.enteredAt = Date.now();
    const isNew = !this.enteredAs;
    const isBack = this.enteredAs !== connection.client;
    this.enteredAs = connection.client;
    const lastOffset = this.offset;
    const isSameEpoch = isNew || this.epoch === streamPosition?.epoch;
    this.epoch = streamPosition?.epoch ?? '';
    if (!isSameEpoch) {
      this.era += 1;
      this.offset = 0;
    }
    if (wasRecovering && recovered) this.#countRecovered(lastOffset);
    try {
      const presence = this.subscription.presence();
      if (isNew || !recovered) {
        const { publications, offset } = await this.subscription.history({ limit: HISTORY_LENGTH, reverse: true });
        const oldest = publications.at(-1)?.offset ?? offset + 1;
        if (!isNew && !isSameEpoch) {
          this.#note(isBack ? 'The server was restarted, and its history was lost.' : 'The history of this room was lost.', 0);
        } else if (!isNew && oldest > lastOffset + 1) {
          this.#note('Some messages were missed and are no longer kept.', lastOffset);
        }
        this.#fill(publications.reverse());
      }
      this.people = new Map(Object.entries((await presence).clients));
      if (this === current) renderPeople();
    } catch (error) {
      // Limit exceeded: there are too many people to list.
      if (!isInterruption(error) && error.code !== 106) this.error = error.message;
      if (this === current) renderNotice();
    }
    sendWaiting(this);
  }

  /** The SDK delivers the recovered messages directly after the event. */
  #countRecovered(lastOffset) {
    const isNew = ({ era, offset, isMine }) => era === this.era && offset > lastOffset && !isMine;
    setTimeout(() => {
      const missed = this.messages.filter(isNew).length;
      if (missed === 0) return;
      this.#note(missed === 1 ? '1 missed message was recovered.' : `${missed} missed messages were recovered.`, lastOffset);
      if (this === current) renderMessages();
    });
  }

  /** Adds a line about the connection behind the message with this offset. */
  #note(text, offset) {
    this.messages.push({ note: text, era: this.era, offset: offset + 0.5 });
    this.#sort();
    if (this === current) hint(text);
  }

  #fill(publications) {
    for (const publication of publications) this.#heard(publication, false);
    this.#sort();
    if (this === current) renderMessages();
  }

  #sort() {
    this.messages.sort((a, b) => a.era - b.era || a.offset - b.offset);
  }

  #heard(publication, isLive) {
    const message = read(publication);
    if (publication.offset > this.offset) this.offset = publication.offset;
    if (message) message.era = this.era;
    if (!message || this.ids.has(idOf(message))) return;
    this.ids.add(idOf(message));
    this.messages.push(message);
    if (this.messages.length > MESSAGES_MAX) {
      const oldest = this.messages.shift();
      if (!oldest.note) this.ids.delete(idOf(oldest));
    }
    if (this.typists.delete(message.author.key) && this === current) renderTyping();
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
    const { key, name } = person(info);
    const oldName = this.left.get(key);
    this.left.delete(key);
    if (!isNew || isCrowd || key === me.id || oldName === name) return;
    hint(oldName ? `${oldName} is now ${name}` : `${name} came in`);
  }

  #went(info) {
    this.people.delete(info.client);
    if (this !== current) return;
    renderPeople();
    if (this.has(info)) return;
    // People who change their name, or whose connection breaks, are back soon.
    const { key, name } = person(info);
    this.left.set(key, name);
    setTimeout(() => {
      if (this.left.delete(key) && this === current && !this.has(info)) hint(`${name} left`);
    }, LEAVE_SHOWN_AFTER_MS);
  }

  #refused(error) {
    this.error = `You cannot be in this room: ${error.message}.`;
    if (this === current) renderNotice();
  }

  /** Somebody types, or stops typing, in this room. */
  typing({ data, info }) {
    if (!info || isOwn(info)) return;
    const { key, name } = person(info);
    if (data?.typing === true) this.typists.set(key, { name, until: Date.now() + TYPING_SHOWN_MS });
    else this.typists.delete(key);
    renderTyping();
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
  followTyping(room);
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
  connection.unsubscribe(typingChannel(rooms.get(name)));
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

// ---- Typing ----

let typingSentAt = 0;
let typingTimer = 0;

const typingChannel = (room) => `room:${room.name}:typing`;

function followTyping(room) {
  if (current) connection.unsubscribe(typingChannel(current));
  typingSentAt = 0;
  connection.subscription(typingChannel(room))
    .on('publication', (publication) => room.typing(publication))
    .subscribe();
}

function sendTyping(isTyping) {
  if (!current || !connection.isConnected) return;
  const isRecent = Date.now() - typingSentAt < TYPING_SENT_EVERY_MS;
  if (isTyping ? isRecent : typingSentAt === 0) return;
  typingSentAt = isTyping ? Date.now() : 0;
  connection.subscription(typingChannel(current)).publish({ typing: isTyping }).catch(() => { /* Not important. */ });
}

function renderTyping() {
  clearTimeout(typingTimer);
  const now = Date.now();
  for (const [key, { until }] of current.typists) if (until <= now) current.typists.delete(key);
  const names = [...current.typists.values()].map(({ name }) => name);
  const who = names.length > 2 ? 'Several people are' : names.length === 2 ? `${names[0]} and ${names[1]} are` : `${names[0]} is`;
  ui.typing.textContent = names.length ? `${who} typing…` : '';
  if (names.length) typingTimer = setTimeout(renderTyping, 1000);
}

/** The room was looked at. The line above what is new stays until the next visit. */
function seen(room) {
  room.unread = 0;
  room.firstUnread = null;
}

// ---- Messages ----

/** A publication as a message, or null if it is not one: anybody may publish anything. */
function read({ data, info, offset }) {
  if (typeof data?.text !== 'string' || !data.text.trim()) return null;
  return {
    id: typeof data.id === 'string' ? data.id.slice(0, 64) : `offset ${offset}`,
    text: data.text.slice(0, 8000),
    author: person(info),
    isMine: isOwn(info),
    at: Number.isFinite(data.at) ? Math.min(Math.max(data.at, 0), Date.now()) : Date.now(),
    offset: offset ?? 0,
  };
}

function person(info) {
  // A backend publishes without a connection.
  if (!info) return { key: 'server', name: 'Server' };
  const claimed = info.connInfo?.unverified;
  const name = typeof claimed?.name === 'string' ? claimed.name.trim().slice(0, 40) : '';
  const key = typeof claimed?.id === 'string' ? claimed.id.slice(0, 64) : info.client;
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
  sendTyping(false);
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
    await room.subscription.publish({ id: message.id, text: message.text, at: message.at });
  } catch (error) {
    // Without a connection the message stays unsent; after resubscribing, the history shows whether it was published.
    if (!isInterruption(error)) {
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
  renderTyping();
  messages.forEach((message, index) => nodes.push(...messageNodes(message, before(messages, index), message.id === firstUnread)));
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

/** The message before an index, past the notes. */
function before(messages, index) {
  return messages.slice(0, index).findLast(({ note }) => !note);
}

function showMessage(message, wasWaiting) {
  const wasAtEnd = isAtEnd();
  const { messages, firstUnread } = current;
  const nodes = messageNodes(message, before(messages, messages.length - 1), message.id === firstUnread);
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
    node.append(make('div', { class: 'body' }, ...formatted(message.text)));
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

function stateChanged(detail) {
  const { state, reason, client } = detail;
  if (client) rememberOwnClient(client);
  ui.people.classList.toggle('is-stale', state !== 'connected');
  if (state === 'waiting') {
    // The hint was about the previous connection, or is less urgent now.
    if (!interruption) hint('');
    const isMoreSpecific = reason === 'offline' || reason === 'refused';
    if (!interruption || isMoreSpecific) interruption = detail;
    notice(`${explain(interruption)} Trying again. What you write is kept.`, 'Try now');
  } else if (state === 'ended') {
    interruption = detail;
    notice(explain(detail), 'Connect again');
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
  ui.name.value = me.name;
  ui.welcomeSubmit.textContent = isNamed ? 'Save' : 'Start talking';
  ui.welcome.hidden = false;
}

function named(event) {
  event.preventDefault();
  const name = ui.name.value.replace(/\p{C}/gu, '').trim();
  if (!name) return;
  ui.welcome.hidden = true;
  focusText();
  const isChanged = name !== me.name;
  me.name = name;
  isNamed = true;
  storage.set('me', me);
  if (isChanged) introduce();
}

/** Tells others the name. */
function introduce() {
  renderMe();
  connection.reconnectAs({ id: me.id, name: me.name });
}

/** Another tab of this browser has stored something. */
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
    isNamed = true;
    ui.welcome.hidden = true;
    introduce();
  }
}

function listen() {
  ui.composer.onsubmit = (event) => {
    event.preventDefault();
    const text = ui.text.value.trim();
    if (!text || !current) return;
    if (!isNamed) named(event);
    ui.text.value = '';
    fitText();
    say(text);
  };
  ui.text.oninput = () => {
    fitText();
    sendTyping(ui.text.value.trim() !== '');
  };
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
  ui.retry.onclick = () => connection.retryNow();
  ui.rename.onclick = () => {
    closePanels({ isFocusKept: true });
    askName();
    ui.name.select();
  };
  ui.welcome.onsubmit = named;
  ui.welcome.onkeydown = ({ key }) => { if (key === 'Escape' && isNamed) ui.welcome.hidden = true; };
  ui.openConnect.onclick = () => {
    snippets.fill(ui.snippetJavascript, snippets.javascript(current.channel));
    snippets.fill(ui.snippetCurl, snippets.curl(current.channel));
    ui.connect.showModal();
  };
  ui.closeConnect.onclick = () => ui.connect.close();
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
  connection = new Connection({ id: me.id, name: me.name });
  connection.addEventListener('state', ({ detail }) => stateChanged(detail));
  showState(connection, ui.state);
  const wanted = roomOfHash() || storage.get('room', FIRST_ROOM);
  for (const name of new Set([...storage.get('rooms', [FIRST_ROOM]), wanted])) rooms.set(name, new Room(name));
  saveRooms();
  if (location.hash !== hashOf(wanted)) history.replaceState(null, '', hashOf(wanted));
  renderMe();
  enter(wanted);
  connection.connect();
  if (!isNamed) askName();
  focusText();
}

listen();
start();
