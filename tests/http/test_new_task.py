"""The form for a new task, which accepts and refuses the same values as the API."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlencode

import pytest

from callme.core.parameters import PARAMETERS
from callme.core.times import Key
from callme.server.paths import MAX_TASK_FORM
from callme.store import tasks
from callme.webui.task.parameter_fields import FIELDS, MAX_PREFILLED_CHARACTERS, default_text
from tests.helpers.api_client import ask
from tests.helpers.html import Page, visit
from tests.helpers.tasks import NOON, SINK, definition
from tests.helpers.world import World

LATER = NOON + 3600
NEW = "/page/new"
GAP = "2027-03-28T02:30[Europe/Berlin]"
"""A time that does not exist: the clock goes forward then."""
GIVEN = {"task_name": "x", "trigger_at": f"{LATER}", "callback": SINK}


@pytest.fixture
def ticking(world: World) -> World:
    world.scheduler.start()
    return world


def submit(world: World, **texts: str) -> Page:
    """Submit the form with some fields edited."""
    return visit(world, NEW, {**visit(world, NEW).form(NEW), **texts})


def errors(page: Page) -> dict[str, str]:
    """Return the error beside each field."""
    return {
        error.get("id", "").removesuffix("-error"): text
        for error, text in zip(
            page.all(".//p[@role='alert']"), page.texts(".//p[@role='alert']"), strict=True
        )
    }


def test_every_parameter_has_a_field_with_label_and_help(world: World) -> None:
    page = visit(world, NEW)
    fields = page.form(NEW)
    assert fields.keys() == {one.name for one in PARAMETERS} | {"local_time", "zone"}
    for name, (parameter, _) in FIELDS.items():
        identifier = f"field-{name.replace('_', '-')}"
        (label,) = page.texts(f".//label[@for='{identifier}']")
        assert label.removesuffix(" (required)") == parameter.label
        (hint,) = page.texts(f".//p[@id='{identifier}-hint']")
        assert hint.startswith(parameter.documentation.replace("`", "")[:40])
        assert fields[name] == default_text(parameter)


def test_task_is_created_as_by_the_api(ticking: World) -> None:
    more = {
        "callback_method": "post",
        "payload": 'a\r\n{"b": 1}',
        "headers": "X-A: 1\r\n\r\nAuthorization: Bearer: x",
        "expected_http_status": "204, 2xx",
        "no_retry_http_status": '[410, "4xx"]',
        "retry": "3",
        "retry_delay": "1, 5",
        "max_delay": "60",
        "timeout": "5",
        "on_failure": SINK,
        "labels": '{"customer": "42"}',
    }
    done = submit(ticking, **GIVEN, **more)
    assert (done.status, done.header("location")) == (
        303,
        f"/page/task/x@{LATER}?done=created&zone=UTC",
    )
    assert ticking.task(Key("x", LATER)).definition == definition(
        "x",
        LATER,
        callback_method="POST",
        payload='a\n{"b": 1}',
        headers={"X-A": "1", "Authorization": "Bearer: x"},
        expected_http_status=[204, "2xx"],
        no_retry_http_status=[410, "4xx"],
        retry=3,
        retry_delay=[1, 5],
        max_delay=60,
        timeout=5,
        on_failure=SINK,
        labels={"customer": "42"},
    )
    page = visit(ticking, str(done.header("location")))
    assert page.texts(".//p[@role='status']") == ["The task was created."]
    again = visit(ticking, NEW, {**GIVEN, **more})
    assert again.header("location") == f"/page/task/x@{LATER}?done=unchanged&zone=UTC"


def test_task_of_the_present_minute_is_called_at_once(ticking: World) -> None:
    assert submit(ticking, **{**GIVEN, "trigger_at": "+0m"}).status == 303
    assert ticking.caller.called == [f"x@{NOON}"]


def test_local_time_is_in_the_zone_of_the_form(ticking: World) -> None:
    texts = {**GIVEN, "trigger_at": "", "local_time": "2027-01-15T14:00", "zone": "Europe/Berlin"}
    done = submit(ticking, **texts)
    assert done.header("location") == f"/page/task/x@{LATER}?done=created&zone=Europe%2FBerlin"
    (flash,) = visit(ticking, str(done.header("location"))).texts(".//p[@role='status']")
    assert flash == "The task was created. It is due at 2027-01-15 14:00 in Europe/Berlin."


# Errors


@pytest.mark.parametrize(
    ("texts", "field", "message"),
    [
        ({"task_name": "a@b"}, "field-task-name", "contains '@'"),
        ({"task_name": ""}, "field-task-name", "is required"),
        ({"trigger_at": ""}, "time", "is required"),
        ({"trigger_at": "soon"}, "time", "is not a time"),
        ({"local_time": "2027-01-15T14:00"}, "time", "there are two times"),
        ({"callback": "ftp://x/"}, "field-callback", "http"),
        ({"callback": "http://169.254.1.1/"}, "field-callback", "169.254"),
        ({"callback_method": "TRACE"}, "field-callback-method", "callme makes no TRACE requests"),
        ({"headers": "no colon"}, "field-headers", "line 1 has no colon"),
        ({"headers": "A: 1\nA: 2"}, "field-headers", "is given twice"),
        ({"headers": "Host: x"}, "field-headers", "is set by callme itself"),
        ({"headers": "{"}, "field-headers", "is not JSON: Expecting"),
        ({"headers": "X-Token: ***"}, "field-headers", "is masked: enter it"),
        ({"expected_http_status": "200; 204"}, "field-expected-http-status", "expected a status"),
        ({"retry": "x"}, "field-retry", "expected an integer from 0"),
        ({"retry": "-1"}, "field-retry", "expected an integer from 0"),
        ({"payload": "a", "payload_base64": "AA=="}, "field-payload-base64", "beside payload"),
        ({"payload_base64": "?"}, "field-payload-base64", "is not base64"),
        ({"labels": "A: 1"}, "field-labels", "key"),
    ],
)
def test_error_is_reported_beside_its_field(
    world: World, texts: dict[str, str], field: str, message: str
) -> None:
    page = submit(world, **{**GIVEN, **texts})
    assert page.status == 422
    found = errors(page)
    assert list(found) == [field]
    assert message in found[field]
    fields = page.form(NEW)
    assert {name: fields[name] for name in texts} == texts
    (control,) = page.all(f".//*[@id='{field}']")
    assert control.get("aria-invalid") == "true"
    assert f"{field}-error" in (control.get("aria-describedby") or "").split()
    (summary,) = page.all(".//div[@role='alert']")
    assert [link.get("href") for link in summary.iter("a")] == [f"#{field}"]
    assert world.result(world.store.read(tasks.list_page)).tasks == []


def test_errors_of_several_fields_are_those_of_the_api(world: World) -> None:
    body = {"callback": "x", "retry": 1001, "expected_http_status": ["9xx"]}
    refused = ask(world, "PUT", "/task", body).json["errors"]
    page = submit(world, callback="x", retry="1001", expected_http_status="9xx")
    assert set(errors(page).values()) == {one["detail"] for one in refused}
    # Fields that are folded unfold.
    assert page.all(".//details[@id='more']")[0].get("open") == "open"


def test_task_that_could_never_run_is_refused(world: World) -> None:
    page = submit(world, **{**GIVEN, "trigger_at": f"{NOON - 3600}"})
    assert page.status == 422
    assert "max_delay has passed" in errors(page)["time"]


def test_existing_task_is_named(world: World) -> None:
    key = world.put("x", LATER, retry=5).key
    page = submit(world, **GIVEN)
    assert page.status == 409
    (summary,) = page.all(".//div[@role='alert']")
    assert summary.findtext("ul/li/a/bdi") == str(key)
    assert page.links[str(key)] == f"/page/task/{key}"
    assert world.task(key).definition.retry == 5


def test_secret_of_a_wrong_line_is_not_repeated_in_the_error(world: World) -> None:
    page = submit(world, **GIVEN, headers="hunter2")
    assert "hunter2" not in errors(page)["field-headers"]


# Preview


def test_preview_shows_the_effect_and_changes_nothing(ticking: World) -> None:
    for number in range(3):
        ticking.put(f"other{number}", LATER)
    texts = {**GIVEN, "payload": "a", "retry": "2", "zone": "Europe/Berlin", "action": "preview"}
    page = submit(ticking, **texts)
    assert page.status == 200
    assert page.texts(".//div[@role='status']/p")[0] == "The task would be created."
    facts = page.facts
    local = "2027-01-15 14:00 in Europe/Berlin"
    assert facts["Time"] == f"2027-01-15 13:00 UTC, which is {local}, in 1 hour."
    assert (
        facts["Attempts, if each fails"] == "2027-01-15 13:00, 2027-01-15 13:01, 2027-01-15 13:02"
    )
    assert facts["Expires"] == "2027-01-15 13:10 in 1 hour"
    assert facts["Calls in that minute"] == "4"
    assert "the payload is sent with GET, the default" in page.main
    assert {name: page.form(NEW)[name] for name in GIVEN} == GIVEN
    assert len(ticking.result(ticking.store.read(tasks.list_page)).tasks) == 3
    created = visit(ticking, NEW, page.form(NEW))
    assert created.status == 303
    page = submit(ticking, **texts)
    assert page.texts(".//div[@role='status']/p")[0] == (
        "The same task exists already: nothing would change."
    )


def test_preview_of_a_wrong_task_reports_its_errors(world: World) -> None:
    page = submit(world, **{**GIVEN, "retry": "x", "action": "preview"})
    assert (page.status, list(errors(page))) == (422, ["field-retry"])
    world.put("x", LATER, retry=5)
    assert submit(world, **GIVEN, action="preview").status == 409


# Duplicate


def duplicate(world: World, key: Key) -> Page:
    path = f"/page/task/{quote(key.task_name, safe='')}@{key.trigger_at}"
    return visit(world, visit(world, path).links["Duplicate\u2026"])


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"payload": "\n a\n\tb\n", "callback_method": "POST", "headers": {"X-A": "1"}},
        {"payload": "a\r\n\x00", "headers": {"X-A": "1"}},
        {"payload": '{"a":"\u202e"}'},
        {"payload_base64": "AP8BgA==", "labels": {"a": "b c", "d": "e"}},
        {"retry_delay": [1, 5, 30], "expected_http_status": ["2xx", 404], "on_success": SINK},
    ],
)
def test_duplicate_makes_the_same_request(world: World, more: dict[str, Any]) -> None:
    source = world.put("x", LATER, **more)
    form = duplicate(world, source.key)
    assert form.form(NEW)["trigger_at"] == ""
    done = visit(world, NEW, {**form.form(NEW), "trigger_at": f"{LATER + 60}"})
    assert done.status == 303
    made = world.task(Key("x", LATER + 60)).definition
    assert made.body == source.body
    same = ("callback", "callback_method", "labels", "retry_delay", "expected_http_status")
    assert [getattr(made, name) for name in same] == [getattr(source, name) for name in same]
    assert made.on_success == source.on_success
    changed = {"Content-Type"} if made.payload != source.payload else set()
    assert set(made.headers) == set(source.headers) | changed


def test_duplicate_needs_the_secrets_again(world: World) -> None:
    key = world.put("x", LATER, headers={"Cookie": "hunter2", "X-A": "***"}).key
    page = duplicate(world, key)
    assert "hunter2" not in page.text
    fields = {**page.form(NEW), "trigger_at": "+5m"}
    assert fields["headers"] == "Cookie: ***\nX-A: ***"
    page = visit(world, NEW, fields)
    assert page.status == 422
    assert 'the value of "Cookie" is masked' in errors(page)["field-headers"]
    fields["headers"] = "Cookie: other\nX-A: ***"
    assert visit(world, NEW, fields).status == 303


def test_duplicate_names_values_that_a_form_cannot_contain(world: World) -> None:
    key = world.put("x\u202e", LATER, payload="a" * (MAX_PREFILLED_CHARACTERS + 1)).key
    page = duplicate(world, key)
    assert "Not copied, because a form cannot contain it: Name, Payload." in page.main
    assert (page.form(NEW)["task_name"], page.form(NEW)["payload"]) == ("", "")
    assert visit(world, f"{NEW}?from=y@{LATER}").status == 404
    assert visit(world, f"{NEW}?from=y").status == 404


def test_duplicate_of_a_running_task_is_offered(ticking: World) -> None:
    ticking.caller.status = None
    key = ticking.put("x", NOON).key
    ticking.turn_to(NOON + 60)
    assert duplicate(ticking, key).form(NEW)["task_name"] == "x"


def warnings(page: Page) -> list[str]:
    return [text for text in page.texts(".//p[@role='alert']") if text.startswith("Warning: ")]


def test_warnings_of_the_api_are_displayed_with_the_created_task(world: World) -> None:
    more = {"payload": "a", "retry": "20", "retry_delay": "5"}
    time = {"trigger_at": "", "local_time": "2027-03-28T02:30", "zone": "Europe/Berlin"}
    texts = {**GIVEN, **more, **time}
    body = {"callback": SINK, **more, "retry": 20, "retry_delay": [5], "trigger_at": GAP}
    expected = ask(world, "PUT", "/task/x?dry_run", body).json["warnings"]
    assert len(expected) == 3
    done = submit(world, **texts)
    assert done.status == 303
    page = visit(world, done.header("location") or "")
    assert page.texts(".//p[@role='status']")[0].startswith("The task was created.")
    assert warnings(page) == [f"Warning: {one['detail']}." for one in expected]
    # The message about an action is displayed once.
    assert warnings(visit(world, (done.header("location") or "").partition("?")[0])) == []


def test_created_task_without_warnings_has_none(world: World) -> None:
    for more in ({}, {"payload": "a", "callback_method": "POST"}):
        done = submit(world, **{**GIVEN, "trigger_at": f"{LATER + 60 * len(more)}", **more})
        assert warnings(visit(world, done.header("location") or "")) == []


@pytest.mark.parametrize("given", ["", "soon", GAP, "x" * 5_000, "\u202e"])
def test_warnings_in_an_edited_address_are_those_of_the_task(world: World, given: str) -> None:
    world.put("x", LATER)
    page = visit(world, f"/page/task/x@{LATER}?done=created&given={quote(given)}")
    assert page.status == 200
    assert len(warnings(page)) == (given == GAP)


# Bounds


def test_form_of_a_task_may_be_longer_than_others(world: World) -> None:
    payload = "\u00e4" * 19_000
    assert submit(world, **GIVEN, payload=payload).status == 303
    assert world.task(Key("x", LATER)).definition.payload == payload
    fields = {**GIVEN, "payload": "a" * MAX_TASK_FORM}
    assert len(urlencode(fields)) > MAX_TASK_FORM
    assert visit(world, NEW, fields).status == 413
