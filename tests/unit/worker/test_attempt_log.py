from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from callme.process.log_limit import LINES_PER_SECOND
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
        '("the endpoint responded with 500, expected 200"); next attempt 2027-01-15T12:01:00.000Z',
        f'"bad@{NOON}" attempt 2 failed: unexpected_status '
        '("the endpoint responded with 500, expected 200"); the task failed',
    ]


def test_many_successes_in_a_second_are_logged_as_a_count(world: World, lines: list[str]) -> None:
    for number in range(LINES_PER_SECOND + 50):
        world.put(f"n{number}")
    world.put("next", NOON + 60)
    world.scheduler.start()
    assert len(lines) == LINES_PER_SECOND
    world.turn_to(NOON + 60)
    assert lines[LINES_PER_SECOND:] == [
        "50 more attempts succeeded in that second",
        f'"next@{NOON + 60}" attempt 1 succeeded: 200',
    ]


def test_many_failures_in_a_second_are_logged_as_a_count(world: World, lines: list[str]) -> None:
    world.caller.status = 500
    for number in range(LINES_PER_SECOND + 50):
        world.put(f"n{number}", retry=0)
    world.put("next", NOON + 60, retry=0)
    world.scheduler.start()
    assert len(lines) == LINES_PER_SECOND
    world.turn_to(NOON + 60)
    count, following = lines[LINES_PER_SECOND:]
    assert count == "50 more attempts failed in that second"
    assert following.startswith(f'"next@{NOON + 60}" attempt 1 failed: ')


def test_successes_do_not_displace_failures(world: World, lines: list[str]) -> None:
    for number in range(LINES_PER_SECOND + 1):
        world.put(f"n{number}")
    world.scheduler.start()
    world.caller.status = 500
    world.put("bad", retry=0)
    world.scheduler.tick()
    assert lines[-1].startswith(f'"bad@{NOON}" attempt 1 failed: ')


def test_too_late_tasks_are_logged_as_a_count(world: World, lines: list[str]) -> None:
    for number in range(LINES_PER_SECOND + 50):
        world.put(f"n{number}", NOON - 3600, max_delay=1)
    world.put("next", NOON + 60)
    world.scheduler.start()
    world.turn_to(NOON + 60)
    assert lines[0].startswith(f'"n0@{NOON - 3600}" failed: too_late ("no request ')
    assert lines[LINES_PER_SECOND] == "50 more attempts failed in that second"


def test_long_name_keeps_its_minute(world: World, lines: list[str]) -> None:
    world.put("n" * 255)
    world.scheduler.start()
    (line,) = lines
    assert re.fullmatch(rf'"n+\.\.\.n*@{NOON}" attempt 1 succeeded: 200', line)
    assert len(line) < 120
