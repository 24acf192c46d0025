"""The web pages through treq's in-memory client: their contents and their forms."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any
from urllib.parse import quote

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.defer import fail as failed

from callme.core.task import State
from callme.core.times import Key
from callme.reports.history import MIN_TTL_SECONDS
from callme.security.tokens import Tokens
from callme.store import queue, stats, tasks
from callme.store.interface import MAX_BACKLOG_COUNT, StoreStats, StoreUnavailable
from callme.webui import charts
from callme.webui.chart_panels import FAILURE_TTL_SECONDS, MAX_PAST_AGE_SECONDS
from callme.webui.dashboard import MAX_ROWS
from callme.webui.layout import ASSETS, ICON, POLICY, SCRIPT, STYLE
from callme.webui.routes import WAIT_SECONDS
from callme.webui.widgets import UNFOLDED_ROWS
from tests.helpers.api_client import ask
from tests.helpers.html import BASE, HTML, visit
from tests.helpers.logs import LoggedFailures
from tests.helpers.tasks import NOON
from tests.helpers.world import World

HOSTILE = '</title><script>alert(1)</script>" onload="x\u202e&\u2028\ufeff<!--]]>'
LATER = NOON + 3600
PAGES = [
    "/",
    "/page/find",
    f"/page/task/x@{LATER}",
    f"/page/run/x@{LATER}",
    f"/page/reschedule/x@{LATER}",
    "/page/new",
    f"/page/new?from=x@{LATER}",
]


def fail(world: World, name: str = "x", at: int = NOON, status: int = 500) -> Key:
    """Let a task be called and fail at once."""
    world.caller.status = status
    key = world.put(name, at, retry=0).key
    world.notify_due("sink.example:80")
    world.turn_to(max(at, world.now()) + 5)
    return key


@pytest.fixture
def ticking(world: World) -> World:
    world.scheduler.start()
    return world


# Dashboard


def test_dashboard_of_an_empty_store(ticking: World) -> None:
    page = visit(ticking, "/")
    assert (page.status, page.h1) == (200, "All is well")
    assert page.title == "All is well \u00b7 callme"
    assert "No failed tasks." in page.main
    assert "No calls in flight." in page.main
    assert page.facts["Lateness, p50"] == "\u2013"
    labels = [one.get("aria-label") for one in page.all(".//svg[@role='img']")]
    assert labels == [
        "0 tasks succeeded and 0 failed since 09:01.",
        "No attempts were made.",
        "No calls are due.",
    ]


def test_dashboard_shows_past_present_and_due_tasks(ticking: World) -> None:
    failed = fail(ticking, "bad")
    ticking.caller.status = 200
    ticking.put("good", NOON + 60)
    ticking.turn_to(NOON + 65)
    ticking.caller.status = None
    ticking.put("slow", NOON + 120)
    for number in range(3):
        ticking.put(f"later{number}", LATER)
    ticking.turn_to(NOON + 180)
    page = visit(ticking, "/")
    assert page.h1 == "1 task failed in the last 3 hours"
    assert page.facts == {
        "In flight": "1",
        "Due now": "0",
        "Due, next 3 h": "3",
        "Succeeded, last 3 h": "1",
        "Failed, last 3 h": "1",
        "Lateness, p50": "0 ms",
        "Lateness, p99": "0 ms",
    }
    assert page.rows("1 failed task, latest first") == [
        [
            "2027-01-15 12:00:00 3 minutes ago",
            "bad",
            "2027-01-15 12:00",
            "unexpected_status the endpoint responded with 500, expected 200; "
            "the only attempt is used",
            "Reschedule\u2026",
        ]
    ]
    assert page.rows("1 call in flight") == [
        ["slow", "2027-01-15 12:02", "1", "sink.example:80", "2027-01-15 12:02:00", "1 min", "node"]
    ]
    titles = page.texts(".//g/path/title")
    assert titles == ["12:01: 1 succeeded", "12:00: 1 failed", "13:00: 3 calls"]
    assert page.links["bad"] == f"/page/task/{failed}"
    assert page.links["Reschedule\u2026"] == f"/page/reschedule/{failed}"
    assert page.rows("Due calls")[5] == ["12:53", "3"]
    assert page.rows("Ended tasks")[-1] == ["11:54", "1", "1", "0 ms", "0 ms"]


def test_dashboard_folds_all_failures_but_the_first(ticking: World) -> None:
    for number in range(UNFOLDED_ROWS + 2):
        fail(ticking, f"bad{number}", NOON + 60 * number)
    page = visit(ticking, "/")
    shown = [row[1] for row in page.rows("7 failed tasks, latest first")]
    assert shown == ["bad6", "bad5", "bad4", "bad3", "bad2"]
    (folded,) = page.all(".//details[@id='failures']")
    assert [folded.get("open"), folded.findtext("summary")] == [None, "2 more"]
    assert [row[1] for row in page.rows("Earlier ones")] == ["bad1", "bad0"]


def test_dashboard_covers_the_chosen_hours(ticking: World) -> None:
    ticking.put("far", NOON + 20 * 3600)
    for hours, due in (("1", "0"), ("3", "0"), ("12", "0"), ("24", "1")):
        page = visit(ticking, f"/?hours={hours}")
        assert page.facts[f"Due, next {hours} h"] == due
        (chosen,) = page.all(".//nav/ul/li/a[@aria-current]")
        assert chosen.get("href") == f"/?hours={hours}"
    for wrong in ("2", "x", "", "03"):
        page = visit(ticking, f"/?hours={wrong}")
        assert (page.status, page.h1) == (400, "Bad Request")
        assert "expected one of 1, 3, 12, 24" in page.main


def test_headline_names_the_problem(ticking: World) -> None:
    ticking.put("x", LATER)
    ticking.store.overrides[stats.store_stats] = lambda now, count=False: ticking.store._read(
        lambda _: StoreStats(backlog=MAX_BACKLOG_COUNT, oldest_due=91.0, size=0)
    )
    page = visit(ticking, "/")
    assert page.h1 == "Calls are late: 10,000 or more tasks due, the oldest for 1 min 31 s"
    assert page.facts["Due now"] == "10,000+, oldest for 1 min 31 s"
    ticking.clock.rightNow += 1000
    assert visit(ticking, "/").h1 == "Scheduler stopped: no calls are being made"


def test_dashboard_lists_overloaded_minutes(world: World) -> None:
    world.restart(concurrency=1, per_host=1)
    for number in range(200):
        world.put(f"t{number}", LATER, max_delay=1)
    page = visit(world, "/")
    assert page.h1 == "Overload ahead: some calls will start too late"
    assert "12:00" not in page.texts(".//g[@class='overloaded']/path/title")[0]
    text_of = page.texts(".//g[@class='overloaded']/path/title")
    assert text_of == ["13:00: 200 calls, overloaded"]
    assert "2027-01-15 13:00: 200 calls to sink.example:80, up to 140 too late" in page.main


def test_concurrent_views_share_one_count(ticking: World) -> None:
    """A slow count is neither repeated for each viewer nor awaited."""
    fail(ticking, "one")
    assert visit(ticking, "/").facts["Failed, last 3 h"] == "1"
    fail(ticking, "two", NOON + 60)
    assert visit(ticking, "/").facts["Failed, last 3 h"] == "2"
    asked: list[tuple[int, ...]] = []
    history = partial(ticking.store.query, stats.history)

    def counted(*span: int) -> object:
        asked.append(span)
        return history(*span)

    ticking.store.overrides[stats.history] = counted
    visit(ticking, "/")
    assert asked == []
    ticking.turn_to(ticking.now() + 2)
    visit(ticking, "/")
    # Past minutes are not counted again, but for a part of them each time.
    since = NOON + 60 - 3 * 3600 + 360
    assert asked == [(since, since + 360), (NOON + 60 - 180,)]
    ticking.turn_to(ticking.now() + 60)
    page = visit(ticking, "/")
    assert asked[2:] == [(since + 360, since + 720), (NOON + 60 - 180,)]
    assert page.facts["Failed, last 3 h"] == "2"


def test_failed_count_leaves_the_rest_of_the_dashboard(
    ticking: World, logged_failures: LoggedFailures
) -> None:
    """Current activity is displayed until the count works again; then everything is."""
    fail(ticking)
    for error in (StoreUnavailable("locked"), RuntimeError("a fault")):
        ticking.turn_to(ticking.now() + MAX_PAST_AGE_SECONDS + 1)
        ticking.store.overrides[stats.history] = lambda *_, error=error: failed(error)
        page = visit(ticking, "/")
        assert "The history is being loaded. Reload this page in a moment." in page.main
        assert "1 failed task, latest first" in page.texts(".//table/caption")
        assert page.facts["Failed, last 3 h"] == "\u2013"
        # The headline must not contradict the list of failures.
        assert page.h1 == "1 task failed in the last 3 hours"
        assert page.texts(".//section[@class='past']/h2") == ["Last 3 hours"]
    assert logged_failures.flush(RuntimeError) == 1
    del ticking.store.overrides[stats.history]
    ticking.turn_to(ticking.now() + MIN_TTL_SECONDS)
    assert visit(ticking, "/").facts["Failed, last 3 h"] == "1"


def test_headline_counts_failures_without_the_history(ticking: World) -> None:
    fail(ticking)
    ticking.store.overrides[stats.history] = lambda *_: failed(StoreUnavailable("locked"))
    assert visit(ticking, "/?hours=1").h1 == "1 task failed in the last hour"
    ticking.turn_to(ticking.now() + 3700)
    assert visit(ticking, "/?hours=1").h1 == "All is well"
    assert visit(ticking, "/?hours=3").h1 == "1 task failed in the last 3 hours"
    ticking.caller.status = 500
    for number in range(MAX_ROWS + 1):
        ticking.put(f"more{number}", int(ticking.now()) // 60 * 60, retry=0)
    ticking.notify_due("sink.example:80")
    ticking.turn_to(ticking.now() + 5)
    assert visit(ticking, "/?hours=1").h1 == "21 tasks failed in the last hour"


def test_failures_can_be_acknowledged(ticking: World) -> None:
    fail(ticking, "one")
    fail(ticking, "two", NOON + 60)
    page = visit(ticking, "/")
    fields = page.form("/page/acknowledge")
    # It ends after the page was displayed.
    fail(ticking, "three", NOON + 120)
    done = visit(ticking, "/page/acknowledge", fields)
    assert (done.status, done.header("location")) == (303, "/?done=acknowledged")
    page = visit(ticking, "/?done=acknowledged")
    assert page.texts(".//p[@role='status']") == ["The failures were acknowledged."]
    assert page.h1 == "1 task failed since 12:01"
    visit(ticking, "/page/acknowledge", page.form("/page/acknowledge"))
    page = visit(ticking, "/")
    assert page.h1 == "All is well"
    assert "Failures until 2027-01-15 12:02:00 just now are acknowledged." in page.main
    assert page.facts["Failed, last 3 h"] == "3"
    assert [row[1] for row in page.rows("3 failed tasks")] == ["three", "two", "one"]
    # An older page acknowledges no fewer failures.
    visit(ticking, "/page/acknowledge", fields)
    ticking.restart()
    assert visit(ticking, "/").h1 == "All is well"
    fail(ticking, "four", NOON + 180)
    assert visit(ticking, "/").h1 == "1 task failed since 12:02"
    ticking.turn_to(NOON + 2 * 3600)
    assert visit(ticking, "/?hours=1").h1 == "All is well"
    assert "acknowledged" not in visit(ticking, "/?hours=1").main
    assert visit(ticking, "/?hours=3").h1 == "1 task failed since 12:02"


@pytest.mark.parametrize("until", ["", "-1", "x", "1e3", str((NOON + 1) * 1000), "9" * 15])
def test_acknowledgement_of_the_future_is_refused(ticking: World, until: str) -> None:
    fail(ticking)
    ticking.clock.rightNow = float(NOON)
    page = visit(ticking, "/page/acknowledge", {"until_ms": until})
    assert (page.status, page.h1) == (400, "Bad Request")
    assert "expected a time up to now" in page.main
    assert visit(ticking, "/page/acknowledge", method="GET").status == 405


@pytest.mark.parametrize("doing", ["reschedule", "delete", "run"])
def test_past_stays_when_a_failed_task_is_moved_or_deleted(ticking: World, doing: str) -> None:
    keys = [fail(ticking, f"bad{number}") for number in range(3)]
    before = visit(ticking, "/")
    assert before.h1 == "3 tasks failed in the last 3 hours"
    path = f"/page/{doing}/{keys[-1]}"
    fields = {"expected_state": "failed", "trigger_at": "+2h"}
    ticking.caller.status = None
    assert visit(ticking, path, fields).status == 303
    ticking.turn_to(ticking.now() + 70)
    page = visit(ticking, "/")
    # The headline names the current problem.
    assert page.h1 == "2 tasks failed in the last 3 hours"
    assert page.facts["Failed, last 3 h"] == "3"
    assert page.texts(".//g[@class='bad']/path/title") == ["12:00: 3 failed"]
    assert page.facts["Lateness, p99"] == before.facts["Lateness, p99"] == "10.0 s"


def test_charts_are_drawn_once_for_concurrent_views(
    ticking: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Charts are cached, because drawing them for each viewer would delay calls."""
    drawn: list[str] = []

    def watched(name: str, draw: Callable[..., object]) -> Callable[..., object]:
        def drawing(*given: object) -> object:
            drawn.append(name)
            return draw(*given)

        return drawing

    for name in ("past", "ahead"):
        monkeypatch.setattr(charts, name, watched(name, getattr(charts, name)))
    first = visit(ticking, "/")
    assert drawn == ["past", "ahead"]
    second = visit(ticking, "/")
    assert drawn == ["past", "ahead"]
    assert len(second.all(".//svg[@role='img']")) == 3
    assert first.texts(".//svg[@role='img']") == second.texts(".//svg[@role='img']")
    fail(ticking)
    ticking.turn_to(ticking.now() + 60)
    assert "1 failed" in visit(ticking, "/").texts(".//g[@class='bad']/path/title")[0]
    visit(ticking, "/?hours=1")
    assert drawn == ["past", "ahead"] * 3


