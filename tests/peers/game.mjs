// Two people in the game page of the real-time server: Ada at a desk, Grace on a phone.
// usage: node game.mjs URL FOLDER     (of the server; and where the screenshots go)

import { strict as assert } from 'node:assert';
import { launch } from './browser.mjs';
import {
  DESK, PHONE, away, button, connected, errors, field, fits, measures, named, open, picture, shows, showsNot,
} from './pages.mjs';
import { check, finish, report } from './report.mjs';

const [url, folder] = process.argv.slice(2);
const browser = await launch();
const address = `${url}game`;
const SCORES = '#scores';

async function player(name, viewport) {
  const page = await open(browser, name, viewport, address);
  await connected(page);
  await field(page, 'Your name').fill(name);
  await button(page, 'Play').click();
  await shows(page, SCORES, `${name}you`);
  return page;
}

/** Moves a slider. */
const slide = (page, id, value) => page.$eval(`#${id}`, (input, value) => {
  input.value = value;
  input.dispatchEvent(new Event('input'));
}, value);

/** A hash of what the canvas shows. */
const drawn = (page) => page.$eval('#pond', (canvas) => canvas.toDataURL().length);

/** Waits until the canvas shows something else. */
async function moves(page) {
  const before = await drawn(page);
  await page.waitForFunction((before) => document.querySelector('#pond').toDataURL().length !== before, {}, before);
}

let ada;
let grace;

await check('a spectator sees the pond', async () => {
  const watcher = await open(browser, 'a spectator', DESK, address);
  await connected(watcher);
  await shows(watcher, SCORES, 'Pike');
  await moves(watcher);
  await measures(watcher, '#snapshots', 'above', 20);
  await watcher.browserContext().close();
});

await check('players see each other', async () => {
  ada = await player('Ada', DESK);
  grace = await player('Grace', PHONE);
  await shows(ada, SCORES, 'Grace');
  await shows(grace, SCORES, 'Ada');
});

await check('the own fish follows the keys at once', async () => {
  await ada.bringToFront();
  await ada.focus('#pond');
  for (const key of ['KeyD', 'KeyS', 'KeyA', 'KeyW']) {
    await ada.keyboard.down(key);
    await moves(ada);
    await new Promise((resolve) => setTimeout(resolve, 300));
    await ada.keyboard.up(key);
  }
  await ada.keyboard.press('Space');
  await measures(ada, '#response', 'below', 500);
  // The prediction is right unless another fish interferes.
  await measures(ada, '#correction', 'below', 0.2);
});

await check('prediction and interpolation can be switched off', async () => {
  for (const id of ['prediction', 'interpolation', 'ghost']) {
    await ada.click(`#${id}`);
    await moves(ada);
  }
  for (const id of ['prediction', 'interpolation', 'ghost']) await ada.click(`#${id}`);
  assert.ok(await ada.$eval('#prediction', ({ checked }) => checked));
});

await check('added latency and loss are shown', async () => {
  await slide(ada, 'delay', 200);
  await measures(ada, '#response', 'above', 180);
  await slide(ada, 'loss', 30);
  await measures(ada, '#lost', 'above', 10);
  for (const id of ['delay', 'loss']) await slide(ada, id, 0);
  await measures(ada, '#lost', 'below', 5);
});

await check('a late joiner knows all names', async () => {
  const lin = await player('Lin', DESK);
  for (const name of ['Ada', 'Grace']) await shows(lin, SCORES, name);
  await shows(ada, SCORES, 'Lin');
  // Closing the window is enough to leave.
  await lin.browserContext().close();
  await showsNot(ada, SCORES, 'Lin');
});

await check('a player who leaves is gone', async () => {
  await button(grace, 'Leave').click();
  await showsNot(ada, SCORES, 'Grace');
  await field(grace, 'Your name').fill('Grace');
  await button(grace, 'Play').click();
  await shows(ada, SCORES, 'Grace');
});

await check('a restart brings the players back', async () => {
  report({ waiting: 'stop' });
  await Promise.all([away(ada), away(grace)]);
  await shows(ada, '#notice', 'Trying again');
  report({ waiting: 'start' });
  await Promise.all([connected(ada), connected(grace)]);
  for (const page of [ada, grace]) for (const name of ['Ada', 'Grace']) await shows(page, SCORES, name);
});

await check('screenshots', async () => {
  // Both eat something first.
  for (const page of [grace, ada]) {
    await page.bringToFront();
    await page.focus('#pond');
    for (const key of ['KeyD', 'KeyS', 'KeyA', 'KeyW', 'KeyD']) {
      await page.keyboard.down(key);
      await new Promise((resolve) => setTimeout(resolve, 900));
      await page.keyboard.up(key);
    }
  }
  for (const [name, page] of [['desktop', ada], ['phone', grace]]) {
    await page.bringToFront();
    await picture(page, `${folder}/game-${name}`);
    await named(page);
  }
  await fits(ada);
});

await check('the pages log no errors', () => assert.deepEqual(errors, []));

await browser.close();
finish();
