"""A connection to an endpoint over a transport whose socket accepts only a part of the data."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import repeat
from typing import Any

import pytest

from callme.caller.connection import LARGE_PAYLOAD, MAX_LAST_READS, Connection
from callme.caller.pool import Origin
from callme.caller.response import Response

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class FakeSocket:
    """A socket that takes up to ``room`` bytes, and has received nothing."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.sent = b""

    def send(self, data: bytes) -> int:
        taken = data[: self.room]
        self.room -= len(taken)
        self.sent += taken
        return len(taken)

    def setsockopt(self, *_: object) -> None:
        """Do nothing."""

    def recv(self, *_: object) -> bytes:
        raise BlockingIOError


class FakeTransport:
    """Transport that never writes the rest of its data."""

    def __init__(self, handle: FakeSocket) -> None:
        self.handle = handle
        self.rest = b""
        self.ended = ""

    def getHandle(self) -> FakeSocket:
        return self.handle

    def setTcpNoDelay(self, _: bool) -> None:
        """Do nothing."""

    def setTcpKeepAlive(self, _: bool) -> None:
        """Do nothing."""

    def write(self, data: bytes) -> None:
        self.rest += data

    def loseConnection(self) -> None:
        self.ended = "lost after writing"

    def abortConnection(self) -> None:
        self.ended = "aborted"


class BrokenTransport(FakeTransport):
    """A transport that cannot write, and has received some pieces.

    :ivar pieces: the pieces that are not read yet.
    """

    def __init__(self, pieces: Iterable[bytes]) -> None:
        super().__init__(FakeSocket(0))
        self.pieces = iter(pieces)
        self.reads = 0
        self.connection: Any = None

    def doWrite(self) -> Exception:
        return ConnectionResetError()

    def doRead(self) -> Exception | None:
        self.reads += 1
        piece = next(self.pieces, None)
        if piece is None:
            return ConnectionResetError()
        self.connection.dataReceived(piece)
        return None


class FakeRequest:
    """A request of a few bytes, after which more requests follow."""

    method = b"GET"
    payload = b""
    closes = reused = False

    def __init__(self) -> None:
        self.status = 0
        self.has_more: Callable[[], bool] = lambda: True

    def start(self) -> bytes:
        return b"GET / HTTP/1.1\r\n\r\n"

    def succeed(self, response: Response) -> None:
        self.status = response.code

    def fail(self, failure: BaseException) -> None:
        raise failure


def connected(transport: Any, released: Callable[[Connection, bool], None]) -> Connection:
    origin = Origin(scheme="http", host="host", port=80)
    connection = Connection(origin, 0.0, released, lambda _: None)
    connection.makeConnection(transport)
    return connection


@pytest.mark.parametrize(("room", "reusable"), [(0, False), (5, False), (18, True), (99, True)])
def test_connection_with_the_rest_of_a_request_serves_no_other(room: int, reusable: bool) -> None:
    """After an early response, the next request does not overtake the rest of this request."""
    released: list[bool] = []
    transport: Any = FakeTransport(FakeSocket(room))
    connection = connected(transport, lambda _, reusable: released.append(reusable))
    request = FakeRequest()
    connection.serve(request)
    assert transport.handle.sent + transport.rest == request.start()
    connection.dataReceived(OK)
    assert (request.status, released) == (200, [reusable])
    connection.close()
    # Closed after writing, it would remain open until an endpoint reads that does not.
    assert transport.ended == ("lost after writing" if reusable else "aborted")


def test_all_that_has_arrived_is_read_when_a_write_fails() -> None:
    transport: Any = BrokenTransport([OK[:20], OK[20:]])
    transport.connection = connected(transport, lambda *_: None)
    request = FakeRequest()
    request.payload = b"x" * (LARGE_PAYLOAD + 1)
    transport.connection.serve(request)
    assert isinstance(transport.doWrite(), ConnectionResetError)
    assert (request.status, transport.reads) == (200, 3)


def test_endless_response_is_not_read_without_end_when_a_write_fails() -> None:
    transport: Any = BrokenTransport(repeat(b"x"))
    transport.connection = connected(transport, lambda *_: None)
    request = FakeRequest()
    request.payload = b"x" * (LARGE_PAYLOAD + 1)
    transport.connection.serve(request)
    transport.connection.dataReceived(OK.replace(b": 2", b": 1000"))
    assert isinstance(transport.doWrite(), ConnectionResetError)
    assert transport.reads == MAX_LAST_READS


@pytest.mark.parametrize(("more", "reusable"), [(0, True), (1, False)])
def test_connection_of_a_large_payload_serves_no_other_request(more: int, reusable: bool) -> None:
    """The system has taken it all, and may not have sent it all."""
    released: list[bool] = []
    transport: Any = BrokenTransport([])
    transport.handle.room = 10 * LARGE_PAYLOAD
    connection = connected(transport, lambda _, reusable: released.append(reusable))
    request = FakeRequest()
    request.payload = b"x" * (LARGE_PAYLOAD + more)
    connection.serve(request)
    connection.dataReceived(OK)
    assert (transport.rest, released) == (b"", [reusable])
