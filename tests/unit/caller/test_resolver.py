"""The resolver: shared lookups, caching and queueing."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.task import Clock
from zope.interface import implementer

from callme.caller import resolver
from callme.caller.resolver import LOOKUP_SECONDS, TTL_SECONDS, Resolver, system_lookup


class Receiver:
    """A call that waits for the addresses of a name."""

    def __init__(self, resolution: Deferred[Sequence[str]]) -> None:
        self.addresses: list[str] = []
        self.complete = 0
        self.resolution = resolution
        resolution.addCallback(self.resolved)
        resolution.addErrback(lambda failure: failure.trap(CancelledError))

    def resolved(self, addresses: Sequence[str]) -> None:
        self.addresses += addresses
        self.complete += 1


@implementer(IReactorFromThreads)
class Names:
    """A name server whose results the test gives, and the reactor that they return to."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.asked: list[str] = []
        self.answers: dict[str, list[str]] = {}
        self.gates: dict[str, threading.Event] = {}
        self.arrived = threading.Semaphore(0)
        self.pending: list[Any] = []
        self.resolver = Resolver(clock=self.clock, threads=self, lookup=self.lookup)

    def lookup(self, name: str) -> Sequence[str]:
        self.asked.append(name)
        assert self.gates.setdefault(name, threading.Event()).wait(60)
        if name not in self.answers:
            raise OSError("no such name")
        return self.answers[name]

    def callFromThread(self, function: Any, *args: Any, **kwargs: Any) -> None:  # type: ignore[override]
        self.pending.append((function, args))
        self.arrived.release()

    def ask(self, name: str) -> Receiver:
        return Receiver(self.resolver.resolve(name))

    def answer(self, name: str) -> None:
        """End a lookup, and deliver its result."""
        self.gates.setdefault(name, threading.Event()).set()
        assert self.arrived.acquire(timeout=60)
        function, args = self.pending.pop()
        function(*args)


def test_concurrent_requests_for_a_name_share_one_lookup() -> None:
    names = Names()
    names.answers["a"] = ["192.0.2.1", "2001:db8::1"]
    receivers = [names.ask("a") for _ in range(100)]
    names.answer("a")
    expected = ["192.0.2.1", "2001:db8::1"]
    assert all((r.addresses, r.complete) == (expected, 1) for r in receivers)
    assert names.asked == ["a"]
    assert names.clock.getDelayedCalls() == []


def test_hanging_lookup_does_not_block_others() -> None:
    names = Names()
    names.answers["good"] = ["192.0.2.1"]
    hanging = [names.ask(f"hang{number}") for number in range(50)]
    good = names.ask("good")
    names.answer("good")
    assert good.complete == 1
    assert [receiver.complete for receiver in hanging] == [0] * 50
    names.clock.advance(LOOKUP_SECONDS)
    assert [(r.addresses, r.complete) for r in hanging] == [([], 1)] * 50
    again = names.ask("hang0")
    names.answer("hang0")
    assert (again.addresses, again.complete) == ([], 1)
    assert names.asked.count("hang0") == 1
    for gate in names.gates.values():
        gate.set()


def test_found_address_is_cached_and_failure_is_not() -> None:
    names = Names()
    names.answers["a"] = ["192.0.2.1"]
    names.ask("a")
    names.answer("a")
    assert names.ask("a").complete == 1
    names.clock.advance(TTL_SECONDS)
    assert names.ask("a").complete == 0
    names.answer("a")
    names.ask("b")
    names.answer("b")
    assert names.ask("b").complete == 0
    names.answer("b")
    assert names.asked == ["a", "a", "b", "b"]


def test_cancelled_request_gets_no_result() -> None:
    names = Names()
    receiver = names.ask("a")
    receiver.resolution.cancel()
    names.answer("a")
    assert receiver.complete == 0
    assert names.clock.getDelayedCalls() == []


def test_lookups_beyond_the_limit_are_queued(monkeypatch: Any) -> None:
    monkeypatch.setattr(resolver, "MAX_NEW_LOOKUPS", 1)
    names = Names()
    names.answers["c"] = ["192.0.2.1"]
    hanging, given_up, late = names.ask("a"), names.ask("b"), names.ask("c")
    names.clock.advance(LOOKUP_SECONDS - 1)
    again = names.ask("c")
    names.clock.advance(1)
    assert [one.complete for one in (hanging, given_up, late, again)] == [1, 1, 1, 0]
    names.answer("a")
    # The request for b has been cancelled.
    names.answer("c")
    assert again.addresses == ["192.0.2.1"]
    assert names.asked == ["a", "c"]
    names.ask("b")
    names.answer("b")
    assert names.asked == ["a", "c", "b"]
    assert names.clock.getDelayedCalls() == []


def test_known_names_are_not_queued_behind_hanging_ones(monkeypatch: Any) -> None:
    monkeypatch.setattr(resolver, "MAX_NEW_LOOKUPS", 2)
    monkeypatch.setattr(resolver, "MAX_TRACKED_NAMES", 2)
    names = Names()
    for name in ("old", "good", "gone"):
        names.answers[name] = ["192.0.2.1"]
        names.ask(name)
        names.answer(name)
        names.gates[name].clear()
    names.clock.advance(TTL_SECONDS)
    hanging = [names.ask(f"hang{number}") for number in range(5)]
    good, gone, old = names.ask("good"), names.ask("gone"), names.ask("old")
    del names.answers["gone"]
    names.answer("gone")
    names.answer("good")
    assert (good.complete, gone.complete) == (1, 1)
    names.clock.advance(TTL_SECONDS)
    names.ask("gone")
    asked = ["old", "good", "gone", "hang0", "hang1", "good", "gone"]
    assert sorted(names.asked) == sorted(asked), "each in a thread of its own"
    assert [one.complete for one in (*hanging, old)] == [0] * 6
    for gate in names.gates.values():
        gate.set()
    names.clock.advance(LOOKUP_SECONDS)


def test_lookup_is_queued_while_no_thread_is_free(monkeypatch: Any) -> None:
    names = Names()

    def no_thread(**arguments: Any) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(resolver, "Thread", no_thread)
        given_up = names.ask("a")
        names.clock.advance(LOOKUP_SECONDS)
        assert given_up.complete == 1
        waiting = names.ask("a")
    names.answers["a"] = ["192.0.2.1"]
    also = names.ask("a")
    names.answer("a")
    found = ["192.0.2.1"]
    assert (waiting.addresses, also.addresses) == (found, found)
    assert names.asked == ["a"]


@pytest.mark.parametrize("name", ["qa--site.invalid", "xn--i-7iq.invalid", "a_b.invalid"])
def test_name_that_is_invalid_idna_is_looked_up(name: str) -> None:
    """It is not found, which the system says, and not Python."""
    with pytest.raises(OSError, match=r"known|associated|resolution|resolve"):
        system_lookup(name)


def test_localhost_is_resolved_by_the_system() -> None:
    assert "127.0.0.1" in system_lookup("localhost")
