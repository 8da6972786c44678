// The admin console of the real-time server: an operator at a desk and on a phone.
// usage: node console.mjs URL FOLDER     (of the server, whose password is PASSWORD; and where the screenshots go)

import { strict as assert } from 'node:assert';
import { Centrifuge } from 'centrifuge';
import WebSocket from 'ws';
import { launch } from './browser.mjs';
import { DESK, connected, errors, fits, measures, named, open, picture, shows, showsNot } from './pages.mjs';
import { check, finish } from './report.mjs';

const PASSWORD = 'correct horse';
const PHONE = { width: 390, height: 844, deviceScaleFactor: 2, isMobile: true, hasTouch: true };
const MARKUP = '<img src=x onerror="document.title=1"><b>bold</b>';

const [url, folder] = process.argv.slice(2);
const browser = await launch();
const address = `${url}console`;

/** A client of the server, outside of the browser. */
async function client(name, ...channels) {
  const connection = new Centrifuge(`${url.replace('http', 'ws')}connection/websocket`, { websocket: WebSocket, data: { name } });
  const ends = new Promise((resolve) => connection.on('disconnected', resolve));
  connection.connect();
  for (const channel of channels) {
    const subscription = connection.newSubscription(channel);
    subscription.subscribe();
    await subscription.ready(20_000);
  }
  return { connection, ends };
}

async function signIn(page, password) {
  // The page first asks whether an earlier session continues.
  await page.waitForSelector('#password', { visible: true });
  await page.$eval('#password', (field) => { field.value = ''; });
  await page.type('#password', password);
  await page.keyboard.press('Enter');
}

async function openChannel(page, name) {
  await page.waitForFunction((name) => [...document.querySelectorAll('#channel-list a')]
    .some((link) => link.firstElementChild.textContent === name), {}, name);
  await page.evaluate((name) => [...document.querySelectorAll('#channel-list a')]
    .find((link) => link.firstElementChild.textContent === name).click(), name);
  await page.waitForFunction((name) => document.querySelector('#channel-name').textContent === name, {}, name);
}

const grace = await client('Grace', 'room:lobby', `room:${MARKUP}`);
const alan = await client(MARKUP, 'room:lobby');
let desk;
let phone;

await check('a wrong password is refused', async () => {
  desk = await open(browser, 'operator', DESK, address);
  await signIn(desk, 'incorrect horse');
  await shows(desk, '#login-error', 'not the password');
  assert.equal(await desk.$eval('#console', ({ hidden }) => hidden), true);
});

await check('figures and plots are live', async () => {
  await signIn(desk, PASSWORD);
  await connected(desk);
  assert.equal(await desk.$$eval('.area canvas', ({ length }) => length), 4);
  await measures(desk, '#tiles div:nth-child(1) dd', 'above', 1);
  // The delivered publications per second.
  const traffic = setInterval(() => grace.connection.publish('room:lobby', 'tick').catch(() => {}), 100);
  await measures(desk, '#plots figure:nth-child(2) b', 'above', 5);
  clearInterval(traffic);
});

await check('scripts cannot read the session', async () => {
  assert.equal(await desk.evaluate(() => document.cookie), '');
  await desk.reload();
  await connected(desk);
});

await check('a publication by hand arrives at a client and in the live view', async () => {
  const subscription = grace.connection.getSubscription('room:lobby');
  const arrives = new Promise((resolve) => subscription.on('publication', ({ data }) => data?.by && resolve(data)));
  await openChannel(desk, 'room:lobby');
  await shows(desk, '#tap-state', 'Live');
  await desk.click('#tab-publish');
  await desk.$eval('#data', (field) => { field.value = '{"by": '; });
  await desk.click('#publish button');
  await shows(desk, '#published', 'not JSON');
  await desk.$eval('#data', (field) => { field.value = '{"by": "hand"}'; });
  await desk.click('#publish button');
  await shows(desk, '#published', 'Published at offset');
  assert.deepEqual(await arrives, { by: 'hand' });
  await desk.click('#tab-live');
  await shows(desk, '#live', '{"by":"hand"}');
});

