// Pure functions that turn data into DOM nodes.
//
// Data from others becomes text nodes and attribute values; nothing is parsed as markup.

/** Messages of one author this close together share one head. */
const SAME_BREATH_MS = 5 * 60_000;

/** The message, and before it what divides it from the one above. */
export function messageNodes(message, previous, isFirstUnread) {
  const nodes = [];
  if (message.note) return [make('li', { class: 'divider note' }, make('span', {}, message.note))];
  const isNewDay = !previous || dayOf(previous.at) !== dayOf(message.at);
  if (isNewDay) nodes.push(make('li', { class: 'divider day', role: 'separator' }, dayName(message.at)));
  if (isFirstUnread) nodes.push(make('li', { class: 'divider new', role: 'separator' }, 'New'));
  const isFirst = isNewDay || isFirstUnread || previous.note || previous.author.key !== message.author.key
    || previous.author.name !== message.author.name || previous.isMine !== message.isMine
    || message.at - previous.at > SAME_BREATH_MS;
  nodes.push(messageNode(message, isFirst));
  return nodes;
}

function messageNode({ author, text, at, isMine }, isFirst) {
  const node = make('li', { class: `message ${tint(author.key)}${isMine ? ' mine' : ''}${isFirst ? ' first' : ''}` });
  if (isFirst) {
    const time = make('time', { datetime: new Date(at).toISOString(), title: new Date(at).toLocaleString() }, timeOf(at));
    const name = make('bdi', { class: 'author' }, author.name);
    const head = make('div', { class: 'head' }, name, time);
    if (isMine) head.prepend(make('span', { class: 'visually-hidden' }, 'You'));
    node.append(make('span', { class: 'avatar', 'aria-hidden': 'true' }, initials(author.name)), head);
  }
  node.append(make('div', { class: 'body' }, ...formatted(text)));
  return node;
}

export function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

export function icon(path) {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  svg.setAttribute('viewBox', '0 0 20 20');
  svg.setAttribute('aria-hidden', 'true');
  const line = document.createElementNS('http://www.w3.org/2000/svg', 'path');
  line.setAttribute('d', path);
  svg.append(line);
  return svg;
}

/** The text, with code blocks, inline code and web addresses as elements. */
export function formatted(text) {
  return text.split(/```(?:[\w+-]*\n)?([^]+?)```/).flatMap((part, index) => {
    if (index % 2 === 1) return [make('pre', { tabindex: '0' }, make('code', {}, part.replace(/\n$/, '')))];
    // A block has margins of its own.
    return inline(index > 0 ? part.replace(/^\s+/, '') : part);
  });
}

function inline(text) {
  return text.split(/`([^`\n]+)`/).flatMap((part, index) => (index % 2 === 1 ? [make('code', {}, part)] : withLinks(part)));
}

function withLinks(text) {
  return text.split(/(https?:\/\/[^\s<>"]+[^\s<>".,;:!?)\]}'])/).map((part, index) => {
    if (index % 2 === 0) return part;
    return make('a', { href: part, target: '_blank', rel: 'noopener noreferrer nofollow' }, part);
  });
}

export function initials(name) {
  const words = name.split(/[\s\-_.]+/).filter(Boolean);
  const letters = words.length > 1 ? [words[0], words.at(-1)].map((word) => [...word][0]) : [...(words[0] ?? '?')].slice(0, 1);
  return letters.join('').toUpperCase();
}

export function tint(key) {
  let hash = 7;
  for (const character of key) hash = (hash * 31 + character.codePointAt(0)) >>> 0;
  return `tint-${hash % 8}`;
}

const dayOf = (at) => new Date(at).toDateString();
const timeOf = (at) => new Date(at).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' });

function dayName(at) {
  const day = dayOf(at);
  if (day === dayOf(Date.now())) return 'Today';
  if (day === dayOf(Date.now() - 86_400_000)) return 'Yesterday';
  return new Date(at).toLocaleDateString([], { weekday: 'long', day: 'numeric', month: 'long' });
}
