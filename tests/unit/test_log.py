"""The log as JSON lines."""

from __future__ import annotations

import io
import json
from typing import Any

from twisted.logger import Logger, LogPublisher

from callme.log import json_lines


def written(log: Any) -> list[dict[str, Any]]:
    file = io.StringIO()
    publisher = LogPublisher(json_lines(file))
    log(Logger(namespace="callme", observer=publisher))
    return [json.loads(line) for line in file.getvalue().splitlines()]


def test_event_becomes_one_line_with_its_values() -> None:
    (line,) = written(
        lambda log: log.warn("{task} failed\nafter {count}", task='"ü@60"', count=3, other=object())
    )
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "warn",
        "logger": "callme",
        "message": '"ü@60" failed\nafter 3',
        "task": "ü@60",
        "count": 3,
    }


def test_value_never_replaces_a_member_of_the_line() -> None:
    (line,) = written(lambda log: log.info("it is {time}", time="x", message="y", logger="z"))
    assert line["message"] == "it is x"
    assert line["time"].endswith("Z")
    assert line["logger"] == "callme"


def test_unexpected_error_comes_with_its_traceback() -> None:
    def fail(log: Logger) -> None:
        try:
            raise ZeroDivisionError("of nothing")
        except ZeroDivisionError:
            log.failure("it failed")

    (line,) = written(fail)
    assert line["level"] == "critical"
    assert line["message"] == "it failed"
    assert "ZeroDivisionError: of nothing" in line["traceback"]
