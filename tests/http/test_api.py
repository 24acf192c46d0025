"""The API through treq's in-memory client: no sockets, no threads, a simulated clock."""

from __future__ import annotations

import json
from functools import partial
from ipaddress import ip_address
from typing import Any

import pytest
from treq.testing import StubTreq
from twisted.internet.defer import Deferred

from callme import __version__
from callme.core.task import State
from callme.core.times import Key
from callme.core.transitions import PutCondition
from callme.security.address_policy import parse_network
from callme.server.paths import FIND, TASK
from callme.store import tasks
from tests.helpers.api_client import AT, BASE, BODY, KEY, ask, pointers, put
from tests.helpers.logs import LoggedFailures
from tests.helpers.tasks import NOON, definition
from tests.helpers.world import World

# Put


def test_a_new_task_is_created(world: World) -> None:
    response = put(world)
    assert response.status == 201
    assert response.header("location") == f"/task/{KEY}"
    assert response.json == {
        "task": KEY,
        "task_name": "task",
        "trigger_at": str(AT),
        "callback": "http://sink.example/",
        "callback_method": "GET",
        "payload": "",
        "headers": {},
        "expected_http_status": 200,
        "no_retry_http_status": [],
        "retry": 1,
        "retry_delay": 1,
        "max_delay": 10,
        "timeout": 30,
        "on_failure": None,
        "on_success": None,
        "labels": {},
        "state": "scheduled",
        "reason": None,
        "detail": "",
        "attempts_used": 0,
        "attempts_left": 2,
        "next_attempt_at": "2027-01-15T13:00:00.000Z",
        "created_at": "2027-01-15T12:00:00.000Z",
        "finished_at": None,
        "attempts": [],
    }
    assert response.json == ask(world, "GET", f"/task/{KEY}").json


def test_repeated_put_changes_nothing(world: World) -> None:
    first = put(world)
    again = put(world)
    assert again.status == 200
    assert again.header("location") is None
    assert again.json == first.json


def test_put_can_be_repeated_after_its_minute(world: World) -> None:
    world.scheduler.start()
    put(world, trigger_at=NOON)
    world.turn_to(NOON + 3600)
    again = put(world, trigger_at=NOON)
    assert (again.status, again.json["state"]) == (200, "succeeded")


def test_put_of_another_definition_is_a_conflict(world: World) -> None:
    first = put(world)
    other = put(world, payload="other")
    assert other.status == 409
    assert other.json["task"] == ask(world, "GET", "/status/").json["tasks"][0]
    assert "If-Match: *" in other.json["detail"]
    assert ask(world, "GET", f"/task/{KEY}").json == first.json


def test_if_match_replaces_a_scheduled_task(world: World) -> None:
    put(world)
    other = ask(world, "PUT", f"/task/{KEY}", {**BODY, "payload": "x"}, {"If-Match": "*"})
    assert (other.status, other.json["payload"]) == (200, "x")


def test_if_match_does_not_create(world: World) -> None:
    response = ask(world, "PUT", f"/task/{KEY}", BODY, {"If-Match": "*"})
    assert response.status == 412
    assert ask(world, "GET", "/task/").json == {"tasks": []}


def test_if_match_with_if_none_match_changes_nothing(world: World) -> None:
    first = put(world)
    both = {"If-Match": "*", "If-None-Match": "*"}
    for name in ("task", "other"):
        response = ask(world, "PUT", f"/task/{name}", {**BODY, "payload": "x"}, both)
        assert response.status == 412
    assert ask(world, "GET", "/task/").json["tasks"][0]["created_at"] == first.json["created_at"]
    assert ask(world, "GET", f"/task/{KEY}").json == first.json


def test_number_of_reported_errors_is_limited(world: World) -> None:
    response = ask(world, "PUT", "/task/task", {f"x{number}": 0 for number in range(10_000)})
    assert response.status == 422
    assert len(response.json["errors"]) < 30
    failed(world, 0)
    many = {f"x{number}": 0 for number in range(10_000)}
    assert len(ask(world, "POST", f"/reschedule/task@{NOON}", many).json["errors"]) == 20


def test_if_match_with_a_tag_is_refused(world: World) -> None:
    put(world)
    assert ask(world, "PUT", f"/task/{KEY}", BODY, {"If-Match": '"tag"'}).status == 412


def test_if_match_does_not_replace_a_task_that_has_run(world: World) -> None:
    world.scheduler.start()
    put(world, trigger_at=NOON)
    body = {**BODY, "trigger_at": NOON, "payload": "x"}
    response = ask(world, "PUT", "/task/task", body, {"If-Match": "*"})
    assert (response.status, response.json["task"]["state"]) == (409, "succeeded")


def test_if_none_match_does_not_replace(world: World) -> None:
    condition = {"If-None-Match": "*"}
    assert ask(world, "PUT", "/task/task", BODY, condition).status == 201
    response = ask(world, "PUT", "/task/task", BODY, condition)
    assert (response.status, response.json["task"]["task"]) == (412, KEY)


