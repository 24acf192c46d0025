"""A short simulation: the promise holds, runs are reproducible, mutations are detected."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.helpers.logs import LoggedFailures

from . import scenario, sweep
from .mutations import MUTATIONS, Mutation

SEEDS = 30
"""The number of worlds; ``tox run -e simulate`` runs thousands."""
STRIDE = 61
"""The step between disturbed statements; ``tox run -e simulate`` disturbs each one."""


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
    """Return the events of a world, without the name of its directory."""
    return [line for line in scenario.run(seed, verbose=True).lines if "listens on" not in line]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda one: one.name)
def test_mutation_of_callme_is_detected(
    mutation: Mutation, logged_failures: LoggedFailures
) -> None:
    """The seed that detected it last is tried first."""
    with mutation.applied():
        seeds = [mutation.seed, *range(200)]
        assert any(scenario.run(seed).broken for seed in seeds)
    logged_failures.failures.clear()


@pytest.fixture(autouse=True)
def same_time_zone() -> Iterator[None]:
    """A scenario restores the time zone that it changed."""
    before = os.environ.get("TZ")
    yield
    assert os.environ.get("TZ") == before
