"""The network between clients and the daemon: HTTP bytes over connections in memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from .timeline import Timeline

REFUSED, LOST = -1, 0
"""In place of a status: the connection was refused, or lost before the response."""
ON_ITS_WAY = 0.001
"""Seconds that a response takes to its client."""
Answered = Callable[[int, Any], None]


@define(eq=False)
class Service:
    """The network to the current daemon, or to one of a fleet.

    :ivar process: the daemon's process.
    :ivar choose: returns the process that a request is sent to, if it is not ``process``.
    :ivar exchanges: the requests in flight.
    """

    timeline: Timeline
    process: Any = None
    choose: Callable[[], Any] | None = None
    exchanges: list[Exchange] = field(factory=list)

    def ask(self, method: str, path: str, body: Any, answered: Answered, **headers: str) -> None:
        """Send a request; its result is delivered at a later step."""
        process = self.process if self.choose is None else self.choose()
        if process is None or not process.listens:
            self.timeline.after(0, None, answered, REFUSED, None)
            return
        data = b"" if body is None else json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", "Host: callme", "Connection: close"]
        # callme would make a random one, and the same seed another log.
        lines.append("X-Request-Id: simulated")
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        head = "\r\n".join([*lines, f"Content-Length: {len(data)}", "", ""])
        exchange = Exchange(self, process, answered)
        self.exchanges.append(exchange)
        if process.frozen_until > self.timeline.elapsed:
            # The system accepts the connection, and the process finds it later.
            self.timeline.after(0, process, exchange.send, head.encode() + data)
        else:
            exchange.send(head.encode() + data)

    def drop(self, process: Any) -> None:
        """Close the connections to a dead process."""
        for exchange in list(self.exchanges):
            if exchange.process is process:
                exchange.over(LOST, None)


class Exchange(StringTransport):
    """The server side of a connection with one request."""

    def __init__(self, service: Service, process: Any, answered: Answered) -> None:
        super().__init__(peerAddress=IPv4Address("TCP", "127.0.0.1", 50000), lenient=True)
        self.service, self.process, self.answered = service, process, answered
        self.done = self.lost = self.arrived = False
        self.said = b""
        self.protocol = process.reactor.factory.buildProtocol(self.getPeer())

    def send(self, data: bytes) -> None:
        if not self.lost:
            self.arrived = True
            self.protocol.makeConnection(self)
            self.protocol.dataReceived(data)

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Do nothing: there is no delay to avoid."""

    def unregisterProducer(self) -> None:
        """Forget the producer; as with a socket, there may be none."""
        self.producer = None

    def write(self, data: bytes) -> None:
        self.said += data
        head, end, body = self.said.partition(b"\r\n\r\n")
        if not end:
            return
        headers = dict(
            line.lower().split(": ", 1) for line in head.decode("latin-1").split("\r\n")[1:]
        )
        if len(body) >= int(headers.get("content-length", "0")):
            self.over(int(head.split(b" ")[1]), json.loads(body) if body else None)

    def writeSequence(self, data: Any) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        if not self.disconnecting:
            self.disconnecting = True
            self.service.timeline.after(0, self.process, self._lose)

    def abortConnection(self) -> None:
        self.loseConnection()

    def hang_up(self) -> None:
        """Disconnect the client before the response."""
        if not self.done:
            self.over(LOST, None)
            if self.process.frozen_until > self.service.timeline.elapsed:
                self.service.timeline.after(0, self.process, self._lose)
            else:
                self._lose()

    def _lose(self) -> None:
        if not self.lost:
            self.lost = True
            self.over(LOST, None)
            if self.arrived:
                self.protocol.connectionLost(Failure(ConnectionDone()))

    def over(self, status: int, body: Any) -> None:
        if not self.done:
            self.done = True
            self.service.exchanges.remove(self)
            # The written bytes arrive even if the process dies now.
            self.service.timeline.after(ON_ITS_WAY, None, self.answered, status, body)
