"""Long polling: a request waits for a change of its task, and for nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from callme.api.long_poll import RESPONSES_PER_TURN
from callme.core.times import Key
from callme.server.site import BoundedSite
from callme.store import queue, tasks
from tests.helpers.api_client import BASE, ask
from tests.helpers.openapi_checks import check_response
from tests.helpers.raw_client import Client
from tests.helpers.tasks import NOON
from tests.helpers.world import World

AT = NOON + 3600
KEY = Key("task", AT)


class Waiting:
    """A long-poll request.

    :ivar status: the status of the response; ``None`` before it arrives.
    :ivar responses: the response, once it has arrived.
    """

    def __init__(
        self, world: World, path: str = f"/status/{KEY}?wait=60", method: str = "GET"
    ) -> None:
        self.world, self.path = world, path
        self.status: int | None = None
        self.json: Any = None
        self.responses: list[Any] = []
        self.asking: Deferred[Any] = world.http.request(method, BASE + path)
        self.asking.addCallbacks(self.responses.append, lambda _: None)
        self.look()

    def hang_up(self) -> None:
        """Close the connection."""
        self.asking.cancel()
        self.world.http.flush()

    def look(self) -> Waiting:
        """Run the due timers, and read the response."""
        for _ in range(3):
            self.world.clock.advance(0)
            self.world.http.flush()
        if self.responses and self.status is None:
            (response,) = self.responses
            self.status = response.code
            text = World.result(response.text("utf-8"))
            headers = {
                name.decode().lower(): values[0].decode()
                for name, values in response.headers.getAllRawHeaders()
            }
            check_response("GET", self.path, response.code, headers, text)
            self.json = json.loads(text)
        return self


def reads(world: World) -> list[Any]:
    """Return a list to which each query of tasks is added from now on."""
    seen: list[Any] = []

    def counting(query: Any) -> Any:
        def counted(asked: Any, *args: Any) -> Any:
            seen.append(asked if isinstance(asked, Key) else dict(asked))
            return world.store.query(query, asked, *args)

        return counted

    for query in (tasks.get, tasks.get_if_modified):
        world.store.overrides[query] = counting(query)
    return seen


def test_long_poll_waits_for_a_change(world: World) -> None:
    world.put(at=AT)
    waiting = Waiting(world)
    world.put("other", AT)
    # The response is earlier than requested, because proxies time out after 60 s.
    world.turn_to(NOON + 54.9)
    assert waiting.look().status is None
    world.turn_to(NOON + 55)
    assert (waiting.look().status, waiting.json["state"]) == (200, "scheduled")


def test_long_poll_does_not_query_without_a_change(world: World) -> None:
    world.put(at=AT)
    world.put("other", NOON)
    waiting = Waiting(world)
    seen = reads(world)
    world.scheduler.start()
    world.turn_to(NOON + 50)
    assert world.caller.called == [f"other@{NOON}"]
    assert (seen, waiting.look().status) == ([], None)
    waiting.hang_up()


@pytest.mark.parametrize("path", ["status", "task"])
def test_call_of_a_task_is_a_change(world: World, path: str) -> None:
    world.caller.status = None
    world.put(at=NOON + 60)
    key = Key("task", NOON + 60)
    world.scheduler.start()
    world.turn_to(NOON + 10)
    waiting = Waiting(world, f"/{path}/{key}?wait=60&pretty")
    world.turn_to(NOON + 59)
    assert waiting.look().status is None
    world.turn_to(NOON + 60)
    assert waiting.look().json["state"] == "running"
    again = Waiting(world, f"/{path}/{key}?wait=60")
    assert again.status is None
    world.caller.end(key, 200)
    assert again.look().json["state"] == "succeeded"
    assert again.json["attempts"][0]["status"] == 200


def test_failed_attempt_with_retry_is_a_change(world: World) -> None:
    world.caller.status = 500
    world.put(at=NOON + 60, retry=1)
    world.turn_to(NOON + 10)
    waiting = Waiting(world, f"/status/task@{NOON + 60}?wait=60")
    world.scheduler.start()
    world.turn_to(NOON + 60)
    assert waiting.look().json["state"] == "scheduled"
    assert waiting.json["attempts_used"] == 1


def test_expiry_of_a_task_is_a_change(world: World) -> None:
    world.put(at=NOON, max_delay=1)
    waiting = Waiting(world, f"/status/task@{NOON}?wait=60")
    # No daemon was there to call it.
    world.clock.rightNow += 59.9
    world.result(world.store.write(queue.expire_overdue, NOON + 60))
    assert waiting.look().json["reason"] == "too_late"


def test_rescue_of_an_orphan_is_a_change(world: World) -> None:
    world.put(at=NOON, retry=0)
    world.result(world.store.write(queue.claim, {"sink.example:80": 1}, NOON))
    waiting = Waiting(world, f"/status/task@{NOON}?wait=60")
    assert waiting.status is None
    world.scheduler.start()
    assert waiting.look().json["reason"] == "interrupted"


CHANGES: dict[str, Callable[[World], object]] = {
    "delete": lambda world: ask(world, "DELETE", f"/task/{KEY}"),
    "delete name": lambda world: ask(world, "DELETE", "/task/task"),
    "reschedule": lambda world: ask(world, "POST", f"/reschedule/{KEY}?all"),
    "reschedule name": lambda world: ask(world, "POST", "/reschedule/task?all"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_long_poll_of_a_deleted_task_is_not_found(world: World, change: str) -> None:
    world.put(at=AT)
    world.put(at=AT + 60)
    waiting, other = Waiting(world), Waiting(world, f"/status/other@{AT}?wait=60")
    assert other.status == 404
    CHANGES[change](world)
    assert waiting.look().status == 404
    assert not world.parts.long_poll.count


def test_replacement_of_a_task_is_a_change(world: World) -> None:
    world.put(at=AT)
    waiting = Waiting(world)
    world.turn_to(NOON + 1)
    body = {"callback": "http://other.example/"}
    assert ask(world, "PUT", f"/task/{KEY}", body).status == 409
    assert waiting.look().status is None
    ask(world, "PUT", f"/task/{KEY}", body, {"If-Match": "*"})
    assert waiting.look().json["callback"] == "http://other.example/"


def test_long_poll_of_a_finished_task_returns_at_once(world: World) -> None:
    world.put(at=NOON)
    world.scheduler.start()
    world.turn_to(NOON + 1)
    assert Waiting(world, f"/status/task@{NOON}?wait=60").json["state"] == "succeeded"
    assert Waiting(world, f"/status/nobody@{NOON}?wait=60").status == 404


def test_long_poll_of_zero_seconds_returns_at_once(world: World) -> None:
    world.put(at=AT)
    assert Waiting(world, f"/status/{KEY}?wait=0").status == 200


@pytest.mark.parametrize("value", ["", "61", "-1", "1.5", "ten", "1e1", "99999999999999999999"])
def test_invalid_wait_is_refused(world: World, value: str) -> None:
    world.put(at=AT)
    response = ask(world, "GET", f"/status/{KEY}?wait={value}")
    assert (response.status, response.json["errors"][0]["pointer"]) == (400, "wait")


@pytest.mark.parametrize("path", ["/status/", "/status/task", "/task/"])
def test_list_does_not_take_a_wait(world: World, path: str) -> None:
    assert ask(world, "GET", f"{path}?wait=1").status == 400


def test_disconnected_client_is_removed(world: World) -> None:
    world.put(at=AT)
    waiting = Waiting(world)
    assert len(world.clock.getDelayedCalls()) == 1
    waiting.hang_up()
    assert not world.parts.long_poll.count
    assert world.clock.getDelayedCalls() == []


def test_long_polls_of_one_task_compare_with_their_own_version(world: World) -> None:
    world.put(at=AT)
    early = Waiting(world)
    world.turn_to(NOON + 30)
    late = Waiting(world)
    world.turn_to(NOON + 60)
    assert (early.look().status, late.look().status) == (200, None)
    ask(world, "DELETE", f"/task/{KEY}")
    assert late.look().status == 404


@pytest.mark.parametrize("path", ["/task/task", f"/task/{KEY}"])
def test_delete_by_a_disconnected_client_is_a_change(world: World, path: str) -> None:
    world.put(at=AT)
    waiting = Waiting(world)
    target: Any = KEY if "@" in path else KEY.task_name
    operation: Any = tasks.delete if "@" in path else tasks.delete_name
    committing: Deferred[Any] = Deferred()
    world.store.overrides[operation] = lambda _: committing
    deleting = Waiting(world, path, "DELETE")
    deleting.hang_up()
    world.store.run(operation, target).chainDeferred(committing)
    assert waiting.look().status == 404


def test_shorter_wait_returns_first(world: World) -> None:
    world.put(at=AT)
    long, short = Waiting(world), Waiting(world, f"/status/{KEY}?wait=1")
    world.turn_to(NOON + 1)
    assert (long.look().status, short.look().status) == (None, 200)
    long.hang_up()


def test_change_during_the_first_query_is_noticed(world: World) -> None:
    world.put(at=AT)
    get, reading = partial(world.store.query, tasks.get), Deferred[Any]()
    world.store.overrides[tasks.get] = lambda key: reading
    waiting = Waiting(world)
    was = world.result(get(KEY))
    ask(world, "DELETE", f"/task/{KEY}")
    waiting.look()
    reading.callback(was)
    assert waiting.look().status == 404


def test_read_in_progress_does_not_resolve_a_newer_waiter(world: World) -> None:
    world.put(at=AT)
    early = Waiting(world)
    older = world.store.query(tasks.get_if_modified, {KEY: None}, 1)
    reading: Deferred[Any] = Deferred()
    world.store.overrides[tasks.get_if_modified] = lambda *_: reading
    world.turn_to(NOON + 1)
    body = {"callback": "http://other.example/"}
    ask(world, "PUT", f"/task/{KEY}", body, {"If-Match": "*"})
    early.look()
    del world.store.overrides[tasks.get_if_modified]
    # This client knows the task of now, and the read in progress has found the one before.
    late = Waiting(world)
    reading.callback(world.result(older))
    assert late.look().status is None
    ask(world, "DELETE", f"/task/{KEY}")
    assert (early.look().status, late.look().status) == (404, 404)


def test_number_of_long_polls_is_limited(world: World) -> None:
    world.build(max_connections=1)
    world.put(at=AT)
    first, second = Waiting(world), Waiting(world)
    assert (first.status, second.status) == (None, 429)
    assert ask(world, "GET", f"/status/{KEY}").status == 200
    first.hang_up()


def test_shutdown_ends_every_long_poll(world: World) -> None:
    for minute in range(3):
        world.put(at=AT + 60 * minute)
    waiting = [Waiting(world, f"/status/task@{AT + 60 * n}?wait=60") for n in (0, 0, 1, 2)]
    world.parts.long_poll.close()
    assert [one.look().status for one in waiting] == [200] * 4
    assert Waiting(world).status == 200
    assert world.clock.getDelayedCalls() == []


def test_closing_site_ends_long_polls_first(world: World) -> None:
    world.put(at=AT)
    site = BoundedSite(world.parts.api.resource(), world.clock, max_connections=1, headroom=0)
    first = Client(world, site)
    first.send(b"GET /status/%s?wait=60 HTTP/1.1\r\nHost: x\r\n\r\n" % str(KEY).encode())
    with pytest.raises(ConnectionRefusedError):
        Client(world, site)
    world.turn_to(NOON + 60)
    assert first.status() == 200
    first.send(b"GET /status/%s?wait=60 HTTP/1.1\r\nHost: x\r\n\r\n" % str(KEY).encode())
    world.parts.long_poll.close()
    closed = site.close()
    assert not closed.called
    world.turn_to(NOON + 60)
    assert first.status() == 200
    first.hang_up()
    assert closed.called


def test_disconnected_long_poll_frees_its_place(world: World) -> None:
    world.put(at=AT)
    site = BoundedSite(world.parts.api.resource(), world.clock)
    waiting = Client(world, site)
    waiting.send(b"GET /status/%s?wait=60 HTTP/1.1\r\nHost: x\r\n\r\n" % str(KEY).encode())
    assert world.parts.long_poll.count
    waiting.hang_up()
    assert not world.parts.long_poll.count


def test_failed_query_is_repeated(world: World) -> None:
    world.put(at=AT)
    waiting, ending = Waiting(world), Waiting(world, f"/status/{KEY}?wait=1")
    ask(world, "DELETE", f"/task/{KEY}")
    world.store.is_broken = True
    world.turn_to(NOON + 1)
    # Its wait is over: it gets the current task.
    assert (waiting.look().status, ending.look().status) == (None, 503)
    world.store.is_broken = False
    world.turn_to(NOON + 2)
    assert waiting.look().status == 404


def test_change_by_another_daemon_is_noticed_within_a_second(world: World) -> None:
    world.build(is_shared=True)
    world.put(at=AT)
    world.put("other", AT)
    waiting, other = Waiting(world), Waiting(world, f"/status/other@{AT}?wait=60")
    # The write bypasses this daemon.
    world.result(world.store.elsewhere(tasks.delete, KEY))
    world.turn_to(NOON + 0.9)
    assert waiting.look().status is None
    seen = reads(world)
    world.turn_to(NOON + 1)
    assert (waiting.look().status, other.look().status) == (404, None)
    assert [list(asked) for asked in seen] == [[KEY, Key("other", AT)]]
    other.hang_up()
    assert world.clock.getDelayedCalls() == []


def test_many_long_polls_share_one_query(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = 20
    monkeypatch.setattr("callme.api.long_poll.READ_BATCH", at_once)
    world.build(is_shared=True)
    count = 2 * at_once + 1
    for minute in range(count):
        world.put(at=AT + 60 * minute)
    waiting = [Waiting(world, f"/status/task@{AT + 60 * n}?wait=60") for n in range(count)]
    seen = reads(world)
    world.turn_to(NOON + 2)
    assert [len(asked) for asked in seen] == [count, count]
    seen.clear()
    # The write bypasses this daemon. The responses in memory are bounded.
    world.result(world.store.elsewhere(tasks.delete_name, "task"))
    world.turn_to(NOON + 3)
    assert {one.look().status for one in waiting} == {404}
    assert [len(asked) for asked in seen] == [count, at_once + 1, 1]


def test_many_responses_yield_to_the_reactor(world: World) -> None:
    world.put(at=AT)
    waiting = [Waiting(world) for _ in range(2 * RESPONSES_PER_TURN)]
    answered: list[int] = []

    def other() -> None:
        world.http.flush()
        answered.append(sum(bool(one.responses) for one in waiting))

    ask(world, "DELETE", f"/task/{KEY}")
    world.clock.callLater(0, other)
    assert [one.look().status for one in waiting] == [404] * len(waiting)
    assert answered == [RESPONSES_PER_TURN]
