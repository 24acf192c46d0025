"""Housekeeping: one run of each part at a time, and then the release of memory."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import define, field
from twisted.internet.defer import Deferred

from callme.store.interface import StoreUnavailable
from callme.worker.scheduler import Housekeeping
from tests.helpers.logs import LoggedFailures


@define
class Work:
    """A part of the work that ends when the test says so."""

    runs: list[Deferred[None]] = field(factory=list)

    async def run(self) -> None:
        self.runs.append(Deferred())
        await self.runs[-1]


@define
class Kept:
    """Housekeeping with two such parts."""

    pruner: Any = field(factory=Work)
    scrubber: Any = field(factory=Work)
    released: int = 0
    housekeeping: Housekeeping = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.housekeeping = Housekeeping(
            pruner=self.pruner,
            scrubber=self.scrubber,
            release_memory=self.release_memory,
        )

    def release_memory(self) -> None:
        self.released += 1


def test_part_that_is_in_progress_does_not_begin_again() -> None:
    kept = Kept()
    kept.housekeeping.begin()
    kept.housekeeping.begin()
    assert (len(kept.pruner.runs), len(kept.scrubber.runs)) == (1, 1)
    kept.pruner.runs[0].callback(None)
    kept.housekeeping.begin()
    assert (len(kept.pruner.runs), len(kept.scrubber.runs)) == (2, 1)
    kept.housekeeping.stop()


@pytest.mark.parametrize("error", [StoreUnavailable("the disk is full"), ValueError("a bug")])
def test_part_that_failed_begins_again(logged_failures: LoggedFailures, error: Exception) -> None:
    kept = Kept()
    kept.housekeeping.begin()
    kept.scrubber.runs[0].errback(error)
    kept.housekeeping.begin()
    assert len(kept.scrubber.runs) == 2
    kept.housekeeping.stop()
    assert logged_failures.flush(ValueError) == isinstance(error, ValueError)


def test_memory_is_released_after_the_search_for_damaged_rows() -> None:
    kept = Kept()
    kept.housekeeping.begin()
    kept.pruner.runs[0].callback(None)
    assert kept.released == 0
    kept.scrubber.runs[0].callback(None)
    assert kept.released == 1
    kept.housekeeping.begin()
    kept.scrubber.runs[1].callback(None)
    assert kept.released == 2
    kept.housekeeping.stop()


def test_stop_ends_all_parts() -> None:
    kept = Kept()
    kept.housekeeping.begin()
    kept.housekeeping.stop()
    assert all(run.called for run in (*kept.pruner.runs, *kept.scrubber.runs))
    assert kept.released == 0
