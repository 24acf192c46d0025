"""One connection of a client: how long it may take, and what it is told when it takes longer."""

from __future__ import annotations

import re
from typing import Protocol, cast

from twisted.internet.interfaces import IReactorTime, ITCPTransport
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.server import Request

from .auth import Gate
from .connection_limits import BufferBudget, ConnectionRegistry
from .paths import MAX_FORM
from .problem import PROBLEM_TYPE, Problem, encode

MAX_BODY = 1024 * 1024
"""Bytes of a request's body."""
MAX_BATCH = 16 * 1024 * 1024
"""Bytes of the body of a batch."""
RETRY_SECONDS = 2
"""How soon whoever was turned away, as too much is held for all, may try again."""
_BATCH = re.compile(rb"[A-Z]+ /batch/?[ ?]")
_FORM = re.compile(rb"[A-Z]+ /page/")
REQUEST_SECONDS = 30
"""How long a client may take over one request, first byte to last."""
IDLE_SECONDS = 60
"""How long a connection may stay open without a request."""
CLOSE_SECONDS = 10
"""How long a client may take to read the last answer before the connection is dropped."""
ANSWER_SECONDS = 120
"""How long an answer may take: longer than any that a database which works would take."""


def _most_for(request_line: bytes) -> int:
    """Return how many bytes the body of a request may have."""
    if _FORM.match(request_line):
        # Strangers send these, to log in.
        return MAX_FORM
    return MAX_BATCH if _BATCH.match(request_line) else MAX_BODY


class Keeper(Protocol):
    """What a connection needs of the site that it belongs to.

    :ivar closing: whether no connection is to outlast its present answer.
    """

    clock: IReactorTime
    gate: Gate
    crowd: ConnectionRegistry[BoundedChannel]
    held: BufferBudget[BoundedChannel]
    closing: bool

    def channel_opened(self, channel: BoundedChannel) -> None:
        """Watch over a new connection."""

    def shed_load(self) -> None:
        """See to it that less is held."""

    def channel_lost(self, channel: BoundedChannel) -> None:
        """Forget a connection that is closed."""


