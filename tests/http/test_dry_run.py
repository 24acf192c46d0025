"""Dry runs of puts and batches."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from callme.core.times import rfc3339
from callme.store import stats
from tests.helpers.api_client import AT, BODY, ask
from tests.helpers.forecasts import minutes
from tests.helpers.tasks import NOON, definition
from tests.helpers.world import World

CONDITIONS: list[dict[str, str]] = [{}, {"If-Match": "*"}, {"If-None-Match": "*"}]


def batch(world: World, tasks: list[Any], query: str = "?dry_run") -> list[Any]:
    asking = world.http.request(
        "POST", f"http://callme/batch{query}", data=json.dumps(tasks).encode()
    )
    for _ in range(20):
        world.http.flush()
        world.clock.advance(0)
    response = world.result(asking)
    assert response.code == 200
    responses: list[Any] = json.loads(world.result(response.text()))
    return responses


def test_dry_run_reports_what_a_put_would_do(world: World) -> None:
    world.put("beside", AT)
    world.put("elsewhere", AT, callback="http://other.example/")
    body = {
        **BODY,
        "callback_method": "PUT",
        "retry": 2,
        "payload": "p",
        "on_failure": "http://told.example/",
    }
    response = ask(world, "PUT", "/task/task?dry_run", body)
    assert (response.status, response.header("location")) == (200, None)
    members = response.json
    true = ask(world, "PUT", "/task/task", body)
    assert (members["task"], members["status"]) == (true.json, true.status)
    assert members["task"]["on_failure"] == "http://told.example/"
    assert members["would"] == "create"
    assert members["attempts_at"] == [rfc3339(at * 1000) for at in minutes(60, 61, 62)]
    assert members["expires_at"] == rfc3339((AT + 600) * 1000)
    assert (members["calls_in_minute"], members["calls_to_host"]) == (3, 2)
    assert members["lateness_ms"] == 0
    assert members["rate"] == {"calls_per_second": 256.0, "measured": False}
    assert members["host_rate"] == {"calls_per_second": 64.0, "measured": False}


def test_dry_run_creates_and_calls_nothing(world: World) -> None:
    world.scheduler.start()
    for body in ({**BODY, "trigger_at": "+0m"}, BODY):
        assert ask(world, "PUT", "/task/task?dry_run=true", body).json["would"] == "create"
    assert ask(world, "GET", "/status/").json == {"tasks": []}
    world.turn_to(AT + 100)
    assert world.caller.calls == []


@pytest.mark.parametrize("condition", CONDITIONS, ids=str)
@pytest.mark.parametrize("stands", [None, "same", "other", "running"])
@pytest.mark.parametrize("late", [False, True])
def test_dry_run_has_the_status_of_the_put(
    world: World, condition: dict[str, str], stands: str | None, late: bool
) -> None:
    body = {"callback": "http://sink.example/", "max_delay": 5}
    if stands is not None:
        world.put("task", max_delay=5, payload="p" if stands == "other" else "")
    world.caller.status = None
    if stands == "running":
        world.scheduler.start()
    if late:
        world.clock.rightNow += 300
    path = f"/task/task@{NOON}"
    before = world.task(definition("task").key) if stands else None
    dry = ask(world, "PUT", path + "?dry_run", body, headers=condition)
    assert not stands or world.task(definition("task").key) == before
    true = ask(world, "PUT", path, body, headers=condition)
    if true.status >= 400:
        assert (dry.status, dry.json) == (true.status, true.json)
    else:
        assert (dry.status, dry.json["status"]) == (200, true.status)
        assert dry.json["task"] == true.json
        would = {201: "create", 200: "replace" if stands == "other" else "keep"}
        assert dry.json["would"] == would[true.status]
        assert ("attempts_at" in dry.json) == (dry.json["would"] != "keep")


def test_dry_run_counts_a_replaced_task_once(world: World) -> None:
    world.put("task", AT)
    for host in ("sink.example", "other.example"):
        body = {**BODY, "callback": f"http://{host}/x"}
        dry = ask(world, "PUT", "/task/task?dry_run", body, headers={"If-Match": "*"}).json
        assert (dry["would"], dry["calls_in_minute"], dry["calls_to_host"]) == ("replace", 1, 1)


def test_dry_run_over_a_corrupt_row_gets_a_response(world: World) -> None:
    world.put(at=AT)
    world.store.connection.execute("UPDATE task SET callback = 'http://['")
    assert ask(world, "PUT", "/task/task?dry_run", BODY).status == 409
    dry = ask(world, "PUT", "/task/task?dry_run", BODY, headers={"If-Match": "*"}).json
    assert (dry["would"], dry["calls_in_minute"], dry["calls_to_host"]) == ("replace", 1, 1)


def test_dry_run_of_an_invalid_task_is_refused(world: World) -> None:
    assert ask(world, "PUT", "/task/task?dry_run", {**BODY, "retry": -1}).status == 422
    assert ask(world, "PUT", "/task/task?dry_run=x", BODY).status == 400


def test_batch_dry_run_counts_earlier_items(world: World) -> None:
    world.put("beside", AT)
    tasks: list[Any] = [{**BODY, "task_name": f"t{number}"} for number in range(250)]
    tasks[120:120] = [{**BODY, "task_name": "t0"}, {**BODY, "task_name": "t1", "retry": 9}, 7]
    responses = batch(world, tasks)
    assert ask(world, "GET", "/status/").json["tasks"][1:] == []
    true = batch(world, tasks, "")
    assert [one["status"] for one in responses] == [one["status"] for one in true]
    assert responses[122] == true[122]
    assert responses[120]["would"] == "keep"
    assert responses[121]["status"] == 409
    created = [one for one in responses if one.get("would") == "create"]
    assert [one["calls_in_minute"] for one in created] == list(range(2, 252))
    assert created[-1]["calls_to_host"] == 251
    # 64 calls have a slot, and 64 end in a second.
    assert created[-1]["lateness_ms"] == round((251 - 64) / 64 * 1000)
    assert "payload" not in created[0]["task"]


def test_batch_dry_run_keeps_the_order_of_items(world: World) -> None:
    pending: list[Deferred[None]] = []
    store, real = world.store, partial(world.store.query, stats.preview_put)

    def slowly(*args: Any) -> Any:
        pending.append(Deferred())
        return pending[-1].addCallback(lambda _: real(*args))

    store.overrides[stats.preview_put] = slowly
    tasks = [{**BODY, "task_name": f"t{number}"} for number in range(300)]
    data = json.dumps(tasks).encode()
    asking = world.http.request("POST", "http://callme/batch?dry_run", data=data)
    for _ in range(20):
        world.http.flush()
        world.clock.advance(0)
    while pending:
        # The reads end in reverse order.
        pending.pop().callback(None)
        for _ in range(20):
            world.http.flush()
            world.clock.advance(0)
    responses = json.loads(world.result(world.result(asking).text()))
    assert [one["calls_in_minute"] for one in responses] == list(range(1, 301))


def test_batch_dry_run_lists_first_attempts(world: World) -> None:
    (one,) = batch(world, [{**BODY, "task_name": "a", "retry": 1000, "max_delay": 5000}])
    assert one["attempts_at"] == [rfc3339(at * 1000) for at in minutes(*range(60, 70))]
