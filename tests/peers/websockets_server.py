"""Python's `websockets` as a server, on a free port of 127.0.0.1.

The paths are those of ws_server.mjs. Standard input kept open keeps it running.
PEER_CERT and PEER_KEY make it speak TLS.
"""

import asyncio
import http

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

from report import end_with_stdin, report, server_tls

PATHS = ("/echo", "/ping", "/fragments", "/close")


async def echo(ws, message):
    await ws.send(message)


async def ping(ws, message):
    await (await ws.ping(message))
    await ws.send(f"pong {message}")


async def fragments(ws, message):
    third = len(message) // 3

    async def parts():
        yield message[:third]
        await ws.ping(b"between")
        yield message[third : 2 * third]
        yield message[2 * third :]

    await ws.send(parts())


async def close(ws, message):
    await ws.close(3005, "that is all")


ON_MESSAGE = {"/echo": echo, "/ping": ping, "/fragments": fragments, "/close": close}


def refuse(connection, request):
    if request.path not in ON_MESSAGE:
        return connection.respond(http.HTTPStatus.FORBIDDEN, "not here, thank you\n")
    return None


async def handle(ws):
    try:
        async for message in ws:
            await ON_MESSAGE[ws.request.path](ws, message)
    except ConnectionClosed:
        pass
    await ws.wait_closed()
    received = ws.protocol.close_rcvd
    report(closed={"code": received.code if received else 1006, "reason": received.reason if received else ""})


async def main():
    end_with_stdin()
    options = dict(subprotocols=["chat"], select_subprotocol=select, process_request=refuse)
    async with serve(handle, "127.0.0.1", 0, ssl=server_tls(), max_size=None, **options) as server:
        report(listening=server.sockets[0].getsockname()[1])
        await server.wait_closed()


def select(connection, offered):
    return "chat" if "chat" in offered else None


asyncio.run(main())