def test_failed_forecast_is_omitted_until_it_can_be_read(ticking: World) -> None:
    ticking.put("later", LATER)
    ticking.store.overrides[stats.due_load] = lambda *_, **__: failed(StoreUnavailable("locked"))
    page = visit(ticking, "/")
    assert (page.status, page.h1) == (200, "All is well")
    assert "The forecast is being loaded. Reload this page in a moment." in page.main
    assert page.facts["Due, next 3 h"] == "\u2013"
    del ticking.store.overrides[stats.due_load]
    ticking.turn_to(ticking.now() + FAILURE_TTL_SECONDS)
    assert visit(ticking, "/").facts["Due, next 3 h"] == "1"


@pytest.mark.parametrize(
    ("query", "what", "fact"),
    [
        (stats.history, "history", "Failed, last 3 h"),
        (stats.due_load, "forecast", "Due, next 3 h"),
    ],
)
def test_slow_count_does_not_delay_the_dashboard(
    ticking: World, query: Any, what: str, fact: str
) -> None:
    fail(ticking)
    ticking.put("later", LATER)
    counting: Deferred[None] = Deferred()
    ticking.store.overrides[query] = lambda *args, **options: counting.addCallback(
        lambda _: ticking.store.query(query, *args, **options)
    )

    def told() -> list[str]:
        pending = [ticking.http.request("GET", f"{BASE}/", headers=HTML) for _ in range(2)]
        ticking.http.flush()
        ticking.clock.advance(WAIT_SECONDS)
        ticking.http.flush()
        return [ticking.result(ticking.result(one).text("utf-8")) for one in pending]

    assert all(f"The {what} is being loaded" in text for text in told())
    counting.callback(None)
    assert visit(ticking, "/").facts[fact] == "1"
    ticking.turn_to(ticking.now() + 30)
    counting = Deferred()
    assert all(f"{what.capitalize()} as of" in text for text in told())
    counting.callback(None)


