"""Reschedule and delete of the tasks that match filters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from twisted.logger import capturedLogs, formatEvent

from callme.core.times import Key
from callme.server.site import BoundedSite
from callme.store.listing import actions
from tests.helpers.api_client import Response, ask
from tests.helpers.credentials import gate_for
from tests.helpers.raw_client import Client, head
from tests.helpers.tasks import NOON
from tests.helpers.world import World

LATER = NOON + 3600


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actions, "TASKS_PER_STEP", 2)


def fail(world: World, *names: str, **more: Any) -> None:
    """Put tasks that fail now, one for each name."""
    world.caller.status = 500
    for name in names:
        ask(world, "PUT", f"/task/{name}", {**TASK, "trigger_at": NOON, **more})
    world.scheduler.start()
    world.turn_to(NOON + 1)


TASK = {"callback": "http://billing.example/", "retry": 0, "max_delay": 525_600}


def keys(world: World, query: str = "") -> list[str]:
    return [task["task"] for task in ask(world, "GET", f"/status/{query}").json["tasks"]]


def moved(answer: Response) -> list[tuple[str, str]]:
    assert answer.status == 200, answer.json
    return [(one["from"], one["to"]) for one in answer.json["rescheduled"]]


def test_failed_tasks_of_a_host_move_over_several_minutes(world: World) -> None:
    fail(world, "a", "b", "c", "d")
    ask(world, "PUT", "/task/e", {**TASK, "trigger_at": LATER})
    path = "/reschedule/?host=billing.example:80&spread=2"
    answer = ask(world, "POST", path, {"trigger_at": LATER})
    minutes = [LATER, LATER, LATER + 60, LATER + 60]
    assert moved(answer) == [
        (f"{name}@{NOON}", f"{name}@{at}") for name, at in zip("abcd", minutes, strict=True)
    ]
    assert answer.json["skipped"] == []
    assert "next" not in answer.json
    assert keys(world, "?state=scheduled") == [
        *(f"{name}@{at}" for name, at in zip("abcd", minutes, strict=True)),
        f"e@{LATER}",
    ]


def test_tasks_of_one_name_get_the_next_free_minutes(world: World) -> None:
    for at in (LATER, LATER + 60, LATER + 120, LATER + 300):
        ask(world, "PUT", "/task/a", {**TASK, "trigger_at": at})
    ask(world, "PUT", "/task/a", {**TASK, "trigger_at": LATER + 660, "labels": {"stays": ""}})
    ask(world, "PUT", "/task/a", {**TASK, "trigger_at": LATER + 720, "labels": {"stays": ""}})
    path = f"/reschedule/?prefix=a&all=true&due_before={LATER + 600}"
    answer = ask(world, "POST", path, {"trigger_at": LATER + 660})
    assert moved(answer) == [
        (f"a@{LATER}", f"a@{LATER + 780}"),
        (f"a@{LATER + 60}", f"a@{LATER + 840}"),
        (f"a@{LATER + 120}", f"a@{LATER + 900}"),
        (f"a@{LATER + 300}", f"a@{LATER + 960}"),
    ]


def test_tasks_that_move_into_each_others_minutes_are_not_lost(world: World) -> None:
    for at in (LATER, LATER + 60):
        ask(world, "PUT", "/task/a", {**TASK, "trigger_at": at, "payload": str(at)})
    answer = ask(world, "POST", "/reschedule/?prefix=a&all", {"trigger_at": LATER + 60})
    assert moved(answer) == [
        (f"a@{LATER}", f"a@{LATER + 60}"),
        (f"a@{LATER + 60}", f"a@{LATER + 120}"),
    ]
    assert world.task(Key("a", LATER + 60)).definition.payload == str(LATER)
    assert world.task(Key("a", LATER + 120)).definition.payload == str(LATER + 60)


def test_next_leads_through_all_tasks_and_moves_each_once(world: World) -> None:
    for number in range(7):
        ask(world, "PUT", "/task/a", {**TASK, "trigger_at": LATER + 60 * number})
        ask(world, "PUT", f"/task/b{number}", {**TASK, "trigger_at": LATER})
    path, found = "/reschedule/?host=billing.example:80&all=true&limit=3", []
    start_from = ""
    for _ in range(20):
        answer = ask(world, "POST", path + start_from, {"trigger_at": LATER + 180})
        found += [old for old, _ in moved(answer)]
        if "next" not in answer.json:
            break
        start_from = f"&start_from={answer.json['next']}"
    assert len(found) == len(set(found)) == 14
    assert len(keys(world, f"?due_from={LATER + 180}")) == 14


def test_tasks_that_have_not_failed_stay_without_all(world: World) -> None:
    ask(world, "PUT", "/task/a", {**TASK, "trigger_at": LATER})
    assert moved(ask(world, "POST", "/reschedule/?prefix=a")) == []
    answer = ask(world, "POST", "/reschedule/?state=scheduled")
    assert answer.status == 400
    assert "add all=true" in answer.json["detail"]
    assert keys(world) == [f"a@{LATER}"]


def test_running_tasks_are_skipped(world: World) -> None:
    world.caller.status = None
    ask(world, "PUT", "/task/a", {**TASK, "trigger_at": NOON})
    world.scheduler.start()
    world.turn_to(NOON + 1)
    skipped = [{"task": f"a@{NOON}", "reason": "running"}]
    answer = ask(world, "POST", "/reschedule/?prefix=a&all=true")
    assert answer.json == {"rescheduled": [], "skipped": skipped}
    assert ask(world, "DELETE", "/task/?prefix=a").json == {"deleted": 0, "skipped": skipped}


def test_task_that_could_not_run_at_the_new_time_is_skipped(world: World) -> None:
    fail(world, "a", max_delay=1)
    fail(world, "b")
    answer = ask(world, "POST", "/reschedule/?state=failed", {"trigger_at": NOON - 60})
    assert moved(answer) == [(f"b@{NOON}", f"b@{NOON - 60}")]
    assert answer.json["skipped"] == [{"task": f"a@{NOON}", "reason": "too_late"}]


def test_task_without_a_free_minute_is_skipped(world: World) -> None:
    last = 253402300740
    fail(world, "a", "b")
    ask(world, "PUT", "/task/a", {**TASK, "trigger_at": last, "max_delay": 1})
    answer = ask(world, "POST", "/reschedule/?state=failed", {"trigger_at": last})
    assert moved(answer) == [(f"b@{NOON}", f"b@{last}")]
    assert answer.json["skipped"] == [{"task": f"a@{NOON}", "reason": "no_free_minute"}]
    answer = ask(world, "POST", "/reschedule/?state=failed&spread=1", {"trigger_at": last})
    assert answer.status == 400


def test_dry_run_returns_the_effect_and_changes_nothing(world: World) -> None:
    fail(world, "a", "b", "c")
    before = ask(world, "GET", "/status/").json
    for method, path, body in (
        ("POST", "/reschedule/?reason=unexpected_status&limit=3&spread=3", {"trigger_at": LATER}),
        ("DELETE", "/task/?state=failed&limit=2", None),
    ):
        preview = ask(world, method, path + "&dry_run=true", body)
        assert ask(world, "GET", "/status/").json == before
        answer = ask(world, method, path, body)
        assert answer.json == preview.json
        before = ask(world, "GET", "/status/").json


def test_all_tasks_of_a_label_are_deleted(world: World) -> None:
    for number in range(5):
        customer = {"customer": str(number % 2)}
        ask(world, "PUT", f"/task/{number}", {**TASK, "trigger_at": LATER, "labels": customer})
    answer = ask(world, "DELETE", "/task/?label=customer:0&limit=2")
    assert answer.json == {"deleted": 2, "skipped": [], "next": f"4@{LATER}"}
    answer = ask(world, "DELETE", f"/task/?label=customer:0&start_from=4@{LATER}")
    assert answer.json == {"deleted": 1, "skipped": []}
    assert keys(world) == [f"1@{LATER}", f"3@{LATER}"]


def test_moved_task_is_called_when_due(world: World) -> None:
    fail(world, "a", "b", "c", "d", "e")
    world.caller.status = 200
    ask(world, "POST", "/reschedule/?state=failed", {"trigger_at": "+0m"})
    world.turn_to(NOON + 3)
    assert len(keys(world, "?state=succeeded")) == 5


@pytest.mark.parametrize(
    "query",
    ["", "limit=5", "dry_run=true", "start_from=a@0", "all=true", "spread=3", "pretty"],
)
def test_request_without_a_filter_is_refused(world: World, query: str) -> None:
    fail(world, "a")
    answers = [ask(world, "POST", f"/reschedule/?{query}"), ask(world, "DELETE", f"/task/?{query}")]
    assert [answer.status for answer in answers] == [400, 400]
    assert keys(world, "?state=failed") == [f"a@{NOON}"]


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("state=failed&limit=10001", "limit"),
        ("state=failed&limit=0", "limit"),
        ("state=failed&spread=0", "spread"),
        ("state=failed&spread=10081", "spread"),
        ("state=failed&start_from=x", "start_from"),
        ("host=x", "host"),
        ("prefix=", "prefix"),
        ("future_only=true", "future_only"),
    ],
)
def test_invalid_parameter_is_refused_by_name(world: World, query: str, pointer: str) -> None:
    answer = ask(world, "POST", f"/reschedule/?{query}")
    assert answer.status == 400
    assert [error["pointer"] for error in answer.json["errors"]] == [pointer]


def send(client: Client, method: bytes, path: bytes) -> list[str]:
    """Send a request with a token; return the log lines that it causes."""
    authorization = b"Authorization: Bearer a-token-of-the-team-a"
    with capturedLogs() as events:
        client.send(head(method, path, authorization, b"X-Request-Id: r-1", b"Content-Length: 0"))
        client.world.clock.pump([0.0] * 50)
    return [str(formatEvent(event)) for event in events]


def test_action_is_one_line_in_the_log(world: World, tmp_path: Path) -> None:
    fail(world, "team-a.x", "team-a.y", "team-b.z")
    gate = gate_for(tmp_path, "a-token-of-the-team-a ops prefix=team-a.")
    client = Client(world, BoundedSite(world.parts.site.resource, world.clock, gate))
    assert send(client, b"POST", b"/reschedule/?state=failed&dry_run") == []
    assert send(client, b"POST", b"/reschedule/?state=failed&host=billing.example:80") == [
        'ops rescheduled 2 tasks that match state="failed" host="billing.example:80", request r-1'
    ]
    assert send(client, b"DELETE", b"/task/?label=a:b") == []
    assert send(client, b"DELETE", b"/task/?state=scheduled") == [
        'ops deleted 2 tasks that match state="scheduled", request r-1'
    ]
    assert keys(world) == [f"team-b.z@{NOON}"]


def test_action_goes_on_when_its_client_hangs_up(world: World) -> None:
    fail(world, *"abcdefg")
    asking = world.http.request("DELETE", "http://callme/task/?state=failed")
    asking.cancel()
    world.turn_to(NOON + 2)
    assert keys(world) == []


def test_action_that_the_database_refuses_can_be_repeated(world: World) -> None:
    fail(world, *"abcd")
    world.store.is_broken = True
    assert ask(world, "DELETE", "/task/?state=failed").status == 503
    world.store.is_broken = False
    assert len(keys(world)) == 4
    assert ask(world, "DELETE", "/task/?state=failed").json["deleted"] == 4
