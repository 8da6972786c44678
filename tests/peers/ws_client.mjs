// Node's `ws` as a client of an echo server.
// usage: node ws_client.mjs URL     (PEER_CA names a certificate to trust for wss://)

import { strict as assert } from 'node:assert';
import { readFileSync } from 'node:fs';
import { WebSocket } from 'ws';
import { bytesOf, check, finish, Inbox, report, sizes, textOf } from './report.mjs';

const url = process.argv[2];
const ca = process.env.PEER_CA ? readFileSync(process.env.PEER_CA) : undefined;

/** Opens a connection; everything that happens on it goes to its inbox. */
function open() {
  return new Promise((resolve, reject) => {
    const ws = new WebSocket(url, ['chat', 'superchat'], { ca, maxPayload: 64 << 20 });
    ws.inbox = new Inbox();
    ws.on('open', () => resolve(ws));
    ws.on('error', reject);
    ws.on('message', (data, isBinary) =>
      ws.inbox.push(isBinary ? { binary: data.toString('hex') } : { text: data.toString() }));
    ws.on('pong', (data) => ws.inbox.push({ pong: data.toString() }));
    ws.on('close', (code, reason) => ws.inbox.push({ close: code, reason: reason.toString() }));
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

await check('ping', async () => {
  ws.ping('are you there');
  await ws.inbox.expect({ pong: 'are you there' });
});

await check('fragmented text', async () => {
  // The split is in the middle of a character.
  const bytes = Buffer.from('über den Fluß');
  ws.send(bytes.subarray(0, 1), { binary: false, fin: false });
  ws.send(Buffer.alloc(0), { binary: false, fin: false });
  ws.send(bytes.subarray(1), { binary: false, fin: true });
  await ws.inbox.expect({ text: 'über den Fluß' });
});

await check('fragmented binary', async () => {
  const bytes = bytesOf(3000);
  for (let at = 0; at < 3000; at += 100) {
    ws.send(bytes.subarray(at, at + 100), { fin: at + 100 === 3000 });
  }
  await ws.inbox.expect({ binary: bytes.toString('hex') });
});

await check('ping between fragments', async () => {
  ws.send('first ', { fin: false });
  ws.ping('between');
  ws.send('second', { fin: true });
  await ws.inbox.expect({ pong: 'between' });
  await ws.inbox.expect({ text: 'first second' });
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
  const { close } = await ws.inbox.next();
  assert.equal(close, 1009);
});

await check('far too big', async () => {
  // The server has read little of this when it decides to close. Its close frame must still reach the client although
  // data is in flight; a TCP reset would overtake it.
  const ws = await open();
  ws.send(textOf(8 * Number(process.env.PEER_TOO_BIG)));
  const { close } = await ws.inbox.next();
  assert.equal(close, 1009);
});

await check('shutdown', async () => {
  const ws = await open();
  ws.send('still here');
  await ws.inbox.expect({ text: 'still here' });
  report({ waiting: 'shutdown' });
  const { close } = await ws.inbox.next();
  assert.equal(close, 1001);
});

finish();
