"""Lists: how pages are read and written without delaying other requests."""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from callme.api.responses import MAX_CONCURRENT_PAGES, PageReader
from callme.core.times import Key
from callme.store.interface import Page
from tests.helpers.tasks import NOON
from tests.helpers.world import World

URL = "http://callme:6777"
LARGE = {f"{number:02}-{'x' * 77}": "" for number in range(100)}


class Reads:
    """A store whose results the test gives."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.lists = PageReader(self.clock)
        self.begun: list[Deferred[Any]] = []

    def read(self) -> Deferred[Any]:
        reading: Deferred[Any] = Deferred()
        self.begun.append(reading)
        return reading

    def ask(self) -> Deferred[Any]:
        return Deferred.fromCoroutine(self.lists.page(self.read, False))


def test_concurrent_list_queries_are_limited() -> None:
    reads = Reads()
    asked = [reads.ask() for _ in range(MAX_CONCURRENT_PAGES + 2)]
    assert len(reads.begun) == MAX_CONCURRENT_PAGES
    reads.begun[0].callback(None)
    assert World.result(asked[0]) is None
    assert len(reads.begun) == MAX_CONCURRENT_PAGES + 1
    reads.begun[1].errback(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        World.result(asked[1])
    assert len(reads.begun) == MAX_CONCURRENT_PAGES + 2


def test_list_of_a_disconnected_client_is_abandoned() -> None:
    reads = Reads()
    asked = [reads.ask() for _ in range(MAX_CONCURRENT_PAGES + 2)]
    for one in (asked[0], asked[-1]):
        one.cancel()
        with pytest.raises(CancelledError):
            World.result(one)
    assert len(reads.begun) == MAX_CONCURRENT_PAGES, "the database is still busy with the first"
    for _ in range(MAX_CONCURRENT_PAGES + 1):
        for reading in reads.begun:
            if not reading.called:
                reading.callback(Page([], None))
    assert len(reads.begun) == MAX_CONCURRENT_PAGES + 1, "the last one was never asked for"
    assert World.result(asked[-2]) == (Page([], None), [])


def test_long_list_yields_to_the_reactor(world: World) -> None:
    for number in range(20):
        world.put(f"task{number:02}", headers=LARGE)
    answered: list[Any] = []
    world.http.request("GET", f"{URL}/status/").addCallback(answered.append)
    world.http.flush()
    health = world.http.request("GET", f"{URL}/healthz")
    world.http.flush()
    assert world.result(health).code in (200, 503)
    assert not answered, "it is in the middle of the page"
    world.clock.advance(0)
    world.http.flush()
    found = json.loads(world.result(answered[0].text()))
    assert [task["task"] for task in found["tasks"]] == [
        str(Key(f"task{number:02}", NOON)) for number in range(20)
    ]


@pytest.mark.parametrize("limit", [1, 2, 3])
@pytest.mark.parametrize("tasks", [0, 1, 3])
def test_list_written_in_parts_is_the_same_json(world: World, limit: int, tasks: int) -> None:
    for name in ("[]", "\\n'\"[]", "ü\u2028")[:tasks]:
        world.put(name, headers={"X-A": "[]"}, retry_delay=[1, 2])
    for pretty, form in ((False, {"separators": (",", ":")}), (True, {"indent": 2})):
        query = f"?limit={limit}" + ("&pretty" if pretty else "")
        pending = world.http.request("GET", f"{URL}/status/{query}")
        world.http.flush()
        text = world.result(world.result(pending).text("utf-8"))
        assert text == json.dumps(json.loads(text), ensure_ascii=False, **form) + "\n"
        assert len(json.loads(text)["tasks"]) == min(limit, tasks)
        assert ("next" in json.loads(text)) == (tasks > limit)
