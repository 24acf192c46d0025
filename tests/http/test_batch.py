"""Batches through treq's in-memory client, on the real SQL statements."""

from __future__ import annotations

import gc
import json
from functools import partial
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from callme.api.batch import MAX_TASKS, TASKS_PER_SLICE
from callme.api.strict_json import MAX_ITEM_LENGTH
from callme.security.address_policy import parse_network
from callme.store import tasks
from callme.store.interface import StoreUnavailable
from tests.helpers.logs import LoggedFailures
from tests.helpers.tasks import NOON
from tests.helpers.world import World

URL = "http://callme:6777/batch"
AT = NOON + 3600


def one(name: str, **more: Any) -> dict[str, Any]:
    return {
        "task_name": name,
        "trigger_at": AT,
        "callback": "http://sink.example/",
        **more,
    }


def send(world: World, data: bytes, kind: str = "application/json", query: str = "") -> Any:
    """Send a batch, and run the reactor until the response."""
    pending = world.http.request("POST", URL + query, data=data, headers={"Content-Type": kind})
    world.clock.advance(0)
    world.http.flush()
    return world.result(pending)


def responses(world: World, items: list[Any], **more: Any) -> Any:
    response = send(world, json.dumps(items).encode(), **more)
    assert response.code == 200
    assert response.headers.getRawHeaders("content-type") == ["application/json"]
    return json.loads(world.result(response.text()))


def test_batch_results_equal_those_of_single_puts(world: World) -> None:
    world.put("standing", AT, payload="x", max_delay=10)
    found = responses(
        world,
        [
            one("new"),
            one("bad", retry=-1, colour="red"),
            one("standing"),
            one("standing", payload="x", callback_method="GET", max_delay=10),
            one("new"),
            one("new", payload="other"),
            one("late", trigger_at=NOON - 6000),
            5,
            {},
            one("last", trigger_at="+5m"),
        ],
    )
    assert [answer["status"] for answer in found] == [
        *(201, 422, 409, 200, 200, 409, 422, 400, 422, 201)
    ]
    assert found[0] == {"status": 201, "task": f"new@{AT}"}
    assert [error["pointer"] for error in found[1]["errors"]] == ["/retry", "/colour"]
    assert found[2]["task"]["task"] == f"standing@{AT}"
    assert "payload" not in found[2]["task"]
    assert found[3] == {"status": 200, "task": f"standing@{AT}"}
    page = world.result(world.store.read(tasks.list_page))
    assert [task.key.task_name for task in page.tasks] == ["last", "new", "standing"]


def test_batch_creates_many_tasks(world: World) -> None:
    found = responses(world, [one(f"n{number}") for number in range(1000)])
    assert found == [{"status": 201, "task": f"n{n}@{AT}"} for n in range(1000)]
    again = responses(world, [one(f"n{number}") for number in range(TASKS_PER_SLICE + 1)])
    assert {answer["status"] for answer in again} == {200}


def test_ndjson_batch_has_a_task_per_line(world: World) -> None:
    data = b'{"bad"\n' + json.dumps(one("a")).encode() + b"\r\n\n" + json.dumps(one("b")).encode()
    response = send(world, data, "application/x-ndjson; charset=utf-8")
    assert response.headers.getRawHeaders("content-type") == ["application/x-ndjson"]
    lines = world.result(response.text()).splitlines()
    assert [json.loads(line)["status"] for line in lines] == [400, 201, 201]


@pytest.mark.parametrize("item", ['{"a": 1, "a": 2}', '{"a": NaN}', '{"a": "\\ud800"}', "1" * 5000])
def test_malformed_item_does_not_affect_other_items(world: World, item: str) -> None:
    data = f"[{json.dumps(one('a'))}, {item}, {json.dumps(one('b'))}]".encode()
    response = send(world, data)
    found = json.loads(world.result(response.text()))
    assert [answer["status"] for answer in found] == [201, 400, 201]


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", 400),
        (b"{}", 400),
        (b"[", 400),
        (b"[1,]", 400),
        (b"[1 2]", 400),
        (b"[1]]", 400),
        (b"[\xff]", 400),
        (b"[" + b"1," * MAX_TASKS + b"1]", 413),
        (b"[" * 9_000, 400),
        (b'[{"payload": "' + b"a" * MAX_ITEM_LENGTH + b'"}]', 413),
        (b'[{"payload": "' + b"a" * 3 * MAX_ITEM_LENGTH + b'"}]', 413),
        (b'[{"a": 1, "a": [' + b"1," * MAX_ITEM_LENGTH + b"1]}]", 413),
        (b"[" + b"[" * 40 + b"1" + b"]" * 40 + b",[" + b"[]," * MAX_ITEM_LENGTH + b"[]]]", 413),
        (b"[" + (b'"' + b"a" * 999 + b'",') * 1_500 + b"tru]", 400),
        (b"[" + (b'"' + b"a" * 999 + b'",') * 3_500 + b"{tru," + b"1" * 3 * MAX_ITEM_LENGTH, 400),
    ],
)
def test_unreadable_batch_is_refused(world: World, data: bytes, status: int) -> None:
    if data.startswith(b"[1"):
        data = b"[" + json.dumps(one("a")).encode() + b"," + data[1:]
    response = send(world, data)
    assert response.code == status
    assert list(world.result(world.store.read(tasks.list_page)).tasks) == []


def test_ndjson_sent_as_json_is_refused_with_advice(world: World) -> None:
    data = b"\n".join(json.dumps(one(name)).encode() for name in "ab")
    response = send(world, data)
    assert response.code == 400
    assert "application/x-ndjson" in world.result(response.json())["detail"]


