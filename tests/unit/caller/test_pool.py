"""The pool of idle connections: its decisions, and its invariants."""

from __future__ import annotations

from typing import Any

from attrs import define
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from callme.caller import pool
from callme.caller.pool import DISTRUST_SECONDS, IDLE_SECONDS, MAX_AGE_SECONDS, Origin, Pool

A = Origin(scheme="http", host="a.example", port=80)
B = Origin(scheme="http", host="b.example", port=80)
SECURE = Origin(scheme="https", host="a.example", port=80)


@define(eq=False)
class Connection:
    origin: Origin = A
    opened_at: float = 0.0


def release(made: Pool[Connection], now: float, *origins: Origin, opened_at: float = 0) -> Any:
    """Release connections of some origins; return them."""
    connections = [Connection(origin, opened_at) for origin in origins]
    for connection in connections:
        assert made.assign(now, released=connection, reusable=True).closes == []
    return connections


def test_empty_pool_serves_nothing() -> None:
    assignment = Pool[Connection](2, 4).assign(0, wanted=A)
    assert (assignment.serves, assignment.closes) == (None, [])


def test_most_recently_used_connection_serves_its_origin_once() -> None:
    made: Pool[Connection] = Pool(4, 9)
    first, other, secure, last = release(made, 0, A, B, SECURE, A)
    assert made.assign(0.5, wanted=A).serves is last
    assert made.assign(0.5, wanted=A).serves is first
    assert made.assign(0.5, wanted=A).serves is None
    assert made.assign(0.5, wanted=B).serves is other
    assert made.assign(0.5, wanted=SECURE).serves is secure
    assert len(made) == 0


def test_connection_idle_too_long_is_closed() -> None:
    made: Pool[Connection] = Pool(4, 9)
    first, second = release(made, 0, A, B)
    assert made.next_expiry() == IDLE_SECONDS
    assignment = made.assign(IDLE_SECONDS, wanted=A)
    assert assignment.serves is None
    assert assignment.closes == [first, second]
    assert made.next_expiry() is None


def test_connection_too_old_is_closed() -> None:
    made: Pool[Connection] = Pool(4, 9)
    now = MAX_AGE_SECONDS - 0.5
    old, young = Connection(A, 0.0), Connection(A, 1.0)
    made.assign(now, released=young, reusable=True)
    made.assign(now, released=old, reusable=True)
    assignment = made.assign(now + 0.5, wanted=A)
    assert assignment.serves is young
    assert assignment.closes == [old]


def test_connection_that_may_not_be_reused_stays_open_until_closed() -> None:
    made: Pool[Connection] = Pool(4, 9)
    ended = Connection()
    assert made.assign(0, released=ended).closes == []
    assert made.assign(0.5, wanted=A).serves is None
    assert made.assign(IDLE_SECONDS).closes == [ended]
    lost = Connection()
    made.assign(2, released=lost)
    made.remove(lost)
    assert made.assign(9).closes == []


def test_longest_idle_connection_of_an_origin_is_closed_at_its_limit() -> None:
    made: Pool[Connection] = Pool(2, 9)
    first, second = release(made, 0, A, A)
    third = Connection()
    assert made.assign(0, released=third, reusable=True).closes == [first]
    assert [made.assign(0, wanted=A).serves for _ in range(3)] == [third, second, None]


def test_longest_idle_connection_is_closed_at_the_limit() -> None:
    made: Pool[Connection] = Pool(9, 2)
    first, second = release(made, 0, A, B)
    third = Connection(B)
    assert made.assign(0, released=third, reusable=True).closes == [first]
    assert made.assign(0, wanted=A).serves is None
    assert made.assign(0, wanted=B).serves is third
    assert made.assign(0, wanted=B).serves is second


def test_distrusted_origin_keeps_no_connection_for_ten_minutes() -> None:
    made: Pool[Connection] = Pool(4, 9)
    first, second, other = release(made, 0, A, A, B)
    assert made.distrust(A, 0) == [first, second]
    assert made.is_distrusted(A, DISTRUST_SECONDS - 0.1)
    assert not made.is_distrusted(B, 0)
    released = Connection()
    made.assign(0.5, released=released, reusable=True)
    assert made.assign(0.5, wanted=A).serves is None
    assert made.assign(0.5, wanted=B).serves is other
    assert not made.is_distrusted(A, DISTRUST_SECONDS)
    again = Connection(A, DISTRUST_SECONDS)
    made.assign(DISTRUST_SECONDS, released=again, reusable=True)
    assert made.assign(DISTRUST_SECONDS, wanted=A).serves is again


def test_distrusted_origins_are_limited(monkeypatch: Any) -> None:
    monkeypatch.setattr(pool, "MAX_DISTRUSTED", 2)
    made: Pool[Connection] = Pool(4, 9)
    for origin in (A, B, A, SECURE):
        made.distrust(origin, 0)
    assert [made.is_distrusted(origin, 1) for origin in (A, B, SECURE)] == [True, False, True]


class Machine(RuleBasedStateMachine):
    """Calls come and go at random: a connection is at one place at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.pool: Pool[Connection] = Pool(2, 3)
        self.now = 0.0
        self.busy: list[Connection] = []
        self.idle: dict[Connection, float] = {}

    def _apply(self, assignment: pool.Assignment[Connection]) -> None:
        for closed in assignment.closes:
            del self.idle[closed]
        served = assignment.serves
        if served is not None:
            since = self.idle.pop(served)
            assert self.now - since < IDLE_SECONDS
            assert self.now - served.opened_at < MAX_AGE_SECONDS
            assert not self.pool.is_distrusted(served.origin, self.now)
            self.busy.append(served)

    @rule(origin=st.sampled_from([A, B, SECURE]))
    def call(self, origin: Origin) -> None:
        assignment = self.pool.assign(self.now, wanted=origin)
        assert assignment.serves is None or assignment.serves.origin == origin
        self._apply(assignment)
        if assignment.serves is None:
            self.busy.append(Connection(origin, self.now))

    @precondition(lambda self: self.busy)
    @rule(data=st.data(), reusable=st.booleans())
    def end(self, data: st.DataObject, reusable: bool) -> None:
        connection = self.busy.pop(data.draw(st.integers(0, len(self.busy) - 1)))
        self.idle[connection] = self.now
        self._apply(self.pool.assign(self.now, released=connection, reusable=reusable))

    @precondition(lambda self: self.idle)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        connection = data.draw(st.sampled_from(list(self.idle)))
        del self.idle[connection]
        self.pool.remove(connection)

    @rule(seconds=st.sampled_from([0.1, 0.5, IDLE_SECONDS, MAX_AGE_SECONDS]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(origin=st.sampled_from([A, B]))
    def distrust(self, origin: Origin) -> None:
        for closed in self.pool.distrust(origin, self.now):
            del self.idle[closed]

    @invariant()
    def nothing_is_forgotten_or_too_many(self) -> None:
        assert len(self.pool) == len(self.idle) <= 3
        expiry = self.pool.next_expiry()
        assert expiry == (min(self.idle.values()) + IDLE_SECONDS if self.idle else None)


TestMachine = Machine.TestCase


@given(st.lists(st.booleans(), max_size=20))
def test_idle_connections_are_limited(reusable: list[bool]) -> None:
    made: Pool[Connection] = Pool(99, 5)
    closes = [made.assign(0, released=Connection(), reusable=one).closes for one in reusable]
    assert sum(map(len, closes)) == max(0, len(reusable) - 5)
