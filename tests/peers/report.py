"""What every Python peer shares: cases reported as JSON lines (see report.mjs for their meaning)."""

import json
import os
import ssl
import sys
import threading
import traceback

SIZES = [int(size) for size in os.environ.get("PEER_SIZES", "0,125").split(",")]
TOO_BIG = int(os.environ.get("PEER_TOO_BIG", "0"))
FAILED = []


def report(**value):
    print(json.dumps(value), flush=True)


async def check(name, body):
    """Runs one case, unless PEER_ONLY names another, and reports how it ended; failed, it does not stop the others."""
    if os.environ.get("PEER_ONLY", name) != name:
        return
    try:
        await body()
    except BaseException:
        FAILED.append(name)
        report(case=name, error=traceback.format_exc())
    else:
        report(case=name)


def equal(got, expected):
    if got != expected:
        raise AssertionError(f"got {shorten(got)}, expected {shorten(expected)}")


def shorten(value):
    text = repr(value)
    return text if len(text) < 300 else f"{text[:200]}... ({len(text)} characters)"


def finish():
    sys.exit(1 if FAILED else 0)


def text_of(size):
    """A text of `size` bytes in which a lost or moved byte shows."""
    text = "".join(f"{count:x} " for count in range(size // 2 + 1))
    return text[:size]


def bytes_of(size):
    """`size` bytes that cover all values and do not repeat with a power of two."""
    return bytes((at * 7 + (at >> 8)) & 0xFF for at in range(size))


def client_tls():
    """Trusts PEER_CA alone; None when the URL is not to be wss://."""
    name = os.environ.get("PEER_CA")
    return ssl.create_default_context(cafile=name) if name else None


def server_tls():
    """PEER_CERT and PEER_KEY make a server speak TLS."""
    if "PEER_CERT" not in os.environ:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(os.environ["PEER_CERT"], os.environ["PEER_KEY"])
    return context


def end_with_stdin():
    """Ends the program when standard input does, so that a server never outlives its harness."""
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
