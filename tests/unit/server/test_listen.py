"""File descriptors: the shares of clients, bursts and calls."""

from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest

from callme.server.listen import (
    ACCEPT_BURST,
    burst_budget,
    client_budget,
    raise_fd_limit,
    required_fds,
)


@pytest.mark.parametrize(
    ("connections", "concurrency", "limit", "share"),
    [
        (1000, 256, 2088, 1000),
        (1000, 256, 2087, 999),
        (1000, 256, 1_000_000, 1000),
        (1000, 256, 1024, 256),
        (100, 256, 1024, 100),
        (1000, 10_000, 20_000, 1000),
        (1000, 256, 3, 1),
    ],
)
def test_clients_get_the_descriptors_that_calls_leave(
    connections: int, concurrency: int, limit: int, share: int
) -> None:
    assert client_budget(connections, concurrency, limit) == share


def test_wanted_descriptors_suffice() -> None:
    assert client_budget(1000, 256, required_fds(1000, 256)) == 1000
    assert burst_budget(1000, 256, required_fds(1000, 256)) == ACCEPT_BURST


@pytest.mark.parametrize(
    ("limit", "share"), [(1024, 0), (2088, 0), (2100, 12), (10_000, ACCEPT_BURST)]
)
def test_burst_gets_the_remaining_descriptors(limit: int, share: int) -> None:
    assert burst_budget(1000, 256, limit) == share


@pytest.fixture
def limits() -> Iterator[tuple[int, int]]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, before[1]))
    yield before
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_descriptor_limit_is_raised_to_the_need(limits: tuple[int, int]) -> None:
    assert raise_fd_limit(100) == 100
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 200
    assert raise_fd_limit(250) == 250
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (250, limits[1])


def test_descriptor_limit_is_raised_to_the_hard_limit(limits: tuple[int, int]) -> None:
    hard = limits[1]
    if hard == resource.RLIM_INFINITY:
        pytest.skip("there is no limit")
    assert raise_fd_limit(hard + 1) == hard


def test_refused_raise_keeps_the_descriptor_limit(
    limits: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise ValueError

    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert raise_fd_limit(201) == 200
    monkeypatch.undo()
