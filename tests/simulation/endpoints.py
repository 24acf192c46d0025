"""The endpoints of callbacks, each with good or bad behaviour."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any
from urllib.parse import unquote

from attrs import define, field
from twisted.internet import error
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer, IStreamClientEndpoint, ITCPTransport
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from .timeline import Timeline

GOOD, FAILING, REDIRECTING, BUSY = 200, 500, 302, 503
KINDS = {
    "good": 40,
    "slow": 8,
    "hangs": 6,
    "fails": 12,
    "redirects": 4,
    "busy": 6,
    "refuses": 5,
    "connects slowly": 5,
    "never connects": 3,
    "is unknown": 2,
    "closes": 5,
    "breaks off": 4,
    "talks nonsense": 2,
    "closes after": 4,
    "trickles": 3,
}
"""The behaviours of endpoints, with their relative frequencies."""
_BEFORE_THE_REQUEST = ("refuses", "never connects", "is unknown")
_UNSEEN = (*_BEFORE_THE_REQUEST, "connects slowly")


@define(eq=False)
class Seen:
    """A request as its endpoint received it.

    :ivar token: the number of the definition that it was made for.
    :ivar trigger_at: from the headers of the request, as is ``number``, that of the attempt.
    :ivar asked_at: the wall clock at the start of the call; ``at``: at the start of the request.
    :ivar asked_elapsed: the monotonic clock at the start of the call.
    :ivar status: the status of the response, if there was one.
    :ivar open: whether the connection is open without a complete response.
    :ivar host: its target.
    :ivar process: the process of the daemon that made it.
    :ivar superseded: whether a later attempt began before its end.
    """

    token: int
    host: str
    key: str
    trigger_at: int
    number: int
    asked_at: float
    at: float
    asked_elapsed: float
    process: Any
    status: int | None = None
    open: bool = True
    superseded: bool = False

    @property
    def own_asked_at(self) -> float:
        """``asked_at`` by the daemon's clock."""
        return self.asked_at + float(self.process.skew)

    @property
    def may_be_orphaned(self) -> bool:
        """Whether a peer of its daemon may have taken over its claim."""
        return bool(self.process.may_have_lost_claims(self.asked_elapsed))


@define(eq=False)
class Network:
    """All endpoints, and the network to them.

    :ivar on_request: called with each request.
    :ivar on_connecting: called with each process that begins to connect; returns for how many
        seconds more than usual that takes.
    :ivar usual: the current behaviours with their frequencies.
    :ivar taken: the number of calls by behaviour.
    :ivar links: the open connections.
    :ivar unheard: the number of writes to connections that were already closed, and of connections
        that may be too late for their call.
    """

    random: Random
    timeline: Timeline
    on_request: Callable[[Seen], None]
    on_connecting: Callable[[Any], float] = lambda process: 0.0
    usual: dict[str, int] = field(factory=lambda: dict(KINDS))
    taken: Counter[str] = field(factory=Counter)
    unheard: int = 0
    links: list[Wire] = field(factory=list)

    @property
    def useless(self) -> int:
        """The number of open connections to endpoints that do not speak HTTP."""
        return sum(link.is_useless and not link.disconnecting for link in self.links)

    def kind(self) -> str:
        """Return the behaviour for the next call."""
        kind = self.random.choices(list(self.usual), list(self.usual.values()))[0]
        self.taken[kind] += 1
        return kind

    @property
    def unseen(self) -> int:
        """Return the number of calls that may have failed without a request."""
        return self.unheard + sum(self.taken[kind] for kind in _UNSEEN)

    def in_flight(self, process: Any) -> Counter[str]:
        """Return the number of open requests of a process by host."""
        seen = (link.seen for link in self.links if link.process is process)
        return Counter(one.host for one in seen if one is not None and one.open)

    def heal(self) -> None:
        """End all bad behaviour."""
        self.usual = {"good": 1}

    def drop(self, process: Any) -> None:
        """Close the connections of a dead process."""
        for link in self.links:
            if link.process is process:
                link.end()
        self.links = [link for link in self.links if link.process is not process]


@implementer(IStreamClientEndpoint)
class Host:
    """A replacement for the caller's ``HostEndpoint``.

    :param outbound: the way out of the process, whose reactor has its network.
    """

    def __init__(self, outbound: Any, host: str, port: int) -> None:
        self._process = outbound.reactor.process
        self._network: Network = self._process.network
        self._host, self._port = host, port

    def connect(self, factory: Any) -> Deferred[Any]:
        network, timeline = self._network, self._network.timeline
        kind = network.kind()
        asked = (timeline.wall(), timeline.elapsed)
        connecting: Deferred[Any] = Deferred(lambda _: None)
        more = network.on_connecting(self._process)

        def fail(why: Exception) -> None:
            if not connecting.called:
                connecting.errback(Failure(why))

        def connected() -> None:
            if connecting.called:
                return
            protocol = factory.buildProtocol(IPv4Address("TCP", "203.0.113.1", self._port))
            wire = Wire(network, self._process, self._host, protocol, kind, asked)
            network.links.append(wire)
            protocol.makeConnection(wire)
            connecting.callback(protocol)

        random = network.random
        if kind == "refuses":
            timeline.after(
                random.random() * 0.1, self._process, fail, error.ConnectionRefusedError()
            )
        elif kind == "is unknown":
            timeline.after(random.random() * 5, self._process, fail, error.DNSLookupError())
        elif kind == "never connects":
            timeline.after(1800, self._process, fail, error.TimeoutError())
        elif kind == "connects slowly":
            timeline.after(random.random() * 40 + more, self._process, connected)
        else:
            timeline.after(random.random() * 0.02 + more, self._process, connected)
        return connecting


