// Two people in the chat page of the real-time server: Ada at a desk, Grace on a phone.
// usage: node chat.mjs URL FOLDER     (of the page; and where the screenshots go)
// The script finds elements by the labels that people read or hear, so a page without labels fails.

import { strict as assert } from 'node:assert';
import WebSocket from 'ws';
import { launch } from './browser.mjs';
import {
  DESK, PHONE, away, button, connected, errors, field, fits, named, open, picture, shows, showsNot,
} from './pages.mjs';
import { check, finish, report } from './report.mjs';

const [url, folder] = process.argv.slice(2);
const browser = await launch();
const chat = `${url}chat`;

/** A browser of their own for someone, with the page open and their name given. */
async function person(name, viewport, address) {
  const page = await open(browser, name, viewport, address);
  await field(page, 'Your name').fill(name);
  await button(page, 'Start talking').click();
  return page;
}

/** Goes to another room, in a window wide enough to show the list of them. */
async function join(page, room) {
  await field(page, 'Join or create a room').fill(room);
  await button(page, 'Join').click();
  await page.waitForFunction((room) => location.hash.includes(room), {}, room);
}

async function say(page, text) {
  await field(page, 'Message').fill(text);
  await button(page, 'Send').click();
}

const LOG = '[role=log]';
const PEOPLE = '[aria-label="People here"]';

/** How the log shows the one message with this text: with what around it, and whether it stands with the reader's own. */
async function shown(page, text) {
  const found = await page.$$eval(`${LOG} li`, (items, text) => items
    .filter((item) => item.textContent.includes(text))
    .map((item) => ({ whole: item.textContent, isMine: item.matches('.mine') })), text);
  assert.equal(found.length, 1, `${text} is shown ${found.length} times`);
  return found[0];
}

/** The names in the list of people, and which of them is the reader's. */
const names = (page) => page.$$eval(`${PEOPLE} li`, (items) => items.map((item) => {
  const [name, you] = [...item.children].slice(1).map((child) => child.textContent);
  return you ? `${name} (${you})` : name;
}));

/** A client without a page, in a room: sends commands one at a time and gives back their results. */
async function raw(data, channel) {
  const socket = new WebSocket(new URL('connection/websocket', url.replace(/^http/, 'ws')));
  await new Promise((resolve, reject) => socket.once('open', resolve).once('error', reject));
  const waiting = new Map();
  socket.on('message', (frame) => {
    for (const reply of frame.toString().split('\n').map((line) => JSON.parse(line))) waiting.get(reply.id)?.(reply);
  });
  let id = 0;
  const ask = async (method, params) => {
    id += 1;
    const reply = new Promise((resolve) => waiting.set(id, resolve));
    socket.send(JSON.stringify({ id, [method]: params }));
    const { error, ...results } = await reply;
    assert.equal(error, undefined);
    return results[method];
  };
  await ask('connect', { data });
  await ask('subscribe', { channel, join_leave: true });
  return { ask, close: () => socket.close() };
}

/** Asserts that these texts are in the log, in this order. */
async function inOrder(page, texts) {
  const log = await page.$eval(LOG, (log) => log.textContent);
  const places = texts.map((text) => log.indexOf(text));
  assert.ok(places.every((place, at) => place >= 0 && (at === 0 || place > places[at - 1])), `${places} in ${log}`);
}

let ada;
let grace;

await check('both people are listed', async () => {
  ada = await person('Ada', DESK, chat);
  grace = await person('Grace', PHONE, chat);
  await Promise.all([connected(ada), connected(grace)]);
  for (const page of [ada, grace]) for (const name of ['Ada', 'Grace']) await shows(page, PEOPLE, name);
});

const TALK = ['hello, Grace', 'hello, Ada', 'Grüße, 世界 🐟', 'and the same to you'];

