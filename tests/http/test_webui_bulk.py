"""The web pages for actions on many tasks: selected ones, or all that filters match."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

import pytest
from twisted.logger import capturedLogs, formatEvent

from callme.core.task import State
from callme.core.times import Key
from callme.store import tasks
from callme.store.listing import counts
from callme.webui.lists import bulk_pages
from tests.helpers.html import Page, text_of, visit
from tests.helpers.tasks import NOON
from tests.helpers.world import World

LATER = NOON + 3600
RESCHEDULE, DELETE = "/page/reschedule-many", "/page/delete-many"
BILLING = "billing.example:80"


@pytest.fixture
def ticking(world: World) -> World:
    world.scheduler.start()
    return world


def fail(world: World, *names: str, host: str = BILLING) -> list[Key]:
    """Let tasks be called at once and fail."""
    world.caller.status = 503
    keys = [world.put(name, NOON, retry=0, callback=f"http://{host}/").key for name in names]
    world.notify_due(host)
    world.turn_to(world.now() + 5)
    return keys


def keys(world: World) -> list[str]:
    page = world.result(world.store.read(tasks.list_page))
    return [str(task.key) for task in page.tasks]


def fields(page: Page, action: str) -> dict[str, Any]:
    """Return the fields of a form, the keys of selected tasks as a list."""
    (form,) = [one for one in page.all(".//form") if one.get("action", "").startswith(action)]
    found: dict[str, Any] = {}
    for one in form.iter("input"):
        name, value = one.get("name", ""), one.get("value", "")
        if name == "task":
            found.setdefault(name, []).append(value)
        else:
            assert name not in found
            found[name] = value
    return found


def flash(page: Page) -> list[str]:
    return page.texts(".//p[@role='status']")


def test_group_of_failures_is_retried_after_a_preview(ticking: World) -> None:
    fail(ticking, *(f"invoice.{number:02}" for number in range(12)))
    fail(ticking, "mail", host="mail.example:80")
    links = visit(ticking, "/").all(".//table//td/span/a[@aria-label]")
    (retry,) = [one for one in links if one.get("aria-label") == f"Retry all failures of {BILLING}"]
    path = retry.get("href", "")
    page = visit(ticking, path)
    assert page.h1 == page.title.partition(" \u00b7")[0] == "Reschedule 12 tasks?"
    summary = f"state failed, reason unexpected_status, host {BILLING}."
    assert page.texts(".//p[@class='summary']") == [f"All tasks that match: {summary}"]
    assert [row[0] for row in page.rows("The first 10 of them")][:2] == ["invoice.00", "invoice.01"]
    assert "succeeded already" not in page.main
    # Nothing has changed yet.
    assert visit(ticking, path).h1 == page.h1
    form = fields(page, RESCHEDULE)
    time = {"trigger_at": "", "local_time": "", "zone": "UTC"}
    assert form == {"confirmed": "yes", "expected": "12", "spread": "0", **time}
    done = visit(ticking, path, {**form, "trigger_at": "2027-01-15 12:30", "spread": "6"})
    assert done.status == 303
    minutes = [int(key.partition("@")[2]) for key in keys(ticking) if key.startswith("invoice")]
    assert minutes == [NOON + 1800 + 60 * (number // 2) for number in range(12)]
    shown = visit(ticking, done.header("location") or "")
    assert flash(shown) == ["12 tasks were rescheduled."]
    assert "mail@" in "".join(keys(ticking))


def test_tasks_of_one_name_move_to_different_minutes(ticking: World) -> None:
    for number in range(4):
        ticking.put("same", LATER + 60 * number)
    ticking.put("same", NOON + 600)
    path = f"{RESCHEDULE}?due_from={LATER}"
    form = fields(visit(ticking, path), RESCHEDULE)
    done = visit(ticking, path, {**form, "trigger_at": str(NOON + 600)})
    assert "changed=4&skipped=0" in (done.header("location") or "")
    assert keys(ticking) == [f"same@{NOON + 600 + 60 * number}" for number in range(5)]


def test_all_that_match_are_deleted_after_a_preview(ticking: World) -> None:
    failures = fail(ticking, "a", "b", "c")
    ticking.put("kept", LATER)
    listed = visit(ticking, "/page/find?state=failed")
    path = listed.links["Delete all 3 that match\u2026"]
    page = visit(ticking, path)
    assert page.h1 == "Delete 3 tasks?"
    assert len(page.rows("All of them")) == len(failures)
    done = visit(ticking, path, fields(page, DELETE))
    assert keys(ticking) == [f"kept@{LATER}"]
    shown = visit(ticking, done.header("location") or "")
    assert flash(shown) == ["3 tasks were deleted."]
    assert "No tasks found." in shown.main
    assert "No tasks match now." in visit(ticking, path).main


def test_selected_tasks_are_deleted_after_a_preview(ticking: World) -> None:
    for name in ("a", "b \u202e\u2028", "c"):
        ticking.put(name, LATER)
    page = visit(ticking, "/page/find")
    boxes = page.all(".//td//input[@type='checkbox']")
    labels = {one.get("for"): text_of(one) for one in page.all(".//td//label")}
    assert labels[boxes[0].get("id")] == f"Select a@{LATER}"
    buttons = {text_of(one): one.get("formaction", "") for one in page.all(".//main//button")}
    assert buttons["Reschedule selected\u2026"] == ""
    assert [one.get("action") for one in page.all(".//form[@class='bulk']")] == [RESCHEDULE]
    chosen = [str(box.get("value")) for box in boxes[:2]]
    page = visit(ticking, buttons["Delete selected\u2026"], {"task": chosen})
    assert (page.status, page.h1) == (200, "Delete 2 tasks?")
    assert len(keys(ticking)) == 3
    form = fields(page, DELETE)
    assert form == {"confirmed": "yes", "expected": "2", "task": chosen}
    done = visit(ticking, DELETE, form)
    assert done.header("location") == "/page/find?done=deleted&changed=2&skipped=0"
    assert keys(ticking) == [f"c@{LATER}"]


def test_selected_tasks_are_rescheduled(ticking: World) -> None:
    chosen = [str(key) for key in fail(ticking, "a", "b")]
    form = fields(visit(ticking, RESCHEDULE, {"task": chosen}), RESCHEDULE)
    visit(ticking, RESCHEDULE, {**form, "trigger_at": "+10m", "spread": ""})
    assert keys(ticking) == [f"a@{NOON + 660}", f"b@{NOON + 660}"]


def test_selected_tasks_of_one_name_move_to_different_minutes(ticking: World) -> None:
    chosen = [str(ticking.put("same", LATER + 60 * number).key) for number in range(3)]
    ticking.put("same", NOON + 660)
    form = fields(visit(ticking, RESCHEDULE, {"task": chosen[::-1]}), RESCHEDULE)
    done = visit(ticking, RESCHEDULE, {**form, "trigger_at": str(NOON + 600), "spread": "2"})
    assert "changed=3&skipped=0" in (done.header("location") or "")
    # The minute of another task of the name is passed, and the others follow.
    minutes = (600, 660, 720, 780)
    assert keys(ticking) == [f"same@{NOON + minute}" for minute in minutes]


def test_each_selected_task_that_changes_has_a_line_in_the_audit_log(ticking: World) -> None:
    ticking.caller.status = None
    running = ticking.put("running", NOON + 60).key
    ticking.turn_to(NOON + 65)
    chosen = [str(ticking.put(name, LATER).key) for name in "ab"] + [str(running)]
    form = fields(visit(ticking, RESCHEDULE, {"task": chosen}), RESCHEDULE)
    with capturedLogs() as captured:
        visit(ticking, RESCHEDULE, {**form, "trigger_at": str(LATER + 60)})
    assert changes(captured) == [
        f'127.0.0.1 rescheduled "{name}@{LATER}" to {LATER + 60}' for name in "ab"
    ]
    chosen = [f"{name}@{LATER + 60}" for name in "ab"] + [str(running)]
    form = fields(visit(ticking, DELETE, {"task": chosen}), DELETE)
    with capturedLogs() as captured:
        visit(ticking, DELETE, form)
    assert changes(captured) == [f'127.0.0.1 deleted "{name}@{LATER + 60}"' for name in "ab"]


def changes(captured: Iterable[Any]) -> list[str]:
    """Return the lines of the audit log, without the ids of the requests."""
    lines = [formatEvent(event) for event in captured if "by" in event]
    return [line.partition(", request ")[0] for line in lines]


def test_preview_of_a_reschedule_displays_local_time_and_effect(
    ticking: World,
) -> None:
    ticking.caller.status = None
    ticking.put("running", NOON + 60)
    ticking.turn_to(NOON + 65)
    for name in "ab":
        ticking.put(name, LATER)
    path = f"{RESCHEDULE}?due_from={NOON}"
    form = fields(visit(ticking, path), RESCHEDULE)
    given = {"local_time": "2027-01-15T16:00", "zone": "Europe/Berlin", "spread": "3"}
    before = keys(ticking)
    page = visit(ticking, path, {**form, **given, "action": "preview"})
    assert (page.status, keys(ticking)) == (200, before)
    # One of the three minutes would be that of the running task.
    assert flash(page) == [
        "New time: 2027-01-15 15:00 UTC, which is 2027-01-15 16:00 in Europe/Berlin, in 2 hours. "
        "2 tasks would move, the last of them to 2027-01-15 15:01 UTC, which is 2027-01-15 16:01 "
        "in Europe/Berlin, in 2 hours. 1 task would be skipped."
    ]
    assert fields(page, RESCHEDULE) == {**form, **given}
    page = visit(ticking, path, {**form, "trigger_at": "soon", "action": "preview"})
    assert (page.status, flash(page)) == (422, [])


def test_all_tasks_of_a_page_are_selected_without_a_script(ticking: World) -> None:
    for name in "abc":
        ticking.put(name, LATER)
    page = visit(ticking, "/page/find?state=scheduled")
    box = ".//td//input[@type='checkbox']"
    assert [one.get("checked") for one in page.all(box)] == [None] * 3
    links = page.links
    selected = visit(ticking, links["Select all 3 on this page"])
    assert [one.get("checked") for one in selected.all(box)] == ["checked"] * 3
    cleared = visit(ticking, selected.links["Select none"])
    assert [one.get("checked") for one in cleared.all(box)] == [None] * 3
    # All that match, on this page or on others.
    assert links["Reschedule all 3 that match\u2026"] == f"{RESCHEDULE}?state=scheduled"
    assert links["Delete all 3 that match\u2026"] == f"{DELETE}?state=scheduled"
    links = visit(ticking, "/page/find").links
    assert not [text for text in links if "that match" in text], "all tasks are too many"


def test_actions_on_many_tasks_skip_running_ones(ticking: World) -> None:
    ticking.caller.status = None
    key = ticking.put("running", NOON + 60).key
    ticking.put("later", LATER)
    ticking.turn_to(NOON + 65)
    for path, verb in ((RESCHEDULE, "rescheduled"), (DELETE, "deleted")):
        page = visit(ticking, f"{path}?due_from={NOON}")
        assert page.h1.endswith("2 tasks?")
        done = visit(ticking, f"{path}?due_from={NOON}", fields(page, path))
        shown = visit(ticking, done.header("location") or "")
        assert flash(shown) == [f"1 task was {verb}. 1 task could not be {verb}."]
    assert ticking.task(key).state is State.RUNNING


def test_action_is_refused_when_many_more_tasks_match_than_displayed(ticking: World) -> None:
    fail(ticking, "a")
    path = f"{DELETE}?state=failed"
    form = fields(visit(ticking, path), DELETE)
    fail(ticking, *(f"b{number}" for number in range(11)))
    page = visit(ticking, path, form)
    assert (page.status, page.h1) == (409, "Delete 12 tasks?")
    assert "confirm again" in page.texts(".//p[@role='alert']")[0]
    assert len(keys(ticking)) == 12
    # A few more tasks are accepted, because an endpoint that is down continues to fail.
    form = fields(page, DELETE)
    fail(ticking, "c")
    assert visit(ticking, path, form).status == 303
    for wrong in ("", "x", "9" * 10, "-1"):
        fail(ticking, f"d{wrong}")
        assert visit(ticking, path, {**form, "expected": wrong}).status == 409


@pytest.mark.parametrize(
    ("given", "field", "status"),
    [
        ({"trigger_at": "soon"}, "time", 422),
        ({"spread": "long"}, "spread", 422),
        ({"spread": "10081"}, "spread", 422),
        ({"spread": "-1"}, "spread", 422),
    ],
)
def test_error_of_a_field_is_displayed_beside_it(
    ticking: World, given: dict[str, str], field: str, status: int
) -> None:
    fail(ticking, "a")
    path = f"{RESCHEDULE}?state=failed"
    form = {**fields(visit(ticking, path), RESCHEDULE), **given}
    page = visit(ticking, path, form)
    assert page.status == status
    (wrong,) = page.all(".//*[@aria-invalid]")
    assert (wrong.get("id"), [wrong.get("value")]) == (field, list(given.values()))
    described = (wrong.get("aria-describedby") or "").split()
    assert described[0] in ("error", "time-error")
    assert len(page.texts(".//p[@role='alert']")) == 1


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("", "no task is selected"),
        ("?order=due", "no task is selected"),
        ("?host=x", "is not a host and port"),
        ("?colour=red", "is not a parameter here"),
        (f"?name=x%40{LATER}", "the name is a key"),
    ],
)
def test_action_needs_a_selection_or_filters(ticking: World, query: str, message: str) -> None:
    ticking.put("x", LATER)
    for path in (RESCHEDULE, DELETE):
        for given in (None, {"confirmed": "yes", "expected": "9"}):
            page = visit(ticking, path + query, given)
            assert page.status == 400
            assert message in page.main
    assert len(keys(ticking)) == 1


def test_malformed_selection_is_refused(ticking: World) -> None:
    for value in ("x", "x@", "@1", f"a/b@{LATER}", "%FF@60"):
        assert visit(ticking, DELETE, {"task": [value]}).status in (200, 400)
    assert visit(ticking, DELETE, {"task": ["x@60"] * 111}).status == 400
    assert visit(ticking, DELETE, {"task": ["x" * 65_536]}).status == 413
    assert visit(ticking, DELETE, {"confirmed": ["yes", "yes"]}).status == 400


def test_selected_tasks_that_no_longer_exist_are_omitted(ticking: World) -> None:
    ticking.put("x", LATER)
    page = visit(ticking, DELETE, {"task": [f"x@{LATER}", f"gone@{LATER}"]})
    assert page.h1 == "Delete 1 task?"
    page = visit(ticking, DELETE, {"task": [f"gone@{LATER}"]})
    assert "No tasks match now." in page.main


def test_action_reaches_a_bounded_number_of_tasks(
    ticking: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail(ticking, *(f"t{number}" for number in range(7)))
    monkeypatch.setattr(counts, "MAX_COUNTED", 5)
    monkeypatch.setattr(bulk_pages, "MAX_COUNTED", 5)
    path = f"{DELETE}?state=failed"
    page = visit(ticking, path)
    assert page.h1 == "Delete 5+ tasks?"
    assert "the first 5" in page.main
    visit(ticking, path, fields(page, DELETE))
    assert len(keys(ticking)) == 2


def test_result_in_the_address_of_a_list_is_read_strictly(ticking: World) -> None:
    for query in (
        "done=burnt&changed=1&skipped=0",
        "done=deleted&changed=x&skipped=0",
        "done=deleted&changed=1",
        f"done=deleted&changed={quote('<b>')}&skipped=0",
    ):
        assert flash(visit(ticking, f"/page/find?{query}")) == []
