"""Python's `aiohttp` as a server, on a free port of 127.0.0.1.

The paths are those of ws_server.mjs, without /fragments: its API cannot send a message in fragments.
Standard input kept open keeps it running. PEER_CERT and PEER_KEY make it speak TLS.
"""

import asyncio

from aiohttp import WSMsgType, web

from report import end_with_stdin, report, server_tls


async def echo(ws, message):
    if message.type == WSMsgType.TEXT:
        await ws.send_str(message.data)
    elif message.type == WSMsgType.BINARY:
        await ws.send_bytes(message.data)


async def ping(ws, message):
    if message.type == WSMsgType.TEXT:
        await ws.ping(message.data.encode())
    elif message.type == WSMsgType.PONG:
        await ws.send_str(f"pong {bytes(message.data).decode()}")


async def close(ws, message):
    if message.type == WSMsgType.TEXT:
        await ws.close(code=3005, message=b"that is all")


def handler(on_message):
    async def handle(request):
        # Control frames are handled here, so that what the peer sent is seen.
        ws = web.WebSocketResponse(protocols=["chat"], autoping=False, autoclose=False, max_msg_size=0)
        await ws.prepare(request)
        while True:
            message = await ws.receive()
            if message.type == WSMsgType.PING:
                await ws.pong(message.data)
            elif message.type == WSMsgType.CLOSE:
                report(closed={"code": message.data or 1005, "reason": message.extra or ""})
                await ws.close(code=message.data or 1000, message=(message.extra or "").encode())
                return ws
            elif message.type in (WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR):
                report(closed={"code": ws.close_code or 1006, "reason": ""})
                return ws
            else:
                await on_message(ws, message)

    return handle


async def refuse(request):
    return web.Response(status=403, text="not here, thank you\n")


async def main():
    end_with_stdin()
    app = web.Application()
    for path, on_message in (("/echo", echo), ("/ping", ping), ("/close", close)):
        app.router.add_get(path, handler(on_message))
    app.router.add_get("/refuse", refuse)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=server_tls())
    await site.start()
    report(listening=site._server.sockets[0].getsockname()[1])
    await asyncio.Event().wait()


asyncio.run(main())
