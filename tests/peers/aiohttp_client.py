"""Python's `aiohttp` as a client of an echo server.

usage: aiohttp_client.py URL     (PEER_CA names a certificate to trust for wss://)
Its API cannot send a message in fragments.
"""

import asyncio
import os
import sys

from aiohttp import ClientSession, WSMsgType

from report import SIZES, TOO_BIG, bytes_of, check, client_tls, equal, finish, report, text_of

URL = sys.argv[1]


async def main():
    async with ClientSession() as session:

        def opened():
            # autoping off, so that pongs are seen; no limit, so that 1 MiB passes.
            return session.ws_connect(
                URL,
                protocols=["chat", "superchat"],
                ssl=client_tls() or True,
                autoping=False,
                max_msg_size=0,
                compress=15 if "PEER_COMPRESS" in os.environ else 0,
            )

        async with opened() as ws:

            async def echoed(message):
                if isinstance(message, str):
                    await ws.send_str(message)
                    equal(await ws.receive_str(), message)
                else:
                    await ws.send_bytes(message)
                    equal(await ws.receive_bytes(), message)

            async def subprotocol():
                equal(ws.protocol, "chat")

            async def burst():
                for at in range(200):
                    await ws.send_str(f"message {at}")
                for at in range(200):
                    equal(await ws.receive_str(), f"message {at}")

            async def ping():
                await ws.ping(b"are you there")
                message = await ws.receive()
                equal((message.type, bytes(message.data)), (WSMsgType.PONG, b"are you there"))

            async def close():
                await ws.close(code=3001, message=b"done here")
                # The code comes back; whether the reason does is the server's choice.
                equal(ws.close_code, 3001)

            await check("subprotocol", subprotocol)
            for size in SIZES:
                await check(f"text {size}", lambda: echoed(text_of(size)))
                await check(f"binary {size}", lambda: echoed(bytes_of(size)))
            await check("unicode", lambda: echoed("Grüße, 世界 🐟"))
            await check("burst in order", burst)
            await check("ping", ping)
            await check("close with code and reason", close)

        async def too_big():
            async with opened() as ws:
                await ws.send_str(text_of(TOO_BIG))
                message = await ws.receive()
                equal((message.type, message.data), (WSMsgType.CLOSE, 1009))

        async def shutdown():
            async with opened() as ws:
                await ws.send_str("still here")
                equal(await ws.receive_str(), "still here")
                report(waiting="shutdown")
                message = await ws.receive()
                equal((message.type, message.data), (WSMsgType.CLOSE, 1001))

        await check("too big", too_big)
        await check("shutdown", shutdown)


asyncio.run(main())
finish()
