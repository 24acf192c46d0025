"""Texts of the command: tasks and forecasts, coloured on a terminal and plain in a pipe."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from rich.text import Text

from ..client.documents import Attempt, Task

UNREADABLE = "unreadable"
"""The text for a value that callme cannot read from its database."""
STYLES = {"scheduled": "cyan", "running": "yellow", "succeeded": "green", "failed": "bold red"}


def clean(text: str) -> str:
    """Return a text without control characters, because parts of the output come from endpoints."""
    return "".join(one if one.isprintable() else "\ufffd" for one in text)


def json_of(value: object) -> str:
    """Return compact JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def minute_of(trigger_at: str | None) -> str:
    """Return the minute of a Unix timestamp, in UTC."""
    if trigger_at is None:
        return UNREADABLE
    moment = datetime.fromtimestamp(int(trigger_at), timezone.utc)
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def moment_of(rfc3339: str) -> str:
    """Return an RFC 3339 time with a space and the zone's name."""
    return rfc3339.replace("T", " ").replace("Z", " UTC")


def _call_of(task: Task) -> str:
    method, callback = task["callback_method"], task["callback"]
    return f"{_known(method)} {_known(callback)}"


def _known(value: object) -> object:
    """Return a value; the text for one that callme cannot read from its database."""
    return UNREADABLE if value is None else value


def _state_of(task: Task) -> tuple[str, str]:
    """Return the state of a task, and its style."""
    state: str | None = task["state"]
    return (UNREADABLE, STYLES["failed"]) if state is None else (state, STYLES[state])


def line_of(task: Task) -> Text:
    """Return one line for a task in a list."""
    parts: list[str | tuple[str, str]] = [
        (clean(task["task"]), "bold"),
        "  ",
        minute_of(task["trigger_at"]),
        "  ",
        _state_of(task),
        "  ",
        clean(_call_of(task)),
    ]
    if task["reason"]:
        parts += ["  ", clean(task["reason"])]
    if damaged := task.get("damaged"):
        parts += ["  ", (f"damaged: {', '.join(damaged)}", "bold red")]
    return Text.assemble(*parts)


def story_of(task: Task) -> Text:
    """Return a task and all its attempts, with a line for each."""
    text = Text.assemble((clean(task["task"]), "bold"), "  ", _state_of(task))
    if task["reason"]:
        text.append(f"  {task['reason']}: {clean(task['detail'] or '')}")
    used, left = task["attempts_used"], task["attempts_left"]
    rows = {
        "damaged": ", ".join(task.get("damaged", ())),
        "call": _call_of(task),
        "due": minute_of(task["trigger_at"]),
        "labels": ", ".join(f"{key}:{value}" for key, value in (task["labels"] or {}).items()),
        "attempts": "none" if used == left == 0 else f"{_known(used)} used, {_known(left)} left",
        "next": moment_of(task["next_attempt_at"] or ""),
        "finished": moment_of(task["finished_at"] or ""),
    }
    for name, value in rows.items():
        if value:
            text.append(f"\n  {name:<9}").append(clean(value))
    for attempt in task["attempts"]:
        text.append("\n  ").append_text(_attempt(attempt))
    return text


def _attempt(attempt: Attempt) -> Text:
    is_failure = attempt["reason"] is not None
    head = f"#{attempt['number']}  {moment_of(attempt['started_at'])}"
    text = Text(f"{head}  {attempt['duration_ms']} ms  ")
    text.append(str(attempt["status"] or "no response"), "red" if is_failure else "green")
    if is_failure:
        text.append(f"  {attempt['reason']}: {clean(attempt['detail'] or '')}")
    if attempt["body"]:
        text.append(f"\n      {clean(attempt['body'][:200])}", "dim")
    return text


def forecast_text(forecast: Mapping[str, Any]) -> Text:
    """Return a forecast: the calls of each minute, and the hosts that are overloaded."""
    text = Text(f"{forecast['calls']} calls until {moment_of(forecast['until'])}")
    for minute in forecast["minutes"]:
        text.append(f"\n  {moment_of(minute['minute'])}  {minute['calls']}")
    for host in forecast["overloaded"]:
        name = clean(host["host"] or "all hosts")
        text.append(f"\noverloaded: {name}", "bold red")
        for minute in host["minutes"]:
            text.append(
                f"\n  {moment_of(minute['minute'])}  {minute['calls']} calls, the last "
                f"{minute['lateness_ms']} ms late, {minute['too_late']} too late"
            )
    if not forecast["complete"]:
        text.append("\nthe forecast is truncated", "yellow")
    return text