def test_dashboard_reports_an_unavailable_database(ticking: World) -> None:
    key = ticking.put("x", LATER).key
    ticking.store.is_broken = True
    for path in ("/", f"/page/task/{key}", "/page/find"):
        page = visit(ticking, path)
        assert (page.status, page.header("retry-after")) == (503, "2")
        assert page.h1 == "Service Unavailable"
        # The page refreshes itself without sending the form again.
        assert page.all(".//main")[0].get("data-live") == "yes"
    form = {"expected_state": "scheduled"}
    page = visit(ticking, f"/page/delete/{key}", form)
    assert (page.status, page.all(".//main")[0].get("data-live")) == (503, "no")


def test_unexpected_error_gets_an_error_page(
    ticking: World, logged_failures: LoggedFailures
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("about a secret")

    ticking.store.overrides[stats.recent_activity] = broken
    page = visit(ticking, "/")
    assert (page.status, page.h1) == (500, "Internal Server Error")
    assert "secret" not in page.text
    assert logged_failures.flush(RuntimeError) == 1


# Task page


def test_page_of_a_first_attempt_in_flight(ticking: World) -> None:
    ticking.caller.status = None
    ticking.put("first", NOON + 60)
    ticking.turn_to(NOON + 65)
    page = visit(ticking, f"/page/task/first@{NOON + 60}")
    assert (page.status, page.h1) == (200, "first")
    assert page.rows("1 attempt") == [["1", "\u2013", "", "", "", "in flight", "", ""]]


def test_task_page_shows_definition_and_attempts(ticking: World) -> None:
    more = {
        "retry": 2,
        "retry_delay": [1, 5],
        "headers": {"Authorization": "hunter2", "X-Plain": "shown"},
        "payload": '{"a": 1}',
        "callback_method": "POST",
    }
    ticking.caller.status = 503
    key = ticking.put("story", NOON + 60, **more).key
    path = f"/page/task/{key}"
    page = visit(ticking, path)
    assert "scheduled, due 2027-01-15 12:01 in 1 minute." in page.main
    assert "No attempts yet." in page.main
    ticking.turn_to(NOON + 65)
    page = visit(ticking, path)
    due = "scheduled, due 2027-01-15 12:01 just now; "
    assert f"{due}next attempt at 2027-01-15 12:02 in less than a minute." in page.main
    why = "failed unexpected_status the endpoint responded with 503, expected 200"
    first = ["0 ms", "5 ms", "503", why, "node"]
    at = "2027-01-15 12:01:00"
    assert page.rows("1 attempt") == [["1", f"{at} just now", *first, "retry at 2027-01-15 12:02"]]
    ticking.caller.status = None
    ticking.turn_to(NOON + 125)
    page = visit(ticking, path)
    assert page.title == "story: running \u00b7 callme"
    assert "attempt 2 is in flight" in page.main
    first = ["1", f"{at} 1 minute ago", *first]
    assert page.rows("2 attempts")[0] == [*first, "retry in flight"]
    assert "Delete\u2026" not in page.links
    ticking.caller.end(key, 200)
    page = visit(ticking, path)
    rows = page.rows("2 attempts")
    assert rows[0] == [*first, "retried at 2027-01-15 12:02:05"]
    assert rows[1][2:] == ["1 min 5 s", "5 ms", "200", "succeeded", "node", "done"]
    assert page.rows("Request headers") == [["Authorization", "***"], ["X-Plain", "shown"]]
    (payload,) = page.all(".//details[@id='payload']/pre")
    assert payload.text == '{\n  "a": 1\n}'
    assert page.facts["Callback"] == "http://sink.example/"
    assert page.facts["Method"] == "POST"
    assert page.facts["Attempts"] == "2 made, 0 left of 3"
    assert page.facts["Retry delay"] == "1, then 5 min"


def test_task_page_shows_the_first_attempt_in_flight(ticking: World) -> None:
    ticking.caller.status = None
    key = ticking.put("x", NOON).key
    ticking.turn_to(NOON + 60)
    page = visit(ticking, f"/page/task/{key}")
    assert page.rows("1 attempt") == [["1", "\u2013", "", "", "", "in flight", "", ""]]


def test_task_page_continues_after_a_reschedule(ticking: World) -> None:
    key = fail(ticking, "again")
    page = visit(ticking, f"/page/task/{key}")
    assert page.rows("1 attempt")[0][-1] == "given up"
    to = ask(ticking, "POST", f"/reschedule/{key}", {"trigger_at": "+2m"}).json
    moved = to["rescheduled"][0]["to"]
    page = visit(ticking, f"/page/task/{moved}")
    assert page.rows("1 attempt")[0][-1] == "rescheduled to 2027-01-15 12:03"
    assert page.facts["Attempts"] == "0 made, 1 left of 1, and 1 before it was rescheduled"
    ticking.turn_to(NOON + 185)
    page = visit(ticking, f"/page/task/{moved}")
    assert [row[-1] for row in page.rows("2 attempts")] == [
        "rescheduled",
        "given up",
    ]


def test_task_page_of_an_expired_task_has_no_attempt(ticking: World) -> None:
    key = ticking.put("late", NOON - 600, max_delay=5).key
    ticking.turn_to(NOON + 60)
    page = visit(ticking, f"/page/task/{key}")
    assert "No attempt was made." in page.main
    assert "too_late" in page.main


def test_task_page_truncates_a_long_payload(ticking: World) -> None:
    key = ticking.put("long", LATER, payload="a" * 10_000).key
    page = visit(ticking, f"/page/task/{key}")
    assert page.texts(".//details/pre") == ["a" * 4000]
    assert "6,000 more characters are omitted." in page.main


@pytest.mark.parametrize("path", ["/page/task/x", f"/page/task/x@{NOON}", "/page/task/", "/page/x"])
def test_missing_page_is_not_found(ticking: World, path: str) -> None:
    assert visit(ticking, path).status == 404


def test_invalid_key_is_not_found(ticking: World) -> None:
    assert visit(ticking, "/page/task/x@soon").status == 400


# Hostile text


def test_contents_of_a_task_are_escaped(ticking: World) -> None:
    name = HOSTILE.replace("/", "")
    key = ticking.put(
        name, NOON + 60, retry=0, payload=HOSTILE + "\0", headers={"X-A": "<b>\u200b"}
    ).key
    ticking.caller.status = 500
    ticking.turn_to(NOON + 65)
    ticking.store.connection.execute("UPDATE task SET detail = ?", (HOSTILE + "\0\x1b[2J",))
    ticking.store.connection.execute("UPDATE attempt SET detail = ?, body = ?", (HOSTILE, HOSTILE))
    path = f"{quote(name, safe='')}@{key.trigger_at}"
    paths = ["/", f"/page/task/{path}", f"/page/reschedule/{path}", f"/page/delete/{path}"]
    paths += [f"/page/find?name={quote(name[:20])}", f"/page/find?name={quote(name)}"]
    for one in paths:
        page = visit(ticking, one)
        assert page.status == 200
        assert [tag.get("src") for tag in page.all(".//script")] == [SCRIPT.path]
        assert not set(page.text) & set("\u202e\u2028\ufeff\u200b\0\x1b")
        assert "\u27e8U+202E\u27e9" in page.text
        assert "onload" not in {name for tag in page.tree.iter() for name in tag.attrib}
    story = visit(ticking, paths[1])
    assert story.links["Reschedule\u2026"] == f"/page/reschedule/{path}"
    assert "\u27e8U+0000\u27e9" in story.main
    assert "\u27e8U+001B\u27e9[2J" in story.main


def test_search_text_is_escaped(ticking: World) -> None:
    for path in (f"/?hours={quote(HOSTILE)}", f"/page/task/{quote(HOSTILE, safe='')}@0"):
        page = visit(ticking, path)
        assert page.status == 400
        assert len(page.all(".//script")) == 1


# Search


def test_search_finds_tasks_by_name_prefix(ticking: World) -> None:
    for name in ("ab", "abc", "abd", "b", "A"):
        ticking.put(name, LATER)
    fail(ticking, "abf")
    page = visit(ticking, "/page/find?name=ab")
    assert [row[1] for row in page.rows("4 tasks")] == ["ab", "abc", "abd", "abf"]
    page = visit(ticking, "/page/find?name=ab&state=failed")
    assert [row[1] for row in page.rows("1 task")] == ["abf"]
    assert visit(ticking, "/page/find").h1 == "All tasks"
    assert visit(ticking, "/page/find?state=failed").h1 == "Failed tasks"
    found = visit(ticking, "/page/find?state=failed&name=x")
    assert found.h1 == "Failed tasks whose names start with \u201cx\u201d"
    assert "No tasks found." in visit(ticking, "/page/find?name=x").main


@pytest.mark.parametrize("name", ["a\0b", "a/b", "x" * 256])
def test_search_for_an_impossible_name_makes_no_query(ticking: World, name: str) -> None:
    """PostgreSQL rejects a NUL in a text."""
    ticking.store.overrides[tasks.list_page] = lambda **_: failed(
        AssertionError("it was asked for")
    )
    page = visit(ticking, f"/page/find?name={quote(name, safe='')}")
    assert page.status == 400
    assert "a name" in page.main


def test_search_for_a_key_redirects_to_the_task(ticking: World) -> None:
    page = visit(ticking, f"/page/find?name=+ab%40{LATER}+")
    assert (page.status, page.header("location")) == (303, f"/page/task/ab@{LATER}")


def test_search_results_have_several_pages(ticking: World) -> None:
    for number in range(101):
        ticking.put(f"t{number:03}", LATER)
    page = visit(ticking, "/page/find?name=t")
    assert len(page.rows("100 tasks")) == 100
    rest = visit(ticking, page.links["Next page"])
    assert [row[1] for row in rest.rows("1 task")] == ["t100"]
    assert "Next page" not in rest.links


def test_attempts_have_several_pages(world: World) -> None:
    world.put("n", retry=104)
    world.attempt(Key("n", NOON), 105)
    page = visit(world, f"/page/task/n@{NOON}")
    rows = page.rows("100 attempts")
    assert [row[0] for row in rows] == [str(number) for number in range(6, 106)]
    assert rows[-1][-1] == "given up"
    rest = visit(world, page.links["Earlier attempts"])
    earlier = rest.rows("5 attempts")
    assert [row[0] for row in earlier] == ["1", "2", "3", "4", "5"]
    assert earlier[-1][-1] == "retried"
    assert "Earlier attempts" not in rest.links
    assert visit(world, f"/page/task/n@{NOON}?start_from=x").status == 400


def test_page_counts_the_attempts_that_are_no_longer_on_record(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "MAX_ATTEMPTS", 3)
    world.put("n", retry=9)
    world.attempt(Key("n", NOON), 10)
    page = visit(world, f"/page/task/n@{NOON}")
    assert [row[0] for row in page.rows("3 attempts")] == ["8", "9", "10"]
    assert "7 attempts before these are no longer on record." in page.text


# Forms


def test_form_reschedules_a_task(ticking: World) -> None:
    key = fail(ticking)
    path = f"/page/reschedule/{key}"
    page = visit(ticking, path)
    assert page.h1 == "Reschedule x?"
    fields = page.form(path)
    own = {"trigger_at": "", "local_time": "", "zone": "UTC"}
    assert fields == {**own, "expected_state": "failed"}
    done = visit(ticking, path, {**fields, "trigger_at": "+5m"})
    to = Key("x", NOON + 360)
    assert (done.status, done.header("location")) == (303, f"/page/task/{to}?done=rescheduled")
    assert ticking.task(to).state is State.SCHEDULED
    shown = visit(ticking, f"/page/task/{to}?done=rescheduled")
    assert shown.texts(".//p[@role='status']") == ["The task was rescheduled."]
    assert visit(ticking, f"/page/task/{to}?done=<b>").texts(".//p[@role='status']") == []


def test_reschedule_form_without_time_means_the_next_minute(ticking: World) -> None:
    key = fail(ticking)
    done = visit(
        ticking, f"/page/reschedule/{key}", {"trigger_at": " ", "expected_state": "failed"}
    )
    assert done.header("location") == f"/page/task/x@{NOON + 60}?done=rescheduled"


def test_task_rescheduled_to_now_is_called_at_once(ticking: World) -> None:
    key = fail(ticking)
    visit(ticking, f"/page/reschedule/{key}", {"trigger_at": "+0m", "expected_state": "failed"})
    assert ticking.caller.called == [f"x@{NOON}"] * 2


@pytest.mark.parametrize(
    ("given", "status", "message"),
    [
        ("soon", 422, "is not a time"),
        ("+1y", 422, "is not a time"),
        (HOSTILE, 422, "is not a time"),
        ("2028-11-26", 422, "is not a time"),
        (f"{NOON - 3600 * 24 * 400}", 422, "is max_delay or more in the past"),
        (f"{LATER}", 409, "another task has the key"),
    ],
)
def test_invalid_time_is_reported_beside_its_field(
    ticking: World, given: str, status: int, message: str
) -> None:
    ticking.put("x", LATER)
    key = fail(ticking)
    page = visit(
        ticking, f"/page/reschedule/{key}", {"trigger_at": given, "expected_state": "failed"}
    )
    assert page.status == status
    (field,) = page.all(".//input[@id='time']")
    assert field.get("value") == given
    assert field.get("aria-invalid") == "true"
    described = (field.get("aria-describedby") or "").split()
    assert all(page.all(f".//*[@id='{one}']") for one in described)
    (alert,) = page.texts(".//p[@role='alert']")
    assert message in alert
    assert "trigger_at" not in alert
    assert ticking.task(key).state is State.FAILED


def test_time_without_zone_in_the_form_means_utc(ticking: World) -> None:
    for given in ("2027-01-15 12:07", "2027-01-15T12:07:00", "2027-01-15 12:07 UTC"):
        key = fail(ticking, f"x{len(given)}")
        fields = {"trigger_at": given, "expected_state": "failed"}
        done = visit(ticking, f"/page/reschedule/{key}", fields)
        assert (
            done.header("location") == f"/page/task/{key.task_name}@{NOON + 420}?done=rescheduled"
        )


BERLIN = {"local_time": "2027-01-15T14:30", "zone": "Europe/Berlin"}


def test_local_time_of_the_form_is_in_its_zone(ticking: World) -> None:
    key = fail(ticking)
    path = f"/page/reschedule/{key}"
    fields = {**visit(ticking, path).form(path), **BERLIN}
    preview = visit(ticking, path, {**fields, "action": "preview"})
    assert preview.texts(".//p[@role='status']") == [
        "New time: 2027-01-15 13:30 UTC, which is 2027-01-15 14:30 in Europe/Berlin, in 1 hour."
    ]
    assert preview.form(path) == {**fields, "trigger_at": ""}
    assert ticking.task(key).state is State.FAILED
    done = visit(ticking, path, preview.form(path))
    to = f"/page/task/x@{NOON + 5400}?done=rescheduled&zone=Europe%2FBerlin"
    assert done.header("location") == to
    assert visit(ticking, to).texts(".//p[@role='status']") == [
        "The task was rescheduled. It is due at 2027-01-15 14:30 in Europe/Berlin."
    ]
    for wrong in ("Mars", "UTC"):
        page = visit(ticking, to.replace("Europe%2FBerlin", wrong))
        assert page.texts(".//p[@role='status']") == ["The task was rescheduled."]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({**BERLIN, "trigger_at": "+5m"}, "there are two times"),
        ({**BERLIN, "zone": "Europe/Berln"}, "did you mean Europe/Berlin?"),
        ({**BERLIN, "local_time": "soon"}, "is not a time"),
    ],
)
def test_wrong_local_time_is_reported_beside_its_field(
    ticking: World, fields: dict[str, str], message: str
) -> None:
    key = fail(ticking)
    path = f"/page/reschedule/{key}"
    page = visit(ticking, path, {**fields, "expected_state": "failed"})
    assert page.status == 422
    assert message in page.texts(".//p[@id='time-error']")[0]
    (field,) = page.all(".//input[@id='local-time']")
    assert (field.get("aria-invalid"), field.get("value")) == ("true", fields["local_time"])
    assert page.form(path)["zone"] == fields["zone"]


