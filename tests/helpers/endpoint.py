"""An HTTP endpoint on a loopback socket whose test determines each byte of its responses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.internet import reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import (
    IDelayedCall,
    IListeningPort,
    IReactorSSL,
    IReactorTCP,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import ContextFactory
from twisted.python.failure import Failure

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@define
class Endpoint:
    """Server whose test determines each byte of its responses.

    :ivar answer: the bytes to write when a request has arrived, or a function that
        receives the connection.
    :ivar requests: the heads of the requests, each with its body.
    :ivar connections: all connections, including closed ones.
    """

    answer: bytes | Callable[[Connection], None] = OK
    close: bool = False
    requests: list[bytes] = field(factory=list)
    connections: list[Connection] = field(factory=list)
    port: Any = None
    scheme: str = "http"

    def url(self, path: str = "/") -> str:
        return f"{self.scheme}://localhost:{self.port.getHost().port}{path}"


class Connection(Protocol):
    """Connection to an :class:`Endpoint`."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.buffer = b""
        self.written = 0
        self.lost: Deferred[None] = Deferred()
        self.timers: list[IDelayedCall] = []

    def connectionMade(self) -> None:
        self.endpoint.connections.append(self)

    def dataReceived(self, data: bytes) -> None:
        self.buffer += data
        head, found, body = self.buffer.partition(b"\r\n\r\n")
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        if found and len(body) >= length:
            self.endpoint.requests.append(self.buffer)
            self.buffer = b""
            self.reply()

    def reply(self) -> None:
        answer = self.endpoint.answer
        if isinstance(answer, bytes):
            self.write(answer)
            if self.endpoint.close:
                self.hang_up()
        else:
            answer(self)

    def write(self, data: bytes) -> None:
        self.written += len(data)
        assert self.transport is not None
        self.transport.write(data)

    def hang_up(self) -> None:
        assert self.transport is not None
        self.transport.loseConnection()

    def reset(self) -> None:
        assert ITCPTransport.providedBy(self.transport)
        self.transport.abortConnection()

    def drip(self, data: bytes, every: float) -> None:
        """Write the same bytes repeatedly until the connection is lost."""

        def write() -> None:
            self.write(data)
            self.timers = [reactor.callLater(every, write)]

        write()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        for timer in self.timers:
            timer.cancel()
        self.lost.callback(None)


def listen(endpoint: Endpoint, context: ContextFactory | None = None) -> IListeningPort:
    factory: Any = Factory.forProtocol(lambda: Connection(endpoint))
    factory.noisy = False
    if context is None:
        return IReactorTCP(reactor).listenTCP(0, factory, interface="127.0.0.1")
    return IReactorSSL(reactor).listenSSL(0, factory, context, interface="127.0.0.1")


async def shut(endpoint: Endpoint) -> None:
    await maybeDeferred(endpoint.port.stopListening)
    for connection in endpoint.connections:
        if not connection.lost.called:
            connection.reset()
        await connection.lost
