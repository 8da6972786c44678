"""Autobahn|Testsuite's `wstest`, for CPython 2.7, kept on the loopback interface.

Left to itself its fuzzing server listens on all addresses, whatever "url" says. Here it takes a free port
of 127.0.0.1 and prints `listening on ws://127.0.0.1:PORT`, or `wss://` where its specification names a key.
"""

import os
import site
import sys

# The packages live in a folder of their own; this reads its .pth files too, which PYTHONPATH does not.
site.addsitedir(os.environ["WSTEST_SITE"])

from autobahntestsuite import wstest  # noqa: E402 (chooses the reactor, so it comes before twisted)
from twisted.internet import reactor  # noqa: E402

listen_anywhere = reactor.listenTCP


def listen_on_loopback(port, factory, backlog=50, interface=""):
    listener = listen_anywhere(0, factory, backlog, "127.0.0.1")
    # Over TLS it is wrapped in a factory of Twisted's.
    factory = getattr(factory, "wrappedFactory", factory)
    # The factory compares the port in a client's Host header with its own.
    factory.port = factory.externalPort = listener.getHost().port
    print("listening on %s://127.0.0.1:%d" % ("wss" if factory.isSecure else "ws", factory.port))
    sys.stdout.flush()
    return listener


reactor.listenTCP = listen_on_loopback
sys.argv[0] = "wstest"
wstest.run()
