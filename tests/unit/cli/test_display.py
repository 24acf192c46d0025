"""Texts of the command: the story of a task, errors and forecasts."""

from __future__ import annotations

from typing import Any

from callme.cli.display import clean, forecast_text, line_of, story_of
from callme.cli.exits import message_of
from callme.client import ConnectionFailed, InvalidRequest

TASK: Any = {
    "task": "a@1858809600",
    "trigger_at": "1858809600",
    "callback": "http://example.com/",
    "callback_method": "GET",
    "labels": {"customer": "42"},
    "state": "failed",
    "reason": "unexpected_status",
    "detail": "the status is 503",
    "attempts_used": 1,
    "attempts_left": 0,
    "next_attempt_at": None,
    "finished_at": "2028-11-26T00:00:01.000Z",
    "attempts": [
        {
            "number": 1,
            "started_at": "2028-11-26T00:00:00.005Z",
            "duration_ms": 12,
            "status": 503,
            "reason": "unexpected_status",
            "detail": "the status is 503",
            "body": "busy\x1b[2J",
        }
    ],
}


def test_story_has_the_task_and_its_attempts() -> None:
    assert story_of(TASK).plain.splitlines() == [
        "a@1858809600  failed  unexpected_status: the status is 503",
        "  call     GET http://example.com/",
        "  due      2028-11-26 00:00 UTC",
        "  labels   customer:42",
        "  attempts 1 used, 0 left",
        "  finished 2028-11-26 00:00:01.000 UTC",
        "  #1  2028-11-26 00:00:00.005 UTC  12 ms  503  unexpected_status: the status is 503",
        "      busy\ufffd[2J",
    ]


def test_state_is_coloured() -> None:
    assert any("red" in str(span.style) for span in story_of(TASK).spans)


def test_unreadable_values_of_a_damaged_task_are_named() -> None:
    names = ["attempts_used", "callback", "labels", "retry", "state", "trigger_at"]
    damaged: Any = {**TASK, **dict.fromkeys(names), "task": "@7", "attempts_left": None}
    damaged |= {"reason": None, "damaged": names}
    assert line_of(damaged).plain == (
        "@7  unreadable  unreadable  GET unreadable  "
        "damaged: attempts_used, callback, labels, retry, state, trigger_at"
    )
    assert story_of(damaged).plain.splitlines()[:5] == [
        "@7  unreadable",
        "  damaged  attempts_used, callback, labels, retry, state, trigger_at",
        "  call     GET unreadable",
        "  due      unreadable",
        "  attempts unreadable used, unreadable left",
    ]


def test_line_of_a_list_has_the_reason() -> None:
    assert line_of(TASK).plain == (
        "a@1858809600  2028-11-26 00:00 UTC  failed  GET http://example.com/  unexpected_status"
    )


def test_control_characters_are_not_printed() -> None:
    assert clean("a\x1b]0;title\x07\u202eb") == "a\ufffd]0;title\ufffd\ufffdb"


def test_forecast_lists_minutes_and_overloaded_hosts() -> None:
    minute = {"minute": "2028-11-26T00:00:00.000Z", "calls": 5}
    overloaded = {"host": None, "minutes": [minute | {"lateness_ms": 7, "too_late": 2}]}
    forecast = {
        "calls": 5,
        "until": "2028-11-27T00:00:00.000Z",
        "minutes": [minute],
        "overloaded": [overloaded],
        "complete": False,
    }
    assert forecast_text(forecast).plain.splitlines() == [
        "5 calls until 2028-11-27 00:00:00.000 UTC",
        "  2028-11-26 00:00:00.000 UTC  5",
        "overloaded: all hosts",
        "  2028-11-26 00:00:00.000 UTC  5 calls, the last 7 ms late, 2 too late",
        "the forecast is truncated",
    ]


def test_message_names_every_invalid_value() -> None:
    errors = [
        {"pointer": "/retry", "detail": "-1 is not accepted"},
        {"pointer": "limit", "detail": "0 is not accepted"},
    ]
    problem = {"title": "Unprocessable Content", "detail": "two", "errors": errors}
    message = message_of(InvalidRequest("PUT /task/", 422, problem))
    assert message == (
        "422 Unprocessable Content:\n  retry: -1 is not accepted\n  limit: 0 is not accepted"
    )
    one = InvalidRequest("PUT /task/", 422, problem | {"errors": errors[:1]})
    assert message_of(one) == "retry: -1 is not accepted"
    assert message_of(ConnectionFailed("GET /: refused")) == "GET /: refused"
