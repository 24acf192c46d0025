"""The simulation, in short: that it keeps the promise, repeats itself, and finds what is there."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.helpers.logs import LoggedFailures

from . import scenario, sweep
from .mutations import MUTATIONS, Mutation

SEEDS = 30
"""Worlds that each run of the tests lives through; ``tox run -e simulate`` takes thousands."""
STRIDE = 61
"""Each so manieth statement and step is disturbed; ``tox run -e simulate`` takes each."""


@pytest.mark.parametrize("first", range(0, SEEDS, 10))
def test_promise_holds_in_every_world(first: int) -> None:
    for seed in range(first, first + 10):
        result = scenario.run(seed)
        assert result.broken == [], f"python -m tests.simulation --seed {seed} --verbose"


@pytest.mark.parametrize("kind", sweep.KINDS)
def test_promise_holds_with_a_fault_at_any_step(kind: str) -> None:
    for place in sweep.places(STRIDE, first=1 + sweep.KINDS.index(kind), kinds=[kind]):
        result = sweep.tell(place)
        assert result.broken == [], f"python -m tests.simulation --place {place} --verbose"
        assert result.faults.total() >= 1, f"nothing was disturbed at {place}"


def test_seed_determines_the_history() -> None:
    assert told(17) == told(17)
    assert told(17) != told(18)


def told(seed: int) -> list[str]:
    """Return what happens in a world, without the name of the directory that it is in."""
    return [line for line in scenario.run(seed, verbose=True).lines if "listens on" not in line]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda one: one.name)
def test_mutation_of_callme_is_detected(
    mutation: Mutation, logged_failures: LoggedFailures
) -> None:
    """The seed that found it last is the first that is tried."""
    with mutation.made():
        seeds = [mutation.seed, *range(100)]
        assert any(scenario.run(seed).broken for seed in seeds)
    logged_failures.failures.clear()


@pytest.fixture(autouse=True)
def same_time_zone() -> Iterator[None]:
    """A world that lives in another time zone leaves it behind."""
    before = os.environ.get("TZ")
    yield
    assert os.environ.get("TZ") == before