class Socket:
    """As much of a socket as a connection needs."""

    def setsockopt(self, *_: int) -> None:
        """Nothing to be set."""

    def send(self, data: bytes) -> int:
        """Leave it to the transport."""
        raise BlockingIOError

    def recv(self, size: int, flags: int) -> bytes:
        """Nothing has arrived that was not delivered."""
        raise BlockingIOError


@implementer(ITCPTransport, IPushProducer)
class Wire(StringTransport):
    """A connection to an endpoint, which responds to requests."""

    def __init__(
        self,
        network: Network,
        process: Any,
        host: str,
        protocol: Any,
        kind: str,
        asked: tuple[float, float],
    ) -> None:
        super().__init__(lenient=True)
        self.network, self.process, self.protocol = network, process, protocol
        self.host = host
        self.kind = kind
        self.asked_at, self.asked_elapsed = asked
        self.received = b""
        self.seen: Seen | None = None
        self.lost = False
        self.first = True
        self.is_useless = False

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Do nothing: there is no delay to avoid."""

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Do nothing: connections are kept alive anyway."""

    def getHandle(self) -> Any:
        return Socket()

    def getTcpNoDelay(self) -> bool:
        return False

    def getTcpKeepAlive(self) -> bool:
        return False

    def loseWriteConnection(self) -> None:
        """Do nothing: no more bytes follow."""

    def write(self, data: bytes) -> None:
        if self.lost or self.disconnecting:
            self.network.unheard += 1
            return
        self.received += data
        head, end, body = self.received.partition(b"\r\n\r\n")
        if not end:
            return
        lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (x.partition(": ") for x in lines[1:])}
        if len(body) < int(headers.get("content-length", "0")):
            return
        self.received = b""
        self._take(lines[0].split(" ")[1], headers)

    def writeSequence(self, data: Any) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        self._end_soon(error.ConnectionDone())

    def abortConnection(self) -> None:
        self.disconnected = True
        self._end_soon(error.ConnectionLost())

    def _end_soon(self, why: Exception) -> None:
        if not self.disconnecting:
            self.disconnecting = True
            self.end()
            self.network.timeline.after(0, self.process, self._lose, why)

    def end(self) -> None:
        """End the connection from this side."""
        if self.seen is not None:
            self.seen.open = False

    def _lose(self, why: Exception) -> None:
        if not self.lost:
            self.lost = True
            self.end()
            self.network.links.remove(self)
            self.protocol.connectionLost(Failure(why))

    def _take(self, path: str, headers: dict[str, str]) -> None:
        timeline, random = self.network.timeline, self.network.random
        now = timeline.wall()
        if not self.first:
            self.asked_at, self.asked_elapsed = now, timeline.elapsed
            self.kind = self.network.kind()
        self.first = False
        self.seen = Seen(
            token=int(path.rpartition("/")[2]),
            host=self.host,
            key=unquote(headers["idempotency-key"][1:-1].rpartition(".")[0]),
            trigger_at=int(headers["callme-trigger-at"]),
            number=int(headers["callme-attempt"]),
            asked_at=self.asked_at,
            at=now,
            asked_elapsed=self.asked_elapsed,
            process=self.process,
        )
        self.network.on_request(self.seen)
        kind, soon = self.kind, random.random() * 0.3
        if kind == "hangs":
            return
        if kind == "slow":
            self._later(random.random() * 40, self._answer, GOOD)
        elif kind in ("fails", "redirects", "busy"):
            self._later(soon, self._answer, {"fails": 500, "redirects": 302, "busy": 503}[kind])
        elif kind == "closes" or kind in _BEFORE_THE_REQUEST:
            self._later(soon, self._lose, error.ConnectionDone())
        elif kind == "breaks off":
            self._later(soon, self._say, b"HTTP/1.1 20")
            self._later(soon + 0.1, self._lose, error.ConnectionLost())
        elif kind == "talks nonsense":
            self._later(soon, self._say, b"SSH-2.0-nonsense\r\n\r\n")
            self.is_useless = True
        elif kind == "trickles":
            self._later(soon, self._trickle, 0)
        else:
            self._later(soon, self._answer, GOOD)
            if kind == "closes after":
                self._later(soon + random.random(), self._lose, error.ConnectionDone())

    def _later(self, seconds: float, happen: Callable[..., Any], *args: Any) -> None:
        self.network.timeline.after(seconds, self.process, happen, *args)

    def _say(self, data: bytes) -> None:
        if not (self.lost or self.disconnecting):
            self.protocol.dataReceived(data)

    def _answer(self, status: int) -> None:
        if self.lost or self.disconnecting or self.seen is None:
            return
        self.seen.status, self.seen.open = status, False
        more = b""
        if status == REDIRECTING:
            more = b"Location: http://elsewhere.example/0\r\n"
        if status == BUSY:
            more = b"Retry-After: %d\r\n" % self.network.random.choice((0, 30, 120, 99999))
        self._say(b"HTTP/1.1 %d Said\r\n%bContent-Length: 4\r\n\r\nsaid" % (status, more))

    def _trickle(self, count: int) -> None:
        """Send a byte a second: the status line counts, whenever the deadline is."""
        answer = b"HTTP/1.1 200 Said\r\nContent-Length: 90\r\n\r\n" + b"." * 90
        if self.lost or self.disconnecting or self.seen is None:
            return
        part = answer[:45] if count == 0 else answer[44 + count : 45 + count]
        self.seen.status = GOOD
        self._say(part)
        if count < 90:
            self._later(1.0, self._trickle, count + 1)