def test_a_task_whose_minute_has_begun_is_called_at_once(world: World) -> None:
    world.scheduler.start()
    world.turn_to(NOON + 30)
    assert put(world, trigger_at="+0m").status == 201
    assert world.caller.called == [f"task@{NOON}"]
    assert put(world, "other", trigger_at=NOON - 120).status == 201
    assert world.caller.called[1:] == [f"other@{NOON - 120}"]


def test_task_past_its_max_delay_is_refused(world: World) -> None:
    response = put(world, trigger_at=NOON - 600)
    assert (response.status, pointers(response)) == (422, ["/trigger_at"])
    assert "2027-01-15T12:00:00.000Z" in response.json["errors"][0]["detail"]
    assert ask(world, "GET", "/task/").json == {"tasks": []}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/task/task", BODY),
        (f"/task/task@{AT}", {"callback": "http://sink.example/"}),
        ("/task/task@+1h", {"callback": "http://sink.example/"}),
        ("/task", {**BODY, "task_name": "task"}),
        ("/task/", {**BODY, "task_name": "task"}),
        (f"/task/task@{AT + 17}/", BODY),
        ("/task/t%61sk?pretty", BODY),
    ],
)
def test_name_and_time_come_from_url_or_body(world: World, path: str, body: object) -> None:
    response = ask(world, "PUT", path, body)
    assert (response.status, response.json["task"]) == (201, KEY)


@pytest.mark.parametrize(
    ("name", "quoted"),
    [
        ("näme", "n%C3%A4me"),
        ("a b", "a%20b"),
        ("50%", "50%25"),
        ("a?b#c", "a%3Fb%23c"),
        ("\U0001f600", "%F0%9F%98%80"),
        ("a+b", "a%2Bb"),
        ("x" * 255, "x" * 255),
        (";&=", "%3B%26%3D"),
    ],
)
def test_names_are_unicode(world: World, name: str, quoted: str) -> None:
    response = put(world, quoted)
    assert (response.status, response.json["task_name"]) == (201, name)
    location = response.header("location")
    assert location == f"/task/{quoted}@{AT}"
    assert ask(world, "GET", location).json["task_name"] == name
    page = ask(world, "GET", f"/status/{quoted}").json
    assert [task["task_name"] for task in page["tasks"]] == [name]


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"", 400, "empty"),
        (b"{", 400, "not JSON"),
        (b"[]", 400, "expected a JSON object"),
        (b"null", 400, "expected a JSON object"),
        (b'"\xff"', 400, "not UTF-8"),
        (b'{"a": NaN}', 400, "NaN"),
        (b'{"a": 1e999}', 400, "too large"),
        (b'{"a": 1, "a": 2}', 400, '"a" occurs twice'),
        (b"[" * 9_000 + b"]" * 9_000, 400, "too deep"),
        (b'{"task_name": "\\ud800"}', 400, "surrogate"),
        (b"{}", 422, "trigger_at: is required"),
        (b'{"trigger_at": 9223372036854775808, "callback": "http://a/"}', 422, "out of range"),
        (b'{"trigger_at": "+1h", "callback": "http://a/", "retry": true}', 422, "retry"),
        (b'{"trigger_at": "+1h", "callback": "http://a/", "colour": 1}', 422, '"colour"'),
    ],
)
def test_bad_body_names_the_wrong_member(
    world: World, body: bytes, status: int, message: str
) -> None:
    response = ask(world, "PUT", "/task/task", body)
    assert response.status == status
    assert message in response.json["detail"]
    assert response.json["errors"]
    assert ask(world, "GET", "/task/").json == {"tasks": []}


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/task/" + "x" * 256, 422),
        ("/task/a%2Fb", 422),
        ("/task/%2Fa", 422),
        ("/task/a%2F", 422),
        ("/task/a%2f/", 422),
        ("/task/a%00b", 422),
        ("/task/a%0Ab", 422),
        ("/task/%0Aa", 422),
        ("/task/a%0A", 422),
        ("/task/%0A", 422),
        ("/task/%2F", 422),
        ("/task/a@b@c", 422),
        ("/task/@60", 422),
        (f"/task/task@{AT}?colour=red", 400),
        ("/task/task?pretty=maybe", 400),
        ("/task/task?pretty&pretty", 400),
        ("/task/task?%FF", 400),
    ],
)
def test_bad_url_is_refused(world: World, path: str, status: int) -> None:
    response = ask(world, "PUT", path, BODY)
    assert response.status == status
    assert ask(world, "GET", "/task/").json == {"tasks": []}


