// Chromium's own WebSocket as a client of an echo server.
// usage: node chromium_client.mjs URL
// Its API supports neither pings nor fragments. Any certificate is accepted for wss://.

import { strict as assert } from 'node:assert';
import { launch } from './browser.mjs';
import { bytesOf, check, finish, report, sizes, textOf } from './report.mjs';

const url = process.argv[2];
const browser = await launch();
const page = await browser.newPage();

await page.evaluate(`
  ${textOf}
  const bytesOf = (size) => Uint8Array.from({ length: size }, (_, at) => (at * 7 + (at >> 8)) & 0xff);

  // Connections by name, each with its events and waiters.
  const connections = {};
  function open(name, url) {
    return new Promise((resolve, reject) => {
      const ws = new WebSocket(url, ['chat', 'superchat']);
      ws.binaryType = 'arraybuffer';
      const connection = connections[name] = { ws, events: [], waiters: [] };
      const push = (event) => connection.waiters.length ? connection.waiters.shift()(event) : connection.events.push(event);
      ws.onopen = () => resolve(ws.protocol);
      ws.onerror = () => reject(new Error('the connection failed'));
      ws.onmessage = ({ data }) => push({ data });
      ws.onclose = ({ code, reason, wasClean }) => push({ code, reason, wasClean });
    });
  }
  const next = ({ events, waiters }) =>
    events.length ? events.shift() : new Promise((resolve) => waiters.push(resolve));
  const same = (left, right) => left.length === right.length && left.every((byte, at) => byte === right[at]);
  async function textComesBack(text) {
    connections.main.ws.send(text);
    return (await next(connections.main)).data === text;
  }
  async function bytesComeBack(size) {
    connections.main.ws.send(bytesOf(size));
    return same(new Uint8Array((await next(connections.main)).data), bytesOf(size));
  }
  async function burst(count) {
    for (let at = 0; at < count; at += 1) connections.main.ws.send('message ' + at);
    for (let at = 0; at < count; at += 1) if ((await next(connections.main)).data !== 'message ' + at) return false;
    return true;
  }
`);

/** Runs an expression in the page. */
const ask = (expression) => page.evaluate(expression);
const open = (name) => ask(`open(${JSON.stringify(name)}, ${JSON.stringify(url)})`);

const subprotocol = await open('main');
await check('subprotocol', () => assert.equal(subprotocol, 'chat'));
for (const size of sizes) {
  await check(`text ${size}`, async () => assert.ok(await ask(`textComesBack(textOf(${size}))`)));
  await check(`binary ${size}`, async () => assert.ok(await ask(`bytesComeBack(${size})`)));
}
await check('unicode', async () => assert.ok(await ask(`textComesBack('Grüße, 世界 🐟')`)));
await check('burst in order', async () => assert.ok(await ask('burst(200)')));

await check('close with code and reason', async () => {
  await ask(`connections.main.ws.close(3001, 'done here')`);
  // The server returns the code; returning the reason is optional.
  const { code, wasClean } = await ask('next(connections.main)');
  assert.deepEqual({ code, wasClean }, { code: 3001, wasClean: true });
});

await check('close without a code', async () => {
  await open('plain');
  await ask('connections.plain.ws.close()');
  assert.deepEqual(await ask('next(connections.plain)'), { code: 1005, reason: '', wasClean: true });
});

await check('too big', async () => {
  await open('big');
  await ask(`connections.big.ws.send(textOf(${Number(process.env.PEER_TOO_BIG)}))`);
  assert.equal((await ask('next(connections.big)')).code, 1009);
});

await check('shutdown', async () => {
  await open('last');
  report({ waiting: 'shutdown' });
  const { code, wasClean } = await ask('next(connections.last)');
  assert.deepEqual({ code, wasClean }, { code: 1001, wasClean: true });
});

await browser.close();
finish();
