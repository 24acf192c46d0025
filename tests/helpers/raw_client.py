"""A client that sends raw bytes to the HTTP server in memory."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from callme.server.channel import BoundedChannel
from callme.server.site import BoundedSite
from tests.helpers.world import World


def head(method: bytes, target: bytes, *headers: bytes, host: bytes = b"localhost") -> bytes:
    return b"\r\n".join(
        [method + b" " + target + b" HTTP/1.1", b"Host: " + host, *headers, b"", b""]
    )


class Transport(StringTransport):
    """A transport that records whether it was aborted."""

    aborted = False

    def abortConnection(self) -> None:
        self.aborted = True
        self.disconnecting = True


class Client:
    """A client that connects to a site and sends bytes."""

    def __init__(self, world: World, site: BoundedSite | None = None) -> None:
        """Connect; without room, raise :exc:`ConnectionRefusedError`."""
        self.world = world
        self.site = site or BoundedSite(
            world.parts.api.resource(),
            world.clock,
        )
        self.transport = Transport()
        channel = self.site.buildProtocol(None)
        channel.makeConnection(self.transport)
        if not isinstance(channel, BoundedChannel):
            assert self.dropped
            raise ConnectionRefusedError
        self.channel = channel

    def send(self, data: bytes) -> None:
        self.channel.dataReceived(data)

    @property
    def dropped(self) -> bool:
        return self.transport.aborted

    def hang_up(self) -> None:
        self.channel.connectionLost(Failure(ConnectionDone()))

    def responses(self) -> list[tuple[int, Any]]:
        """Take the responses received so far; return the status and JSON of each."""
        data = self.transport.value()
        self.transport.clear()
        found = []
        while data:
            head, _, rest = data.partition(b"\r\n\r\n")
            lines = head.decode().lower().split("\r\n")
            headers = dict(line.split(": ", 1) for line in lines[1:])
            length = int(headers.get("content-length", 0))
            body, data = rest[:length], rest[length:]
            assert headers.get("content-type", "application/json").endswith("json")
            # No response reveals a version, of Twisted's server in particular.
            assert headers.get("server", "callme") == "callme"
            found.append((int(lines[0].split()[1]), json.loads(body) if body else None))
        return found

    def status(self) -> int:
        """Take the single response; return its status."""
        ((status, body),) = self.responses()
        assert status < 400 or body["status"] == status
        return status


GET = b"GET /status/ HTTP/1.1\r\nHost: x\r\n\r\n"
BODY = b'{"trigger_at": "+1h", "callback": "http://a/"}'