def test_preview_names_a_local_time_that_its_zone_skips(ticking: World) -> None:
    key = fail(ticking)
    fields = {"local_time": "2027-03-28T02:30", "zone": "Europe/Berlin", "action": "preview"}
    page = visit(ticking, f"/page/reschedule/{key}", {**fields, "expected_state": "failed"})
    (message,) = page.texts(".//p[@role='status']")
    assert "which is 2027-03-28 03:30 in Europe/Berlin, in 71 days." in message
    assert "2027-03-28T02:30[Europe/Berlin] is skipped by the zone" in message


def test_form_deletes_a_task(ticking: World) -> None:
    key = ticking.put("x", LATER).key
    path = f"/page/delete/{key}"
    page = visit(ticking, path)
    assert "It will not be called." in page.main
    assert ticking.task(key)
    done = visit(ticking, path, page.form(path))
    assert (done.status, done.header("location")) == (303, "/?done=deleted")
    assert ticking.result(ticking.store.read(tasks.get, key)) is None
    assert visit(ticking, "/?done=deleted").texts(".//p[@role='status']") == [
        "The task was deleted."
    ]
    assert visit(ticking, path, page.form(path)).status == 404


def test_form_about_an_outdated_state_is_refused(ticking: World) -> None:
    """A click that comes too late does not repeat the call of a task that has succeeded."""
    key = ticking.put("x", NOON + 60).key
    forms = [(p, visit(ticking, p).form(p)) for p in (f"/page/{d}/{key}" for d in DOINGS)]
    ticking.turn_to(NOON + 65)
    for path, fields in forms:
        page = visit(ticking, path, fields)
        assert page.status == 409
        assert "the task is succeeded now" in page.main
        assert page.form(path)["expected_state"] == "succeeded"
        assert visit(ticking, path, {}).status == 409
    assert ticking.task(key).state is State.SUCCEEDED


