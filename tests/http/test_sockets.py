"""The HTTP server on real sockets: direct writes, and writes that the transport completes."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as installed_reactor
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from callme.server.site import BoundedSite
from tests.helpers.raw_client import head

reactor: Any = installed_reactor
LARGE = 8 * 1024 * 1024
"""Bytes of a response that no socket takes at once."""


class Echo(Resource):
    """Responds to a PUT with its body, and to a GET with a large body in two parts.

    :ivar before: is called before the response, or before its last part.
    """

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.before: Callable[[], None] = lambda: None

    def render_PUT(self, request: Request) -> bytes:
        self.before()
        assert request.content is not None
        body: bytes = request.content.read()
        return body

    def render_GET(self, request: Request) -> int:
        request.setHeader("content-length", b"%d" % (LARGE + 3))
        request.write(b"x" * LARGE)
        self.before()
        request.write(b"end")
        request.finish()
        return NOT_DONE_YET


class Server:
    """A site that listens, and a client that is connected to it."""

    def __init__(self) -> None:
        self.resource = Echo()
        self.site = BoundedSite(self.resource, reactor)
        self.port = reactor.listenTCP(0, self.site, interface="127.0.0.1")
        self.client = socket.create_connection(("127.0.0.1", self.port.getHost().port))
        self.client.settimeout(60)

    async def exchange(self, request: bytes, *taken: bytes) -> bytes:
        """Send a request; return the response to it, interim responses included.

        :param taken: the part of the response that was read before.
        """
        return await deferToThread(self._exchange, request, b"".join(taken))

    def _exchange(self, request: bytes, received: bytes) -> bytes:
        self.client.sendall(request)
        while True:
            received += self.client.recv(65536)
            final = received.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
            start, end, body = final.partition(b"\r\n\r\n")
            if end:
                length = int(start.lower().partition(b"content-length: ")[2].split()[0])
                if len(body) >= length:
                    return received


@pytest_twisted.async_yield_fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    yield made
    made.client.close()
    await made.port.stopListening()
    await made.site.close()


async def test_interim_response_precedes_response_to_body_that_did_not_wait(
    server: Server,
) -> None:
    request = head(b"PUT", b"/", b"Content-Length: 4", b"Expect: 100-continue") + b"body"
    received = await server.exchange(request)
    assert received.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
    assert received.endswith(b"\r\n\r\nbody")


async def test_response_too_large_for_socket_arrives_whole_and_before_next_one(
    server: Server,
) -> None:
    taken: list[bytes] = []

    def make_room() -> None:
        # The last part would fit into the socket, before the rest of the first one.
        server.client.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                taken.append(server.client.recv(65536))
        server.client.settimeout(60)

    server.resource.before = make_room
    server.client.sendall(head(b"GET", b"/"))
    await deferLater(reactor, 0.05)
    large = await server.exchange(b"", *taken)
    assert large.partition(b"\r\n\r\n")[2] == b"x" * LARGE + b"end"
    server.resource.before = lambda: None
    for body in (b"one", b"two"):
        received = await server.exchange(
            head(b"PUT", b"/", b"Content-Length: %d" % len(body)) + body
        )
        assert received.startswith(b"HTTP/1.1 200 OK\r\n")
        assert received.endswith(b"\r\n\r\n" + body)


async def test_client_that_resets_its_connection_before_the_response_is_forgotten(
    server: Server,
) -> None:
    def reset() -> None:
        server.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        server.client.close()

    server.resource.before = reset
    server.client.sendall(head(b"PUT", b"/", b"Content-Length: 4") + b"body")
    for _ in range(1000):
        await deferLater(reactor, 0.005)
        if not server.site.registry.connections:
            break
    assert not server.site.registry.connections


@pytest.mark.parametrize("count", [1, 30])
async def test_pipelined_requests_get_their_responses_in_order(server: Server, count: int) -> None:
    bodies = [b"%04d" % number for number in range(count)]
    requests = [head(b"PUT", b"/", b"Content-Length: 4") + body for body in bodies]
    received = await server.exchange(b"".join(requests))
    while received.count(b"\r\n\r\n") < count or not received.endswith(bodies[-1]):
        received += await deferToThread(server.client.recv, 65536)
    assert [part[:4] for part in received.split(b"\r\n\r\n")[1:]] == bodies