class BoundedChannel(HTTPChannel):
    """A connection whose client may not take for ever over a request or an answer.

    What it may take is not set by a timer of its own, which would be made and
    unmade for each request: the site looks at all its channels every second.
    """

    max_body = MAX_BODY
    # Twisted's own timer is restarted by every byte.
    timeOut = None
    _site: Keeper
    _answering = False
    _idle = False
    _reading = False
    _request_line = b""
    # Whether more was written than the client has read and the transport cares to keep.
    _write_paused = False
    # Bytes that are kept: of the request's body, and of answers since it is clogged.
    _body = 0
    _buffered_bytes = 0
    _expires_at = 0.0
    _refused = False
    _closing = False

    def connectionMade(self) -> None:
        self._site = cast(Keeper, self.factory)
        super().connectionMade()
        self._site.channel_opened(self)
        self._within(REQUEST_SECONDS)
        self._idle = False

    def dataReceived(self, data: bytes) -> None:
        if self._refused:
            return
        if self._idle:
            self._idle = False
            self._site.crowd.asks(self)
            self._within(REQUEST_SECONDS)
        try:
            super().dataReceived(data)
        except ValueError:
            # A Content-Length of more digits than Python turns into a number.
            self._respondToBadRequestAndDisconnect()

    def allHeadersReceived(self) -> None:
        request = self.requests[-1]
        method, target, version = self._request_line.split(b" ")
        refusal = self._site.gate.authorize(request, method, target, version)
        if refusal is None or self.length == 0:
            request.refusal = refusal
            super().allHeadersReceived()
        else:
            # Nothing of the body is kept for somebody who may not ask, nor waited for.
            self._turn_away(refusal)

    def rawDataReceived(self, data: bytes) -> None:
        if not self._refused:
            super().rawDataReceived(data)

    def keeps(self, size: int) -> bool:
        """Say how large the request's body has become.

        :return: whether it is to be kept: not if this was too much for all together.
        """
        self._body = size
        self._hold()
        return not self._refused

    def _hold(self) -> None:
        self._site.held.hold(self, self._body + self._buffered_bytes)
        self._site.shed_load()

    @property
    def sheddable(self) -> bool:
        """Whether what is held for it is of no use yet, or none any more."""
        return not self._answering or self._buffered_bytes > 0

    def shed(self) -> None:
        """Hold nothing more for this client: others are held up."""
        if self._buffered_bytes:
            self.drop()
        else:
            detail = "too much is being sent to callme at once"
            self._turn_away(Problem(429, detail, headers={"Retry-After": str(RETRY_SECONDS)}))
            self.requests[-1].shed()
        self._body = self._buffered_bytes = 0
        self._hold()

    def allContentReceived(self) -> None:
        if self._refused:
            return
        self._answering = True
        self._reading = False
        self._request_line = b""
        self._site.crowd.waits(self)
        self._within(ANSWER_SECONDS)
        super().allContentReceived()

    def requestDone(self, request: Request) -> None:
        if self._body:
            self._body = 0
            self._hold()
        self._answering = False
        self._idle = True
        self._site.crowd.idles(self)
        if self._site.closing:
            self.persistent = False
        self._closing = not self.persistent
        self._within(CLOSE_SECONDS if self._closing else IDLE_SECONDS)
        super().requestDone(request)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._site.channel_lost(self)
        super().connectionLost(reason)

    def lineReceived(self, line: bytes) -> None:
        if self._write_paused and not self._reading:
            # Who asks ahead and does not read the answers would fill the memory with them.
            self._hang_up()
            return
        if line and not self._reading:
            self._reading = True
            self._request_line = line
            self.max_body = _most_for(line)
        super().lineReceived(line)

    def pauseProducing(self) -> None:
        self._write_paused = True
        super().pauseProducing()

    def resumeProducing(self) -> None:
        self._write_paused = False
        if self._buffered_bytes:
            self._buffered_bytes = 0
            self._hold()
        super().resumeProducing()

    def write(self, data: bytes) -> None:
        super().write(data)
        if self._write_paused:
            self._buffered_bytes += len(data)
            self._hold()

    def expire(self, now: float) -> None:
        """Cut the client off if its time is over."""
        if now < self._expires_at:
            return
        if self._answering or self._closing:
            self.drop()
        elif self._idle:
            self._hang_up()
        else:
            detail = f"the request took more than {REQUEST_SECONDS} s to arrive"
            self._refuse(Problem(408, detail))

    def drop(self) -> None:
        """Close the connection at once."""
        cast(ITCPTransport, self.transport).abortConnection()

    def evict(self) -> None:
        """Close the connection for the sake of another client, not before its answer has left."""
        if self._idle and not self._write_paused:
            self._hang_up()
            self._site.crowd.waits(self)
        else:
            self.drop()

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
        self._turn_away(problem)
        self.loseConnection()

    def _turn_away(self, problem: Problem) -> None:
        """Answer before all of a request has arrived, and let the client close the connection.

        What it still sends is thrown away: a connection that is closed while its client sends
        is reset, and the client would never see the answer.
        """
        body = encode(problem.members)
        headers = {
            "Content-Type": PROBLEM_TYPE.decode(),
            "Content-Length": str(len(body)),
            "Connection": "close",
            **problem.headers,
        }
        lines = [f"HTTP/1.1 {problem.status} {problem.members['title']}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if self._request_line.startswith(b"HEAD "):
            body = b""
        assert self.transport is not None
        self.transport.write("\r\n".join([*lines, "", ""]).encode() + body)
        self._close_within(CLOSE_SECONDS)

    def _hang_up(self) -> None:
        self._close_within(CLOSE_SECONDS)
        self.loseConnection()

    def _close_within(self, seconds: float) -> None:
        self._refused = self._closing = True
        self._site.crowd.idles(self)
        self._within(seconds)

    def _within(self, seconds: float) -> None:
        self._expires_at = self._site.clock.seconds() + seconds