DOINGS = ("run", "reschedule", "delete")


def test_form_for_a_running_task_is_refused(ticking: World) -> None:
    ticking.caller.status = None
    key = ticking.put("x", NOON).key
    ticking.turn_to(NOON + 60)
    for doing in DOINGS:
        page = visit(ticking, f"/page/{doing}/{key}")
        assert "A running task can be neither rescheduled nor deleted." in page.main
        page = visit(ticking, f"/page/{doing}/{key}", {"expected_state": "running"})
        assert page.status == 409
        assert "is running" in page.texts(".//main")[0]
    assert ticking.task(key).state is State.RUNNING


@pytest.mark.parametrize(
    ("kind", "data", "status"),
    [
        ("application/json", json.dumps({"expected_state": "scheduled"}), 415),
        ("text/plain", "expected_state=scheduled", 415),
        (
            "application/x-www-form-urlencoded",
            "expected_state=scheduled&expected_state=scheduled",
            400,
        ),
        ("application/x-www-form-urlencoded", "expected_state=%ff", 400),
        ("application/x-www-form-urlencoded", "expected_state=\u00e9", 400),
        ("application/x-www-form-urlencoded", "&".join(f"a{n}=" for n in range(11)), 400),
        ("application/x-www-form-urlencoded", "a=" + "x" * 16_384, 413),
    ],
)
def test_malformed_form_is_refused(ticking: World, kind: str, data: str, status: int) -> None:
    key = ticking.put("x", LATER).key
    pending = ticking.http.request(
        "POST",
        f"http://localhost/page/delete/{key}",
        data=data.encode(),
        headers={"Content-Type": kind},
    )
    ticking.http.flush()
    assert ticking.result(pending).code == status
    assert ticking.task(key)


