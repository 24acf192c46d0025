"""The limit on failed logins."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from callme.security import login_throttle
from callme.security.login_throttle import FREE_ATTEMPTS, SECONDS_PER_ATTEMPT, LoginThrottle


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def throttle(clock: Clock) -> LoginThrottle:
    return LoginThrottle(clock.seconds)


def fail(throttle: LoginThrottle, peer: str, times: int) -> None:
    for _ in range(times):
        throttle.failed(peer)


def test_first_failures_cost_no_wait(throttle: LoginThrottle) -> None:
    fail(throttle, "192.0.2.1", FREE_ATTEMPTS - 1)
    assert throttle.seconds_to_wait("192.0.2.1") == 0
    fail(throttle, "192.0.2.1", 1)
    assert throttle.seconds_to_wait("192.0.2.1") == SECONDS_PER_ATTEMPT
    assert throttle.seconds_to_wait("192.0.2.2") == 0


def test_each_wait_permits_one_attempt(throttle: LoginThrottle, clock: Clock) -> None:
    fail(throttle, "a", FREE_ATTEMPTS)
    for _ in range(3):
        clock.advance(SECONDS_PER_ATTEMPT - 0.1)
        assert throttle.seconds_to_wait("a") > 0
        clock.advance(0.1)
        assert throttle.seconds_to_wait("a") == pytest.approx(0)
        fail(throttle, "a", 1)
        assert throttle.seconds_to_wait("a") > 0


def test_failures_are_forgotten_in_time(throttle: LoginThrottle, clock: Clock) -> None:
    fail(throttle, "a", FREE_ATTEMPTS)
    clock.advance(FREE_ATTEMPTS * SECONDS_PER_ATTEMPT)
    fail(throttle, "b", 1)
    assert list(throttle._empty_at) == ["b"]
    fail(throttle, "a", FREE_ATTEMPTS - 1)
    assert throttle.seconds_to_wait("a") == 0


def test_addresses_of_one_ipv6_network_are_one_client(throttle: LoginThrottle) -> None:
    for number in range(FREE_ATTEMPTS):
        throttle.failed(f"2001:db8::{number:x}")
    assert throttle.seconds_to_wait("2001:db8::ffff%eth0") > 0
    assert throttle.seconds_to_wait("2001:db8:0:1::1") == 0
    fail(throttle, "::ffff:192.0.2.1", FREE_ATTEMPTS)
    assert throttle.seconds_to_wait("::ffff:192.0.2.2") == 0


def test_memory_is_bounded(throttle: LoginThrottle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login_throttle, "MAX_CLIENTS", 100)
    for number in range(1000):
        throttle.failed(f"peer {number}")
    assert list(throttle._empty_at) == [f"peer {number}" for number in range(900, 1000)]
