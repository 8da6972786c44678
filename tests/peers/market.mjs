// Two people in the market page of the real-time server: Ada at a desk, Grace on a phone.
// usage: node market.mjs URL FOLDER     (of the server; and where the screenshots go)

import { strict as assert } from 'node:assert';
import { launch } from './browser.mjs';
import { DESK, PHONE, away, connected, errors, fits, measures, named, open, picture, shows } from './pages.mjs';
import { check, finish, report } from './report.mjs';

const [url, folder] = process.argv.slice(2);
const browser = await launch();
const address = `${url}market`;

/** The price of a symbol in the table. */
const lastOf = (page, ticker) => page.$$eval('#rows tr', (rows, ticker) =>
  rows.find((row) => row.textContent.startsWith(ticker))?.cells[1].textContent, ticker);

/** Waits until the price of the shown symbol changes. */
async function ticks(page) {
  const before = await page.$eval('#last', ({ textContent }) => textContent);
  await page.waitForFunction((before) => document.querySelector('#last').textContent !== before, {}, before);
}

const link = (page, value) => page.$eval('#link', (input, value) => {
  input.value = value;
  for (const type of ['input', 'change']) input.dispatchEvent(new Event(type));
}, value);

let ada;
let grace;

await check('prices tick in the table and the chart', async () => {
  ada = await open(browser, 'Ada', DESK, `${address}#OADA`);
  grace = await open(browser, 'Grace', PHONE, address);
  await Promise.all([connected(ada), connected(grace)]);
  await ada.waitForFunction(() => document.querySelectorAll('#rows tr').length === 200);
  await shows(ada, '#symbol', 'OADA');
  await shows(ada, '#symbol-name', 'Oak Data');
  await ada.waitForSelector('#chart canvas');
  await ticks(ada);
  await measures(ada, '#updates', 'above', 5);
  await measures(ada, '#delay', 'below', 1000);
});

await check('two tabs see the same prices', async () => {
  await ada.waitForFunction(() => document.querySelector('#rows td').textContent !== '0.00');
  const differences = async () => {
    const [own, other] = await Promise.all([lastOf(ada, 'PIRA'), lastOf(grace, 'PIRA')]);
    return Math.abs(own - other) / own;
  };
  // The two are read some milliseconds apart.
  assert.ok(await differences() < 0.02);
});

await check('a symbol is chosen by keyboard, and filtered', async () => {
  await ada.focus('#filter');
  await ada.keyboard.type('willow');
  await ada.waitForSelector('#none:not([hidden])');
  await ada.$eval('#filter', (input) => { input.value = ''; });
  await ada.focus('#filter');
  await ada.keyboard.type('thorn rail');
  await ada.waitForFunction(() => document.querySelectorAll('#rows tr:not([hidden])').length === 1);
  await ada.focus('#rows tr:not([hidden]) button');
  await ada.keyboard.press('Enter');
  await shows(ada, '#symbol', 'THRA');
  assert.ok(ada.url().endsWith('#THRA'));
  await ticks(ada);
  await ada.$eval('#filter', (input) => {
    input.value = '';
    input.dispatchEvent(new Event('input'));
  });
  await ada.click('[data-sort=change]');
  const changes = await ada.$$eval('#rows tr', (rows) => rows.slice(0, 5).map((row) => row.cells[2].textContent));
  assert.ok(changes.every((change) => change.startsWith('+')), `${changes}`);
  await ada.click('[data-sort=ticker]');
});

await check('a slow link shows its delay, and recovers', async () => {
  await link(ada, 5);
  await shows(ada, '#link-value', '2 kB/s');
  await measures(ada, '#delay', 'above', 3000);
  // Others are not affected.
  await measures(grace, '#delay', 'below', 1000);
  await ada.screenshot({ path: `${folder}/market-slow.png` });
  await link(ada, 0);
  await measures(ada, '#delay', 'below', 1000);
  await ticks(ada);
  // With the latest price of each symbol only, the same link stays up to date.
  await ada.click('input[value=latest]');
  await connected(ada);
  await link(ada, 5);
  await new Promise((resolve) => setTimeout(resolve, 8000));
  await measures(ada, '#delay', 'below', 8000);
  await ada.screenshot({ path: `${folder}/market-latest.png` });
  await link(ada, 0);
  await ada.click('input[value=disconnect]');
  await measures(ada, '#delay', 'below', 1000);
});

await check('the page follows a restart', async () => {
  report({ waiting: 'stop' });
  await away(ada);
  await shows(ada, '#notice', 'Trying again');
  report({ waiting: 'start' });
  await connected(ada);
  await ticks(ada);
  await measures(ada, '#delay', 'below', 1000);
});

await check('screenshots', async () => {
  await connected(grace);
  await ticks(grace);
  // Some of the current minute is drawn.
  await new Promise((resolve) => setTimeout(resolve, 3000));
  for (const [name, page] of [['desktop', ada], ['phone', grace]]) {
    await picture(page, `${folder}/market-${name}`);
    await named(page);
  }
  await fits(ada);
});

await check('the pages log no errors', () => assert.deepEqual(errors, []));

await browser.close();
finish();