# Every page


@pytest.mark.parametrize("path", PAGES)
def test_every_page_has_a_strict_content_security_policy(ticking: World, path: str) -> None:
    ticking.put("x", LATER)
    page = visit(ticking, path)
    assert page.status == 200
    assert page.header("content-security-policy") == POLICY
    assert "unsafe" not in POLICY
    assert page.header("referrer-policy") == "same-origin"
    assert page.header("content-type") == "text/html; charset=utf-8"
    for tag in page.tree.iter():
        assert tag.tag != "style"
        assert "style" not in tag.attrib
        assert not any(name.startswith("on") for name in tag.attrib)
        for name in ("href", "src", "action"):
            assert tag.get(name, "/")[0] in "/#"
            assert not tag.get(name, "/").startswith("//")


@pytest.mark.parametrize("path", [*PAGES, f"/page/delete/x@{LATER}", "/page/x"])
def test_every_page_is_accessible(ticking: World, path: str) -> None:
    ticking.put("x", LATER)
    page = visit(ticking, path)
    assert page.tree.get("lang") == "en"
    assert len(page.all(".//h1")) == len(page.all(".//main")) == 1
    levels = [int(tag.tag[1]) for tag in page.tree.iter() if tag.tag in ("h1", "h2", "h3")]
    assert all(after - before <= 1 for before, after in pairwise(levels))
    ids = [tag.get("id") for tag in page.tree.iter() if tag.get("id")]
    assert len(ids) == len(set(ids))
    labelled = {tag.get("for") for tag in page.tree.iter("label")}
    for field in [*page.tree.iter("input"), *page.tree.iter("textarea")]:
        hidden = field.get("type") == "hidden" or field.get("hidden")
        assert hidden or field.get("id") in labelled
    for tag in page.tree.iter():
        for name in ("aria-labelledby", "aria-describedby"):
            assert set((tag.get(name) or "").split()) <= set(ids)
        if tag.tag in ("a", "button"):
            assert (tag.get("aria-label") or "".join(tag.itertext())).strip()
    assert page.all(".//a[@class='skip']")[0].get("href") == "#main"


