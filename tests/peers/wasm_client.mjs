// The crate sockeye in a page of headless Chromium.
// usage: node wasm_client.mjs ADDRESS TLS_ADDRESS
// ADDRESS, such as 127.0.0.1:4711, serves both the page and the WebSockets, TLS_ADDRESS those of the case about TLS. Any
// certificate is accepted.

import { strict as assert } from 'node:assert';
import { launch } from './browser.mjs';
import { check, finish } from './report.mjs';

const [address, tlsAddress] = process.argv.slice(2);
const browser = await launch();
const page = await browser.newPage();
page.on('pageerror', (error) => console.error(`page: ${error}`));
page.on('console', (message) => console.error(`console: ${message.text()}`));

// Keeps every WebSocket that the crate creates.
await page.evaluateOnNewDocument(() => {
  window.sockets = [];
  const { WebSocket } = window;
  window.WebSocket = class extends WebSocket {
    constructor(...options) {
      super(...options);
      window.sockets.push(this);
    }
  };
});
await page.goto(`http://${address}/index.html`);
await page.waitForFunction('window.ready');
for (const name of await page.evaluate('cases()')) {
  await check(name, async () => {
    const base = name.startsWith('TLS') ? `wss://${tlsAddress}` : `ws://${address}`;
    const failure = await page.evaluate(
      (name, base) => run(name, base).then(() => null, (error) => String(error)), name, base,
    );
    if (failure !== null) throw new Error(failure);
  });
}

await check('in a worker', async () => {
  // Waiting for room uses timers and the clock.
  for (const name of ['text and binary', 'full queue']) {
    const failure = await page.evaluate((name, base) => runInWorker(name, base), name, `ws://${address}`);
    assert.equal(failure, null);
  }
});

await check('every socket is closed without event handlers', async () => {
  const sockets = await page.evaluate(() => sockets.map(
    ({ readyState, onopen, onmessage, onclose, onerror }) => ({
      isClosed: readyState >= WebSocket.CLOSING,
      handlers: [onopen, onmessage, onclose, onerror].filter((handler) => handler !== null).length,
    }),
  ));
  assert.ok(sockets.length > 20, `${sockets.length} sockets`);
  assert.deepEqual(sockets.filter(({ isClosed, handlers }) => !isClosed || handlers > 0), []);
});

await browser.close();
finish();
