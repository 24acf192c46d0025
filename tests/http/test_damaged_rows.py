"""Rows that another program has damaged: nothing fails because of them, and they are reported.

In turn, each column of each table holds several values that callme never stores, in tasks of each
state, while a client asks for every list and page.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest

from callme.store.sqlite.file import migrate
from tests.helpers.api_client import BASE, ask
from tests.helpers.scraping import samples, value
from tests.helpers.tasks import NOON
from tests.helpers.world import World

SINK = "sink.example:80"
VALUES = (
    "'nonsense'",
    "x'ff00'",
    "CAST(x'ff61' AS TEXT)",
    "''",
    "-1000000000000000020",
    "1000000000000000020",
    "0.5",
)
"""Values, as SQL, of every type."""
_UNVISITED = ("moved", "succeeded")
STATES = ("waiting", "failed", "succeeded", "moved")
UNLISTED = {"host", "expires_at", "last_attempt", "claimed_at_ms", "lease_until", "node"} | {
    "rescheduled_from",
    "first_lateness_ms",
    "rescheduled_at_ms",
}
"""Columns that no response has: they follow from others, or matter only during a call."""
LISTS = (
    "/",
    "/status/",
    "/status/?limit=1",
    "/status/?order=due&limit=3",
    "/status/?state=failed",
    "/status/?state=scheduled",
    f"/status/?host={SINK}",
    "/status/?label=team:a",
    "/status/?prefix=bad",
    "/status/.ics",
    "/forecast",
    "/hosts/",
    "/hosts/?limit=1",
    "/metrics",
    "/healthz",
)
MISSING = (f"/status/bad-0-waiting@{NOON + 120}", "/status/bad-0", "/status/zzz", "/status/@999999")
"""Paths of no task: the errors name the nearest one."""
PAGES = (
    "/",
    "/page/find",
    "/page/find?order=due",
    "/page/find?state=failed",
    "/page/find?state=scheduled",
    f"/page/find?host={SINK}",
    "/page/find?label=team:a",
    "/page/failures",
    "/page/hosts",
    f"/page/hosts/{SINK}",
    "/page/hosts/h0.example:80",
    "/page/delete-many?name=b",
    "/page/reschedule-many?name=b",
)
TASK_PATHS = ("/status/{}", "/status/{}?wait=1")
TASK_PAGES = (
    "/page/task/{}",
    "/page/json/{}",
    "/page/curl/{}",
    "/page/delete/{}",
    "/page/reschedule/{}",
    "/page/run/{}",
)


def columns() -> Iterator[tuple[str, str]]:
    """Yield each column of each table but the numbers of rows, with its table."""
    model = sqlite3.connect(":memory:", isolation_level=None)
    migrate(model)
    for (table,) in model.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
        for _, column, *_ in model.execute(f"PRAGMA table_info({table})").fetchall():
            if column not in ("task_id", "outcome_id"):
                yield table, column
    model.close()


@pytest.fixture
def filled(world: World) -> World:
    """A daemon with tasks in each state for each value, and rows in every other table."""
    world.scheduler.start()
    labels = {"labels": {"team": "a"}}
    for number in range(len(VALUES)):
        ask(world, "PUT", f"/hosts/h{number}.example:80", {"max_concurrent": 5})
        world.put(f"bad-{number}-waiting", NOON + 3600, retry=0, **labels)
    for state, status in (("failed", 500), ("moved", 500), ("succeeded", 200)):
        world.caller.status = status
        for number in range(len(VALUES)):
            world.put(f"bad-{number}-{state}", NOON, retry=0, **labels)
        world.notify_due(SINK)
        world.turn_to(world.now() + 5)
    for number in range(len(VALUES)):
        moved = f"/reschedule/bad-{number}-moved@{NOON}"
        assert ask(world, "POST", moved, {"trigger_at": "+2h"}).status == 200
    ask(world, "PUT", f"/hosts/{SINK}", {"max_concurrent": 500})
    world.store.connection.execute("INSERT INTO acknowledgement VALUES ('failures', 1)")
    world.caller.status = 200
    world.put("fine", NOON + 3600, **labels)
    return world


def damage(world: World, table: str, column: str) -> int:
    """Store each value in the rows with its number; return the number of changed rows."""
    connection = world.store.connection
    connection.execute("PRAGMA ignore_check_constraints = ON")
    connection.execute("PRAGMA foreign_keys = OFF")
    # The trigger refuses labels that it cannot parse.
    connection.execute("DROP TRIGGER task_relabelled")
    changed = 0
    for number, damaged in enumerate(VALUES):
        name = f"'bad-{number}-%'"
        where = {
            "task": f"task_name LIKE {name}",
            "attempt": f"task_id IN (SELECT task_id FROM task WHERE task_name LIKE {name})",
            "task_label": f"task_name LIKE {name}",
            "host_setting": f"host = 'h{number}.example:80'",
            "removed_outcome": f"outcome_id % {len(VALUES)} = {number}",
            "acknowledgement": "TRUE",
        }[table]
        try:
            found = connection.execute(f"UPDATE {table} SET {column} = {damaged} WHERE {where}")
        except sqlite3.IntegrityError:
            # The column has a unique value, so that only one row can contain it.
            ids = f"SELECT task_id FROM {table} WHERE {where} LIMIT 1"
            if table == "task_label":
                ids = f"SELECT task_name FROM {table} WHERE {where} LIMIT 1"
            elif table not in ("task", "attempt"):
                continue
            place = "task_name" if table == "task_label" else "task_id"
            found = connection.execute(
                f"UPDATE {table} SET {column} = {damaged} WHERE {place} = ({ids})"
            )
        changed += found.rowcount
    connection.execute("PRAGMA foreign_keys = ON")
    return changed


def get(world: World, path: str, accept: str = "*/*") -> int:
    """Return the status of the response to a request, which must not be an internal error."""
    pending = world.http.request("GET", BASE + path, headers={"Accept": accept})
    world.http.flush()
    # A long page is rendered in slices; a wait ends after a second.
    for _ in range(20):
        if pending.called and not pending.paused:
            break
        world.clock.advance(1 if "wait" in path else 0)
        world.http.flush()
    status: int = world.result(pending).code
    assert status < 500, path
    return status


def read_all(world: World) -> list[dict[str, Any]]:
    """Return the tasks of all pages of the list."""
    found: list[dict[str, Any]] = []
    query = ""
    while True:
        page = ask(world, "GET", f"/status/?limit=3{query}").json
        found += page["tasks"]
        if "next" not in page:
            break
        query = f"&start_from={page['next']}"
    keys = [task["task"] for task in found]
    assert len(set(keys)) == len(keys)
    whole = ask(world, "GET", "/status/?limit=1000").json["tasks"]
    assert [task["task"] for task in whole] == keys
    by_time = ask(world, "GET", "/status/?limit=1000&order=due").json["tasks"]
    assert {task["task"] for task in by_time} == set(keys)
    return found


def visit(world: World, tasks: list[dict[str, Any]]) -> None:
    """Ask for every list and page, and for those of a task of each state."""
    for path in LISTS:
        assert get(world, path) == 200, path
    for path in MISSING:
        assert get(world, path) == 404, path
    for path in PAGES:
        assert get(world, path, "text/html") == 200, path
    for task in tasks:
        for path in TASK_PATHS:
            assert get(world, path.format(task["task"])) == 200, path
        for path in TASK_PAGES:
            assert get(world, path.format(task["task"]), "text/html") == 200, path
        assert get(world, f"/page/new?from={task['task']}", "text/html") in (200, 409)


@pytest.mark.parametrize(("table", "column"), list(columns()))
def test_damaged_column_breaks_nothing_and_is_reported(
    filled: World, table: str, column: str
) -> None:
    assert damage(filled, table, column)
    tasks = read_all(filled)
    assert len(tasks) == 1 + len(VALUES) * len(STATES)
    # Of each value a task that is scheduled and one that has ended.
    visit(filled, [task for task in tasks if not str(task["task_name"]).endswith(_UNVISITED)])
    ask(filled, "DELETE", "/task/?prefix=bad&dry_run")
    ask(filled, "POST", "/reschedule/?prefix=bad&dry_run&all", {})
    # Every task falls due, and a second daemon finds the same rows.
    filled.turn_to(NOON + 3600 + 30)
    filled.restart()
    filled.turn_to(NOON + 7200 + 90)
    visit(filled, [])
    assert ask(filled, "GET", f"/status/fine@{NOON + 3600}").json["state"] == "succeeded"
    assert ask(filled, "GET", "/healthz").json["status"] == "ok"
    listed = {task["task"] for task in tasks if "damaged" in task}
    if table == "task" and column not in UNLISTED | {"payload", "payload_base64"}:
        assert listed
    is_counted = table in ("attempt", "host_setting") or listed
    assert bool(value(samples(filled), "callme_damaged_rows")) >= bool(is_counted)
    # The retention may have deleted a task whose end seems to be long ago.
    statuses = {204, 404} if column == "finished_at_ms" else {204}
    for task in tasks:
        if task["task_name"] != "fine":
            assert ask(filled, "DELETE", f"/task/{task['task']}").status in statuses
    assert [task["task_name"] for task in read_all(filled)] == ["fine"]
    filled.turn_to(filled.now() + 180)
    if table == "task":
        assert value(samples(filled), "callme_damaged_rows") == 0