def test_request_without_html_accept_goes_to_the_api(ticking: World) -> None:
    for accept in ("*/*", "application/json", "text/html;q=0", ""):
        page = visit(ticking, "/", headers={"Accept": accept})
        assert page.status == 200
        assert page.header("content-type") == "application/json"
        assert page.header("vary") == "Accept"
    assert visit(ticking, "/").header("vary") == "Accept"
    assert ask(ticking, "GET", "/").json["name"] == "callme"


@pytest.mark.parametrize("name", ASSETS)
def test_static_files_are_cached_indefinitely(ticking: World, name: str) -> None:
    page = visit(ticking, f"/page/static/{name}")
    assert page.status == 200
    assert page.header("cache-control") == "public, max-age=31536000, immutable"
    tag = page.header("etag")
    again = visit(ticking, f"/page/static/{name}", headers={"If-None-Match": str(tag)})
    assert (again.status, again.text) == (304, "")
    assert visit(ticking, "/page/static/style.css").status == 404
    assert visit(ticking, "/page/static/..%2Fstyle.css").status == 404


def test_static_files_load_nothing_from_elsewhere() -> None:
    for asset in (STYLE, SCRIPT, ICON):
        lines = [one for one in asset.content.splitlines() if not one.lstrip().startswith(b"//")]
        code = b"\n".join(lines).replace(b'xmlns="http://www.w3.org/2000/svg"', b"")
        assert not any(one in code for one in (b"//", b"url(", b"@import", b"innerHTML", b"eval"))


