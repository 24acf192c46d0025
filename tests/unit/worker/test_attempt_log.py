from __future__ import annotations

from collections.abc import Iterator

import pytest
from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from callme.worker.attempt_log import SUCCESSES_PER_SECOND
from tests.helpers.tasks import NOON
from tests.helpers.world import World


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """The lines of callme's log."""
    found: list[str] = []

    def observe(event: LogEvent) -> None:
        if event["log_namespace"] == "callme":
            found.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)  # type: ignore[arg-type]
    yield found
    globalLogPublisher.removeObserver(observe)  # type: ignore[arg-type]


def test_each_attempt_is_logged(world: World, lines: list[str]) -> None:
    world.put("n\u00e4me")
    world.scheduler.start()
    assert lines == [f'"n\\u00e4me@{NOON}" attempt 1 succeeded: 200']
    lines.clear()
    world.caller.status = 500
    world.put("bad", retry=1)
    world.scheduler.tick()
    world.turn_to(NOON + 60)
    assert lines == [
        f'"bad@{NOON}" attempt 1 failed: unexpected_status '
        '("the endpoint answered 500, expected 200"); next attempt 2027-01-15T12:01:00.000Z',
        f'"bad@{NOON}" attempt 2 failed: unexpected_status '
        '("the endpoint answered 500, expected 200"); the task failed',
    ]


def test_many_successes_in_a_second_are_logged_as_a_count(world: World, lines: list[str]) -> None:
    for number in range(SUCCESSES_PER_SECOND + 50):
        world.put(f"n{number}")
    world.put("next", NOON + 60)
    world.scheduler.start()
    assert len(lines) == SUCCESSES_PER_SECOND
    world.turn_to(NOON + 60)
    assert lines[SUCCESSES_PER_SECOND:] == [
        "50 more attempts succeeded in that second",
        f'"next@{NOON + 60}" attempt 1 succeeded: 200',
    ]
