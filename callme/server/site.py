"""The HTTP server: a site whose connections, requests and buffers are bounded."""

from __future__ import annotations

import re
from collections.abc import Callable
from io import BytesIO
from random import Random
from typing import Any, cast
from urllib.parse import unquote_to_bytes

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IReactorTime, ITCPTransport
from twisted.internet.protocol import Protocol
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import Request as HttpRequest
from twisted.web.resource import IResource
from twisted.web.server import Site

from .auth import AuthorizedRequest, Gate
from .channel import IDLE_SECONDS, BoundedChannel
from .connection_limits import EVICTION_HEADROOM, BufferBudget, ConnectionRegistry
from .paths import NO_BASE_PATH
from .problem import NO_STORE, Problem, problem_response, set_head
from .refusals import LOCAL_PEER, Refusal, Refusals, peer_name

log = Logger(namespace="callme")

MAX_BUFFERED_BYTES = 128 * 1024 * 1024
"""Maximum size of the bodies and responses buffered for all clients together, in bytes."""
SWEEP_SECONDS = 1
"""Interval in seconds at which the deadlines of all connections are checked."""
METHODS = "DELETE, GET, HEAD, OPTIONS, POST, PUT"
"""All methods that the server knows, as the value of an ``Allow`` header."""
_NO_STORE = (NO_STORE[0].encode(), [NO_STORE[1].encode()])
_REQUEST_ID = b"x-request-id"
# Not a secret: the system's own random numbers cost a system call.
_RANDOM = Random()  # noqa: S311
_VALID_ID = re.compile(rb"[!-~]{1,128}")
FULL_LOG_SECONDS = 60.0
"""Minimum interval in seconds between two log lines about too many clients."""


