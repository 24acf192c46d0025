"""Hosts in the API: their list, their pauses and limits."""

from __future__ import annotations

from typing import Any

import pytest

from callme.core.times import Key
from tests.helpers.api_client import ask, pointers
from tests.helpers.tasks import NOON
from tests.helpers.world import World

HOST = "sink.example:80"


def put_host(world: World, host: str, **settings: Any) -> dict[str, Any]:
    response = ask(world, "PUT", f"/hosts/{host}", settings)
    assert response.status == 200
    members: dict[str, Any] = response.json
    return members


def test_paused_host_is_not_called_until_it_is_resumed(world: World) -> None:
    world.scheduler.start()
    assert put_host(world, HOST, paused=True) == {
        "host": HOST,
        "max_concurrent": None,
        "max_per_minute": None,
        "paused": True,
    }
    world.put("paused", NOON + 60)
    world.put("other", NOON + 60, callback="http://other.example/")
    world.turn_to(NOON + 150)
    assert world.caller.called == [f"other@{NOON + 60}"]
    health = ask(world, "GET", "/healthz").json
    assert (health["all_paused"], health["paused_hosts"]) == (False, 1)
    put_host(world, HOST, paused=False)
    assert world.caller.called[1:] == [f"paused@{NOON + 60}"]


def test_pause_of_all_hosts_ends_by_itself(world: World) -> None:
    world.scheduler.start()
    assert put_host(world, "*", paused="+2m")["paused"] == "2027-01-15T12:02:00.000Z"
    world.put(at=NOON + 60)
    world.turn_to(NOON + 119.5)
    assert world.caller.called == []
    assert ask(world, "GET", "/healthz").json["all_paused"]
    world.turn_to(NOON + 121)
    assert world.caller.called == [f"task@{NOON + 60}"]


def test_pause_survives_a_restart(world: World) -> None:
    world.scheduler.start()
    put_host(world, HOST, paused=True)
    world.put(at=NOON + 60)
    world.restart()
    world.turn_to(NOON + 90)
    assert world.caller.called == []
    assert ask(world, "DELETE", f"/hosts/{HOST}").status == 204
    assert world.caller.called == [f"task@{NOON + 60}"]


def test_pause_of_another_daemon_is_found_by_the_poll(world: World) -> None:
    world.build(is_shared=True)
    world.scheduler.start()
    world.put(at=NOON + 60)
    world.store.connection.execute(
        "INSERT INTO host_setting (host, paused_at, paused_until) VALUES (?, 0, ?)",
        (HOST, NOON + 100),
    )
    world.turn_to(NOON + 99)
    assert world.caller.called == []
    world.turn_to(NOON + 101)
    assert world.caller.called == [f"task@{NOON + 60}"]


def test_no_minute_has_more_calls_than_the_limit(world: World) -> None:
    world.scheduler.start()
    put_host(world, HOST, max_per_minute=3)
    for number in range(7):
        world.put(f"n{number}", NOON + 60)
        world.put(f"other{number}", NOON + 60, callback="http://other.example/")
    world.turn_to(NOON + 300)
    times = [at - NOON for at, claim in world.caller.calls if claim.host == HOST]
    assert times == [60, 60, 60, 120, 120, 120, 180]
    assert sum(claim.host != HOST for _, claim in world.caller.calls) == 7
    assert {at for at, claim in world.caller.calls if claim.host != HOST} == {NOON + 60}


def test_limit_of_calls_at_once_replaces_that_of_the_daemon(world: World) -> None:
    world.build(per_host=2)
    world.caller.status = None
    world.scheduler.start()
    put_host(world, HOST, max_concurrent=3)
    for number in range(5):
        world.put(f"n{number}", NOON + 60)
    world.turn_to(NOON + 60)
    assert len(world.caller.pending) == 3
    world.caller.end(Key("n0", NOON + 60), 200)
    assert len(world.caller.pending) == 3
    assert world.scheduler.health().saturated_seconds == 0


def test_hosts_are_listed_with_results_and_settings(world: World) -> None:
    world.scheduler.start()
    world.caller.status = 500
    world.put("failing", NOON + 60, retry=1, retry_delay=[0])
    world.put("later", NOON + 600, callback="http://a.example/")
    put_host(world, "a.example:80", max_per_minute=10)
    world.turn_to(NOON + 60)
    response = ask(world, "GET", "/hosts/?limit=1")
    assert response.json == {
        "all_hosts": {"max_concurrent": None, "max_per_minute": None, "paused": False},
        "hosts": [
            {
                "host": "a.example:80",
                "scheduled": 1,
                "due": 0,
                "in_flight": 0,
                "last_success_at": None,
                "last_failure_at": None,
                "failures_in_a_row": 0,
                "max_concurrent": None,
                "max_per_minute": 10,
                "paused": False,
            }
        ],
        "next": HOST,
    }
    (failing,) = ask(world, "GET", f"/hosts/?start_from={HOST}").json["hosts"]
    assert (failing["host"], failing["failures_in_a_row"]) == (HOST, 2)
    assert failing["last_failure_at"] == "2027-01-15T12:01:00.000Z"
    world.caller.status = 200
    world.put("good", NOON + 120)
    world.turn_to(NOON + 120)
    (good,) = ask(world, "GET", f"/hosts?start_from={HOST}").json["hosts"]
    assert (good["failures_in_a_row"], good["last_success_at"]) == (0, "2027-01-15T12:02:00.000Z")


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_path_that_is_no_host_is_refused(world: World, method: str) -> None:
    body = {"paused": True} if method == "PUT" else None
    response = ask(world, method, "/hosts/example.com", body)
    assert response.status == 400
    assert "host:port" in response.json["detail"]


def test_wrong_setting_is_refused_by_name(world: World) -> None:
    response = ask(world, "PUT", f"/hosts/{HOST}", {"paused": "tomorrow", "max_concurent": 1})
    assert response.status == 422
    assert pointers(response) == ["/paused", "/max_concurent"]
    assert "did you mean max_concurrent?" in response.json["errors"][1]["detail"]
