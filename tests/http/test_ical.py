"""Calendars of tasks, parsed by the icalendar library (RFC 5545)."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st
from icalendar import Calendar

from callme.api import ical
from callme.api.ical import BACK_DAYS, MAX_EVENTS, calendar
from callme.core.task import Reason, State, Task
from callme.core.times import MAX_NAME_LENGTH, Key
from callme.store import tasks
from callme.store.interface import CalendarData, Event
from tests.helpers.api_client import ask
from tests.helpers.openapi_checks import check_response
from tests.helpers.tasks import NOON, definition
from tests.helpers.world import World

ACCEPT = {"Accept": "text/calendar"}
DAY = 86_400
HTTP_DATE = "%a, %d %b %Y %H:%M:%S GMT"


@frozen
class Feed:
    """A parsed calendar."""

    text: str
    calendar: Any

    @property
    def events(self) -> list[Any]:
        return list(self.calendar.walk("VEVENT"))

    @property
    def summaries(self) -> list[str]:
        return [str(event["SUMMARY"]) for event in self.events]


def feed(world: World, path: str = "/status/", headers: dict[str, str] | None = ACCEPT) -> Feed:
    status, given, text = get(world, path, headers or {})
    assert (status, given["content-type"], given["vary"]) == (
        200,
        "text/calendar; charset=utf-8",
        "Accept",
    ), text
    return Feed(text, read(text))


def get(world: World, path: str, headers: dict[str, str]) -> tuple[int, dict[str, str], str]:
    """Return the status, the headers and the text of a response."""
    pending = world.http.request("GET", "http://callme" + path, headers=headers)
    for _ in range(20):
        world.http.flush()
        world.clock.advance(0)
    response = world.result(pending)
    text = world.result(response.content()).decode()
    given = {
        name.decode().lower(): values[0].decode()
        for name, values in response.headers.getAllRawHeaders()
    }
    check_response("GET", path, response.code, given, text)
    return response.code, given, text


def read(text: str) -> Any:
    """Parse a calendar, and check the rules of the RFC."""
    assert text.endswith("END:VCALENDAR\r\n")
    for line in text.split("\r\n"):
        assert len(line.encode()) <= 75
        assert not re.search(r"[\x00-\x1f\x7f]", line)
    found: Any
    (found,) = Calendar.from_ical(text, multiple=True)
    assert [error for part in found.walk() for error in part.errors] == []
    assert (found["VERSION"], found["CALSCALE"]) == ("2.0", "GREGORIAN")
    assert found.subcomponents, "a calendar holds something"
    uids = []
    for event in found.walk("VEVENT"):
        assert set(event.required) <= set(event)
        uids.append(str(event["UID"]))
        assert event["DTSTART"].dt.tzinfo is not None
    assert len(uids) == len(set(uids))
    return found


def whole(agenda: CalendarData) -> str:
    return b"".join(calendar(agenda, None, "1")).decode()


def at(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc)


# Contents


def test_a_scheduled_task_is_an_event_in_its_minute(world: World) -> None:
    world.put("trial-end", NOON + DAY, callback="https://sink.example/run?token=s3cret", retry=2)
    (event,) = feed(world).events
    assert event["SUMMARY"] == "trial-end"
    assert event["DTSTART"].dt == at(NOON + DAY)
    assert event["DURATION"].dt == timedelta(minutes=1)
    assert event["DTSTAMP"].dt == event["LAST-MODIFIED"].dt == event["CREATED"].dt == at(NOON)
    assert (event["STATUS"], event["TRANSP"], event["SEQUENCE"]) == ("CONFIRMED", "TRANSPARENT", 0)
    assert event["CATEGORIES"].cats == ["scheduled"]
    assert event["DESCRIPTION"].split("\n") == [
        f"trial-end@{NOON + DAY}",
        "GET to sink.example:443",
        "0 of 3 attempts used",
    ]


def test_retry_and_failure_share_the_uid_of_the_task(world: World) -> None:
    world.caller.status = 500
    world.scheduler.start()
    world.put(at=NOON + 60, retry=1, retry_delay=5)
    (first,) = feed(world).events
    world.turn_to(NOON + 61)
    (retry,) = feed(world).events
    assert retry["SUMMARY"] == "task: attempt 2 of 2"
    assert retry["DTSTART"].dt == at(NOON + 360)
    world.turn_to(NOON + 400)
    (failed,) = feed(world).events
    assert failed["SUMMARY"] == "task: failed (unexpected_status)"
    assert failed["DTSTART"].dt == at(NOON + 60)
    assert failed["CATEGORIES"].cats == ["failed"]
    assert failed["DESCRIPTION"].endswith(
        "2 of 2 attempts used\n"
        "the endpoint responded with 500, expected 200; all 2 attempts are used"
    )
    assert first["UID"] == retry["UID"] == failed["UID"]
    assert [event["SEQUENCE"] for event in (first, retry, failed)] == [0, 1, 3]
    stamps = [event["DTSTAMP"].dt for event in (first, retry, failed)]
    assert stamps == sorted(set(stamps))


def test_task_that_is_put_again_is_another_event(world: World) -> None:
    world.caller.status = 500
    world.scheduler.start()
    key = world.put(at=NOON + 60, retry=0).key
    world.turn_to(NOON + 61)
    (failed,) = feed(world).events
    assert (failed["SEQUENCE"], failed["LAST-MODIFIED"].dt) == (2, at(NOON + 60))
    assert ask(world, "DELETE", f"/task/{key}").status == 204
    world.put(at=NOON + 60, retry=0)
    (again,) = feed(world).events
    assert (again["SEQUENCE"], again["LAST-MODIFIED"].dt) == (0, at(NOON + 61))
    assert again["UID"] != failed["UID"]


def test_rescheduled_task_is_another_event_that_changed_then(world: World) -> None:
    key = world.put(at=NOON + 3600).key
    events = feed(world).events
    # To the same minute, and so under the same key; then away and back.
    for number, minute in enumerate((NOON + 3600, NOON + 7200, NOON + 3600)):
        now = NOON + 100 + number
        world.clock.rightNow = now
        path = f"/reschedule/{key}?all=true"
        assert ask(world, "POST", path, {"trigger_at": minute}).status == 200
        key = Key("task", minute)
        (moved,) = feed(world).events
        assert (moved["SEQUENCE"], moved["LAST-MODIFIED"].dt) == (0, at(now))
        assert moved["CREATED"].dt == at(NOON)
        assert str(moved["UID"]) not in [str(event["UID"]) for event in events]
        events.append(moved)


def test_retry_changes_a_task_when_its_attempt_ends(world: World) -> None:
    world.caller.status = None
    world.scheduler.start()
    key = world.put(at=NOON + 60, timeout=30).key
    world.turn_to(NOON + 61)
    world.clock.rightNow = NOON + 81
    world.caller.end(key, 500)
    (retry,) = feed(world).events
    assert retry["SUMMARY"] == "task: attempt 2 of 2"
    assert retry["LAST-MODIFIED"].dt == at(NOON + 81)


def test_calendar_contains_no_secrets(world: World) -> None:
    world.put(
        callback="https://sink.example/hook/s3cret?key=s3cret",
        payload="s3cret",
        headers={"X-Anything": "s3cret"},
        at=NOON + 60,
    )
    assert "s3cret" not in feed(world).text


def test_corrupt_callback_does_not_hide_other_events(world: World) -> None:
    world.put("broken", NOON + 60)
    world.put("whole", NOON + 120)
    world.store.connection.execute("UPDATE task SET callback = 'x' WHERE task_name = 'broken'")
    assert feed(world).summaries == ["broken", "whole"]


@pytest.mark.parametrize("length", [MAX_NAME_LENGTH - 3, MAX_NAME_LENGTH])
def test_long_name_has_a_path_that_ends_in_ics(world: World, length: int) -> None:
    world.put("x" * length, NOON + 60)
    path = f"/status/{'x' * length}.ics"
    assert len(feed(world, path, {}).events) == 1
    assert len(feed(world, path).events) == 1
    for longer in (
        f"/status/{'x' * (MAX_NAME_LENGTH + 1)}.ics",
        f"/status/{'x' * (MAX_NAME_LENGTH + 1)}",
    ):
        assert ask(world, "GET", longer).status == 400


def test_calendar_omits_succeeded_running_and_distant_tasks(world: World) -> None:
    world.put("far", NOON + 91 * DAY)
    world.put("near", NOON + 89 * DAY)
    world.put("done", NOON + 60)
    world.scheduler.start()
    world.turn_to(NOON + 61)
    world.caller.status = 500
    world.put("failed", NOON + 120, retry=0)
    world.turn_to(NOON + 121)
    world.caller.status = None
    world.put("running", NOON + 180)
    world.turn_to(NOON + 181)
    assert feed(world).summaries == ["failed: failed (unexpected_status)", "near"]
    world.clock.rightNow += BACK_DAYS * DAY
    assert feed(world).summaries == ["near", "far"]


def test_calendar_of_many_events_is_truncated_with_a_note(world: World) -> None:
    many = [definition(f"task-{n}", NOON + 60 * (1 + n)) for n in range(MAX_EVENTS)]
    world.result(world.store.write(tasks.put_many, many, world.now()))
    described = str(feed(world).calendar["DESCRIPTION"])
    assert described == (
        "Tasks scheduled in the next 90 days and tasks that failed in the last 7 days: "
        "at most 500 of each."
    )
    world.put("one-more", NOON + DAY)
    full = feed(world)
    assert len(full.events) == MAX_EVENTS
    assert "one-more" not in full.text
    told = str(full.calendar["X-WR-CALDESC"]).removeprefix(described)
    assert told == " More are scheduled: only those up to 2027-01-15T20:20:00.000Z are included."


def test_calendar_of_many_failures_is_truncated_with_a_note() -> None:
    failed = Task(
        definition=definition(),
        state=State.FAILED,
        reason=Reason.TOO_LATE,
        detail="d",
        due_at=None,
        attempts_used=0,
        created_at_ms=NOON * 1000,
        finished_at_ms=NOON * 1000,
    )
    agenda = CalendarData(
        failed=[
            Event(task=failed, planned_at_ms=NOON * 1000, changed_at_ms=NOON * 1000, host="h:80")
        ],
        more_failed=True,
    )
    told = str(read(whole(agenda))["DESCRIPTION"])
    assert told.endswith(" More failed: only those since 2027-01-15T12:00:00.000Z are included.")


def test_empty_calendar_is_valid(world: World) -> None:
    empty = feed(world)
    assert empty.events == []
    assert [part.name for part in empty.calendar.subcomponents] == ["VTIMEZONE"]
    assert empty.calendar["NAME"] == "callme"


# Request


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("text/calendar", True),
        ("Text/Calendar;charset=utf-8", True),
        ("text/calendar,text/plain;q=0.8,*/*;q=0.5", True),
        ("text/calendar;q=0.9, application/json;q=0.5", True),
        ("application/json, text/calendar", False),
        ("text/calendar;q=0", False),
        ("text/calendar;q=0.5, application/json", False),
        ("*/*", False),
        ("text/*", False),
        ("", False),
        (",;,q=1", False),
    ],
)
def test_accept_header_selects_the_calendar(world: World, accept: str, wanted: bool) -> None:
    world.put()
    if wanted:
        assert feed(world, headers={"Accept": accept}).summaries == ["task"]
    else:
        response = ask(world, "GET", "/status/", headers={"Accept": accept})
        assert [task["task_name"] for task in response.json["tasks"]] == ["task"]
        assert response.header("vary") == "Accept"


def test_path_that_ends_in_ics_is_a_calendar(world: World) -> None:
    world.put("a")
    world.put("b")
    for path in ("/status/a.ics", "/status/a.ics/", "/task/a.ics", "/status/a.ics?pretty"):
        found = feed(world, path, {})
        assert (found.summaries, found.calendar["NAME"]) == (["a"], "callme: a")
    assert feed(world, "/status/.ics", {}).summaries == ["a", "b"]
    assert feed(world, "/status/a").summaries == ["a"]
    assert ask(world, "GET", "/status/c.ics").status == 404
    assert ask(world, "GET", "/status/c", headers=ACCEPT).status == 404
    assert ask(world, "GET", "/status/a.ics?limit=5").status == 400
    assert ask(world, "GET", "/status/?state=failed", headers=ACCEPT).status == 400


def test_task_name_that_ends_in_ics_takes_precedence(world: World) -> None:
    world.put("a")
    world.put("a.ics")
    assert ask(world, "GET", "/status/a.ics").json["tasks"][0]["task_name"] == "a.ics"
    assert feed(world, "/status/a.ics").summaries == ["a.ics"]
    assert feed(world, "/status/a.ics.ics", {}).summaries == ["a.ics"]
    assert feed(world, "/status/a").summaries == ["a"]


def test_no_task_name_takes_the_path_of_the_calendar_of_all_tasks(world: World) -> None:
    world.put("a")
    world.put(".ics")
    for path in ("/status/.ics", "/task/.ics", "/status/.ics/"):
        assert feed(world, path, {}).summaries == ["a", ".ics"]
        assert feed(world, path).calendar["NAME"] == "callme"
    (task,) = ask(world, "GET", "/status?prefix=.ics").json["tasks"]
    assert ask(world, "GET", f"/status/{task['task']}").json["task_name"] == ".ics"
    assert feed(world, "/status/.ics.ics", {}).summaries == [".ics"]
    assert ask(world, "DELETE", "/task/.ics").json["deleted"] == 1


# Conditional requests


def test_calendar_is_sent_again_only_if_it_has_changed(world: World) -> None:
    path = "/status/.ics"
    world.put("a", NOON + 3600)
    status, first, text = get(world, path, {})
    assert (status, first["cache-control"]) == (200, "private, no-cache")
    assert datetime.strptime(first["last-modified"], HTTP_DATE).replace(tzinfo=timezone.utc) == at(
        NOON
    )
    etag = first["etag"]
    for condition in (
        {"If-None-Match": etag},
        {"If-None-Match": f'"other", W/{etag}'},
        {"If-None-Match": "*"},
        {"If-Modified-Since": first["last-modified"]},
        {"If-None-Match": etag, "If-Modified-Since": "Sat, 01 Jan 2000 00:00:00 GMT"},
    ):
        status, headers, body = get(world, path, condition)
        assert (status, headers["etag"], headers["vary"], body) == (304, etag, "Accept", "")
        assert headers["last-modified"] == first["last-modified"]
    for condition in (
        {"If-None-Match": '"other"'},
        {"If-None-Match": '"other"', "If-Modified-Since": first["last-modified"]},
        {"If-Modified-Since": "Sat, 01 Jan 2000 00:00:00 GMT"},
        {"If-Modified-Since": "yesterday"},
    ):
        assert get(world, path, condition)[::2] == (200, text)


def test_deletion_changes_a_calendar(world: World) -> None:
    world.put("a", NOON + 3600)
    world.put("b", NOON + 3600)
    _, first, _ = get(world, "/status/.ics", {})
    world.clock.rightNow = NOON + 5
    ask(world, "DELETE", "/task/b")
    conditions = (
        {"If-None-Match": first["etag"]},
        {"If-Modified-Since": first["last-modified"]},
    )
    for condition in conditions:
        status, second, _ = get(world, "/status/.ics", condition)
        assert status == 200
    world.put("b", NOON + 3600)
    # Two versions in one second: no time tells them apart.
    _, third, _ = get(world, "/status/.ics", {"If-Modified-Since": second["last-modified"]})
    assert "last-modified" not in third
    assert third["etag"] not in (first["etag"], second["etag"])
    world.clock.rightNow = NOON + 6
    _, later, _ = get(world, "/status/.ics", {})
    assert later["etag"] == third["etag"]
    assert later["last-modified"] != second["last-modified"]


def test_versions_of_many_calendars_are_forgotten(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ical, "MAX_VERSIONS", 2)
    seen = {}
    for name in ("a", "b", "c"):
        world.put(name, NOON + 3600)
        _, seen[name], _ = get(world, f"/status/{name}.ics", {})
    world.clock.rightNow = NOON + 5
    for name, status in (("c", 304), ("b", 304), ("a", 200)):
        since = {"If-Modified-Since": seen[name]["last-modified"]}
        assert get(world, f"/status/{name}.ics", since)[0] == status
        assert get(world, f"/status/{name}.ics", {"If-None-Match": seen[name]["etag"]})[0] == 304


def test_single_task_stays_json(world: World) -> None:
    task = world.put()
    response = ask(world, "GET", f"/status/{task.key}", headers=ACCEPT)
    assert response.json["task"] == str(task.key)


# Format


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_text_round_trips_without_control_characters(value: str) -> None:
    name = re.sub(r"[@/\x00-\x1f\x7f-\x9f\u2028\u2029]", "", value) or "a"
    task = Task(
        definition=definition(name[:255]),
        state=State.FAILED,
        reason=None,
        detail=value,
        due_at=None,
        attempts_used=0,
        created_at_ms=NOON * 1000,
        finished_at_ms=NOON * 1000,
    )
    agenda = CalendarData(
        failed=[Event(task=task, planned_at_ms=NOON * 1000, changed_at_ms=NOON * 1000, host="h:80")]
    )
    (event,) = read(whole(agenda)).walk("VEVENT")
    assert event["SUMMARY"] == f"{name[:255]}: failed"
    shown = re.sub(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]", " ", value.replace("\r\n", "\n"))
    assert str(event["DESCRIPTION"]).split("attempts used", 1)[1] == ("\n" + shown if value else "")


def test_long_lines_are_folded_at_75_octets() -> None:
    (first, second) = ical.fold_lines(["a" * 74 + "\U0001f600"]).split(b"\r\n", 1)
    assert first == b"a" * 74
    assert second == b" " + "\U0001f600".encode() + b"\r\n"
    assert ical.fold_lines(["a" * 75]) == b"a" * 75 + b"\r\n"
    for part in ical.fold_lines(["é" * 200]).split(b"\r\n"):
        part.decode()