class BoundedRequest(AuthorizedRequest):
    """Request whose body is bounded and stays in memory.

    :ivar problem: the error to respond with instead of processing the request.
    """

    channel: BoundedChannel
    problem: Problem | None = None
    _too_large = False
    # The beginning of an incomplete tag.
    _partial_tag = b""

    @property
    def base_path(self) -> str:
        """The path in front of all paths; empty for ``/``."""
        # Twisted removes the channel when the client disconnects.
        channel: BoundedChannel | None = self.channel
        return "" if channel is None else channel.site.base_path.path

    @property
    def client_name(self) -> str:
        peer: str | None = getattr(self.getClientAddress(), "host", None)
        proxies = self.channel.site.gate.proxies
        if proxies.trusts(peer):
            headers = self.requestHeaders
            peer = proxies.client_of(
                peer,
                headers.getRawHeaders(b"forwarded", []),
                headers.getRawHeaders(b"x-forwarded-for", []),
            )
        return peer or LOCAL_PEER

    def gotLength(self, length: int | None) -> None:
        # Twisted would write a long or chunked body to a file, which blocks the reactor's thread.
        self.discard_body()
        self._too_large = length is not None and length > self.channel.max_body

    def handleContentChunk(self, data: bytes) -> None:
        size = self._body.tell() + len(data)
        # A body that is too large is read until the deadline, but not buffered: a client that is
        # disconnected while it sends would never read the response.
        if self._too_large or size > self.channel.max_body:
            self._too_large = True
            self.discard_body()
            self.channel.set_body_size(0)
        elif self.channel.set_body_size(size):
            self._body.write(data)

    def discard_body(self) -> None:
        """Discard the received part of the body."""
        self.content = self._body = BytesIO()

    def write(self, data: bytes) -> None:
        if not self.startedWriting and self.code >= 400 and self.refusal is not None:
            self.channel.site.refusals.record(self.refusal, self.client_name)
        if self.base_path and self._is_page():
            data = self._with_base_path(data)
        super().write(data)

    def _is_page(self) -> bool:
        (kind,) = self.responseHeaders.getRawHeaders(b"content-type", [b""])[:1]
        return kind.startswith(b"text/html")

    def _with_base_path(self, data: bytes) -> bytes:
        """Return the next part of a page, up to its last tag, with the base path in its links."""
        data = self._partial_tag + data
        begun = data.find(b"<", data.rfind(b">") + 1)
        end = len(data) if begun < 0 else begun
        self._partial_tag = data[end:]
        return self.channel.site.base_path.add_to_page(data[:end])

    def process(self) -> None:
        self.responseHeaders.setRawHeaders(*_NO_STORE)
        (given,) = self.requestHeaders.getRawHeaders(_REQUEST_ID, [b""])[:1]
        identifier = given if _VALID_ID.fullmatch(given) else b"%016x" % _RANDOM.getrandbits(64)
        self.request_id = identifier.decode("ascii")
        self.responseHeaders.setRawHeaders(_REQUEST_ID, [identifier])
        if self._has_ambiguous_framing():
            self.channel.persistent = False
            self.setHeader(b"connection", b"close")
            self._refuse(Problem(400, "Transfer-Encoding: expected only chunked"))
            return
        if self.problem is not None:
            self._refuse(self.problem)
            return
        if self._too_large:
            self._refuse(Problem(413, f"the body has more than {self.channel.max_body:,} bytes"))
            return
        if self.path.lower().startswith((b"http://", b"https://")):
            # A server must accept the absolute form (RFC 9112, section 3.2.2).
            self.uri = b"/" + self.uri.split(b"/", 3)[3] if self.uri.count(b"/") > 2 else b"/"
            self.path = self.uri.partition(b"?")[0]
        if self.path == b"*" and self.method == b"OPTIONS":
            # "OPTIONS *" refers to the server in general (RFC 9110, section 9.3.7).
            set_head(self, 204, {"Allow": METHODS})
            self.finish()
            return
        if not self.path.startswith(b"/"):
            self._refuse(Problem(400, "the request's target is not a path"))
            return
        try:
            unquote_to_bytes(self.path).decode("utf-8")
        except UnicodeDecodeError:
            self._refuse(Problem(400, "the path is not percent-encoded UTF-8"))
            return
        self._render()

    def _render(self) -> None:
        """Render the site's resource, as Twisted does, but without revealing Twisted's version."""
        self.site = self.channel.site
        try:
            self.render(self.site.resource)
        except Exception:
            self.processingFailed(Failure())

    def _has_ambiguous_framing(self) -> bool:
        # Twisted ignores the coding "identity", which HTTP/1.1 no longer defines, and rejects all
        # other codings. A proxy may disagree on the end of the body, and treat a part of it as
        # another request (request smuggling: RFC 9112, sections 6.1 and 11.2).
        codings = self.requestHeaders.getRawHeaders(b"transfer-encoding", [])
        return any(coding.strip().lower() != b"chunked" for coding in codings)

    def processingFailed(self, reason: Failure) -> Failure:
        log.failure("request failed", reason)
        self._refuse(Problem(500, "callme failed to respond; see its log"))
        return reason

    def _refuse(self, problem: Problem) -> None:
        self.write(problem_response(self, problem))
        self.finish()


class RejectedConnection(Protocol):
    """Connection beyond the limit, which is closed at once.

    A factory could return ``None`` instead, but Twisted's TLS wrapper treats that as a protocol,
    fails, and leaves the connection open indefinitely.
    """

    def connectionMade(self) -> None:
        cast(ITCPTransport, self.transport).abortConnection()