/** What the screenshots show, so that they look like the chat of people. */
const MORNING = [
  ['Grace', 'Morning! The night was quiet. One deploy at two.'],
  ['Ada', 'Did anyone notice?'],
  ['Lin', 'Not a soul. I was in here the whole time and my page said it was back before I saw it was gone.'],
  ['Ada', 'That is how I like my deploys. The probe was `curl /health/ready` in a loop.'],
  ['Ada', 'Coffee in ten minutes, and then we look at the tide tables?'],
  ['Grace', 'I am still on the ferry, so I join from the phone.'],
  ['Lin', 'Wave when you pass the lighthouse.'],
];

await check('messages arrive at the other page', async () => {
  for (const [at, text] of TALK.entries()) {
    await say(at % 2 === 0 ? ada : grace, text);
    await Promise.all([shows(ada, LOG, text), shows(grace, LOG, text)]);
  }
  await inOrder(ada, TALK);
  await inOrder(grace, TALK);
});

await check('a burst keeps its order', async () => {
  const texts = Array.from({ length: 20 }, (_, at) => `line ${String(at).padStart(2, '0')} of twenty`);
  for (const text of texts) await say(ada, text);
  await shows(grace, LOG, texts.at(-1));
  await inOrder(grace, texts);
});

await check('markup is shown as text', async () => {
  const markup = '<img src=x onerror="document.title=1"> <b>bold</b> &amp;';
  await say(grace, markup);
  await shows(ada, LOG, markup);
  assert.equal(await ada.$(`${LOG} img, ${LOG} b`), null);
});

await check('code and links are formatted', async () => {
  await say(ada, 'see `sockeye serve`, https://example.org/a?b=1. and ```let <b> = "`1`";``` below');
  await shows(grace, `${LOG} pre code`, 'let <b> = "`1`";');
  await shows(grace, `${LOG} .body > code`, 'sockeye serve');
  const link = await grace.$eval(`${LOG} .body a`, ({ href, rel, textContent }) => ({ href, rel, textContent }));
  const address = 'https://example.org/a?b=1';
  assert.deepEqual(link, { href: address, rel: 'noopener noreferrer nofollow', textContent: address });
});

await check('typing is shown until the message arrives', async () => {
  await ada.type('#text', 'wait');
  await shows(grace, '#typing', 'Ada is typing');
  await button(ada, 'Send').click();
  await shows(grace, LOG, 'wait');
  await showsNot(grace, '#typing', 'typing');
});

await check('unread messages are counted', async () => {
  await join(ada, 'elsewhere');
  await say(grace, 'are you there?');
  await shows(ada, '#room-list .badge', '1 unread');
  assert.ok((await ada.title()).startsWith('(1) '));
  await ada.goBack();
  await shows(ada, `${LOG} .divider.new`, 'New');
  await shows(ada, LOG, 'are you there?');
  assert.equal(await ada.$('#room-list .badge'), null);
});

await check('the code to connect another program works', async () => {
  await button(ada, 'Connect your app').click();
  const code = await ada.$eval('#snippet-javascript code', ({ textContent }) => textContent);
  const { Centrifuge } = await import('centrifuge');
  // Node has had one of its own since version 22.
  globalThis.WebSocket ??= WebSocket;
  const received = new Promise((resolve) => {
    const run = new Function('Centrifuge', 'console', `${code.replace(/^import.*$/m, '')}; return client;`);
    const client = run(Centrifuge, { log: (data) => { client.disconnect(); resolve(data); } });
    client.on('connected', () => setTimeout(() => say(grace, 'for the program'), 100));
  });
  assert.equal((await received).text, 'for the program');
  const command = await ada.$eval('#snippet-curl code', ({ textContent }) => textContent);
  const [, target] = command.match(/^curl (\S+)/);
  const [, key] = command.match(/X-API-Key: (\w+)/);
  const [, body] = command.match(/-d '(.*)'$/);
  const response = await fetch(target, { method: 'POST', headers: { 'X-API-Key': key }, body });
  assert.ok((await response.json()).result.offset > 0);
  await button(ada, 'Close').click();
  for (const text of ['Server', 'Hello from curl']) await shows(ada, LOG, text);
});

