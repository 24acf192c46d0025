"""What the HTTP server bounds: bodies, headers, time; and what it says to those beyond."""

from __future__ import annotations

from http import HTTPStatus
from io import BytesIO
from typing import Any, cast
from urllib.parse import unquote_to_bytes

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IReactorTime, ITCPTransport
from twisted.internet.protocol import Protocol
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import http
from twisted.web.resource import IResource
from twisted.web.server import Request, Site

from .auth import Gate
from .channel import (
    ANSWER_SECONDS,
    CLOSE_SECONDS,
    IDLE_SECONDS,
    MAX_BATCH,
    MAX_BODY,
    REQUEST_SECONDS,
    BoundedChannel,
)
from .connection_limits import EVICTION_HEADROOM, BufferBudget, ConnectionRegistry
from .problem import PROBLEM_TYPE, Problem, encode

__all__ = [
    "ANSWER_SECONDS",
    "CLOSE_SECONDS",
    "IDLE_SECONDS",
    "MAX_BATCH",
    "MAX_BODY",
    "REQUEST_SECONDS",
    "BoundedChannel",
    "BoundedRequest",
    "BoundedSite",
]

log = Logger(namespace="callme")

MAX_BUFFERED_BYTES = 128 * 1024 * 1024
"""Bytes of bodies and answers that are kept for all clients together."""
SWEEP_SECONDS = 1
"""How often is looked for those whose time is over."""
SERVER = b"callme"
"""What every answer that says so much names its server."""
FULL_SECONDS = 60.0
"""How often the log says that there are too many clients."""


class BoundedRequest(Request):
    """A request whose body stays in memory, and is small.

    :ivar refusal: what it is answered with, if not by the API.
    """

    channel: BoundedChannel
    refusal: Problem | None = None
    too_large = False

    def gotLength(self, length: int | None) -> None:
        # Twisted would put a long or chunked body into a file, on the reactor's thread.
        self.content = self._kept = BytesIO()
        self.too_large = length is not None and length > self.channel.max_body

    def handleContentChunk(self, data: bytes) -> None:
        # What is too much is read all the same, for as long as the deadline allows: a
        # client that is cut off while it sends would never see the answer.
        if self.too_large or self._kept.tell() + len(data) > self.channel.max_body:
            self.too_large = True
            self.shed()
            self.channel.keeps(0)
        elif self.channel.keeps(self._kept.tell() + len(data)):
            self._kept.write(data)

    def shed(self) -> None:
        """Keep nothing of the body."""
        self.content = self._kept = BytesIO()

    def write(self, data: bytes) -> None:
        # Twisted would tell its version to whoever looks for old ones. Here, as every answer
        # passes, those too that Twisted gives by itself.
        if not self.startedWriting:
            self.setHeader(b"server", SERVER)
        super().write(data)

    def process(self) -> None:
        if self._is_framed_in_two_ways():
            self.channel.persistent = False
            self.setHeader(b"connection", b"close")
            self._refuse(Problem(400, "Transfer-Encoding: only chunked is known here"))
            return
        if self.refusal is not None:
            self._refuse(self.refusal)
            return
        if self.too_large:
            detail = f"the body is larger than {self.channel.max_body:,} bytes"
            self._refuse(Problem(413, detail))
            return
        if self.path.lower().startswith((b"http://", b"https://")):
            # RFC 9112, section 3.2.2: a server accepts the absolute form.
            self.uri = b"/" + self.uri.split(b"/", 3)[3] if self.uri.count(b"/") > 2 else b"/"
            self.path = self.uri.partition(b"?")[0]
        if not self.path.startswith(b"/"):
            self._refuse(Problem(400, "the request's target is not a path"))
            return
        try:
            unquote_to_bytes(self.path).decode("utf-8")
        except UnicodeDecodeError:
            self._refuse(Problem(400, "the path is not percent-encoded UTF-8"))
            return
        # The router would encode the name in this header, which a hostile one makes fail;
        # what callme answers does not depend on it.
        self.requestHeaders.setRawHeaders(b"host", [b"callme"])
        super().process()

    def _is_framed_in_two_ways(self) -> bool:
        # Twisted refuses every other coding, but takes "identity", which HTTP/1.1 no longer
        # has, for none at all. A proxy that does not may see the body end elsewhere, and take
        # some of it for a request (RFC 9112, sections 6.1 and 11.2).
        codings = self.requestHeaders.getRawHeaders(b"transfer-encoding", [])
        return any(coding.strip().lower() != b"chunked" for coding in codings)

    def processingFailed(self, reason: Failure) -> Failure:
        log.failure("a request failed", reason)
        self._refuse(Problem(500, "callme failed to answer; its log says more"))
        return reason

    def _refuse(self, problem: Problem) -> None:
        body = encode(problem.members)
        self.setResponseCode(problem.status, HTTPStatus(problem.status).phrase.encode())
        self.setHeader(b"content-type", PROBLEM_TYPE)
        for name, value in problem.headers.items():
            self.setHeader(name, value)
        self.setHeader(b"content-length", str(len(body)).encode())
        self.write(body)
        self.finish()


