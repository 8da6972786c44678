// The official JavaScript SDK `centrifuge` with two nodes on NATS, where the offsets of a channel have gaps.
// usage: node centrifuge_nats.mjs ADDRESS_OF_NODE_ONE ADDRESS_OF_NODE_TWO HISTORY_SIZE

import { strict as assert } from 'node:assert';
import { once } from 'node:events';
import { Centrifuge } from 'centrifuge';
import { WebSocket } from 'ws';
import { check, finish, Inbox } from './report.mjs';

const [one, two, size] = process.argv.slice(2);
const historySize = Number(size);

/** The channels share the numbers of a few streams of NATS. */
const CHANNELS = Array.from({ length: 16 }, (_, at) => `ticker${at}`);
const [channel] = CHANNELS;

/** A closed port, for a subscriber that must stay away. */
const UNREACHABLE = '127.0.0.1:1';

/** The node that the subscriber connects to, and its current socket. */
let node = one;
let socket;

class Socket extends WebSocket {
  constructor(url, ...rest) {
    super(url.replace(one, node), ...rest);
    socket = this;
  }
}

const alice = new Centrifuge(`ws://${one}/connection/websocket`, {
  websocket: Socket, minReconnectDelay: 500, maxReconnectDelay: 1000,
});
const bob = new Centrifuge(`ws://${two}/connection/websocket`, { websocket: WebSocket });
const inbox = new Inbox();
const subscription = alice.newSubscription(channel, { positioned: true, recoverable: true });
subscription.on('publication', ({ data, offset }) => inbox.push({ data, offset }));

/** All publications that the subscriber has received. */
const received = [];
let published = 0;

/** Publishes to all channels in turn, so that the offsets of each have gaps. */
async function publish(rounds) {
  for (let round = 0; round < rounds; round += 1) {
    published += 1;
    for (const name of CHANNELS) await bob.publish(name, published);
  }
}

/** Receives publications up to the newest, each once and in order. */
async function receive() {
  while (received.length < published) {
    const { data, offset } = await inbox.next();
    assert.equal(data, received.length + 1);
    assert.ok(received.length === 0 || offset > received.at(-1).offset, `offset ${offset} after ${received.at(-1)?.offset}`);
    received.push({ data, offset });
  }
}

/** Ends the connection, publishes while the subscriber is away, and returns what the SDK says of the recovery. */
async function miss(rounds) {
  const target = node;
  node = UNREACHABLE;
  const away = once(alice, 'connecting');
  socket.terminate();
  await away;
  await publish(rounds);
  const subscribed = once(subscription, 'subscribed');
  node = target;
  const [context] = await subscribed;
  assert.ok(context.wasRecovering, 'the SDK asked for a recovery');
  return context.recovered;
}

await check('offsets with gaps', async () => {
  const ready = [once(subscription, 'subscribed'), once(bob, 'connected')];
  subscription.subscribe();
  [alice, bob].forEach((client) => client.connect());
  await Promise.all(ready);
  await publish(10);
  await receive();
  const gaps = received.slice(1).filter(({ offset }, at) => offset > received[at].offset + 1);
  assert.ok(gaps.length > 0, `no gap in ${received.map(({ offset }) => offset)}`);
});

await check('recovery on the same node', async () => {
  assert.ok(await miss(5));
  await publish(2);
  await receive();
});

await check('recovery on the other node', async () => {
  node = two;
  assert.ok(await miss(5));
  await publish(2);
  await receive();
});

await check('recovery without a missed publication', async () => {
  assert.ok(await miss(0));
  await publish(1);
  await receive();
});

await check('history in pages', async () => {
  const newest = await subscription.history({ limit: 0 });
  assert.equal(newest.offset, received.at(-1).offset);
  const pages = [];
  let since = { offset: 0, epoch: newest.epoch };
  for (;;) {
    const { publications } = await subscription.history({ limit: 4, since });
    if (publications.length === 0) break;
    pages.push(...publications);
    since = { offset: publications.at(-1).offset, epoch: newest.epoch };
  }
  const seen = pages.map(({ data, offset }) => ({ data, offset }));
  assert.deepEqual(seen, received.slice(-historySize));
});

await check('no recovery over what the history has lost', async () => {
  assert.equal(await miss(historySize + 5), false);
  // The subscription goes on at the newest position.
  received.length = 0;
  const before = published;
  await publish(3);
  for (let data = before + 1; data <= published; data += 1) assert.equal((await inbox.next()).data, data);
});

[alice, bob].forEach((client) => client.disconnect());
finish();
