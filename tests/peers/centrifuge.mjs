// The official JavaScript SDK `centrifuge` as two clients of a real-time server.
// usage: node centrifuge.mjs ADDRESS [websocket|http_stream|sse [json|protobuf]]     (such as 127.0.0.1:8080)

import { strict as assert } from 'node:assert';
import { once } from 'node:events';
import { Centrifuge as JsonCentrifuge } from 'centrifuge';
import { Centrifuge as ProtobufCentrifuge } from 'centrifuge/build/protobuf';
import { EventSource } from 'eventsource';
import { WebSocket } from 'ws';
import { check, finish, Inbox, report } from './report.mjs';

const [address, transport = 'websocket', encoding = 'json'] = process.argv.slice(2);
const isProtobuf = encoding === 'protobuf';
const Centrifuge = isProtobuf ? ProtobufCentrifuge : JsonCentrifuge;
const scheme = transport === 'websocket' ? 'ws' : 'http';
const endpoints = [{ transport, endpoint: `${scheme}://${address}/connection/${transport}` }];

/** Data as the SDK takes and gives it: bytes with Protobuf, anything with JSON. */
const pack = (data) => (isProtobuf ? new TextEncoder().encode(JSON.stringify(data)) : data);
const unpack = (data) => (isProtobuf ? JSON.parse(new TextDecoder().decode(data)) : data);

const CHANNELS = ['news', 'chat:lobby'];

/** Resolves when the client or subscription has reached the state of this event. */
const reached = (target, event) => once(target, event).then(([context]) => context);

/** A client with a subscription to each channel; what arrives goes to its inbox, joins and leaves to another. */
function client() {
  const centrifuge = new Centrifuge(endpoints, {
    websocket: WebSocket, eventsource: EventSource, emulationEndpoint: `http://${address}/emulation`, minReconnectDelay: 50, maxReconnectDelay: 200,
  });
  const inbox = new Inbox();
  const visits = new Inbox();
  const subscriptions = CHANNELS.map((channel) => {
    const subscription = centrifuge.newSubscription(channel, {
      joinLeave: true, minResubscribeDelay: 50, maxResubscribeDelay: 200,
    });
    subscription.on('publication', ({ data }) => inbox.push({ channel, data: unpack(data) }));
    subscription.on('join', ({ info }) => visits.push({ channel, join: info.client }));
    subscription.on('leave', ({ info }) => visits.push({ channel, leave: info.client }));
    return subscription;
  });
  return { centrifuge, inbox, visits, subscriptions };
}

/** Connects and waits until both subscriptions are there; gives the client's id. */
async function start({ centrifuge, subscriptions }) {
  const connected = reached(centrifuge, 'connected');
  const subscribed = subscriptions.map((subscription) => reached(subscription, 'subscribed'));
  centrifuge.connect();
  subscriptions.forEach((subscription) => subscription.subscribe());
  const { client } = await connected;
  await Promise.all(subscribed);
  return client;
}

/** The next visit that is not `own`: whether a client is told of its own join is the server's choice. */
async function nextVisit(visits, own) {
  for (;;) {
    const visit = await visits.next();
    if (visit.join !== own) return visit;
  }
}

const [alice, bob] = [client(), client()];
let ids;

await check('connect and subscribe', async () => {
  ids = [await start(alice), await start(bob)];
  assert.ok(ids[0] && ids[1] && ids[0] !== ids[1], `client ids ${ids}`);
});

await check('join', async () => {
  const joins = [await nextVisit(alice.visits, ids[0]), await nextVisit(alice.visits, ids[0])];
  assert.deepEqual(joins.map(({ channel }) => channel).sort(), [...CHANNELS].sort());
  assert.ok(joins.every(({ join }) => join === ids[1]));
});

await check('publish', async () => {
  await alice.subscriptions[0].publish(pack({ text: 'Grüße, 世界 🐟', list: [1, null, true], nested: { a: { b: '' } } }));
  const expected = { channel: 'news', data: { text: 'Grüße, 世界 🐟', list: [1, null, true], nested: { a: { b: '' } } } };
  await alice.inbox.expect(expected);
  await bob.inbox.expect(expected);
});

await check('publish from the client', async () => {
  await bob.centrifuge.publish('chat:lobby', pack('a bare string'));
  await alice.inbox.expect({ channel: 'chat:lobby', data: 'a bare string' });
  await bob.inbox.expect({ channel: 'chat:lobby', data: 'a bare string' });
});

await check('order', async () => {
  const publishing = [];
  for (let at = 0; at < 200; at += 1) {
    publishing.push(alice.subscriptions[at % 2].publish(pack(at)));
    // Without WebSocket, each command is an HTTP request of its own, and concurrent requests have no order.
    if (transport !== 'websocket') await publishing.at(-1);
  }
  await Promise.all(publishing);
  for (const { inbox } of [alice, bob]) {
    // Order is guaranteed only within a channel.
    const seen = { news: [], 'chat:lobby': [] };
    for (let at = 0; at < 200; at += 1) {
      const { channel, data } = await inbox.next();
      seen[channel].push(data);
    }
    CHANNELS.forEach((channel, which) =>
      assert.deepEqual(seen[channel], Array.from({ length: 100 }, (_, at) => 2 * at + which)));
  }
});

await check('presence', async () => {
  for (const { subscriptions } of [alice, bob]) {
    for (const subscription of subscriptions) {
      const { clients } = await subscription.presence();
      assert.deepEqual(Object.keys(clients).sort(), [...ids].sort());
      assert.equal((await subscription.presenceStats()).numClients, 2);
    }
  }
});

await check('call without a handler', () =>
  assert.rejects(alice.centrifuge.rpc('no such method', pack({})), (error) => error.code === 108));

await check('leave', async () => {
  bob.subscriptions[1].unsubscribe();
  assert.deepEqual(await nextVisit(alice.visits, ids[0]), { channel: 'chat:lobby', leave: ids[1] });
  assert.equal((await alice.subscriptions[1].presenceStats()).numClients, 1);
  const subscribed = reached(bob.subscriptions[1], 'subscribed');
  bob.subscriptions[1].subscribe();
  await subscribed;
  assert.deepEqual(await nextVisit(alice.visits, ids[0]), { channel: 'chat:lobby', join: ids[1] });
});

await check('resubscribe after a restart', async () => {
  const both = [alice, bob];
  const lost = both.map(({ centrifuge }) => reached(centrifuge, 'connecting'));
  const back = both.flatMap(({ subscriptions }) => subscriptions.map((subscription) => reached(subscription, 'subscribed')));
  report({ waiting: 'restart' });
  await Promise.all(lost);
  await Promise.all(back);
  await alice.subscriptions[0].publish(pack('after the restart'));
  await alice.inbox.expect({ channel: 'news', data: 'after the restart' });
  await bob.inbox.expect({ channel: 'news', data: 'after the restart' });
  assert.equal((await alice.subscriptions[0].presenceStats()).numClients, 2);
});

await check('disconnect', async () => {
  const disconnected = reached(bob.centrifuge, 'disconnected');
  bob.centrifuge.disconnect();
  await disconnected;
  // The server has noticed the disconnect once both channels report that the client left.
  for (let left = 0; left < 2;) if ((await alice.visits.next()).leave) left += 1;
  assert.equal((await alice.subscriptions[0].presenceStats()).numClients, 1);
  alice.centrifuge.disconnect();
});

finish();
