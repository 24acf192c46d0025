"""What the HTTP server bounds: bodies, headers, time; and what it says to those beyond."""

from __future__ import annotations

import re
from http import HTTPStatus
from io import BytesIO
from typing import Any, cast
from urllib.parse import unquote_to_bytes

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime, ITCPTransport
from twisted.internet.protocol import connectionDone
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import http
from twisted.web.http import HTTPChannel
from twisted.web.resource import IResource
from twisted.web.server import Request, Site

from .problem import PROBLEM_TYPE, Problem, encode

log = Logger(namespace="callme")

MAX_BODY = 1024 * 1024
"""Bytes of a request's body."""
MAX_BATCH = 16 * 1024 * 1024
"""Bytes of the body of a batch."""
_BATCH = re.compile(rb"[A-Z]+ /batch/?[ ?]")
REQUEST_SECONDS = 30
"""How long a client may take over one request, first byte to last."""
IDLE_SECONDS = 60
"""How long a connection may stay open without a request."""
SWEEP_SECONDS = 1
"""How often is looked for those whose time is over."""
CLOSE_SECONDS = 10
"""How long a client may take to read the last answer before the connection is dropped."""
ANSWER_SECONDS = 120
"""How long an answer may take: longer than any that a database which works would take."""


class BoundedRequest(Request):
    """A request whose body stays in memory, and is small."""

    channel: BoundedChannel
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
            self.content = self._kept = BytesIO()
        else:
            self._kept.write(data)

    def process(self) -> None:
        if self._is_framed_in_two_ways():
            self.channel.persistent = False
            self.setHeader(b"connection", b"close")
            self._refuse(Problem(400, "Transfer-Encoding: only chunked is known here"))
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
        self.setHeader(b"content-length", str(len(body)).encode())
        self.write(body)
        self.finish()


class BoundedChannel(HTTPChannel):
    """A connection whose client may not take for ever over a request or an answer.

    What it may take is not set by a timer of its own, which would be made and
    unmade for each request: the site looks at all its channels every second.
    """

    factory: BoundedSite
    max_body = MAX_BODY
    # Twisted's own timer is restarted by every byte.
    timeOut = None
    _answering = False
    _idle = False
    _reading = False
    # Whether more was written than the client has read and the transport cares to keep.
    _clogged = False
    _expires_at = 0.0
    _refused = False
    _closing = False

    def connectionMade(self) -> None:
        super().connectionMade()
        self.factory.channel_opened(self)
        self._within(REQUEST_SECONDS)
        self._idle = False

    def dataReceived(self, data: bytes) -> None:
        if self._refused:
            return
        if self._idle:
            self._idle = False
            self._within(REQUEST_SECONDS)
        try:
            super().dataReceived(data)
        except ValueError:
            # A Content-Length of more digits than Python turns into a number.
            self._respondToBadRequestAndDisconnect()

    def allContentReceived(self) -> None:
        self._answering = True
        self._reading = False
        self._within(ANSWER_SECONDS)
        super().allContentReceived()

    def requestDone(self, request: Request) -> None:
        self._answering = False
        self._idle = True
        if self.factory.closing:
            self.persistent = False
        self._closing = not self.persistent
        self._within(CLOSE_SECONDS if self._closing else IDLE_SECONDS)
        super().requestDone(request)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.factory.channel_lost(self)
        super().connectionLost(reason)

    def lineReceived(self, line: bytes) -> None:
        if self._clogged and not self._reading:
            # Who asks ahead and does not read the answers would fill the memory with them.
            self._hang_up()
            return
        if line and not self._reading:
            self._reading = True
            self.max_body = MAX_BATCH if _BATCH.match(line) else MAX_BODY
        super().lineReceived(line)

    def pauseProducing(self) -> None:
        self._clogged = True
        super().pauseProducing()

    def resumeProducing(self) -> None:
        self._clogged = False
        super().resumeProducing()

    def expire(self, now: float) -> None:
        """Cut the client off if its time is over."""
        if now < self._expires_at:
            return
        if self._answering or self._closing:
            cast(ITCPTransport, self.transport).abortConnection()
        elif self._idle:
            self._hang_up()
        else:
            detail = f"the request took more than {REQUEST_SECONDS} s to arrive"
            self._refuse(Problem(408, detail))

    def close_when_idle(self) -> None:
        """Close the connection: now, or after the answer that is under way."""
        if not self._answering:
            self._hang_up()

    def lineLengthExceeded(self, line: bytes) -> None:
        self._refuse(Problem(431, f"a line of more than {self.MAX_LENGTH:,} bytes"))

    def _respondToBadRequestAndDisconnect(self) -> None:
        # Twisted has no public hook for what it cannot parse, and its answer is empty.
        if self._receivedHeaderSize > self.totalHeadersSize:
            self._refuse(Problem(431, f"headers of more than {self.totalHeadersSize:,} bytes"))
        elif self._receivedHeaderCount > self.maxHeaders:
            self._refuse(Problem(431, f"more than {self.maxHeaders:,} headers"))
        else:
            self._refuse(Problem(400, "the request is not HTTP/1.1 as RFC 9112 has it"))

    def _refuse(self, problem: Problem) -> None:
        body = encode(problem.members)
        head = (
            f"HTTP/1.1 {problem.status} {problem.members['title']}\r\n"
            f"Content-Type: {PROBLEM_TYPE.decode()}\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        assert self.transport is not None
        self.transport.write(head.encode() + body)
        self._hang_up()

    def _hang_up(self) -> None:
        self._refused = self._closing = True
        self._within(CLOSE_SECONDS)
        self.loseConnection()

    def _within(self, seconds: float) -> None:
        self._expires_at = self.factory.clock.seconds() + seconds


class BoundedSite(Site):
    """A site of bounded connections and requests, which can be closed in good order.

    :ivar channels: the connections that are open.
    :ivar closing: whether no connection is to outlast its present answer.
    """

    # Twisted's type says what its own default makes; any HTTPChannel will do.
    protocol = BoundedChannel  # type: ignore[assignment]
    noisy = False
    requestFactory = BoundedRequest

    def __init__(self, resource: IResource, clock: Any) -> None:
        # No timeout: it would set a timer for each connection, see BoundedChannel.
        super().__init__(resource, timeout=None, reactor=clock, parsePOSTFormSubmission=False)
        self.clock: IReactorTime = clock
        self._sweeping = LoopingCall(self._sweep)
        self._sweeping.clock = clock
        self.channels: set[BoundedChannel] = set()
        self.closing = False
        self._closed: Deferred[None] | None = None

    def channel_opened(self, channel: BoundedChannel) -> None:
        """Watch over a new connection."""
        self.channels.add(channel)
        if not self._sweeping.running:
            self._sweeping.start(SWEEP_SECONDS, now=False)

    def channel_lost(self, channel: BoundedChannel) -> None:
        """Forget a connection that is closed."""
        self.channels.discard(channel)
        if not self.channels:
            self._sweeping.stop()
            if self._closed is not None:
                closed, self._closed = self._closed, None
                closed.callback(None)

    def _sweep(self) -> None:
        now = self.clock.seconds()
        for channel in list(self.channels):
            channel.expire(now)

    def log(self, request: http.Request) -> None:
        """Keep no access log: what happens to tasks is logged, and stands in their records."""

    def close(self) -> Deferred[None]:
        """Close every connection, each after the answer that is under way."""
        self.closing = True
        closed: Deferred[None] = Deferred()
        if not self.channels:
            closed.callback(None)
            return closed
        self._closed = closed
        for channel in list(self.channels):
            channel.close_when_idle()
        return closed
