"""Evictions of connections, and connections with unread data."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from callme.server.channel import BoundedChannel
from callme.server.connection_limits import (
    MAX_CANDIDATES,
    MIN_IDLE_SECONDS,
    MIN_READING_SECONDS,
    BufferBudget,
    ConnectionRegistry,
)

NOW = 1000.0


def registry(*connections: str) -> ConnectionRegistry[str]:
    made: ConnectionRegistry[str] = ConnectionRegistry(max_connections=len(connections))
    for connection in connections:
        made.add(connection, NOW)
    return made


def nothing(_: str) -> bool:
    return False


def test_idle_connection_is_evicted_after_some_time() -> None:
    found = registry("a", "b")
    found.mark_idle("a", NOW)
    assert found.pop_evictable(NOW + MIN_IDLE_SECONDS - 0.01, nothing) is None
    assert found.pop_evictable(NOW + MIN_IDLE_SECONDS, nothing) == "a"
    assert found.pop_evictable(NOW + MIN_READING_SECONDS - 0.01, nothing) is None
    assert found.pop_evictable(NOW + MIN_READING_SECONDS, nothing) == "b"
    assert found.pop_evictable(NOW + 99, nothing) is None


@pytest.mark.parametrize("is_idle", [True, False])
def test_connection_with_an_unread_request_is_not_evicted(is_idle: bool) -> None:
    found = registry("a", "b", "c")
    for connection in ("a", "b", "c"):
        if is_idle:
            found.mark_idle(connection, NOW)
    assert found.pop_evictable(NOW + 9, lambda connection: connection != "c") == "c"
    assert found.pop_evictable(NOW + 9, lambda connection: True) is None
    assert found.pop_evictable(NOW + 9, nothing) == "a"


def test_few_connections_are_considered_for_an_eviction() -> None:
    names = [f"n{number}" for number in range(MAX_CANDIDATES + 5)]
    found, asked = registry(*names), list[str]()

    def has_unread(connection: str) -> bool:
        asked.append(connection)
        return True

    assert found.pop_evictable(NOW + 9, has_unread) is None
    assert asked == names[:MAX_CANDIDATES]


def test_surplus_connections_do_not_count_as_connections_within_the_limit() -> None:
    found = registry("a", "b")
    found.add("c", NOW, is_surplus=True)
    was_full = found.full
    found.remove("a")
    assert (was_full, found.full) == (True, False)
    assert found.pop_surplus() is None
    found.remove("c")
    assert found.connections == {"b"}


def test_surplus_connection_with_its_response_is_dropped_first() -> None:
    found: ConnectionRegistry[str] = ConnectionRegistry(max_connections=0, headroom=6)
    for connection in ("a", "b", "c"):
        assert found.pop_surplus() is None
        found.add(connection, NOW, is_surplus=True)
    found.mark_busy("a")
    found.mark_idle("c", NOW)
    assert [found.pop_surplus(), found.pop_surplus(), found.pop_surplus()] == ["c", "b", None]


def test_connections_may_be_open_up_to_the_limit_and_the_headroom() -> None:
    found: ConnectionRegistry[str] = ConnectionRegistry(max_connections=1, headroom=2)
    states = [(found.full, found.exhausted)]
    for connection in ("a", "b", "c"):
        found.add(connection, NOW, is_surplus=connection != "a")
        states.append((found.full, found.exhausted))
    assert states == [(False, False), (True, False), (True, False), (True, True)]
    assert found.pop_evictable(NOW + 9, nothing) is None, "there is no room for another one"
    found.remove("b")
    assert found.pop_evictable(NOW + 9, nothing) == "a"


def test_closed_connection_is_not_evicted() -> None:
    found = registry("a", "b", "c")
    found.mark_idle("a", NOW)
    found.remove("a")
    found.remove("b")
    assert [found.pop_evictable(NOW + 9, nothing) for _ in range(2)] == ["c", None]


def test_one_surplus_connection_is_allowed_for_any_headroom() -> None:
    found: ConnectionRegistry[str] = ConnectionRegistry(max_connections=0, headroom=1)
    assert found.pop_surplus() is None
    found.add("a", NOW, is_surplus=True)
    assert found.pop_surplus() == "a"


def test_buffered_bytes_are_those_of_the_latest_usage_of_each_connection() -> None:
    budget: BufferBudget[str] = BufferBudget(10)
    usages = (("a", 9), ("a", 4), ("b", 6), ("b", 7), ("b", 0), ("a", 0), ("c", 10))
    exceeded, largest = [], []
    for connection, size in usages:
        budget.set_usage(connection, size)
        exceeded.append(budget.exceeded)
        largest.append(budget.largest(lambda _: True))
    assert exceeded == [False, False, False, True, False, False, False]
    assert largest == ["a", "a", "b", "b", "a", None, "c"]
    assert budget.largest(lambda connection: connection != "c") is None


class SocketTransport:
    """A transport over a socket."""

    def __init__(self, handle: socket.socket) -> None:
        self.handle = handle

    def getHandle(self) -> socket.socket:
        return self.handle


def test_unread_bytes_are_noticed_and_left_to_be_read() -> None:
    client, server = socket.socketpair()
    with client, server:
        channel: Any = BoundedChannel()
        channel.transport = SocketTransport(server)
        assert not channel.has_unread()
        client.sendall(b"GET")
        assert channel.has_unread()
        assert server.recv(9) == b"GET"
        assert not channel.has_unread()
        client.close()
        assert not channel.has_unread()
