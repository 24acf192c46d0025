"""A task that tells of the end of another: it calls ``on_failure`` or ``on_success``."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

from ..errors import InvalidValue
from .callback_url import host_of
from .parameters import MAX_PAYLOAD
from .representation import task_to_dict
from .task import Definition, State, Task, Transition
from .times import MAX_NAME, floor_to_minute

RETRY = 10
RETRY_DELAY = (1, 5, 15, 60)
MAX_DELAY = 1_440
"""Minutes: who is to be told may be down for most of a day."""
DIGEST = 16
"""Characters of a digest that stands for the rest of a name that is too long."""
MAX_LISTED_ATTEMPTS = 10
"""How many attempts are told, the last ones, of a task of which all are too many."""


def notification_url(definition: Definition, transition: Transition) -> str | None:
    """Return the URL that is told of a verdict; ``None`` where none is."""
    return _url(definition, transition.state)


def _url(definition: Definition, state: State) -> str | None:
    url = {State.SUCCEEDED: definition.on_success, State.FAILED: definition.on_failure}.get(state)
    if url is not None:
        try:
            host_of(url)
        except InvalidValue:
            # Somebody else wrote it into the database. An end that cannot be told is one.
            return None
    return url


def build_notification(task: Task, now: float) -> Definition | None:
    """Return the task that tells of a task's end; ``None`` where nobody is to be told.

    It is of the present minute, and tells nobody of its own end.
    """
    definition = task.definition
    url = _url(definition, task.state)
    if url is None:
        return None
    word = "on_success" if task.state is State.SUCCEEDED else "on_failure"
    end = f".{definition.trigger_at}.{word}"
    return Definition(
        task_name=_shortened(definition.task_name, MAX_NAME - len(end)) + end,
        trigger_at=floor_to_minute(now),
        callback=url,
        callback_method="POST",
        payload=_payload(task_to_dict(task)),
        headers={"Content-Type": "application/json"},
        expected_http_status=("2xx",),
        retry=RETRY,
        retry_delay=RETRY_DELAY,
        max_delay=MAX_DELAY,
    )


def _shortened(name: str, most: int) -> str:
    """Return a name, or its beginning and what tells it from others that begin so."""
    if len(name) <= most:
        return name
    digest = "~" + sha256(name.encode()).hexdigest()[:DIGEST]
    return name[: most - len(digest)] + digest


def _payload(members: dict[str, Any]) -> str:
    """Write a status that is no longer than a payload may be: without what can be done without.

    First the task's own payload goes, which whoever put it knows, then all attempts but the last.
    """
    text = _encode(members)
    if len(text.encode()) > MAX_PAYLOAD:
        text = _encode(members | {"payload": ""})
    if len(text.encode()) > MAX_PAYLOAD:
        last = members["attempts"][-MAX_LISTED_ATTEMPTS:]
        text = _encode(members | {"payload": "", "attempts": last})
    return text


_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