await check('a paused live view keeps what arrives', async () => {
  await desk.click('#pause');
  await grace.connection.publish('room:lobby', 'while paused');
  await shows(desk, '#tap-state', '1 new');
  assert.ok(!(await desk.$eval('#live', ({ textContent }) => textContent)).includes('while paused'));
  await desk.click('#pause');
  await shows(desk, '#live', 'while paused');
});

await check('markup from channels is shown as text', async () => {
  const markup = `room:${MARKUP}`;
  await openChannel(desk, markup);
  await shows(desk, '#tap-state', 'Live');
  await grace.connection.publish(markup, { [MARKUP]: MARKUP });
  await shows(desk, '#live', '<b>bold</b>');
  await desk.click('#live summary');
  await shows(desk, '#live pre', '<b>bold</b>');
  await desk.click('#tab-history');
  await shows(desk, '#history', '<b>bold</b>');
  await openChannel(desk, 'room:lobby');
  await desk.click('#tab-present');
  await shows(desk, '#members', '<b>bold</b>');
  const made = await desk.$$eval('#console img, #console li b, #console h2 b', ({ length }) => length);
  assert.equal(made, 0);
  assert.ok((await desk.title()).includes('Sockeye'));
});

await check('the history is read page by page and removed', async () => {
  for (let number = 0; number < 60; number += 1) await grace.connection.publish('room:lobby', { number });
  await desk.click('#tab-history');
  await shows(desk, '#history', '{"number":59}');
  await shows(desk, '#history-state', '50 shown');
  await desk.click('#older');
  await shows(desk, '#history', '{"number":3}');
  await desk.click('#history-remove');
  await desk.waitForSelector('#confirm[open]');
  await desk.click('#confirm-yes');
  await shows(desk, '#history-state', 'Empty');
});

await check('a client is disconnected by hand', async () => {
  await desk.click('#tab-present');
  await shows(desk, '#present-state', '2 clients');
  await desk.evaluate(() => [...document.querySelectorAll('#members li')]
    .find((row) => row.textContent.includes('bold')).querySelector('button').click());
  await desk.waitForSelector('#confirm[open]');
  await desk.click('#confirm-yes');
  const { code } = await alan.ends;
  assert.equal(code, 3503);
  await shows(desk, '#present-state', '1 client');
  await showsNot(desk, '#members', 'bold');
});

await check('screenshots', async () => {
  phone = await open(browser, 'operator on a phone', PHONE, address);
  await signIn(phone, PASSWORD);
  await connected(phone);
  const traffic = setInterval(() => grace.connection.publish('room:lobby', { time: Date.now() }).catch(() => {}), 50);
  await measures(phone, '#plots figure:nth-child(2) b', 'above', 5);
  await picture(phone, `${folder}/console-phone`);
  await desk.click('#tab-live');
  await shows(desk, '#live', '"time"');
  await picture(desk, `${folder}/console-desktop`);
  await openChannel(phone, 'room:lobby');
  await shows(phone, '#live', '"time"');
  await picture(phone, `${folder}/console-phone-channel`);
  clearInterval(traffic);
  for (const page of [desk, phone]) await named(page);
  await fits(desk);
  // The way back to all channels.
  await phone.click('.back');
  await phone.waitForSelector('#channel-list', { visible: true });
  await fits(phone);
});

await check('signing out ends the session', async () => {
  await desk.click('#sign-out');
  await desk.waitForSelector('#password', { visible: true });
  await desk.reload();
  await desk.waitForSelector('#password', { visible: true });
  assert.equal(await desk.evaluate(async () => (await fetch('/console/stats', { headers: { 'Sockeye-Console': '1' } })).status), 401);
});

await check('the pages log no errors', () => assert.deepEqual(errors, []));

grace.connection.disconnect();
await browser.close();
finish();