@pytest.mark.parametrize("name", ["a%2F", "%2Fa", "a%0Ab", "a%0A", "%0A", "a%00", "%2F"])
@pytest.mark.parametrize("method", ["GET", "DELETE", "POST"])
def test_invalid_name_in_a_path_is_refused(world: World, method: str, name: str) -> None:
    world.put("a", NOON + 60)
    path = "/reschedule/" if method == "POST" else "/task/"
    assert ask(world, method, path + name).status == 400
    assert world.task(Key("a", NOON + 60)).state is State.SCHEDULED


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("application/json", 201),
        ("Application/JSON; charset=utf-8", 201),
        ("application/x-www-form-urlencoded", 201),
        ("text/plain", 201),
        ("application/octet-stream", 201),
        ("application/xml", 415),
        ("multipart/form-data; boundary=x", 415),
    ],
)
def test_content_type_of_the_body_is_checked(world: World, kind: str, status: int) -> None:
    assert ask(world, "PUT", "/task/task", BODY, {"Content-Type": kind}).status == status


@pytest.mark.parametrize(
    "host", ["169.254.169.254", "[::ffff:a9fe:a9fe]", "[fd00:ec2::254]", "10.0.0.1"]
)
def test_denied_callback_address_is_refused(host: str) -> None:
    world = World(deny_network=[parse_network("10.0.0.0/8")])
    response = put(world, callback=f"http://{host}/")
    assert (response.status, pointers(response)) == (422, ["/callback"])
    # The standard library's own form, which differs from Python 3.13 on.
    assert str(ip_address(host.strip("[]"))) in response.json["detail"]
    assert "must not be called" in response.json["detail"]
    assert ask(world, "GET", "/task/").json == {"tasks": []}
    world.close()


def test_secrets_are_redacted_in_every_response(world: World) -> None:
    headers = {"Authorization": "hunter2", "X-Api-Key": "hunter2", "X-Plain": "shown"}
    responses = [
        put(world, headers=headers),
        put(world, headers=headers, payload="other"),
        ask(world, "GET", f"/task/{KEY}"),
        ask(world, "GET", "/status/"),
    ]
    assert [response.status for response in responses] == [201, 409, 200, 200]
    assert all("hunter2" not in response.text for response in responses)
    # A single task shows values that look harmless; lists and errors show none.
    assert ["shown" in response.text for response in responses] == [True, False, True, False]
    assert responses[1].json["task"]["headers"] == dict.fromkeys(headers, "***")


# Status and lists


def test_status_and_task_paths_respond_alike(world: World) -> None:
    put(world)
    for path in (f"/{{}}/{KEY}", "/{}/task", "/{}/", "/{}", "/{}/task/", f"/{{}}/{KEY}/"):
        status, task = (ask(world, "GET", path.format(which)) for which in ("status", "task"))
        assert (status.status, status.json) == (200, task.json)


def test_task_lists_every_attempt(world: World) -> None:
    world.scheduler.start()
    world.caller.status = 500
    put(world, trigger_at=NOON)
    world.turn_to(NOON + 60)
    response = ask(world, "GET", f"/status/task@{NOON}").json
    assert (response["state"], response["reason"]) == ("failed", "unexpected_status")
    assert (response["attempts_used"], response["attempts_left"]) == (2, 0)
    detail = "the endpoint responded with 500, expected 200; all 2 attempts are used"
    assert response["detail"] == detail
    assert response["attempts"][1] == {
        "number": 2,
        "started_at": "2027-01-15T12:01:00.000Z",
        "lateness_ms": 60_000,
        "duration_ms": 5,
        "status": 500,
        "reason": "unexpected_status",
        "detail": "the endpoint responded with 500, expected 200",
        "body": "",
        "node": "node",
    }


def test_lists_leave_out_payload_and_attempts(world: World) -> None:
    put(world, payload="large")
    (task,) = ask(world, "GET", "/status/").json["tasks"]
    assert {"payload", "attempts"}.isdisjoint(task)
    assert task["task"] == KEY


@pytest.mark.parametrize("path", ["/status/nobody", f"/status/nobody@{NOON}", "/task/nobody"])
def test_unknown_tasks_are_not_found(world: World, path: str) -> None:
    assert ask(world, "GET", path).status == 404


def test_an_empty_store_has_an_empty_list(world: World) -> None:
    response = ask(world, "GET", "/status/")
    assert (response.status, response.json) == (200, {"tasks": []})


@pytest.mark.parametrize("path", ["/status/", "/status/n%C3%A4me"])
def test_next_links_lead_through_all_pages(world: World, path: str) -> None:
    for number in range(7):
        put(world, "n%C3%A4me", trigger_at=AT + 60 * number)
    found: list[str] = []
    url: str | None = f"{path}?limit=3&state=scheduled"
    while url:
        response = ask(world, "GET", url)
        found += [task["task"] for task in response.json["tasks"]]
        link = response.header("link")
        assert ("next" in response.json) is (link is not None)
        url = None
        if link is not None:
            assert link.startswith(f"<{path}?limit=3&state=scheduled&start_from=n%C3%A4me@")
            assert link.endswith('>; rel="next"')
            url = link[1 : link.index(">")]
    assert found == [f"näme@{AT + 60 * number}" for number in range(7)]