await check('rooms are separate and have their own address', async () => {
  await join(ada, 'salmon');
  await say(ada, 'only for this room');
  await shows(ada, LOG, 'only for this room');
  const other = await person('Lin', DESK, ada.url());
  await shows(ada, PEOPLE, 'Lin');
  await say(other, 'found it');
  await shows(ada, LOG, 'found it');
  assert.ok(!(await grace.$eval(LOG, (log) => log.textContent)).includes('only for this room'));
  await other.browserContext().close();
  await showsNot(ada, PEOPLE, 'Lin');
  await ada.goBack();
  await shows(ada, LOG, TALK[0]);
});

await check('names cannot be impersonated', async () => {
  const channel = 'chat:general';
  const watcher = await raw({}, channel);
  const { publications } = await watcher.ask('history', { channel, limit: -1 });
  const heard = publications.find(({ data }) => data.text === TALK[0]);
  const forger = await raw(heard.info.conn_info.unverified, channel);
  await forger.ask('publish', { channel, data: { id: 'anew', text: 'I pay for everybody' } });
  await forger.ask('publish', { channel, data: { id: heard.data.id, text: 'under an id that was heard' } });
  const honest = 'that was not me';
  await shows(ada, LOG, 'I pay for everybody');
  await say(ada, honest);
  await shows(ada, LOG, honest);
  assert.deepEqual(await names(ada), ['Ada (you)', 'Ada', 'Grace', 'Somebody']);
  // Messages received live, and those read from the history afterwards.
  for (const look of [() => {}, () => ada.reload()]) {
    await look();
    for (const text of [TALK[0], 'I pay for everybody', 'under an id that was heard', honest]) await shows(ada, LOG, text);
    for (const text of [TALK[0], honest]) assert.ok((await shown(ada, text)).isMine, text);
    for (const text of ['I pay for everybody', 'under an id that was heard']) {
      assert.ok(!(await shown(ada, text)).isMine, text);
    }
    assert.ok(!(await shown(ada, 'I pay for everybody')).whole.includes('You'));
  }
  forger.close();
  watcher.close();
  await ada.waitForFunction((people) => document.querySelectorAll(`${people} li`).length === 2, {}, PEOPLE);
});

await check('two tabs are one person, each with its own queue', async () => {
  const tab = await ada.browserContext().newPage();
  await tab.setViewport(DESK);
  await tab.goto(chat);
  await shows(tab, LOG, TALK[0]);
  assert.ok((await shown(tab, TALK[0])).isMine);
  await shows(tab, PEOPLE, 'Grace');
  assert.deepEqual(await names(tab), ['Ada (you)', 'Grace']);
  assert.deepEqual(await names(ada), ['Ada (you)', 'Grace']);
  assert.deepEqual(await names(grace), ['Grace (you)', 'Ada']);
  report({ waiting: 'stop' });
  await away(tab);
  await say(tab, 'from the second tab');
  await ada.bringToFront();
  await away(ada);
  await say(ada, 'from the first tab');
  // The queue outlives the page. The server, which also serves the page, is running again when Grace is back.
  for (const page of [ada, tab]) await page.goto('about:blank');
  await away(grace);
  report({ waiting: 'start' });
  await connected(grace);
  for (const page of [ada, tab]) await page.goto(`${chat}#general`);
  for (const page of [ada, tab]) {
    await page.bringToFront();
    for (const text of ['from the first tab', 'from the second tab']) {
      await shows(page, `${LOG} ol:first-of-type`, text);
      assert.ok((await shown(page, text)).isMine);
    }
  }
  await tab.close();
  await ada.bringToFront();
});

