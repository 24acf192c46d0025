"""Notifications of a task's end: tasks of their own, put in the transaction that ends it."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest
from attrs import evolve
from twisted.python.failure import Failure

from callme.core.notification import MAX_LISTED_ATTEMPTS, build_notification, notification_url
from callme.core.parameters import MAX_PAYLOAD_BYTES
from callme.core.representation import task_to_dict
from callme.core.task import Attempt, Claim, Reason, State, Task
from callme.core.times import MAX_NAME_LENGTH, Key
from callme.security.address_policy import parse_network
from callme.store import queue, tasks
from tests.helpers.api_client import ask
from tests.helpers.html import visit
from tests.helpers.scraping import samples, value
from tests.helpers.tasks import NOON, definition
from tests.helpers.world import World

TOLD: dict[str, Any] = {
    "on_failure": "http://told.example/bad",
    "on_success": "http://told.example/good",
}
BAD, GOOD = f"task.{NOON}.on_failure", f"task.{NOON}.on_success"


def begun(world: World, **more: Any) -> None:
    """Put a task, and start the daemon."""
    world.put(**{**TOLD, "retry": 0, **more})
    world.scheduler.start()
    world.turn_to(world.now())


def notices(world: World) -> list[Claim]:
    """Return the calls made for notifications."""
    return [claim for _, claim in world.caller.calls if "told" in claim.host]


@pytest.mark.parametrize(("status", "name"), [(500, BAD), (200, GOOD)])
def test_end_of_a_task_is_notified_at_once(world: World, status: int, name: str) -> None:
    world.caller.status = status
    begun(world, headers={"Authorization": "secret"}, payload="p")
    (call,) = notices(world)
    made = call.definition
    assert made.key == Key(name, NOON)
    assert made.callback == TOLD[name.rpartition(".")[2]]
    assert (made.callback_method, made.headers) == ("POST", {"Content-Type": "application/json"})
    assert "secret" not in made.payload
    shown = json.loads(made.payload)
    assert shown == ask(world, "GET", f"/status/task@{NOON}").json
    assert shown["attempts"][0]["status"] == status
    assert shown["headers"] == {"Authorization": "***"}


@pytest.mark.parametrize(("status", "given"), [(500, "on_success"), (200, "on_failure")])
def test_success_does_not_call_on_failure(world: World, status: int, given: str) -> None:
    world.caller.status = status
    begun(world, **{"on_failure": None, "on_success": None, given: TOLD[given]})
    assert world.caller.called == [f"task@{NOON}"]


def test_attempts_before_the_last_are_not_notified(world: World) -> None:
    world.caller.status = 500
    begun(world, retry=2)
    world.turn_to(NOON + 119)
    assert notices(world) == []
    world.turn_to(NOON + 120)
    assert [call.definition.task_name for call in notices(world)] == [BAD]


def test_notification_is_retried_and_has_no_notification(world: World) -> None:
    world.caller.status = 500
    begun(world)
    world.turn_to(NOON + 86_400)
    assert [call.number for call in notices(world)] == list(range(1, 12))
    assert world.task(Key(BAD, NOON)).state is State.FAILED
    assert len(world.caller.calls) == 12


def test_expired_task_is_notified_in_the_same_tick(world: World) -> None:
    world.put(**TOLD, max_delay=1)
    world.clock.rightNow += 3600
    world.scheduler.start()
    world.turn_to(NOON + 3600)
    assert world.caller.called == [f"{BAD}@{NOON + 3600}"]
    assert json.loads(notices(world)[0].definition.payload)["reason"] == "too_late"


def test_end_of_an_orphan_is_notified(world: World) -> None:
    world.caller.status = None
    begun(world)
    world.restart()
    world.turn_to(world.now())
    (call,) = notices(world)
    assert json.loads(call.definition.payload)["reason"] == "interrupted"


def test_notification_does_not_overwrite_a_task(world: World) -> None:
    world.caller.status = 500
    world.put(BAD, NOON, payload="somebody's")
    begun(world)
    assert [call.definition.trigger_at for call in notices(world)] == []
    assert world.task(Key(BAD, NOON)).definition.payload == "somebody's"
    ask(world, "POST", f"/reschedule/task@{NOON}", {"trigger_at": "+0m"})
    world.turn_to(NOON + 120)
    first = {call.definition.trigger_at for call in notices(world) if call.number == 1}
    assert first == {NOON + 60, NOON + 120}


def test_long_names_get_distinct_notifications(world: World) -> None:
    """Names that differ only in the truncated part get different notifications."""
    world.caller.status = 500
    for number in range(3):
        world.put("x" * (MAX_NAME_LENGTH - 1) + str(number), **TOLD, retry=0)
    begun(world)
    assert {call.definition.trigger_at for call in notices(world)} == {NOON}
    assert len({call.definition.task_name for call in notices(world)}) == 4


def test_free_minute_is_found_in_one_query(world: World) -> None:
    for minute in [*range(1000), 1001]:
        world.put(BAD, NOON + 60 * minute)
    world.put(**TOLD, max_delay=1)
    statements: list[str] = []
    world.store.connection.set_trace_callback(statements.append)
    world.result(world.store.write(queue.expire_overdue, NOON + 60))
    world.store.connection.set_trace_callback(None)
    assert world.task(Key("task", NOON)).reason is Reason.TOO_LATE
    assert world.task(Key(BAD, NOON + 60_000)).definition.callback == TOLD["on_failure"]
    assert len(statements) < 15


def test_end_and_notification_are_one_transaction(world: World) -> None:
    """If one cannot be stored, the other is not stored either; later both are."""
    world.caller.status = 500
    world.store.connection.execute(
        "CREATE TRIGGER no_notice BEFORE INSERT ON task WHEN new.callback_method = 'POST' "
        "BEGIN SELECT RAISE(ABORT, 'disk full'); END"
    )
    refused = []
    record = partial(world.store.run, queue.record)

    def refuse(failure: Failure) -> bool:
        refused.append(failure)
        return False

    def recording(*args: Any) -> Any:
        return record(*args).addErrback(refuse)

    world.store.overrides[queue.record] = recording
    begun(world)
    assert len(refused) == 1
    assert world.task(Key("task", NOON)).state is State.RUNNING
    world.store.connection.execute("DROP TRIGGER no_notice")
    del world.store.overrides[queue.record]
    world.restart()
    world.turn_to(world.now())
    assert world.task(Key("task", NOON)).state is State.FAILED
    assert len(notices(world)) == 1


def test_end_of_a_corrupt_task_is_notified(world: World) -> None:
    world.put(**TOLD)
    world.store.connection.execute("UPDATE task SET headers = 'nonsense'")
    world.scheduler.start()
    world.turn_to(NOON + 60)
    assert world.caller.called == [f"{BAD}@{NOON}"]
    assert "is broken" in json.loads(notices(world)[0].definition.payload)["detail"]


@pytest.mark.parametrize("url", ["nonsense", "http://", "http://a b/"])
def test_corrupt_notification_url_does_not_prevent_the_end(world: World, url: str) -> None:
    """Another program has written into the database."""
    world.caller.status = 500
    world.put(**TOLD, retry=0)
    world.put("unreadable", **TOLD)
    world.put("late", **TOLD, max_delay=1)
    world.store.connection.execute("UPDATE task SET on_failure = ?", (url,))
    world.store.connection.execute("UPDATE task SET headers = '[' WHERE task_name = 'unreadable'")
    world.clock.rightNow += 3600
    world.scheduler.start()
    world.turn_to(NOON + 3600)
    for name in ("task", "unreadable", "late"):
        assert world.task(Key(name, NOON)).state is State.FAILED
    assert notices(world) == []


def test_delete_is_not_notified_and_leaves_notifications(world: World) -> None:
    world.put("deleted", NOON + 60, **TOLD)
    world.caller.status = 500
    begun(world)
    assert len(notices(world)) == 1
    for name in ("deleted", "task"):
        assert ask(world, "DELETE", f"/task/{name}").json == {"deleted": 1, "skipped": []}
    world.caller.status = 200
    world.turn_to(NOON + 120)
    assert [call.number for call in notices(world)] == [1, 2]
    assert world.task(Key(BAD, NOON)).state is State.SUCCEEDED


def test_pruned_task_leaves_its_notification(world: World) -> None:
    world.caller.status = 500
    world.restart(retention=1)
    begun(world)
    # The notification fails until its max_delay; the task ended a day ago.
    world.turn_to(NOON + 86_400 + 61)
    assert world.result(world.store.read(tasks.get, Key("task", NOON))) is None
    assert world.task(Key(BAD, NOON)).state is State.FAILED


def test_notification_is_counted_as_a_task(world: World) -> None:
    world.caller.status = 500
    begun(world)
    failed = {"reason": "unexpected_status"}
    assert value(samples(world), "callme_tasks_finished_total", state="failed", **failed) == 1
    assert value(samples(world), "callme_attempts_total", outcome="unexpected_status") == 2
    world.caller.status = 200
    world.turn_to(NOON + 60)
    succeeded = {"state": "succeeded", "reason": ""}
    assert value(samples(world), "callme_tasks_finished_total", **succeeded) == 1


def ended(**more: Any) -> Task:
    made = definition(**{**TOLD, **more})
    return Task(
        definition=made,
        state=State.FAILED,
        reason=Reason.TIMEOUT,
        detail="d",
        due_at=None,
        attempts_used=1,
        created_at_ms=NOON * 1000,
        finished_at_ms=NOON * 1000,
        attempts=(),
    )


def test_task_without_notification_urls_is_not_notified() -> None:
    made = definition()
    for state in State:
        assert notification_url(made, state, None) is None
    assert build_notification(ended(on_failure=None), NOON) is None
    assert notification_url(definition(**TOLD), State.SCHEDULED, None) is None


@pytest.mark.parametrize("length", [1, 230, MAX_NAME_LENGTH])
def test_notification_has_a_valid_task_name(length: int) -> None:
    made = build_notification(ended(name="\U0001f600" * length), NOON + 7)
    assert made is not None
    assert len(made.task_name) <= MAX_NAME_LENGTH
    assert made.task_name.endswith(f".{NOON}.on_failure")
    # A client could put it too.
    definition(made.task_name, made.trigger_at)


def test_notification_of_a_task_with_a_damaged_key_is_named_by_the_number_of_its_row() -> None:
    made = build_notification(evolve(ended(), row_key=Key.of_row(12)), NOON)
    assert made is not None
    assert made.task_name == "damaged-task-12.on_failure"


ATTEMPT = Attempt(
    number=1,
    started_at_ms=NOON * 1000,
    lateness_ms=0,
    duration_ms=5,
    status=500,
    reason=Reason.UNEXPECTED_STATUS,
    detail="d",
    body="\1" * 1024,
)


def payload_of(task: Task) -> dict[str, Any]:
    made = build_notification(task, NOON)
    assert made is not None
    assert len(made.payload.encode()) <= MAX_PAYLOAD_BYTES
    shown: dict[str, Any] = json.loads(made.payload)
    return shown


def test_notification_payload_keeps_its_size_limit() -> None:
    few = tuple(evolve(ATTEMPT, number=n) for n in range(3))
    task = evolve(ended(payload="x" * 1000), attempts=few)
    assert payload_of(task) == task_to_dict(task)
    long = evolve(ended(payload="\1" * MAX_PAYLOAD_BYTES), attempts=few)
    assert payload_of(long) == task_to_dict(long) | {"payload": ""}
    many = evolve(long, attempts=tuple(evolve(ATTEMPT, number=n) for n in range(1001)))
    kept = task_to_dict(many)["attempts"][-MAX_LISTED_ATTEMPTS:]
    assert payload_of(many) == task_to_dict(many) | {"payload": "", "attempts": kept}


# The default of the daemon

ALL = "http://told.example/all"


def test_failure_of_a_task_without_a_url_is_notified_to_that_of_the_daemon(world: World) -> None:
    world.build(on_failure=ALL)
    world.caller.status = 500
    begun(world, on_failure=None)
    (call,) = notices(world)
    assert (call.definition.key, call.definition.callback) == (Key(BAD, NOON), ALL)
    assert json.loads(call.definition.payload) == ask(world, "GET", f"/status/task@{NOON}").json
    # The definition of the task is as its client put it.
    assert ask(world, "GET", f"/status/task@{NOON}").json["on_failure"] is None


def test_url_of_the_task_has_precedence_over_that_of_the_daemon(world: World) -> None:
    world.build(on_failure=ALL)
    world.caller.status = 500
    begun(world)
    assert [call.definition.callback for call in notices(world)] == [TOLD["on_failure"]]


def test_success_is_not_notified_to_the_url_of_the_daemon(world: World) -> None:
    world.build(on_failure=ALL)
    world.caller.status = 200
    begun(world, on_failure=None, on_success=None)
    assert world.caller.called == [f"task@{NOON}"]


@pytest.mark.parametrize("own", [TOLD["on_failure"], None])
def test_failure_of_a_notification_is_not_notified(world: World, own: str | None) -> None:
    """Not even after it was rescheduled."""
    world.build(on_failure=ALL)
    world.caller.status = 500
    begun(world, on_failure=own)
    world.turn_to(NOON + 86_400)
    assert world.task(Key(BAD, NOON)).state is State.FAILED
    assert len(world.caller.calls) == 12
    ask(world, "POST", f"/reschedule/{BAD}@{NOON}", {"trigger_at": "+0m"})
    world.turn_to(NOON + 2 * 86_400)
    assert world.task(Key(BAD, NOON + 86_400)).state is State.FAILED
    assert len(world.caller.calls) == 23
    names = {task["task_name"] for task in ask(world, "GET", "/status/").json["tasks"]}
    assert names == {"task", BAD}


def test_late_notification_is_not_notified(world: World) -> None:
    world.build(on_failure=ALL)
    world.caller.status = 500
    begun(world, on_failure=None)
    world.restart(on_failure=ALL)
    world.clock.rightNow += 2 * 86_400
    world.turn_to(world.now() + 60)
    assert world.task(Key(BAD, NOON)).reason is Reason.TOO_LATE
    assert len(ask(world, "GET", "/status/").json["tasks"]) == 2


def test_late_interrupted_and_corrupt_tasks_are_notified_to_the_url_of_the_daemon(
    world: World,
) -> None:
    world.build(on_failure=ALL)
    world.caller.status = None
    begun(world, name="interrupted", on_failure=None)
    world.put("late", max_delay=1)
    world.put("corrupt", NOON + 3600)
    world.store.connection.execute("UPDATE task SET headers = '[' WHERE task_name = 'corrupt'")
    world.clock.rightNow += 3600
    world.restart(on_failure=ALL)
    world.turn_to(world.now())
    names = {call.definition.task_name.partition(".")[0] for call in notices(world)}
    assert names == {"interrupted", "late", "corrupt"}


def test_notification_has_no_url_in_json_and_on_its_page(world: World) -> None:
    world.build(on_failure=ALL)
    world.caller.status = 500
    begun(world)
    shown = ask(world, "GET", f"/status/{BAD}@{NOON}").json
    assert (shown["on_failure"], shown["on_success"]) == (None, None)
    assert ask(world, "GET", f"/status/{BAD}").json["tasks"][0]["on_failure"] is None
    assert "On failure" not in visit(world, f"/page/task/{BAD}@{NOON}").facts
    assert visit(world, f"/page/task/task@{NOON}").facts["On failure"] == TOLD["on_failure"]


# Validation

BODY = {"callback": "http://sink.example/"}
PATH = f"/task/task@{NOON + 3600}"


@pytest.mark.parametrize("name", ["on_failure", "on_success"])
@pytest.mark.parametrize("url", ["", "x", "ftp://a/", "http://169.254.169.254/", 1, False, []])
def test_notification_url_is_validated_like_a_callback(
    world: World, name: str, url: object
) -> None:
    response = ask(world, "PUT", PATH, BODY | {name: url})
    assert response.status == 422
    assert [error["pointer"] for error in response.json["errors"]] == [f"/{name}"]


@pytest.mark.parametrize("name", ["on_failure", "on_success"])
def test_denied_notification_address_is_refused(name: str) -> None:
    settings: tuple[tuple[dict[str, Any], str], ...] = (
        ({"deny_network": [parse_network("10.0.0.0/8")]}, "--deny-network"),
        ({"public_only": True}, "--public-only"),
    )
    for networks, reason in settings:
        world = World(**networks)
        response = ask(world, "PUT", PATH, BODY | {name: "http://10.0.0.1/"})
        assert (response.status, response.json["errors"][0]["pointer"]) == (422, f"/{name}")
        assert reason in response.json["errors"][0]["detail"]
        world.close()


def test_notification_url_is_part_of_the_definition(world: World) -> None:
    url = {"on_failure": "http://a.example/"}
    assert ask(world, "PUT", PATH, BODY | {"on_failure": None}).status == 201
    assert ask(world, "PUT", PATH, BODY).status == 200
    assert ask(world, "PUT", PATH, BODY | url).status == 409
    replaced = ask(world, "PUT", PATH, BODY | url, {"If-Match": "*"})
    assert (replaced.status, replaced.json["on_failure"]) == (200, "http://a.example/")
    assert replaced.json["on_success"] is None
    assert ask(world, "PUT", PATH, BODY | url).status == 200
    assert ask(world, "GET", "/status/task").json["tasks"][0]["on_failure"] == "http://a.example/"


def test_batch_item_takes_notification_urls(world: World) -> None:
    task = {"task_name": "task", "trigger_at": NOON + 3600, **BODY, **TOLD}
    body = json.dumps(task).encode() + b"\n"
    pending = world.http.request(
        "POST",
        "http://callme:6777/batch",
        data=body,
        headers={"Content-Type": "application/x-ndjson"},
    )
    world.turn_to(world.now())
    world.http.flush()
    assert world.result(pending).code == 200
    made = world.task(Key("task", NOON + 3600)).definition
    assert (made.on_failure, made.on_success) == tuple(TOLD.values())
