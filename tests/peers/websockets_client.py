"""Python's `websockets` as a client of an echo server.

usage: websockets_client.py URL     (PEER_CA names a certificate to trust for wss://)
"""

import asyncio
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from report import SIZES, TOO_BIG, bytes_of, check, client_tls, equal, finish, report, text_of

URL = sys.argv[1]


def opened():
    return connect(URL, subprotocols=["chat", "superchat"], ssl=client_tls(), max_size=None)


async def main():
    async with opened() as ws:

        async def echoed(message):
            await ws.send(message)
            equal(await ws.recv(), message)

        async def subprotocol():
            equal(ws.subprotocol, "chat")

        async def burst():
            for at in range(200):
                await ws.send(f"message {at}")
            for at in range(200):
                equal(await ws.recv(), f"message {at}")

        async def ping():
            # The future is resolved by a pong with this very payload and no other.
            await (await ws.ping(b"are you there"))

        async def fragmented_text():
            await ws.send(["first ", "", "zwölf ", "last"])
            equal(await ws.recv(), "first zwölf last")

        async def fragmented_binary():
            data = bytes_of(3000)
            await ws.send(data[at : at + 100] for at in range(0, 3000, 100))
            equal(await ws.recv(), data)

        async def ping_between():
            async def parts():
                yield "first "
                await (await ws.ping(b"between"))
                yield "second"

            await ws.send(parts())
            equal(await ws.recv(), "first second")

        async def close():
            await ws.close(3001, "done here")
            # The code comes back; whether the reason does is the server's choice.
            equal(ws.protocol.close_rcvd.code, 3001)

        await check("subprotocol", subprotocol)
        for size in SIZES:
            await check(f"text {size}", lambda: echoed(text_of(size)))
            await check(f"binary {size}", lambda: echoed(bytes_of(size)))
        await check("unicode", lambda: echoed("Grüße, 世界 🐟"))
        await check("burst in order", burst)
        await check("ping", ping)
        await check("fragmented text", fragmented_text)
        await check("fragmented binary", fragmented_binary)
        await check("ping between fragments", ping_between)
        await check("close with code and reason", close)

    async def too_big():
        async with opened() as ws:
            try:
                await ws.send(text_of(TOO_BIG))
                await ws.recv()
            except ConnectionClosed:
                pass
            equal(ws.close_code, 1009)

    async def shutdown():
        async with opened() as ws:
            await ws.send("still here")
            equal(await ws.recv(), "still here")
            report(waiting="shutdown")
            try:
                await ws.recv()
            except ConnectionClosed:
                pass
            equal(ws.close_code, 1001)

    await check("too big", too_big)
    await check("shutdown", shutdown)


asyncio.run(main())
finish()