def test_start_from_is_inclusive_and_truncated(world: World) -> None:
    for number in range(3):
        put(world, trigger_at=AT + 60 * number)
    response = ask(world, "GET", f"/status/task?start_from=task@{AT + 99}")
    assert [task["trigger_at"] for task in response.json["tasks"]] == [str(AT + 60), str(AT + 120)]
    assert "next" not in response.json


@pytest.mark.parametrize("flag", ["future_only", "future_only=true", "future_only="])
def test_future_only_omits_minutes_that_have_begun(world: World, flag: str) -> None:
    for number in (-1, 0, 1):
        put(world, trigger_at=NOON + 60 * number)
    world.turn_to(NOON + 1)
    response = ask(world, "GET", f"/status/?{flag}")
    assert [task["trigger_at"] for task in response.json["tasks"]] == [str(NOON + 60)]
    assert len(ask(world, "GET", "/status/?future_only=false").json["tasks"]) == 3


def test_state_filters_the_list(world: World) -> None:
    world.scheduler.start()
    put(world, "done", trigger_at=NOON)
    put(world)
    for state, names in [("succeeded", ["done"]), ("scheduled", ["task"]), ("failed", [])]:
        response = ask(world, "GET", f"/status/?state={state}")
        assert [task["task_name"] for task in response.json["tasks"]] == names


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("reason=unexpected_status", "failed"),
        ("host=SINK.example:80&order=due", "failed later gold"),
        ("prefix=l", "later"),
        ("label=customer:4%202", "gold later"),
        ("label=customer:4%202&label=tier:gold", "gold"),
        ("due_from=now&due_before=%2B59s", "failed"),
        ("due_from=%2B59s&order=due", "later gold"),
        ("future_only&due_from=0&order=due", "later gold"),
        ("state=scheduled&order=due&label=customer:4+2", "later gold"),
    ],
)
def test_list_is_filtered_and_paged(world: World, query: str, names: str) -> None:
    world.scheduler.start()
    world.caller.status = 500
    put(world, "failed", trigger_at=NOON, retry=0)
    world.turn_to(NOON + 1)
    labels = {"customer": "4 2"}
    put(world, "later", trigger_at=NOON + 60, labels=labels)
    put(world, "gold", trigger_at=NOON + 120, labels=labels | {"tier": "gold"})
    found: list[str] = []
    target = f"/status/?limit=1&{query}"
    while target:
        response = ask(world, "GET", target)
        found += [task["task_name"] for task in response.json["tasks"]]
        link = response.header("link") or ""
        target = link.partition("<")[2].partition(">")[0]
    assert found == names.split()


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=1001",
        "limit=ten",
        "limit=-1",
        "limit=1&limit=2",
        "limit=%D9%A3",
        "state=done",
        "start_from=task",
        "start_from=task@soon",
        "start_from=",
        "future_only=perhaps",
        "order=time",
        "order=due&order=due",
        "reason=broken",
        "host=example.com",
        "host=%00:80",
        "prefix=",
        "prefix=a%00",
        "label=customer",
        "label=Customer:42",
        "label=customer:%00",
        "due_from=soon",
        "due_before=",
        "futureonly",
        "all=true",
        "limit=" + "9" * 5000,
    ],
)
def test_bad_query_names_the_wrong_parameter(world: World, query: str) -> None:
    response = ask(world, "GET", f"/status/?{query}")
    assert response.status == 400
    name = query.partition("=")[0]
    assert name in response.json["detail"]
    assert [name] == pointers(response)


def test_start_from_of_another_name_is_refused(world: World) -> None:
    put(world)
    assert ask(world, "GET", f"/status/task?start_from=other@{AT}").status == 400


@pytest.mark.parametrize("query", ["?pretty", "?pretty=true", "?limit=5&pretty"])
def test_pretty_indents_json(world: World, query: str) -> None:
    put(world)
    assert ask(world, "GET", f"/status/{query}").text.startswith('{\n  "tasks": [\n')
    assert "\n" not in ask(world, "GET", "/status/?pretty=false").text.rstrip("\n")


def test_pretty_indents_errors(world: World) -> None:
    assert ask(world, "GET", "/nowhere?pretty").text.startswith('{\n  "type"')


def test_head_responds_like_get_without_body(world: World) -> None:
    put(world)
    response = ask(world, "HEAD", f"/status/{KEY}")
    assert (response.status, response.text) == (200, "")
    assert ask(world, "HEAD", "/status/nobody").status == 404