class RejectedConnection(Protocol):
    """A connection for which there is no room: closed as it is made.

    A factory may return ``None`` instead, but what wraps one for TLS takes that for a protocol,
    fails, and leaves the connection open for good.
    """

    def connectionMade(self) -> None:
        cast(ITCPTransport, self.transport).abortConnection()


class BoundedSite(Site):
    """A site of bounded connections and requests, which can be closed in good order.

    :param gate: decides who may ask: by default, whoever calls this machine by its own names.
    :param max_connections: how many clients may be connected at once.
    :param going: how many beyond that, while others are being closed for them.
    :param max_held: how many bytes of bodies and answers may be kept for all of them.
    :ivar crowd: the connections that are open.
    :ivar held: what is kept for them.
    :ivar closing: whether no connection is to outlast its present answer.
    """

    # Twisted's type says what its own default makes; any HTTPChannel will do.
    protocol = BoundedChannel  # type: ignore[assignment]
    noisy = False
    requestFactory = BoundedRequest

    def __init__(
        self,
        resource: IResource,
        clock: Any,
        gate: Gate | None = None,
        max_connections: int = 1000,
        max_held: int = MAX_BUFFERED_BYTES,
        going: int = EVICTION_HEADROOM,
    ) -> None:
        # No timeout: it would set a timer for each connection, see BoundedChannel.
        super().__init__(resource, timeout=None, reactor=clock, parsePOSTFormSubmission=False)
        self.clock: IReactorTime = clock
        self.gate = gate or Gate()
        self._sweeping = LoopingCall(self._sweep)
        self._sweeping.clock = clock
        self.crowd: ConnectionRegistry[BoundedChannel] = ConnectionRegistry(max_connections, going)
        self.held: BufferBudget[BoundedChannel] = BufferBudget(max_held)
        self._told_full_at = -FULL_SECONDS
        self.closing = False
        self._closed: Deferred[None] | None = None

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Let somebody in; where there is no room, in the place of another or, else, not at all."""
        if self.crowd.full:
            self._tell_full()
            if (going := self.crowd.pop_evictable()) is None:
                return RejectedConnection()
            going.evict()
        return super().buildProtocol(addr)

    def _tell_full(self) -> None:
        if (now := self.clock.seconds()) - self._told_full_at >= FULL_SECONDS:
            self._told_full_at = now
            log.warn(
                "{most} clients are connected, which is the most there may be: the longest idle go",
                most=self.crowd.most,
            )

    def channel_opened(self, channel: BoundedChannel) -> None:
        """Watch over a new connection."""
        self.crowd.enter(channel)
        if not self._sweeping.running:
            self._sweeping.start(SWEEP_SECONDS, now=False)

    def channel_lost(self, channel: BoundedChannel) -> None:
        """Forget a connection that is closed."""
        self.crowd.leave(channel)
        self.held.hold(channel, 0)
        if not self.crowd.connections:
            self._sweeping.stop()
            if self._closed is not None:
                closed, self._closed = self._closed, None
                closed.callback(None)

    def shed_load(self) -> None:
        """Let go of the largest bodies that have not arrived, and answers that are not read."""
        while self.held.exceeded:
            going = self.held.largest(lambda channel: channel.sheddable)
            if going is None:
                break
            going.shed()

    def _sweep(self) -> None:
        now = self.clock.seconds()
        for channel in list(self.crowd.connections):
            channel.expire(now)

    def log(self, request: http.Request) -> None:
        """Keep no access log: what happens to tasks is logged, and stands in their records."""

    def close(self) -> Deferred[None]:
        """Close every connection, each after the answer that is under way."""
        self.closing = True
        closed: Deferred[None] = Deferred()
        if not self.crowd.connections:
            closed.callback(None)
            return closed
        self._closed = closed
        for channel in list(self.crowd.connections):
            channel.close_when_idle()
        return closed
