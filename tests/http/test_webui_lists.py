"""The web pages about many tasks: lists with filters, failures in groups, and hosts."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from callme.core.times import Key
from callme.security.tokens import Tokens
from tests.helpers.api_client import ask
from tests.helpers.html import Page, text_of, visit
from tests.helpers.tasks import NOON
from tests.helpers.world import World

LATER = NOON + 3600
HOST = "sink.example:80"


@pytest.fixture
def ticking(world: World) -> World:
    world.scheduler.start()
    return world


def fail(world: World, *names: str, status: int | None = 500, host: str = HOST) -> None:
    """Let tasks be called at once and fail."""
    world.caller.status = status
    for name in names:
        world.put(name, NOON, retry=0, callback=f"http://{host}/")
    world.notify_due(host)
    world.turn_to(world.now() + 5)


def tabs(page: Page) -> list[str]:
    return page.texts(".//nav[@aria-label='State']/ul/li")


def names(page: Page) -> list[str]:
    """Return the name in each row of a list of tasks."""
    return [text_of(row.findall("td")[1]) for row in page.all(".//main//tbody/tr")]


# Lists


def test_list_has_tabs_with_the_number_of_tasks_of_each_state(ticking: World) -> None:
    fail(ticking, "a", "b")
    for name in ("c", "d", "e"):
        ticking.put(name, LATER)
    page = visit(ticking, "/page/find")
    assert tabs(page) == ["All 5", "Scheduled 3", "Running 0", "Succeeded 0", "Failed 2"]
    (chosen,) = page.all(".//nav[@aria-label='State']/ul/li/a[@aria-current]")
    assert text_of(chosen) == "All 5"
    page = visit(ticking, page.links["Failed 2"])
    assert (page.h1, names(page)) == ("Failed tasks", ["a", "b"])
    assert page.links["All 5"] == "/page/find"
    # The other filters stay, and count.
    page = visit(ticking, "/page/find?state=failed&name=b")
    assert tabs(page) == ["All 1", "Scheduled 0", "Running 0", "Succeeded 0", "Failed 1"]
    assert page.links["Scheduled 0"] == "/page/find?state=scheduled&name=b"


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("reason=timeout", []),
        ("reason=unexpected_status", ["bad"]),
        ("host=other.example%3A80", ["other"]),
        ("label=customer%3A42", ["gold", "plain"]),
        ("label=customer%3A42&label=tier%3Agold", ["gold"]),
        ("label=&label=tier%3Agold&reason=&host=&order=&state=&due_from=", ["gold"]),
        ("due_from=2027-01-15T13:00", ["gold", "other"]),
        ("due_before=2027-01-15T12:01", ["bad"]),
        (f"due_from={NOON + 60}&due_before={LATER}", ["plain"]),
        ("due_from=%2B59m", ["gold", "other"]),
        ("order=due", ["bad", "plain", "other", "gold"]),
        ("state=scheduled&order=due&name=+o", ["other"]),
    ],
)
def test_filters_of_a_list_narrow_it(ticking: World, query: str, expected: list[str]) -> None:
    fail(ticking, "bad")
    ticking.put("plain", NOON + 120, labels={"customer": "42"})
    ticking.put("gold", LATER + 60, labels={"customer": "42", "tier": "gold"})
    ticking.put("other", LATER, callback="http://other.example/")
    assert names(visit(ticking, f"/page/find?{query}")) == expected


def test_form_of_filters_has_the_state_of_the_url(ticking: World) -> None:
    query = {
        "state": "scheduled",
        "name": "x",
        "reason": "",
        "host": HOST,
        "due_from": "2027-01-15T12:00",
        "due_before": "",
        "label": "customer:4 2",
    }
    page = visit(
        ticking, "/page/find?order=due&" + "&".join(f"{k}={quote(v)}" for k, v in query.items())
    )
    (form,) = [one for one in page.all(".//form") if one.get("class") == "filters"]
    assert (form.get("method"), form.get("action")) == ("get", "/page/find")
    fields = [(one.get("name", ""), one.get("value", "")) for one in form.iter("input")]
    assert fields == [
        *((name, query[name]) for name in ("state", "name", "host", "label")),
        ("label", ""),
        ("due_from", query["due_from"]),
        ("due_before", ""),
    ]
    chosen = [one for one in form.iter("option") if one.get("selected")]
    assert [one.get("value") for one in chosen] == ["", "due"]
    (details,) = page.all(".//details[@id='filters']")
    assert details.get("open")
    assert page.links["Remove filters"] == "/page/find"
    assert not visit(ticking, "/page/find?state=failed").all(".//details[@open]")


@pytest.mark.parametrize(
    ("query", "field", "message"),
    [
        ("host=nowhere", "filter-host", "is not a host and port"),
        ("label=x", "filter-label", "is not a label"),
        ("due_from=soon", "filter-due_from", "is not a time"),
        ("name=a%2Fb", "filter-name", "a name"),
        ("reason=boredom", "filter-reason", "expected one of"),
    ],
)
def test_wrong_filter_is_reported_beside_its_field(
    ticking: World, query: str, field: str, message: str
) -> None:
    page = visit(ticking, f"/page/find?{query}")
    assert page.status == 400
    (alert,) = page.texts(".//p[@role='alert']")
    assert message in alert
    (wrong,) = page.all(".//*[@aria-invalid]")
    assert (wrong.get("id"), wrong.get("aria-describedby")) == (field, "error")


def test_unknown_filter_is_refused(ticking: World) -> None:
    for query in ("colour=red", "state=asleep", "order=size", "start_from=x", "host=a&host=b"):
        assert visit(ticking, f"/page/find?{query}").status == 400


def test_list_leads_to_the_next_page_and_back(ticking: World) -> None:
    for number in range(250):
        ticking.put(f"t{number:03}", LATER - 60 * number)
    for query, last in (("name=t&order=due", "t000"), ("name=t", "t249")):
        first = visit(ticking, f"/page/find?{query}")
        assert "Previous page" not in first.links
        second = visit(ticking, first.links["Next page"])
        third = visit(ticking, second.links["Next page"])
        assert "Next page" not in third.links
        assert names(third)[-1] == last
        back = visit(ticking, third.links["Previous page"])
        assert names(back) == names(second)
        back = visit(ticking, back.links["Previous page"])
        assert names(back) == names(first)
        # It starts with the first task. Tasks before it may have been put since.
        assert names(visit(ticking, back.links["Previous page"])) == names(first)


def test_damaged_task_has_no_host_on_a_list(ticking: World) -> None:
    ticking.put("x", LATER)
    ticking.store.connection.execute("UPDATE task SET callback = 'nonsense'")
    page = visit(ticking, "/page/find")
    assert "\u2013" in page.rows("1 task")[0]


def test_invisible_characters_of_filters_are_escaped(ticking: World) -> None:
    for query in ("name", "host", "label", "state", "reason"):
        page = visit(ticking, f"/page/find?{query}=a%E2%80%AE%00b")
        assert not set(page.text) & set("\u202e\0")


# Next due


def test_dashboard_names_the_next_tasks_by_time(ticking: World) -> None:
    for number in range(12):
        ticking.put(f"t{number}", LATER - 60 * number, callback=f"http://h{number}.example/")
    page = visit(ticking, "/")
    rows = page.rows("The next 10 tasks, by time")
    assert rows[0] == ["2027-01-15 12:49 in 49 minutes", "t11", "h11.example:80", ""]
    assert len(rows) + len(page.rows("Later ones")) == 10
    assert page.links["t11"] == f"/page/task/t11@{LATER - 660}"
    assert names(visit(ticking, page.links["h11.example:80"])) == ["t11"]
    coming = visit(ticking, page.links["All coming tasks, by time"])
    assert names(coming) == [f"t{number}" for number in range(11, -1, -1)]
    # Its first minute is the current one.
    ticking.turn_to(LATER - 30)
    assert names(visit(ticking, page.links["All coming tasks, by time"])) == ["t0"]


def test_dashboard_marks_the_retries_among_the_next_tasks(ticking: World) -> None:
    ticking.caller.status = 500
    ticking.put("again", NOON + 60, retry=3, retry_delay=10)
    ticking.turn_to(NOON + 65)
    (row,) = visit(ticking, "/").rows("The next 1 task")
    assert row[0].startswith("2027-01-15 12:11")
    assert row[3] == "retry of 2027-01-15 12:01"


def test_bars_of_due_calls_lead_to_the_tasks_of_their_minute(ticking: World) -> None:
    ticking.put("now", NOON + 60)
    for name in ("b", "a"):
        ticking.put(name, LATER)
    ticking.put("after", LATER + 60)
    page = visit(ticking, "/")
    bars = {
        one.get("aria-label", ""): one.get("href", "")
        for one in page.all(".//svg[@class='box']//a")
    }
    assert names(visit(ticking, bars["13:00: 2 calls"])) == ["a", "b"]
    assert names(visit(ticking, bars["12:01: 1 call"])) == ["now"]
    # The rows of the table lead there for the keyboard.
    assert [row for row in page.rows("Due calls") if row[1] != "0"] == [
        ["12:00", "1"],
        ["13:00", "3"],
    ]
    links = {text_of(one): one.get("href", "") for one in page.all(".//details//td/a")}
    assert links.keys() == {"12:00", "13:00"}
    assert names(visit(ticking, links["13:00"])) == ["a", "b", "after"]


def test_first_bar_leads_to_the_tasks_of_earlier_minutes_too(world: World) -> None:
    world.put("missed", NOON - 600)
    page = visit(world, "/")
    (bar,) = page.all(".//svg[@class='box']//a")
    assert names(visit(world, bar.get("href", ""))) == ["missed"]


def test_empty_store_shows_the_first_command(ticking: World) -> None:
    page = visit(ticking, "/")
    (command,) = page.texts(".//section[@aria-labelledby='first-steps']/pre")
    assert command.startswith("curl -X PUT http://localhost:6777/task/hello")
    assert "Authorization" not in command
    assert "docs/tour.md" in page.main
    assert page.links["/openapi.json"] == "/openapi.json"
    ticking.put("x", LATER)
    assert "First steps" not in visit(ticking, "/").main


def test_first_command_has_a_token_if_the_api_requires_one(ticking: World) -> None:
    ticking.tokens = Tokens.parse("token-of-a-reader")
    assert '-H "Authorization: Bearer $TOKEN"' in visit(ticking, "/").main


# Failures in groups


def test_failures_are_grouped_by_host_reason_and_status(ticking: World) -> None:
    fail(ticking, *(f"invoice.{n}" for n in range(3)), status=503, host="billing.example:80")
    fail(ticking, "invoice.9", status=500, host="billing.example:80")
    fail(ticking, "mail-1", "mail-2", host="mail.example:80")
    fail(ticking, "alone", host="alone.example:80")
    page = visit(ticking, "/")
    alike = [row[:3] for row in page.rows("Failures that are alike")]
    assert alike == [
        ["billing.example:80", "unexpected_status 503 (3), 500 (1)", "4"],
        ["mail.example:80", "unexpected_status 500", "2"],
    ]
    page = visit(ticking, page.links["All failures in groups"])
    assert page.h1 == "Failures in groups"
    groups = [row[:3] for row in page.rows("3 groups")]
    assert groups == [*alike, ["alone.example:80", "unexpected_status 500", "1"]]
    assert ["invoice.*", "unexpected_status 503 (3), 500 (1)", "4"] in [
        [text_of(cell) for cell in row][:3] for row in page.all(".//tbody/tr")
    ]
    listed = visit(ticking, page.links["billing.example:80"])
    assert names(listed) == ["invoice.0", "invoice.1", "invoice.2", "invoice.9"]
    assert names(visit(ticking, page.links["mail-*"])) == ["mail-1", "mail-2"]


def test_single_failures_are_no_group_on_the_dashboard(ticking: World) -> None:
    fail(ticking, "alone")
    assert "alike" not in visit(ticking, "/").main
    assert visit(ticking, "/page/failures").rows("1 group")


def test_page_of_groups_without_failures(ticking: World) -> None:
    assert "No failed tasks." in visit(ticking, "/page/failures").main
    assert visit(ticking, "/page/failures?x=1").status == 400


# Hosts


def test_hosts_are_listed_with_their_tasks_and_failures(ticking: World) -> None:
    fail(ticking, "a", "b", "c", host="bad.example:80")
    ticking.put("later", LATER)
    page = visit(ticking, "/page/hosts")
    assert page.h1 == "Hosts"
    assert "All hosts: default limits, not paused" in page.main
    bad, good = page.rows("2 hosts")
    assert bad[:6] == [
        "bad.example:80",
        "0",
        "0",
        "0",
        "\u2013",
        "2027-01-15 12:00:00 just now, 3 in a row",
    ]
    assert good == [
        HOST,
        "1",
        "0",
        "0",
        "\u2013",
        "\u2013",
        "default limits",
        "not paused",
        "Pause or limit\u2026",
    ]


def settings(world: World, host: str = HOST) -> dict[str, object]:
    members = ask(world, "GET", "/hosts/").json
    of = {one["host"]: one for one in members["hosts"]} | {"*": members["all_hosts"]}
    return {name: of[host][name] for name in ("max_concurrent", "max_per_minute", "paused")}


def test_form_pauses_limits_and_resumes_a_host(ticking: World) -> None:
    ticking.put("x", LATER)
    path = visit(ticking, "/page/hosts").all(".//td//a[@aria-label]")[0].get("href", "")
    page = visit(ticking, path)
    assert page.h1 == f"Pause or limit {HOST}"
    fields = {**page.form(path), "paused": "+30m", "max_concurrent": "2", "max_per_minute": "10"}
    done = visit(ticking, path, fields)
    assert (done.status, done.header("location")) == (303, "/page/hosts?done=saved")
    paused = {"max_concurrent": 2, "max_per_minute": 10, "paused": "2027-01-15T12:30:00.000Z"}
    assert settings(ticking) == paused
    page = visit(ticking, "/page/hosts?done=saved")
    assert page.texts(".//p[@role='status']") == ["The settings were saved."]
    row = page.rows("1 host")[0]
    assert row[6:8] == [
        "2 at once, 10 per minute",
        "\u2016 paused until 2027-01-15 12:30 in 30 minutes",
    ]
    # The form does not change the pause.
    form = visit(ticking, path)
    first = form.all(".//select/option")[0]
    assert (first.get("value"), text_of(first)) == ("keep", "unchanged: until 2027-01-15 12:30")
    fields = {**form.form(path), "paused": "keep", "max_concurrent": ""}
    visit(ticking, path, fields)
    assert settings(ticking) == {**paused, "max_concurrent": None}
    assert page.form(path) == {"paused": "no"}
    visit(ticking, path, page.form(path))
    assert settings(ticking) == {"max_concurrent": None, "max_per_minute": 10, "paused": False}


def test_pause_of_all_hosts_is_in_the_headline(ticking: World) -> None:
    ticking.put("x", LATER)
    path = visit(ticking, "/page/hosts").all(".//main/p/a")[0].get("href", "")
    assert path == "/page/hosts/%2A"
    visit(ticking, path, {"paused": "yes"})
    assert settings(ticking, "*")["paused"] is True
    page = visit(ticking, "/")
    assert page.h1 == "Paused: no calls are started"
    assert page.links["hosts"] == "/page/hosts"
    visit(ticking, path, {"paused": "no"})
    visit(ticking, f"/page/hosts/{HOST}", {"paused": "+1h"})
    page = visit(ticking, "/")
    assert page.h1 == "All is well, and 1 host is paused"
    fail(ticking, "bad", host="bad.example:80")
    ticking.turn_to(NOON + 60)
    page = visit(ticking, "/")
    assert page.h1 == "1 task failed in the last 3 hours"
    assert "1 host is paused: hosts" in page.main


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"max_concurrent": "0"}, "max_concurrent"),
        ({"max_per_minute": "many"}, "max_per_minute"),
        ({"paused": "soon"}, None),
        ({"paused": "-5m"}, None),
    ],
)
def test_wrong_setting_is_reported_beside_its_field(
    ticking: World, fields: dict[str, str], wrong: str | None
) -> None:
    page = visit(ticking, f"/page/hosts/{HOST}", fields)
    assert page.status == 422
    assert len(page.texts(".//p[@role='alert']")) == 1
    assert [one.get("id") for one in page.all(".//*[@aria-invalid]")] == ([wrong] if wrong else [])
    assert ask(ticking, "GET", "/hosts/").json["hosts"] == []


def test_page_of_an_impossible_host_is_not_found(ticking: World) -> None:
    assert visit(ticking, "/page/hosts/nowhere").status == 404
    assert visit(ticking, "/page/hosts/nowhere", {"paused": "yes"}).status == 404


def test_hosts_have_several_pages(ticking: World) -> None:
    for number in range(101):
        ticking.put(f"t{number}", LATER, callback=f"http://h{number:03}.example/")
    page = visit(ticking, "/page/hosts")
    assert len(page.rows("100 hosts")) == 100
    rest = visit(ticking, page.links["Next page"])
    assert [row[0] for row in rest.rows("1 host")] == ["h100.example:80"]


def test_hosts_without_tasks(ticking: World) -> None:
    assert "no host is called" in visit(ticking, "/page/hosts").main


def test_key_in_the_search_still_leads_to_its_task(ticking: World) -> None:
    page = visit(ticking, f"/page/find?name={Key('x', LATER)}&state=failed")
    assert (page.status, page.header("location")) == (303, f"/page/task/x@{LATER}")
