"""The official Python SDK `centrifuge-python` as two clients of a real-time server.

usage: python centrifuge_client.py ADDRESS json|protobuf
"""

import asyncio
import json
import sys

from centrifuge import Client, ClientEventHandler, ReplyError, SubscriptionEventHandler

from report import check, equal, finish, report

CHANNEL = "chat:lobby"


class Events(ClientEventHandler, SubscriptionEventHandler):
    """Puts what the clients wait for into queues."""

    def __init__(self):
        self.publications = asyncio.Queue()
        self.leaves = asyncio.Queue()
        self.subscribed = asyncio.Queue()
        self.disconnected = asyncio.Queue()

    async def on_publication(self, ctx):
        await self.publications.put(ctx.pub.data)

    async def on_leave(self, ctx):
        await self.leaves.put(ctx.info.client)

    async def on_subscribed(self, ctx):
        await self.subscribed.put(ctx)

    async def on_disconnected(self, ctx):
        await self.disconnected.put(ctx)


class Peer:
    def __init__(self, address, is_protobuf):
        self.is_protobuf = is_protobuf
        self.events = Events()
        self.client = Client(
            f"ws://{address}/connection/websocket",
            use_protobuf=is_protobuf,
            events=self.events,
            max_reconnect_delay=0.2,
        )
        self.subscription = self.client.new_subscription(
            CHANNEL, events=self.events, recoverable=True, join_leave=True, max_resubscribe_delay=0.2
        )

    def pack(self, data):
        """Data as the SDK takes it: bytes with Protobuf, anything with JSON."""
        return json.dumps(data).encode() if self.is_protobuf else data

    def unpack(self, data):
        return json.loads(data) if self.is_protobuf else data

    async def publication(self):
        return self.unpack(await self.events.publications.get())


async def main():
    address, encoding = sys.argv[1:]
    ada, bob = (Peer(address, encoding == "protobuf") for _ in range(2))
    both = (ada, bob)

    async def connect():
        for peer in both:
            await peer.client.connect()
            await peer.subscription.subscribe()
            await peer.events.subscribed.get()

    await check("connect and subscribe", connect)

    async def publish():
        data = {"text": "Grüße, 世界 🐟", "list": [1, None, True]}
        await ada.subscription.publish(ada.pack(data))
        for peer in both:
            equal(await peer.publication(), data)

    await check("publish", publish)

    async def history():
        await bob.client.publish(CHANNEL, bob.pack(2))
        page = await ada.subscription.history(limit=1, reverse=True)
        equal([bob.unpack(publication.data) for publication in page.publications], [2])
        equal(page.offset, 2)
        for peer in both:
            equal(await peer.publication(), 2)

    await check("history", history)

    async def presence():
        equal(len((await ada.subscription.presence()).clients), 2)
        equal((await bob.subscription.presence_stats()).num_clients, 2)

    await check("presence", presence)

    async def rpc():
        try:
            await ada.client.rpc("no such method", ada.pack({}))
        except ReplyError as error:
            equal(error.code, 108)
        else:
            raise AssertionError("the call succeeded")

    await check("call without a handler", rpc)

    async def leave():
        await bob.subscription.unsubscribe()
        await ada.events.leaves.get()
        equal((await ada.subscription.presence_stats()).num_clients, 1)
        await bob.subscription.subscribe()
        await bob.events.subscribed.get()

    await check("leave", leave)

    async def restart():
        report(waiting="restart")
        for peer in both:
            await peer.events.subscribed.get()
        await ada.subscription.publish(ada.pack("after the restart"))
        for peer in both:
            equal(await peer.publication(), "after the restart")

    await check("resubscribe after a restart", restart)

    async def disconnect():
        for peer in both:
            await peer.client.disconnect()
            equal((await peer.events.disconnected.get()).code, 0)

    await check("disconnect", disconnect)
    finish()


asyncio.run(main())
