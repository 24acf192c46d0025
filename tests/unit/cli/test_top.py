"""The live view: its requests, its display, and its recovery from errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timezone
from io import StringIO
from typing import Any

import httpx
import pytest
from rich.console import Console

from callme.cli.top import MAX_FAILED, View, host_of, print_view, read_view, render, watch
from callme.client import Client, ConnectionFailed, Unauthorized

NOW = datetime(2028, 11, 26, 12, 0, 5, tzinfo=timezone.utc)
HEALTH = {"status": "ok", "backlog": 1234, "calls_in_flight": 3, "all_paused": False}
SETTINGS = {"max_concurrent": None, "max_per_minute": None, "paused": False}
GOOD = {
    "host": "good.example:80",
    "scheduled": 7,
    "due": 2,
    "in_flight": 1,
    "last_success_at": "2028-11-26T12:00:01.500Z",
    "last_failure_at": None,
    "failures_in_a_row": 0,
    **SETTINGS,
}
BAD = {
    **GOOD,
    "host": "bad.example:443",
    "last_success_at": "2028-11-25T23:00:00.000Z",
    "last_failure_at": "2028-11-26T12:00:02.000Z",
    "failures_in_a_row": 12,
}


def failed(callback: str, reason: str = "timeout", count: int = 1) -> list[dict[str, Any]]:
    return [{"callback": callback, "reason": reason}] * count


class Server:
    """A server that gives prepared hosts and failed tasks, and records the requests."""

    def __init__(self, *hosts: dict[str, Any], tasks: list[dict[str, Any]] | None = None) -> None:
        self._documents: dict[str, Any] = {
            "/healthz": HEALTH,
            "/hosts/": {"all_hosts": SETTINGS, "hosts": hosts},
            "/status/": {"tasks": tasks or []},
        }
        self.queries: dict[str, str] = {}

    def respond(self, request: httpx.Request) -> httpx.Response:
        self.queries[request.url.path] = request.url.query.decode()
        return httpx.Response(200, json=self._documents[request.url.path])

    def view(self) -> View:
        with Client("http://callme.test", transport=httpx.MockTransport(self.respond)) as client:
            return read_view(client, NOW)


def lines_of(view: View, rows: int = 20) -> list[str]:
    """Return the lines of a view in a pipe, with two spaces between all words."""
    output = StringIO()
    console = Console(file=output, highlight=False, width=40)
    print_view(console, render(view, rows))
    lines = output.getvalue().splitlines()
    assert [line.rstrip() for line in lines] == lines
    return ["  ".join(line.split()) for line in lines]


def test_hosts_that_fail_come_first() -> None:
    tasks = failed("https://bad.example/x", count=3) + failed("https://bad.example/", "too_late")
    server = Server(GOOD, BAD, tasks=tasks)
    assert lines_of(server.view()) == [
        "callme  at  2028-11-26  12:00:05  UTC:  ok,  1,234  due,  3  in  flight,  "
        "4  failed  in  the  last  hour",
        "",
        "host  scheduled  due  in  flight  failed  in  a  row  last  success  last  failure",
        "bad.example:443  7  2  1  4  12  2028-11-25  12:00:02  3  timeout,  1  too_late",
        "good.example:80  7  2  1  0  0  12:00:01  -",
    ]
    assert server.queries["/status/"].startswith(
        "state=failed&due_from=2028-11-26T11%3A00%3A05%2B00%3A00&order=due"
    )


def test_host_without_scheduled_tasks_is_displayed_if_its_tasks_failed() -> None:
    view = Server(tasks=failed("http://[::1]:8000/", "connection_failed")).view()
    assert lines_of(view)[3] == "[::1]:8000  0  0  0  1  0  -  -  1  connection_failed"


@pytest.mark.parametrize(
    ("settings", "note"),
    [
        ({"paused": True}, "paused"),
        ({"paused": "2028-11-26T12:30:00.000Z"}, "paused until 2028-11-26 12:30"),
        ({"max_concurrent": 2, "max_per_minute": 10}, "2 at once, 10 a minute"),
    ],
)
def test_settings_of_a_host_are_displayed(settings: dict[str, Any], note: str) -> None:
    line = lines_of(Server({**GOOD, **settings}).view())[-1]
    assert line.endswith("  ".join(note.split()))


def test_long_lists_are_counted_instead_of_displayed() -> None:
    hosts = [{**GOOD, "host": f"{number:03}.example:80"} for number in range(25)]
    lines = lines_of(Server(*hosts, tasks=failed("http://x/", count=MAX_FAILED + 1)).view(), 20)
    assert f"{MAX_FAILED:,}+  failed" in lines[0]
    assert lines[-1] == "and  6  more  hosts"
    # The headline, an empty line, the header, and the last line.
    assert len(lines) == 20 + 4


def test_empty_callme_has_a_headline_only() -> None:
    (line,) = lines_of(Server().view())
    assert line.endswith("0  failed  in  the  last  hour")


def test_control_characters_are_not_printed() -> None:
    (*_, line) = lines_of(Server({**GOOD, "host": "\x1b[2Jx:80"}).view())
    assert "\x1b" not in line


def test_view_is_json_for_other_programs() -> None:
    server = Server(GOOD, BAD, tasks=failed("https://bad.example/", count=2))
    made = json.loads(json.dumps(server.view().to_json()))
    assert made == {
        "health": HEALTH,
        "hosts": [
            {**BAD, "failed_last_hour": 2, "reasons": {"timeout": 2}},
            {**GOOD, "failed_last_hour": 0, "reasons": {}},
        ],
        "complete": True,
    }


@pytest.mark.parametrize(
    ("callback", "host"),
    [
        ("http://Example.com/x", "example.com:80"),
        ("https://example.com", "example.com:443"),
        ("https://example.com:8443/", "example.com:8443"),
        ("http://[::1]/", "[::1]:80"),
    ],
)
def test_host_of_a_callback_has_the_name_of_the_api(callback: str, host: str) -> None:
    assert host_of(callback) == host


class Screen:
    """Terminal in memory, whose user interrupts the command after some views."""

    def __init__(self, *reads: Callable[[], View]) -> None:
        self._reads = list(reads)
        self._output = StringIO()
        self._position = 0
        self.shown: list[str] = []

    def pause(self) -> None:
        text = self._output.getvalue()
        self.shown.append(text[self._position :])
        self._position = len(text)
        if not self._reads:
            raise KeyboardInterrupt

    def read(self) -> View:
        return self._reads.pop(0)()

    def watch(self, view: View) -> None:
        console = Console(file=self._output, force_terminal=True, width=120, height=20)
        watch(view, self.read, console, rows=20, pause=self.pause)


def test_live_view_is_refreshed_until_the_user_interrupts_it() -> None:
    screen = Screen(Server(GOOD).view, Server(BAD).view)
    screen.watch(Server().view())
    first, second, third = screen.shown
    assert "example" not in first
    assert "good.example:80" in second
    assert "bad.example:443" in third


def test_live_view_stays_while_callme_does_not_respond() -> None:
    def fail() -> View:
        raise ConnectionFailed("connection refused")

    screen = Screen(fail, Server(BAD).view)
    screen.watch(Server(GOOD).view())
    _, second, third = screen.shown
    assert "no new view: connection refused" in second
    assert "good.example:80" in second
    assert "no new view" not in third


def test_error_of_the_first_view_is_raised() -> None:
    def refuse(_: httpx.Request) -> httpx.Response:
        return httpx.Response(401, json={"status": 401, "title": "Unauthorized", "detail": "no"})

    with (
        Client("http://callme.test", transport=httpx.MockTransport(refuse)) as client,
        pytest.raises(Unauthorized),
    ):
        read_view(client, NOW)


def test_host_of_an_unreadable_callback_is_named() -> None:
    assert host_of(None) == "unreadable"