@pytest.mark.parametrize("kind", ["application/json", "application/x-ndjson"])
def test_byte_order_mark_of_a_batch_is_skipped(world: World, kind: str) -> None:
    data = json.dumps(one("a")).encode()
    data = b"[" + data + b"]" if kind == "application/json" else data + b"\n"
    text = world.result(send(world, b"\xef\xbb\xbf" + data, kind).text())
    assert '"status":201' in text


@pytest.mark.parametrize("query", ["", "?dry_run"])
def test_batch_results_have_the_warnings_of_their_tasks(world: World, query: str) -> None:
    items = [one("a", payload={}), one("b"), one("late", payload={}, trigger_at=NOON - 6000)]
    data = json.dumps(items).encode()
    found = world.result(send(world, data, query=query).json())
    assert [answer["status"] for answer in found] == [201, 201, 422]
    assert [warning["pointer"] for warning in found[0]["warnings"]] == ["/callback_method"]
    assert "warnings" not in found[1] | found[2]


def test_too_long_line_is_refused(world: World) -> None:
    line = b'{"payload": "' + b"a" * MAX_ITEM_LENGTH + b'"}'
    assert send(world, line, "application/x-ndjson").code == 413


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_json_error_gives_its_line_and_column(world: World, end: bytes) -> None:
    items = (b'"' + b"a" * 999 + b'",' + end) * 3_500
    data = b"[" + items + b"{tru}]"
    place = "line 3501, column 2" if end else f"line 1, column {len(data) - 4}"
    detail = world.result(send(world, data).json())["detail"]
    position, _, found = detail.rpartition(f"at {place}")
    assert position
    assert found.startswith(', found "t": ')


def test_empty_batch_has_no_results(world: World) -> None:
    assert responses(world, []) == []


def test_batch_of_another_content_type_is_refused(world: World) -> None:
    assert send(world, b"[]", "text/csv").code == 415


def test_pretty_indents_batch_results(world: World) -> None:
    response = send(world, json.dumps([one("a"), one("b")]).encode(), query="?pretty")
    text = world.result(response.text())
    assert text.startswith('[\n  {"status":201,')
    assert len(json.loads(text)) == 2


def test_batched_tasks_that_are_due_are_called_at_once(world: World) -> None:
    world.scheduler.start()
    responses(world, [one("now", trigger_at="+0m"), one("later")])
    assert world.caller.called == [f"now@{NOON}"]


def test_batch_reports_an_unavailable_database(world: World) -> None:
    world.store.is_broken = True
    response = send(world, json.dumps([one("a")]).encode())
    assert (response.code, response.headers.getRawHeaders("retry-after")) == (503, ["2"])


def test_failing_batch_leaves_no_unhandled_error(
    world: World, logged_failures: LoggedFailures
) -> None:
    """The slice after a failed slice fails too, when no code waits for its result any more."""
    waiting: list[Deferred[Any]] = []

    def put_many(tasks: Any, now: float) -> Deferred[Any]:
        waiting.append(Deferred())
        return waiting[-1]

    world.store.overrides[tasks.put_many] = put_many
    data = json.dumps([one(f"n{n}") for n in range(2 * TASKS_PER_SLICE)]).encode()
    pending = world.http.request("POST", URL, data=data)
    world.clock.advance(0)
    assert len(waiting) == 2
    while waiting:
        waiting.pop(0).errback(StoreUnavailable("database is locked"))
    world.http.flush()
    assert world.result(pending).code == 503
    # An unhandled failure is logged when it is collected.
    gc.collect()
    assert logged_failures.flush(StoreUnavailable) == 0


def test_large_batch_yields_to_the_reactor(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    put_many, turns = partial(world.store.run, tasks.put_many), []
    timed = world.clock.callLater

    def counted(tasks: Any, now: float) -> Any:
        turns.append(len(tasks))
        return put_many(tasks, now)

    def called_later(delay: float, *rest: Any) -> Any:
        turns.append(0)
        return timed(delay, *rest)

    world.store.overrides[tasks.put_many] = counted
    monkeypatch.setattr(world.clock, "callLater", called_later)
    responses(world, [one(f"n{number}") for number in range(10 * TASKS_PER_SLICE)])
    # Ten reactor turns while it is decoded, and one before each slice is written.
    assert turns == [0] * 10 + [0, TASKS_PER_SLICE] * 10


def test_batch_denies_the_same_addresses_as_put() -> None:
    world = World(deny_network=[parse_network("10.0.0.0/8")])
    hosts = ["10.0.0.1", "169.254.169.254", "192.0.2.1"]
    tasks = [one(f"t{n}", callback=f"http://{host}/") for n, host in enumerate(hosts)]
    assert [told["status"] for told in responses(world, tasks)] == [422, 422, 201]
    world.close()


def test_task_that_falls_due_during_a_batch_is_called_at_once(world: World) -> None:
    world.clock.advance(59.9)
    world.scheduler.start()
    put_many, committed = partial(world.store.run, tasks.put_many), Deferred[Any]()
    world.store.overrides[tasks.put_many] = lambda tasks, now: committed.addCallback(
        lambda _: put_many(tasks, now)
    )
    body = json.dumps([one("due", trigger_at=NOON + 60)]).encode()
    pending = world.http.request("POST", URL, data=body)
    # The tick of the minute is over when the task is stored.
    world.turn_to(NOON + 60.5)
    committed.callback(None)
    world.turn_to(NOON + 60.6)
    world.http.flush()
    assert world.result(pending).code == 200
    assert world.caller.called == [f"due@{NOON + 60}"]
