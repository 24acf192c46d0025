"""The record of refused requests: counts and log lines."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from callme.server import refusals
from callme.server.refusals import (
    LISTED_SOURCES,
    LOG_SECONDS,
    Refusal,
    Refusals,
    peer_name,
)


@pytest.fixture
def lines() -> Iterator[list[str]]:
    found: list[str] = []

    def observe(event: LogEvent) -> None:
        if event["log_namespace"] == "callme":
            found.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)  # type: ignore[arg-type]
    yield found
    globalLogPublisher.removeObserver(observe)  # type: ignore[arg-type]


def test_refusals_are_logged_with_peer_and_count(lines: list[str]) -> None:
    clock, counted = Clock(), list[Refusal]()
    record = Refusals(clock, counted.append)
    for _ in range(1200):
        record.record(Refusal.LOGIN_WRONG, "192.0.2.1")
    record.record(Refusal.HOST, "192.0.2.2")
    assert lines == []
    clock.advance(LOG_SECONDS)
    assert lines == ["requests refused: 1,200 login_wrong from 192.0.2.1, 1 host from 192.0.2.2"]
    assert len(counted) == 1201
    clock.advance(10 * LOG_SECONDS)
    assert len(lines) == 1
    assert clock.getDelayedCalls() == []


def test_log_has_at_most_one_line_in_an_interval(lines: list[str]) -> None:
    clock = Clock()
    record = Refusals(clock)
    for _ in range(100):
        record.record(Refusal.TOKEN_WRONG, "192.0.2.1")
        clock.advance(LOG_SECONDS / 10)
    assert 5 <= len(lines) <= 10


def test_memory_and_length_of_the_line_are_bounded(
    lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusals, "MAX_SOURCES", 10)
    record = Refusals(Clock())
    for number in range(1000):
        record.record(Refusal.TOKEN_MISSING, f"192.0.2.{number}")
    record.flush()
    (line,) = lines
    assert line.startswith("requests refused: 990 token_missing from other peers, 1 token_missing")
    assert line.count(" from ") == LISTED_SOURCES
    assert line.endswith(", 6 more")


def test_each_line_counts_refusals_since_the_previous_line(lines: list[str]) -> None:
    clock = Clock()
    record = Refusals(clock)
    for peer in ("192.0.2.1", "192.0.2.2"):
        record.record(Refusal.HOST, peer)
        clock.advance(LOG_SECONDS)
    assert lines == [
        "requests refused: 1 host from 192.0.2.1",
        "requests refused: 1 host from 192.0.2.2",
    ]


def test_peer_without_an_ip_address_has_a_name() -> None:
    assert peer_name(IPv4Address("TCP", "192.0.2.1", 80)) == "192.0.2.1"
    assert peer_name(UNIXAddress("/run/callme")) == "a local socket"


def test_known_peer_is_counted_although_the_memory_is_full(
    lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusals, "MAX_SOURCES", 1)
    record = Refusals(Clock())
    for number in (1, 1, 2):
        record.record(Refusal.HOST, f"192.0.2.{number}")
    record.flush()
    assert lines == ["requests refused: 2 host from 192.0.2.1, 1 host from other peers"]


def test_flush_without_refusals_logs_nothing(lines: list[str]) -> None:
    clock = Clock()
    record = Refusals(clock)
    record.flush()
    record.record(Refusal.OVERLOAD, "192.0.2.1")
    record.flush()
    record.flush()
    assert len(lines) == 1
    assert clock.getDelayedCalls() == []
