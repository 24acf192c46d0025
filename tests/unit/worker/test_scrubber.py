"""The scrubber: a slow scan of the whole database that counts and logs damaged rows."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.logger import capturedLogs, formatEvent

from callme.store.interface import StoreUnavailable
from callme.store.listing.damaged import find_damaged
from callme.worker.scrubber import READS_PER_RUN, TASKS_PER_READ
from tests.helpers.tasks import NOON
from tests.helpers.world import World

LATER = NOON + 30 * 86_400


def damage(world: World, name: str, column: str = "headers", value: str = "'{'") -> None:
    world.store.connection.execute(f"UPDATE task SET {column} = {value} WHERE task_name = '{name}'")


def damaged_rows(world: World) -> int:
    return world.scheduler.health().damaged_rows


def lines(captured: Any) -> list[str]:
    texts = [formatEvent(event) or "" for event in captured]
    return [text for text in texts if "damaged" in text]


def test_damaged_rows_are_counted_and_logged_once(world: World) -> None:
    for name in ("a", "b", "fine"):
        world.put(name, LATER)
    world.scheduler.start()
    world.turn_to(NOON + 61)
    assert damaged_rows(world) == 0
    damage(world, "a")
    damage(world, "b", "task_name", "'b@b'")
    with capturedLogs() as captured:
        world.turn_to(NOON + 300)
    assert damaged_rows(world) == 2
    assert lines(captured) == [
        f'"a@{LATER}" is damaged: the stored values of headers cannot be read; '
        "DELETE /task/<key> deletes it",
        '"@2" is damaged: the stored values of task_name cannot be read; '
        "DELETE /task/@2 deletes it",
    ]
    world.store.connection.execute("DELETE FROM task WHERE task_id = 2")
    damage(world, "a", value="'{}'")
    world.turn_to(NOON + 420)
    assert damaged_rows(world) == 0
    damage(world, "a")
    with capturedLogs() as captured:
        world.turn_to(NOON + 600)
    assert damaged_rows(world) == 1
    assert len(lines(captured)) == 1


def test_damaged_settings_of_hosts_are_counted_and_logged(world: World) -> None:
    world.scheduler.start()
    execute = world.store.connection.execute
    execute("INSERT INTO host_setting (host, max_concurrent) VALUES ('a.example:80', 'many')")
    execute("INSERT INTO host_setting (host, max_concurrent) VALUES ('nonsense', 5)")
    with capturedLogs() as captured:
        world.turn_to(NOON + 120)
    assert damaged_rows(world) == 2
    assert [line.partition(" are ")[0] for line in lines(captured)] == [
        "the settings of a host whose name cannot be read",
        "the settings of 'a.example:80'",
    ]


def test_scan_of_many_tasks_continues_after_the_next_tick(world: World) -> None:
    examined: list[int] = []
    query = find_damaged

    def count(after: int, limit: int) -> Any:
        found = world.store.query(query, after, limit)
        examined.append(after)
        return found

    world.store.overrides[find_damaged] = count
    for number in range(TASKS_PER_READ * (READS_PER_RUN + 1)):
        world.put(f"n{number:05}", LATER)
    damage(world, "n00000")
    world.scheduler.start()
    world.turn_to(NOON + 59)
    assert len(examined) == READS_PER_RUN
    # Rows that the current scan has found are counted at once.
    assert damaged_rows(world) == 1
    world.turn_to(NOON + 119)
    assert len(examined) == READS_PER_RUN + 2
    assert examined == [TASKS_PER_READ * number for number in range(READS_PER_RUN + 2)]
    assert damaged_rows(world) == 1


def test_scan_goes_on_after_a_failure_and_ends_with_the_scheduler(world: World) -> None:
    world.put("a", LATER)
    damage(world, "a")
    world.store.overrides[find_damaged] = lambda *args: fail(StoreUnavailable("locked"))
    world.scheduler.start()
    with capturedLogs() as captured:
        world.turn_to(NOON + 30)
    assert any("the search for damaged rows failed: " in line for line in lines(captured))
    assert damaged_rows(world) == 0
    del world.store.overrides[find_damaged]
    world.turn_to(NOON + 120)
    assert damaged_rows(world) == 1
    world.turn_to(NOON + 181)
    world.result(_stop(world))
    assert world.clock.getDelayedCalls() == []


def _stop(world: World) -> Any:
    return Deferred.fromCoroutine(world.scheduler.stop(0, 0))