# Preconditions of other requests than PUT


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("DELETE", f"/task/{KEY}", {"If-Match": "*"}, 204),
        ("DELETE", "/task/task", {"If-Match": "*"}, 200),
        ("DELETE", "/task/none", {"If-Match": "*"}, 404),
        ("DELETE", f"/task/{KEY}", {"If-Match": '"1"'}, 412),
        ("DELETE", f"/task/{KEY}", {"If-None-Match": "*"}, 412),
        ("DELETE", "/task/task", {"If-None-Match": "*"}, 412),
        ("POST", f"/reschedule/{KEY}?all=true", {"If-Match": "*"}, 200),
        ("POST", f"/reschedule/{KEY}?all=true", {"If-Match": '"1"'}, 412),
        ("POST", "/reschedule/task?all=true", {"If-None-Match": "*"}, 412),
        ("POST", "/batch", {"If-Match": "*"}, 412),
        ("POST", "/batch", {"If-None-Match": "*"}, 412),
    ],
)
def test_precondition_is_met_or_refused(
    world: World, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    put(world)
    response = ask(world, method, path, [] if path == "/batch" else None, headers=headers)
    assert response.status == status
    if status == 412:
        assert next(iter(headers)) in response.json["detail"]
        assert ask(world, "GET", f"/status/{KEY}").status == 200


# Reschedule


def failed(world: World, *minutes: int) -> None:
    world.scheduler.start()
    world.caller.status = 500
    for minute in minutes:
        put(world, trigger_at=NOON + 60 * minute, retry=0)
    world.turn_to(NOON + 60 * max(minutes) + 30)
    world.caller.status = 200


def test_a_failed_task_is_rescheduled_to_the_next_minute(world: World) -> None:
    failed(world, 0)
    response = ask(world, "POST", f"/reschedule/task@{NOON}")
    assert (response.status, response.json) == (
        200,
        {
            "rescheduled": [{"from": f"task@{NOON}", "to": f"task@{NOON + 60}"}],
            "skipped": [],
        },
    )
    assert ask(world, "GET", f"/status/task@{NOON}").status == 404
    world.turn_to(NOON + 60)
    task = ask(world, "GET", f"/status/task@{NOON + 60}").json
    assert (task["state"], task["attempts_used"]) == ("succeeded", 1)
    assert [(a["number"], a["status"]) for a in task["attempts"]] == [(1, 500), (2, 200)]


@pytest.mark.parametrize("body", [{"trigger_at": "+5m"}, {"trigger_at": NOON + 360}])
def test_a_failed_task_is_rescheduled_to_a_given_time(world: World, body: object) -> None:
    failed(world, 0)
    response = ask(world, "POST", f"/reschedule/task@{NOON}/", body)
    assert response.json["rescheduled"][0]["to"] == f"task@{NOON + 360}"


def test_a_task_rescheduled_to_now_is_called_now(world: World) -> None:
    failed(world, 0)
    calls = len(world.caller.calls)
    response = ask(world, "POST", f"/reschedule/task@{NOON}", {"trigger_at": "+0m"})
    assert response.json["rescheduled"][0]["to"] == f"task@{NOON}"
    assert len(world.caller.calls) == calls + 1


@pytest.mark.parametrize("path", ["/reschedule/n", f"/reschedule/n@{NOON + 3600}"])
def test_task_moved_from_the_future_to_now_is_called_before_the_next_tick(
    world: World, path: str
) -> None:
    world.scheduler.start()
    world.turn_to(NOON + 10)
    put(world, "n", trigger_at=NOON + 3600)
    assert ask(world, "POST", f"{path}?all", {"trigger_at": "+0m"}).status == 200
    assert world.caller.called == [f"n@{NOON}"]
    assert [at for at, _ in world.caller.calls] == [NOON + 10]


def test_replacement_of_a_due_task_is_called_before_the_next_tick(world: World) -> None:
    """The first definition stays uncalled because its host has no free slot."""
    world.build(concurrency=1, per_host=1)
    world.caller.status = None
    world.scheduler.start()
    world.turn_to(NOON + 10)
    put(world, "first", trigger_at="+0m", callback="http://busy.example/")
    put(world, "n", trigger_at="+0m", callback="http://busy.example/")
    assert world.caller.called == [f"first@{NOON}"]
    world.build(concurrency=2, per_host=1)
    world.scheduler.start()
    response = ask(
        world, "PUT", f"/task/n@{NOON}", {"callback": "http://free.example/"}, {"If-Match": "*"}
    )
    assert response.status == 200
    assert world.caller.called[-1] == f"n@{NOON}"
    assert world.caller.calls[-1][1].host == "free.example:80"


def test_all_failed_tasks_of_a_name_are_rescheduled(world: World) -> None:
    failed(world, 0, 1, 2)
    put(world, trigger_at=NOON + 60 * 4)
    response = ask(world, "POST", "/reschedule/task", {"trigger_at": NOON + 60 * 3})
    assert response.json["rescheduled"] == [
        {"from": f"task@{NOON + 60 * old}", "to": f"task@{NOON + 60 * new}"}
        for old, new in [(0, 3), (1, 5), (2, 6)]
    ]


def test_reschedule_moves_only_failed_tasks_by_default(world: World) -> None:
    put(world)
    assert ask(world, "POST", f"/reschedule/{KEY}").status == 409
    assert ask(world, "POST", "/reschedule/task").json == {"rescheduled": [], "skipped": []}
    response = ask(world, "POST", f"/reschedule/{KEY}?all=true", {"trigger_at": "+2h"})
    assert response.json["rescheduled"] == [{"from": KEY, "to": f"task@{AT + 3600}"}]
    response = ask(world, "POST", "/reschedule/task?all", {"trigger_at": "+1h"})
    assert response.json["rescheduled"] == [{"from": f"task@{AT + 3600}", "to": KEY}]


def test_running_task_is_not_rescheduled(world: World) -> None:
    world.scheduler.start()
    world.caller.status = None
    put(world, trigger_at=NOON)
    expected = {"rescheduled": [], "skipped": [{"task": f"task@{NOON}", "reason": "running"}]}
    for path in (f"/reschedule/task@{NOON}?all=true", "/reschedule/task?all=true"):
        response = ask(world, "POST", path)
        assert (response.status, response.json) == (200, expected)
    assert ask(world, "POST", f"/reschedule/task@{NOON}").status == 409


def test_reschedule_does_not_overwrite_a_task(world: World) -> None:
    failed(world, 0)
    put(world, trigger_at=AT)
    response = ask(world, "POST", f"/reschedule/task@{NOON}", {"trigger_at": AT})
    assert response.status == 409
    assert KEY in response.json["detail"]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/reschedule/nobody", None, 404),
        (f"/reschedule/nobody@{NOON}", None, 404),
        ("/reschedule/", None, 400),
        ("/reschedule", None, 400),
        (f"/reschedule/task@{NOON}", {"trigger_at": "soon"}, 422),
        (f"/reschedule/task@{NOON}", {"trigger": "+1h"}, 422),
        (f"/reschedule/task@{NOON}", {"trigger_at": NOON - 86_400}, 422),
        ("/reschedule/task", {"trigger_at": NOON - 86_400}, 422),
        (f"/reschedule/task@{NOON}", b"[]", 400),
        (f"/reschedule/task@{NOON}?all=perhaps", None, 400),
        ("/reschedule/task@soon", None, 400),
    ],
)
def test_bad_reschedule_is_refused(world: World, path: str, body: object, status: int) -> None:
    failed(world, 0)
    assert ask(world, "POST", path, body).status == status
    assert ask(world, "GET", f"/status/task@{NOON}").json["state"] == "failed"


