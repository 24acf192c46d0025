"""A connection to an endpoint over a transport whose system takes only a part of what is sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from callme.caller.connection import Connection
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
    """A transport that never writes the rest of what it was given."""

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


@pytest.mark.parametrize(("room", "reusable"), [(0, False), (5, False), (18, True), (99, True)])
def test_connection_with_the_rest_of_a_request_serves_no_other(room: int, reusable: bool) -> None:
    """An early response does not let the next request overtake the rest of this one."""
    released: list[bool] = []
    transport: Any = FakeTransport(FakeSocket(room))
    connection = Connection(
        Origin(scheme="http", host="host", port=80),
        0.0,
        lambda _, reusable: released.append(reusable),
        lambda _: None,
    )
    connection.makeConnection(transport)
    request = FakeRequest()
    connection.serve(request)
    assert transport.handle.sent + transport.rest == request.start()
    connection.dataReceived(OK)
    assert (request.status, released) == (200, [reusable])
    connection.close()
    # Closed after writing, it would remain open until an endpoint reads that does not.
    assert transport.ended == ("lost after writing" if reusable else "aborted")