await check('pages reconnect after a server restart', async () => {
  report({ waiting: 'stop' });
  await Promise.all([away(ada), away(grace)]);
  await say(ada, 'written while the server was away');
  await ada.screenshot({ path: `${folder}/chat-away.png` });
  const notes = (page) => page.$$eval(`${LOG} .divider.note`, (notes) => notes.length);
  const before = new Map(await Promise.all([ada, grace].map(async (page) => [page, await notes(page)])));
  const told = Promise.all([ada, grace].map(async (page) => {
    const isNew = (log, before) => document.querySelectorAll(`${log} .divider.note`).length > before;
    await page.waitForFunction(isNew, {}, LOG, before.get(page));
    await shows(page, '#hint', 'The server was restarted, and its history was lost.');
    // Nothing is cut off, on a phone either.
    assert.ok(await page.$eval('#hint', (hint) => hint.scrollWidth <= hint.clientWidth && hint.scrollHeight <= hint.clientHeight));
    await page.screenshot({ path: `${folder}/chat-back-${page === ada ? 'desktop' : 'phone'}.png` });
  }));
  report({ waiting: 'start' });
  await Promise.all([connected(ada), connected(grace), told]);
  await shows(grace, LOG, 'written while the server was away');
  await say(grace, 'and we are back');
  await shows(ada, LOG, 'and we are back');
  for (const page of [ada, grace]) for (const name of ['Ada', 'Grace']) await shows(page, PEOPLE, name);
});

await check('a page in the back/forward cache is not in the room', async () => {
  // Puppeteer disables the back/forward cache; these are the events of a page that enters and leaves it.
  const show = (type) => ada.evaluate((type) => dispatchEvent(new PageTransitionEvent(type, { persisted: true })), type);
  await shows(grace, PEOPLE, 'Ada');
  await show('pagehide');
  await showsNot(grace, PEOPLE, 'Ada');
  // The event that makes a visible page reconnect must not open a hidden one.
  await ada.evaluate(() => dispatchEvent(new Event('online')));
  await say(grace, 'said while Ada was elsewhere');
  assert.ok(await ada.$('[data-state]:not([data-state=connected])'));
  await show('pageshow');
  await connected(ada);
  await shows(grace, PEOPLE, 'Ada');
  await shows(ada, LOG, 'said while Ada was elsewhere');
  await shows(ada, LOG, '1 missed message was recovered.');
  await inOrder(ada, ['1 missed message was recovered.', 'said while Ada was elsewhere']);
});

await check('a rejected page shows the reason', async () => {
  const context = await browser.createBrowserContext();
  const page = await context.newPage();
  page.setDefaultTimeout(20_000);
  await page.setRequestInterception(true);
  // The page as served by a proxy that rewrites the Host header, under an origin unknown to the server.
  page.on('request', async (request) => {
    const { pathname } = new URL(request.url());
    const target = new URL(pathname, url);
    const headers = request.headers();
    const origin = headers['sockeye-page-origin'];
    const response = await fetch(target, { headers: origin ? { 'Sockeye-Page-Origin': origin } : {} });
    const body = Buffer.from(await response.arrayBuffer());
    await request.respond({
      status: response.status, contentType: response.headers.get('content-type') ?? '', body,
    }).catch(() => {});
  });
  await page.goto('http://chat.example/chat');
  await field(page, 'Your name').fill('Proxied');
  await button(page, 'Start talking').click();
  await shows(page, 'main', 'The server refuses this page: origin http://chat.example may not connect');
  await shows(page, 'main', '--allow-origin=http://chat.example');
  await context.close();
});

await check('screenshots', async () => {
  await join(ada, 'harbour');
  await grace.goto(ada.url());
  const lin = await person('Lin', DESK, ada.url());
  for (const page of [ada, grace, lin]) for (const name of ['Ada', 'Grace', 'Lin']) await shows(page, PEOPLE, name);
  const people = { Ada: ada, Grace: grace, Lin: lin };
  for (const [name, text] of MORNING) {
    await say(people[name], text);
    for (const page of [ada, grace, lin]) await shows(page, LOG, text.replaceAll('`', ''));
  }
  for (const [name, page] of [['desktop', ada], ['phone', grace]]) {
    await picture(page, `${folder}/chat-${name}`);
    await named(page);
  }
  await fits(lin);
});

await check('leaving is announced', async () => {
  await grace.browserContext().close();
  await showsNot(ada, PEOPLE, 'Grace');
});

await check('the pages log no errors', () => assert.deepEqual(errors, []));

await browser.close();
finish();
