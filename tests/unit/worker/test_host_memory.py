from __future__ import annotations

import pytest

from callme.worker import host_memory
from callme.worker.host_memory import (
    FAILURES_IN_A_ROW,
    MAX_TRACKED_HOSTS,
    PROMPT_SECONDS,
    HostMemory,
    Trust,
)


def call_once(hosts: HostMemory, host: str, *, responded: bool) -> None:
    hosts.begin_call(host, "once", 0.0)
    hosts.end_call(host, "once", 0.0, responded=responded)


def test_trust_without_calls_in_flight_follows_from_the_last_call() -> None:
    hosts = HostMemory()
    assert hosts.trust("a", 0) is Trust.UNKNOWN
    call_once(hosts, "a", responded=True)
    assert hosts.trust("a", 0) is Trust.KNOWN
    call_once(hosts, "a", responded=False)
    assert hosts.trust("a", 0) is Trust.UNRESPONSIVE


def test_responses_since_the_oldest_call_in_flight_count() -> None:
    hosts = HostMemory()
    hosts.begin_call("a", "first", 0.0)
    hosts.begin_call("a", "second", 0.0)
    assert hosts.responses("a", 0) == 0
    hosts.end_call("a", "first", 1.0, responded=True)
    hosts.begin_call("a", "third", 1.0)
    assert hosts.responses("a", 1) == 1
    hosts.begin_call("a", "fourth", 1.0)
    hosts.end_call("a", "third", 1.0, responded=True)
    assert hosts.responses("a", 1) == 2
    hosts.end_call("a", "second", 1.0, responded=False)
    assert hosts.responses("a", 1) == 1, "one since the fourth call began"


def test_responses_count_for_a_short_time_when_no_call_is_in_flight() -> None:
    hosts = HostMemory()
    for call in range(3):
        hosts.begin_call("a", call, 0.0)
    for call in range(3):
        hosts.end_call("a", call, 1.0, responded=call > 0)
    assert hosts.responses("a", 1) == 2
    hosts.begin_call("a", "soon", 2.0)
    assert hosts.responses("a", 2) == 2
    hosts.end_call("a", "soon", 2.0, responded=True)
    assert hosts.responses("a", 2) == 3
    assert hosts.responses("a", 2 + PROMPT_SECONDS) == 0
    hosts.begin_call("a", "later", 2 + PROMPT_SECONDS)
    assert hosts.responses("a", 2 + PROMPT_SECONDS) == 0


def test_host_with_an_old_call_in_flight_is_unresponsive() -> None:
    hosts = HostMemory()
    call_once(hosts, "a", responded=True)
    hosts.begin_call("a", "old", 0.0)
    hosts.begin_call("a", "new", 1.0)
    hosts.end_call("a", "new", 1.0, responded=True)
    assert hosts.trust("a", PROMPT_SECONDS - 0.1) is Trust.KNOWN
    assert hosts.trust("a", PROMPT_SECONDS) is Trust.UNRESPONSIVE
    hosts.end_call("a", "old", PROMPT_SECONDS, responded=True)
    assert hosts.trust("a", PROMPT_SECONDS) is Trust.KNOWN


def test_newcomers_are_hosts_of_which_no_call_has_ended() -> None:
    hosts = HostMemory()
    call_once(hosts, "known", responded=False)
    for host in ("known", "new", "newer"):
        hosts.begin_call(host, "call", 0.0)
    assert hosts.newcomers() == 2
    hosts.end_call("new", "call", 0.0, responded=False)
    assert hosts.newcomers() == 1


def test_hosts_called_longest_ago_are_evicted() -> None:
    hosts = HostMemory()
    for number in range(MAX_TRACKED_HOSTS):
        call_once(hosts, f"h{number}", responded=True)
    call_once(hosts, "h0", responded=True)
    call_once(hosts, "new", responded=True)
    assert hosts.trust("h1", 0) is Trust.UNKNOWN
    assert {hosts.trust(host, 0) for host in ("h0", "h2", "new")} == {Trust.KNOWN}


def test_host_is_failing_until_an_attempt_succeeds() -> None:
    hosts = HostMemory()
    counts = []
    for _ in range(FAILURES_IN_A_ROW + 1):
        hosts.record_result("a", succeeded=False, at=5)
        counts.append(hosts.failing())
    assert counts == [0] * (FAILURES_IN_A_ROW - 1) + [1, 1]
    hosts.record_result("a", succeeded=True, at=7)
    assert hosts.failing() == 0
    results = hosts.results["a"]
    assert (results.last_failure_at, results.last_success_at, results.failures) == (5, 7, 0)


def test_results_of_hosts_called_longest_ago_are_evicted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_memory, "MAX_TRACKED_HOSTS", 2)
    hosts = HostMemory()
    for host in ("a", "b", "a"):
        hosts.record_result(host, succeeded=True, at=1)
    assert list(hosts.results) == ["b", "a"]
    hosts.record_result("c", succeeded=True, at=1)
    assert list(hosts.results) == ["a", "c"]


def test_host_without_a_response_to_its_last_call_is_unresponsive() -> None:
    hosts = HostMemory()
    for call in ("in flight", "first", "last"):
        hosts.begin_call("a", call, 0.0)
    hosts.end_call("a", "first", 0.0, responded=True)
    assert hosts.trust("a", 0) is Trust.KNOWN
    hosts.end_call("a", "last", 0.0, responded=False)
    assert hosts.trust("a", 0) is Trust.UNRESPONSIVE