def test_unsupported_method_or_query_on_a_page_is_refused(ticking: World) -> None:
    key = ticking.put("x", LATER).key
    page = visit(ticking, f"/page/delete/{key}", method="DELETE")
    assert (page.status, page.header("allow")) == (405, "GET, HEAD, OPTIONS, POST")
    assert visit(ticking, f"/page/task/{key}", {}).status == 405
    assert visit(ticking, "/?colour=red").status == 400
    head = visit(ticking, f"/page/task/{key}", method="HEAD")
    assert (head.status, head.text) == (200, "")


def test_login_without_tokens_redirects_to_the_dashboard(ticking: World) -> None:
    page = visit(ticking, "/page/login")
    assert (page.status, page.header("location")) == (303, "/")
    assert "Log out" not in visit(ticking, "/").main


def test_login_page_has_a_form(ticking: World) -> None:
    ticking.tokens = Tokens.parse("token-of-a-reader")
    page = visit(ticking, "/page/login")
    assert page.form("/page/login") == {"user": "callme", "token": "", "next": "/"}
    assert "Continue" not in page.links
    page = visit(ticking, "/page/login", headers={"Sec-Fetch-Site": "cross-site"})
    assert page.links["Continue"] == "/"
    page = visit(ticking, "/page/login", {"token": "abd", "next": "/page/find"})
    assert (page.status, page.texts(".//p[@role='alert']")) == (
        401,
        ["Invalid token."],
    )
    assert page.form("/page/login")["next"] == "/page/find"
    assert page.header("set-cookie") is None