# Delete


def test_a_task_is_deleted(world: World) -> None:
    put(world)
    assert ask(world, "DELETE", f"/task/{KEY}").status == 204
    assert ask(world, "DELETE", f"/task/{KEY}").status == 404
    world.scheduler.start()
    world.turn_to(AT + 60)
    assert world.caller.calls == []


def test_delete_of_a_name_leaves_running_tasks(world: World) -> None:
    world.scheduler.start()
    world.caller.status = None
    put(world, trigger_at=NOON)
    put(world)
    assert ask(world, "DELETE", f"/task/task@{NOON}").status == 409
    expected = {"deleted": 1, "skipped": [{"task": f"task@{NOON}", "reason": "running"}]}
    assert ask(world, "DELETE", "/task/task").json == expected
    assert ask(world, "DELETE", "/task/nobody").status == 404


# Errors, health and disconnects


@pytest.mark.parametrize("path", ["/tasks", "/task/a/b", "//task/x", "/status//", "/healthz/x"])
def test_unknown_path_is_not_found(world: World, path: str) -> None:
    assert ask(world, "GET", path).status in {400, 404}


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("POST", "/task/x", "DELETE, GET, HEAD, OPTIONS, PUT"),
        ("PUT", "/status/x", "GET, HEAD, OPTIONS"),
        ("GET", "/reschedule/x", "OPTIONS, POST"),
        ("PATCH", "/task/", "DELETE, GET, HEAD, OPTIONS, PUT"),
        ("BREW", "/status/", "GET, HEAD, OPTIONS"),
        ("FOO", "/", "GET, HEAD, OPTIONS"),
        ("PATCH", "/", "GET, HEAD, OPTIONS"),
        ("POST", "/", "GET, HEAD, OPTIONS"),
    ],
)
def test_unsupported_method_is_refused(world: World, method: str, path: str, allow: str) -> None:
    response = ask(world, method, path)
    assert (response.status, response.header("allow")) == (405, allow)


@pytest.mark.parametrize(
    ("path", "allow"),
    [
        ("/", "GET, HEAD, OPTIONS"),
        ("/healthz", "GET, HEAD, OPTIONS"),
        ("/status/nobody", "GET, HEAD, OPTIONS"),
        ("/task/x?colour=red", "DELETE, GET, HEAD, OPTIONS, PUT"),
        ("/batch", "OPTIONS, POST"),
        ("/page/login", "GET, HEAD, OPTIONS, POST"),
        ("/page/find", "GET, HEAD, OPTIONS"),
    ],
)
def test_options_lists_the_methods_of_a_path(world: World, path: str, allow: str) -> None:
    answer = ask(world, "OPTIONS", path)
    assert (answer.status, answer.header("allow"), answer.text) == (204, allow, "")


