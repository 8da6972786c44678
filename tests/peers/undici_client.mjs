// undici, the `WebSocket` of Node itself, as a client of an echo server.
// usage: node undici_client.mjs URL     (PEER_CA names a certificate to trust for wss://)
// Its API supports neither pings nor fragments. It always offers permessage-deflate.

import { strict as assert } from 'node:assert';
import { readFileSync } from 'node:fs';
import { Agent, WebSocket } from 'undici';
import { bytesOf, check, finish, Inbox, report, sizes, textOf } from './report.mjs';

const url = process.argv[2];
const options = { protocols: ['chat', 'superchat'] };
if (process.env.PEER_CA) options.dispatcher = new Agent({ connect: { ca: readFileSync(process.env.PEER_CA) } });

/** Opens a connection; everything that happens on it goes to its inbox. */
function open() {
  return new Promise((resolve, reject) => {
    const ws = new WebSocket(url, options);
    ws.binaryType = 'arraybuffer';
    ws.inbox = new Inbox();
    ws.onopen = () => resolve(ws);
    ws.onerror = (event) => reject(event.error ?? new Error('the connection failed'));
    ws.onmessage = ({ data }) =>
      ws.inbox.push(typeof data === 'string' ? { text: data } : { binary: Buffer.from(data).toString('hex') });
    ws.onclose = ({ code, reason }) => ws.inbox.push({ close: code, reason });
  });
}

const ws = await open();

await check('subprotocol', () => assert.equal(ws.protocol, 'chat'));

for (const size of sizes) {
  await check(`text ${size}`, async () => {
    ws.send(textOf(size));
    await ws.inbox.expect({ text: textOf(size) });
  });
  await check(`binary ${size}`, async () => {
    ws.send(bytesOf(size));
    await ws.inbox.expect({ binary: bytesOf(size).toString('hex') });
  });
}

await check('unicode', async () => {
  ws.send('Grüße, 世界 🐟');
  await ws.inbox.expect({ text: 'Grüße, 世界 🐟' });
});

await check('burst in order', async () => {
  for (let at = 0; at < 200; at += 1) ws.send(`message ${at}`);
  for (let at = 0; at < 200; at += 1) await ws.inbox.expect({ text: `message ${at}` });
});

await check('close with code and reason', async () => {
  ws.close(3001, 'done here');
  // The server returns the code; returning the reason is optional.
  assert.equal((await ws.inbox.next()).close, 3001);
});

await check('close without a code', async () => {
  const ws = await open();
  ws.close();
  await ws.inbox.expect({ close: 1005, reason: '' });
});

await check('too big', async () => {
  const ws = await open();
  ws.send(textOf(Number(process.env.PEER_TOO_BIG)));
  assert.equal((await ws.inbox.next()).close, 1009);
});

await check('shutdown', async () => {
  const ws = await open();
  ws.send('still here');
  await ws.inbox.expect({ text: 'still here' });
  report({ waiting: 'shutdown' });
  assert.equal((await ws.inbox.next()).close, 1001);
});

finish();
process.exit();
