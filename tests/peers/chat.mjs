// Two people in the chat page of the real-time server: Ada at a desk, Grace on a phone.
// usage: node chat.mjs URL FOLDER     (of the page; and where the screenshots go)
// What they use are the labels a person reads or hears, so a page without them fails.

import { strict as assert } from 'node:assert';
import { launch } from './browser.mjs';
import { check, finish, report } from './report.mjs';

const [url, folder] = process.argv.slice(2);
const browser = await launch();
const errors = [];

const DESK = { width: 1280, height: 800 };
const PHONE = { width: 390, height: 844, deviceScaleFactor: 2, isMobile: true, hasTouch: true };

/** A browser of their own for someone, with the page open and their name given. */
async function person(name, viewport, address) {
  const context = await browser.createBrowserContext();
  const page = await context.newPage();
  page.setDefaultTimeout(20_000);
  page.on('pageerror', (error) => errors.push(`${name}: ${error}`));
  await page.setViewport(viewport);
  await page.goto(address);
  await field(page, 'Your name').fill(name);
  await button(page, 'Start talking').click();
  return page;
}

const field = (page, label) => page.locator(`::-p-aria([name="${label}"][role="textbox"])`);
const button = (page, label) => page.locator(`::-p-aria([name="${label}"][role="button"])`);

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

/** Waits until the page, or the part of it that `selector` names, shows this text. */
const shows = (page, selector, text) =>
  page.waitForFunction((selector, text) => document.querySelector(selector)?.textContent.includes(text), {}, selector, text);
const showsNot = (page, selector, text) =>
  page.waitForFunction((selector, text) => !document.querySelector(selector)?.textContent.includes(text), {}, selector, text);
const LOG = '[role=log]';
const PEOPLE = '[aria-label="People here"]';

const connected = (page) => page.waitForSelector('[data-state=connected]');
const away = (page) => page.waitForSelector('[data-state]:not([data-state=connected])');

/** Asserts that these texts are in the log, in this order. */
async function inOrder(page, texts) {
  const log = await page.$eval(LOG, (log) => log.textContent);
  const places = texts.map((text) => log.indexOf(text));
  assert.ok(places.every((place, at) => place >= 0 && (at === 0 || place > places[at - 1])), `${places} in ${log}`);
}

let ada;
let grace;

await check('two people see each other', async () => {
  ada = await person('Ada', DESK, url);
  grace = await person('Grace', PHONE, url);
  await Promise.all([connected(ada), connected(grace)]);
  for (const page of [ada, grace]) for (const name of ['Ada', 'Grace']) await shows(page, PEOPLE, name);
});

const TALK = ['hello, Grace', 'hello, Ada', 'Grüße, 世界 🐟', 'and the same to you'];

/** What the screenshots show, so that they look like the chat of people. */
const MORNING = [
  ['Grace', 'Morning! The night was quiet. One deploy at two.'],
  ['Ada', 'Did anyone notice?'],
  ['Lin', 'Not a soul. I was in here the whole time and my page said it was back before I saw it was gone.'],
  ['Ada', 'That is how I like my deploys.'],
  ['Ada', 'Coffee in ten minutes, and then we look at the tide tables?'],
  ['Grace', 'I am still on the ferry, so I join from the phone.'],
  ['Lin', 'Wave when you pass the lighthouse.'],
];

await check('they talk', async () => {
  for (const [at, text] of TALK.entries()) {
    await say(at % 2 === 0 ? ada : grace, text);
    await Promise.all([shows(ada, LOG, text), shows(grace, LOG, text)]);
  }
  await inOrder(ada, TALK);
  await inOrder(grace, TALK);
});

await check('a burst stays in order', async () => {
  const texts = Array.from({ length: 20 }, (_, at) => `line ${String(at).padStart(2, '0')} of twenty`);
  for (const text of texts) await say(ada, text);
  await shows(grace, LOG, texts.at(-1));
  await inOrder(grace, texts);
});

await check('markup stays text', async () => {
  const markup = '<img src=x onerror="document.title=1"> <b>bold</b> &amp;';
  await say(grace, markup);
  await shows(ada, LOG, markup);
  assert.equal(await ada.$(`${LOG} img, ${LOG} b`), null);
});

await check('another room is apart, and its address opens it', async () => {
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

await check('they come back after the server was away', async () => {
  report({ waiting: 'stop' });
  await Promise.all([away(ada), away(grace)]);
  await say(ada, 'written while the server was away');
  await ada.screenshot({ path: `${folder}/chat-away.png` });
  report({ waiting: 'start' });
  await Promise.all([connected(ada), connected(grace)]);
  await shows(grace, LOG, 'written while the server was away');
  await say(grace, 'and we are back');
  await shows(ada, LOG, 'and we are back');
  for (const page of [ada, grace]) for (const name of ['Ada', 'Grace']) await shows(page, PEOPLE, name);
});

await check('screenshots', async () => {
  await join(ada, 'harbour');
  await grace.goto(ada.url());
  const lin = await person('Lin', DESK, ada.url());
  for (const page of [ada, grace, lin]) for (const name of ['Ada', 'Grace', 'Lin']) await shows(page, PEOPLE, name);
  const people = { Ada: ada, Grace: grace, Lin: lin };
  for (const [name, text] of MORNING) {
    await say(people[name], text);
    for (const page of [ada, grace, lin]) await shows(page, LOG, text);
  }
  for (const scheme of ['light', 'dark']) {
    for (const [name, page] of [['desktop', ada], ['phone', grace]]) {
      await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: scheme }]);
      // What fades in has arrived.
      await page.evaluate(() => Promise.allSettled(document.getAnimations().map(({ finished }) => finished)));
      await page.screenshot({ path: `${folder}/chat-${name}-${scheme}.png` });
      // Nothing hangs over the edge of a phone.
      assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth));
    }
  }
});

await check('who leaves is seen to leave', async () => {
  await grace.browserContext().close();
  await showsNot(ada, PEOPLE, 'Grace');
});

await check('no error in the pages', () => assert.deepEqual(errors, []));

await browser.close();
finish();