@pytest.mark.parametrize("path", ["/nowhere", "/tasks", "/page/nowhere"])
def test_options_of_an_unknown_path_is_not_found(world: World, path: str) -> None:
    response = world.http.request("OPTIONS", BASE + path)
    world.http.flush()
    assert world.result(response).code == 404


@pytest.mark.parametrize("accept", [None, "*/*", "application/json", "text/html;q=0"])
def test_root_describes_the_service_to_monitors(world: World, accept: str | None) -> None:
    headers = {} if accept is None else {"Accept": accept}
    answer = ask(world, "GET", "/", headers=headers)
    assert (answer.status, answer.header("vary")) == (200, "Accept")
    assert answer.json["name"] == "callme"
    assert answer.json["version"] == __version__
    for path in answer.json["links"].values():
        assert ask(world, "OPTIONS", path).status == 204
    # RFC 8631, section 4.2.
    description = '</openapi.json>; rel="service-desc"; type="application/json"'
    assert answer.header("link") == description
    head = ask(world, "HEAD", "/", headers=headers)
    assert (head.status, head.header("content-length")) == (200, str(len(answer.text)))
    assert ask(world, "GET", "/?colour=red", headers=headers).status == 400


def test_root_is_a_page_to_browsers(world: World) -> None:
    response = world.http.request("GET", BASE + "/", headers={"Accept": "text/html,*/*;q=0.8"})
    world.http.flush()
    (kind,) = world.result(response).headers.getRawHeaders("content-type")
    assert kind == "text/html; charset=utf-8"


def test_every_endpoint_reports_an_unavailable_database(world: World) -> None:
    put(world)
    world.store.is_broken = True
    for method, path, body in [
        ("PUT", "/task/other", BODY),
        ("GET", "/status/", None),
        ("GET", f"/status/{KEY}", None),
        ("DELETE", f"/task/{KEY}", None),
        ("POST", "/reschedule/task", None),
    ]:
        response = ask(world, method, path, body)
        assert (response.status, response.header("retry-after")) == (503, "2")
    world.store.is_broken = False
    assert put(world).status == 200


def test_attempts_are_paged(world: World) -> None:
    world.put("n", retry=109)
    world.attempt(Key("n", NOON), 110)
    path = f"/status/n@{NOON}"
    response = ask(world, "GET", path)
    numbers = [attempt["number"] for attempt in response.json["attempts"]]
    assert numbers == [*range(11, 111)]
    assert "attempts_dropped" not in response.json
    while "next" in response.json:
        link = f'<{path}?start_from={response.json["next"]}>; rel="next"'
        assert response.header("link") == link
        assert ask(world, "GET", f"{path}?wait=0&start_from=105").json["next"] == "5"
        response = ask(world, "GET", f"{path}?start_from={response.json['next']}")
        numbers = [attempt["number"] for attempt in response.json["attempts"]] + numbers
    assert numbers == [*range(1, 111)]
    assert response.header("link") is None
    for wrong in ("", "0", "-1", "n", f"n@{NOON}", "1" * 30):
        assert ask(world, "GET", f"{path}?start_from={wrong}").status == 400


def test_internal_error_is_json_and_logged(world: World, logged_failures: LoggedFailures) -> None:
    world.store.overrides[tasks.get] = lambda *_: 1 / 0
    response = ask(world, "GET", f"/status/{KEY}")
    assert response.status == 500
    assert "ZeroDivision" not in response.text
    assert logged_failures.flush(ZeroDivisionError) == 1


def test_healthz_reports_the_scheduler(world: World) -> None:
    world.caller.status = None
    world.scheduler.start()
    for number in range(70):
        put(world, f"n{number}", trigger_at=NOON)
    response = ask(world, "GET", "/healthz")
    assert (response.status, response.json) == (
        200,
        {
            "status": "ok",
            "ticking": True,
            "writable": True,
            "last_tick": "2027-01-15T12:00:00.000Z",
            "backlog": 6,
            "calls_in_flight": 64,
            "saturated_seconds": 0,
            "all_paused": False,
            "paused_hosts": 0,
        },
    )
    world.clock.rightNow += 100
    assert not ask_health(world)["ticking"]


def test_healthz_fails_while_the_database_is_unavailable(world: World) -> None:
    world.scheduler.start()
    world.store.is_broken = True
    assert ask_health(world) == {
        "status": "failing",
        "ticking": True,
        "writable": True,
        "last_tick": "2027-01-15T12:00:00.000Z",
        "backlog": None,
        "calls_in_flight": 0,
        "saturated_seconds": 0,
        "all_paused": False,
        "paused_hosts": 0,
    }