class BoundedSite(Site):
    """Site with limits on its connections, and an orderly shutdown.

    :param gate: authorizes requests; by default only local clients are accepted.
    :param max_connections: the maximum number of open connections.
    :param headroom: the number of further connections while evicted ones are being closed.
    :param max_buffered_bytes: the maximum size of the bodies and responses buffered for all
        connections together, in bytes.
    :param count_refusal: called with the reason when a request is refused.
    :ivar idle_seconds: the time limit for an idle connection.
    :ivar refusals: the record of refused requests.
    :ivar registry: the open connections.
    :ivar buffers: the bytes buffered for the open connections.
    :ivar closing: whether every connection closes after its current response.
    :ivar base_path: the path in front of all paths; it must be set before the site listens.
    """

    # Twisted's annotation is too narrow: any HTTPChannel is accepted.
    protocol = BoundedChannel  # type: ignore[assignment]
    noisy = False
    requestFactory = BoundedRequest
    base_path = NO_BASE_PATH

    def __init__(
        self,
        resource: IResource,
        clock: Any,
        gate: Gate | None = None,
        *,
        max_connections: int = 1000,
        headroom: int = EVICTION_HEADROOM,
        max_buffered_bytes: int = MAX_BUFFERED_BYTES,
        idle_seconds: int = IDLE_SECONDS,
        count_refusal: Callable[[Refusal], None] = lambda _: None,
    ) -> None:
        # Timeouts are disabled here, because BoundedChannel has deadlines without timers.
        super().__init__(resource, timeout=None, reactor=clock, parsePOSTFormSubmission=False)
        self.clock: IReactorTime = clock
        self.idle_seconds = idle_seconds
        self.gate = gate or Gate()
        self.refusals = Refusals(clock, count_refusal)
        self._sweeping: LoopingCall | None = None
        self.registry: ConnectionRegistry[BoundedChannel] = ConnectionRegistry(
            max_connections=max_connections, headroom=headroom
        )
        self.buffers: BufferBudget[BoundedChannel] = BufferBudget(max_buffered_bytes)
        self._full_logged_at = -FULL_LOG_SECONDS
        self.closing = False
        self._closed: Deferred[None] | None = None

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Return the protocol of a new connection; at the limit, evict another connection.

        If none may be evicted, the new connection is surplus: see :class:`BoundedChannel`.
        """
        is_surplus = self.registry.full and not self._make_room()
        if is_surplus and self.registry.exhausted:
            self.refusals.record(Refusal.OVERLOAD, peer_name(addr))
            return RejectedConnection()
        protocol: Any = super().buildProtocol(addr)
        protocol.is_surplus = is_surplus
        return protocol

    def _make_room(self) -> bool:
        """Evict a connection; return whether the new connection is within the limit."""
        self._log_full()
        evicted = self.registry.pop_evictable(self.clock.seconds(), BoundedChannel.has_unread)
        if evicted is not None:
            evicted.evict()
            return True
        if (dropped := self.registry.pop_surplus()) is not None:
            dropped.drop()
        return False

    def _log_full(self) -> None:
        if (now := self.clock.seconds()) - self._full_logged_at >= FULL_LOG_SECONDS:
            self._full_logged_at = now
            log.warn(
                "connection limit reached: {count} clients are connected; callme disconnects those "
                "that have been idle for longest",
                count=self.registry.max_connections,
            )

    def channel_opened(self, channel: BoundedChannel) -> None:
        """Register a new connection."""
        self.registry.add(channel, self.clock.seconds(), is_surplus=channel.is_surplus)
        if self._sweeping is None:
            # A loop that was stopped during a sweep must not start again before the sweep ends.
            self._sweeping = LoopingCall(self._sweep)
            self._sweeping.clock = self.clock
            self._sweeping.start(SWEEP_SECONDS, now=False)

    def channel_lost(self, channel: BoundedChannel) -> None:
        """Remove a connection that is closed."""
        self.registry.remove(channel)
        self.buffers.set_usage(channel, 0)
        if not self.registry.connections:
            if self._sweeping is not None:
                self._sweeping.stop()
                self._sweeping = None
            if self._closed is not None:
                closed, self._closed = self._closed, None
                closed.callback(None)

    def shed_load(self) -> None:
        """Shed the largest incomplete bodies and unread responses until the budget suffices."""
        while self.buffers.exceeded:
            largest = self.buffers.largest(lambda channel: channel.sheddable)
            if largest is None:
                break
            largest.shed()

    def _sweep(self) -> Deferred[None]:
        # After a suspension of the process, data that has arrived is read before deadlines apply.
        return deferLater(self.clock, 0, self._check_deadlines)

    def _check_deadlines(self) -> None:
        now = self.clock.seconds()
        for channel in list(self.registry.connections):
            channel.check_deadline(now)

    def log(self, request: HttpRequest) -> None:
        """Do nothing: there is no access log; attempts are logged, and stored with their tasks."""

    def close(self) -> Deferred[None]:
        """Close each connection after its current response."""
        self.closing = True
        self.refusals.flush()
        closed: Deferred[None] = Deferred()
        if not self.registry.connections:
            closed.callback(None)
            return closed
        self._closed = closed
        for channel in list(self.registry.connections):
            channel.close_when_idle()
        return closed
