"""Shared lookups: one at a time, reused while fresh, and independent of the clients' fate."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred, DeferredLock
from twisted.internet.task import Clock

from callme.reports.single_flight import SingleFlight
from callme.store.interface import StoreUnavailable
from tests.helpers.world import World

COST_FACTOR = 10
MAX_STALE_SECONDS = 100.0
LIMIT_SECONDS = 0.5


@define
class Lookups:
    """A single flight whose lookups end when the test says.

    :ivar pending: the lookups that were started, in order.
    """

    clock: Clock = field(factory=Clock)
    pending: list[Deferred[str]] = field(factory=list)

    async def fetch(self) -> str:
        self.pending.append(Deferred())
        return await self.pending[-1]

    def flight(self, **options: Any) -> SingleFlight[str]:
        options.setdefault("ttl", lambda cost: COST_FACTOR * cost)
        return SingleFlight(
            fetch=self.fetch, clock=self.clock, max_stale_seconds=MAX_STALE_SECONDS, **options
        )

    def complete(self, result: str = "result", after: float = 1.0) -> None:
        """End the last lookup, some seconds from now."""
        self.clock.advance(after)
        self.pending[-1].callback(result)

    def within_limit(self, flight: SingleFlight[str]) -> str | None:
        """Return the result for a client that waits for a limited time."""
        waiting = Deferred.fromCoroutine(flight.get_within(LIMIT_SECONDS))
        self.clock.advance(LIMIT_SECONDS)
        return World.result(waiting)


@pytest.fixture
def lookups() -> Lookups:
    return Lookups()


def test_lookup_in_flight_is_shared_by_all_clients(lookups: Lookups) -> None:
    flight = lookups.flight()
    clients = [flight.get() for _ in range(3)]
    assert (len(lookups.pending), flight.in_flight) == (1, True)
    lookups.complete("a")
    assert [World.result(client) for client in clients] == ["a"] * 3
    assert not flight.in_flight


def test_result_is_fresh_for_a_time_that_depends_on_its_cost(lookups: Lookups) -> None:
    flight = lookups.flight()
    flight.get()
    lookups.complete("a", after=2)
    lookups.clock.advance(COST_FACTOR * 2 - 0.01)
    assert World.result(flight.get()) == "a"
    assert len(lookups.pending) == 1
    lookups.clock.advance(0.01)
    client = flight.get()
    assert len(lookups.pending) == 2
    lookups.complete("b")
    assert World.result(client) == "b"


def test_client_that_asks_in_its_callback_gets_the_new_result(lookups: Lookups) -> None:
    flight = lookups.flight()
    again = flight.get().addCallback(lambda _: flight.get())
    lookups.complete("a")
    assert World.result(again) == "a"
    assert len(lookups.pending) == 1


def test_disconnected_client_does_not_cancel_the_lookup(lookups: Lookups) -> None:
    flight = lookups.flight()
    gone, other = flight.get(), flight.get()
    gone.addErrback(lambda failure: failure.trap(CancelledError))
    gone.cancel()
    assert not lookups.pending[0].called
    lookups.complete("a")
    assert World.result(other) == "a"


def test_result_is_cached_even_if_its_only_client_disconnects(lookups: Lookups) -> None:
    flight = lookups.flight()
    gone = flight.get().addErrback(lambda failure: failure.trap(CancelledError))
    gone.cancel()
    lookups.complete("a")
    assert World.result(flight.get()) == "a"
    assert len(lookups.pending) == 1


def test_slow_lookup_yields_nothing_before_the_first_result(lookups: Lookups) -> None:
    flight = lookups.flight()
    assert lookups.within_limit(flight) is None
    assert flight.in_flight


def test_stale_result_replaces_that_of_a_slow_lookup_until_too_old(lookups: Lookups) -> None:
    flight = lookups.flight()
    flight.get()
    lookups.complete("a")
    lookups.clock.advance(COST_FACTOR)
    assert lookups.within_limit(flight) == "a"
    assert len(lookups.pending) == 2
    lookups.clock.advance(MAX_STALE_SECONDS)
    assert lookups.within_limit(flight) is None
    assert len(lookups.pending) == 2
    lookups.complete("b")
    assert lookups.within_limit(flight) == "b"


def test_failed_lookup_fails_for_all_its_clients_and_is_repeated(lookups: Lookups) -> None:
    flight = lookups.flight()
    clients = [flight.get(), flight.get()]
    lookups.pending[0].errback(StoreUnavailable("no"))
    for client in clients:
        with pytest.raises(StoreUnavailable):
            World.result(client)
    client = flight.get()
    lookups.complete("a")
    assert World.result(client) == "a"


def test_failed_lookup_is_not_repeated_within_its_ttl(lookups: Lookups) -> None:
    flight = lookups.flight(failure_ttl_seconds=5.0)
    flight.get()
    lookups.complete("a")
    lookups.clock.advance(COST_FACTOR)
    failing = flight.get()
    lookups.pending[-1].errback(StoreUnavailable("no"))
    lookups.clock.advance(4.9)
    for client in (failing, flight.get()):
        with pytest.raises(StoreUnavailable):
            World.result(client)
    assert len(lookups.pending) == 2
    # An earlier result stays available to clients that can use it.
    assert flight.last() == "a"
    lookups.clock.advance(0.1)
    client = flight.get()
    lookups.complete("b")
    assert World.result(client) == "b"


def test_refresh_starts_a_lookup_only_if_none_is_in_flight_or_fresh(lookups: Lookups) -> None:
    flight = lookups.flight()
    flight.refresh()
    flight.refresh()
    assert (len(lookups.pending), flight.last()) == (1, None)
    lookups.complete("a")
    flight.refresh()
    assert (len(lookups.pending), flight.last()) == (1, "a")
    lookups.clock.advance(COST_FACTOR)
    flight.refresh()
    assert (len(lookups.pending), flight.last()) == (2, "a")


def test_flights_that_share_a_lock_look_up_one_at_a_time(lookups: Lookups) -> None:
    lock = DeferredLock()
    costs: list[float] = []

    def ttl(cost: float) -> float:
        costs.append(cost)
        return 0.0

    flights = [lookups.flight(lock=lock, ttl=ttl) for _ in range(3)]
    clients = [flight.get() for flight in flights]
    for number, client in enumerate(clients):
        assert len(lookups.pending) == number + 1
        lookups.complete(f"{number}", after=number + 1)
        assert World.result(client) == f"{number}"
    # The wait for the lock is not part of the cost.
    assert costs == [1, 2, 3]