def test_healthz_fails_until_a_write_succeeds_again(world: World) -> None:
    world.scheduler.start()
    world.store.is_full = True
    assert ask(world, "GET", "/healthz").status == 200, "nobody has written"
    assert ask(world, "PUT", "/task/a", {**BODY, "trigger_at": NOON + 3600}).status == 503
    health = ask_health(world)
    assert (health["status"], health["writable"], health["backlog"]) == ("failing", False, 0)
    world.store.is_full = False
    assert not ask_health(world)["writable"]
    world.turn_to(NOON + 60)
    assert ask(world, "GET", "/healthz").json["writable"], "the tick has written"


def ask_health(world: World) -> Any:
    """Request the health of a failing daemon: 503, but no problem document."""
    pending = world.http.request("GET", f"{BASE}/healthz")
    world.http.flush()
    response = world.result(pending)
    assert response.code == 503
    return json.loads(world.result(response.text()))


def test_put_of_a_disconnected_client_is_stored(world: World) -> None:
    """The write is in progress: the task is stored, and called at its minute."""
    world.scheduler.start()
    put_it, committing = partial(world.store.run, tasks.put), Deferred[Any]()
    world.store.overrides[tasks.put] = lambda *args, **kwargs: committing
    http: Any = StubTreq(world.parts.api.resource())
    body = json.dumps({**BODY, "trigger_at": NOON}).encode()
    pending = http.put(f"{BASE}/task/task", data=body)
    http.flush()
    pending.addErrback(lambda _: None)
    pending.cancel()
    http.flush()
    made = definition("task", NOON, max_delay=10)
    put_it(made, PutCondition.NONE, NOON).addCallback(committing.callback)
    assert world.caller.called == [f"task@{NOON}"]
    assert world.task(Key("task", NOON)).state is State.SUCCEEDED


def test_replacement_that_could_never_run_is_refused(world: World) -> None:
    """The task waits for its retry; the new definition's max_delay is over."""
    world.caller.status = 500
    world.put(retry=3, retry_delay=5)
    world.scheduler.start()
    world.turn_to(NOON + 90)
    body = {**BODY, "trigger_at": NOON, "max_delay": 1}
    for query in ("", "?dry_run"):
        answer = ask(world, "PUT", f"/task/task{query}", body, {"If-Match": "*"})
        assert answer.status == 422
        assert pointers(answer) == ["/trigger_at"]


@pytest.mark.parametrize("headers", [{}, {"If-Match": "*"}, {"If-None-Match": "*"}])
def test_dry_run_on_a_corrupt_row_responds_as_the_put(
    world: World, headers: dict[str, str]
) -> None:
    put(world)
    world.store.connection.execute("UPDATE task SET headers = '{'")
    dry = ask(world, "PUT", "/task/task?dry_run", BODY, headers)
    assert dry.status == ask(world, "PUT", "/task/task", BODY, headers).status
    assert (dry.status == 200) == (headers == {"If-Match": "*"})


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("headers", "{"),
        ("labels", "{"),
        ("retry_delay", "soon"),
        ("expected_http_status", "{}"),
        ("payload_base64", "?"),
        ("retry", "many"),
        ("timeout", b"30"),
        ("max_delay", "ten"),
        ("callback", b"http://sink.example/"),
        ("reason", "boredom"),
        ("attempts_used", "none"),
        ("created_at_ms", "yesterday"),
        ("finished_at_ms", "yesterday"),
        ("due_at", "tomorrow"),
        ("state", "lost"),
    ],
)
def test_damaged_row_is_displayed_as_damaged_and_deleted(
    world: World, column: str, value: object
) -> None:
    put(world)
    world.put("fine")
    key = ask(world, "GET", "/status/task").json["tasks"][0]["task"]
    connection = world.store.connection
    connection.execute("PRAGMA ignore_check_constraints = ON")
    # The trigger refuses labels that it cannot parse.
    connection.execute("DROP TRIGGER task_relabelled")
    connection.execute(f"UPDATE task SET {column} = ? WHERE task_name = 'task'", (value,))
    member = {
        "due_at": "next_attempt_at",
        "created_at_ms": "created_at",
        "finished_at_ms": "finished_at",
    }.get(column, column)
    whole = ask(world, "GET", f"/status/{key}")
    assert whole.status == 200
    assert whole.json["damaged"] == [member]
    assert whole.json.get(member) is None
    page = ask(world, "GET", "/status/")
    assert page.status == 200
    assert len(page.json["tasks"]) == 2
    for path in (TASK + key, f"{FIND}?name=", "/", "/metrics"):
        pending = world.http.request("GET", BASE + path, headers={"Accept": "text/html"})
        world.http.flush()
        assert world.result(pending).code == 200, path
    assert ask(world, "DELETE", f"/task/{key}").status == 204
