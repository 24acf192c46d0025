"""Connections to the addresses of a host: one after another, the first one that accepts wins."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from zope.interface import implementer

from callme.caller.egress import ATTEMPT_DELAY_SECONDS, HostEndpoint, Race


@implementer(IStreamClientEndpoint)
class Address:
    """An address whose connection attempts the test ends."""

    def __init__(self) -> None:
        self.attempt: Deferred[Any] | None = None
        self.cancelled = False

    def connect(self, protocolFactory: Any) -> Deferred[Any]:
        self.attempt = Deferred(self._cancel)
        return self.attempt

    def _cancel(self, _: Any) -> None:
        self.cancelled = True


class Racing:
    """A race between some addresses, on a clock of the test."""

    def __init__(self, count: int) -> None:
        self.clock = Clock()
        self.addresses = [Address() for _ in range(count)]
        self.results: list[Any] = []
        race = Race(clock=self.clock, endpoints=iter(self.addresses), factory=Factory())
        self.won = race.run()
        self.won.addBoth(self.results.append)

    @property
    def attempts(self) -> list[bool]:
        return [address.attempt is not None for address in self.addresses]

    def end(self, number: int, result: Any) -> None:
        attempt = self.addresses[number].attempt
        assert attempt is not None
        if isinstance(result, Exception):
            attempt.errback(result)
        else:
            attempt.callback(result)


def test_next_address_is_tried_beside_the_first_after_a_delay() -> None:
    race = Racing(3)
    assert race.attempts == [True, False, False]
    race.clock.advance(ATTEMPT_DELAY_SECONDS)
    assert race.attempts == [True, True, False]
    winner = Protocol()
    race.end(0, winner)
    assert race.results == [winner]
    assert race.addresses[1].cancelled
    race.clock.advance(10)
    assert race.attempts == [True, True, False]
    assert race.clock.getDelayedCalls() == []


def test_next_address_is_tried_at_once_when_one_refuses() -> None:
    race = Racing(3)
    race.end(0, Refused())
    assert race.attempts == [True, True, False]
    race.clock.advance(ATTEMPT_DELAY_SECONDS)
    assert race.attempts == [True, True, True]
    winner = Protocol()
    race.end(1, winner)
    assert race.results == [winner]
    assert race.clock.getDelayedCalls() == []


def test_race_fails_with_the_last_failure_when_every_address_fails() -> None:
    race = Racing(2)
    race.end(0, Refused("first"))
    assert race.results == []
    last = Refused("last")
    race.end(1, last)
    assert race.results[0].value is last
    assert race.clock.getDelayedCalls() == []


def test_race_waits_for_an_address_that_neither_accepts_nor_refuses() -> None:
    race = Racing(2)
    race.clock.advance(ATTEMPT_DELAY_SECONDS)
    race.end(1, Refused())
    race.clock.advance(100)
    assert race.results == []
    winner = Protocol()
    race.end(0, winner)
    assert race.results == [winner]


def test_cancelled_race_cancels_every_attempt() -> None:
    race = Racing(3)
    race.clock.advance(ATTEMPT_DELAY_SECONDS)
    race.won.cancel()
    assert race.results[0].check(CancelledError)
    assert [address.cancelled for address in race.addresses] == [True, True, False]
    assert race.clock.getDelayedCalls() == []


class FakeOutbound:
    """A way out on which each address accepts, or refuses, at once."""

    def __init__(self, names: dict[str, list[str]], refusing: str = "") -> None:
        self.names, self.refusing = names, refusing
        self.clock = Clock()
        self.resolver = self
        self.connected: list[tuple[str, int]] = []

    def resolve(self, name: str) -> Deferred[Any]:
        return succeed(self.names.get(name, []))

    def endpoint(self, address: str, port: int, host: str) -> Any:
        outbound = self

        @implementer(IStreamClientEndpoint)
        class Endpoint:
            def connect(self, protocolFactory: Any) -> Deferred[Any]:
                outbound.connected.append((address, port))
                return fail(Refused()) if address == outbound.refusing else succeed(address)

        return Endpoint()


@pytest.mark.parametrize(
    ("host", "connected", "winner"),
    [
        ("192.0.2.9", ["192.0.2.9"], "192.0.2.9"),
        ("2001:db8::9", ["2001:db8::9"], "2001:db8::9"),
        ("one.example", ["192.0.2.1"], "192.0.2.1"),
        ("two.example", ["::1", "192.0.2.2"], "192.0.2.2"),
    ],
)
def test_host_is_connected_to_at_its_addresses_in_order(
    host: str, connected: list[str], winner: str
) -> None:
    names = {"one.example": ["192.0.2.1"], "two.example": ["::1", "192.0.2.2", "192.0.2.3"]}
    outbound: Any = FakeOutbound(names, refusing="::1")
    results: list[Any] = []
    connecting = HostEndpoint(outbound=outbound, host=host, port=81).connect(Factory())
    connecting.addBoth(results.append)
    assert results == [winner]
    assert outbound.connected == [(address, 81) for address in connected]
    assert outbound.clock.getDelayedCalls() == []


def test_host_without_an_address_is_not_found() -> None:
    outbound: Any = FakeOutbound({})
    results: list[Any] = []
    connecting = HostEndpoint(outbound=outbound, host="none.example", port=81).connect(Factory())
    connecting.addBoth(results.append)
    assert results[0].check(DNSLookupError)
