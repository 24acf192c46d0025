"""Notifications: tasks that report the end of another task to ``on_failure`` or ``on_success``.

The URL is that of the task, or for a failure that of the daemon (``--on-failure``).
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from ..errors import InvalidValue
from .callback_url import host_of
from .parameters import MAX_PAYLOAD_BYTES
from .representation import task_to_dict
from .task import NOT_NOTIFIED, Definition, State, Task
from .text.compact_json import encode_compact
from .times import MAX_NAME_LENGTH, floor_to_minute

RETRY = 10
RETRY_DELAY = (1, 5, 15, 60)
MAX_DELAY_MINUTES = 1_440
"""A day: the receiver may be down for hours."""
DIGEST_LENGTH = 16
"""Characters of the digest that replaces the end of a name that is too long."""
MAX_LISTED_ATTEMPTS = 10
"""Maximum attempts in a payload that is too large with all of them: the last ones."""


def notification_url(
    definition: Definition, state: State, default_on_failure: str | None
) -> str | None:
    """Return the URL to notify of a task's state; ``None`` where there is none.

    :param default_on_failure: the URL for failures of tasks that name none.
    """
    if state is State.SUCCEEDED:
        url = definition.on_success
    elif state is State.FAILED:
        own = definition.on_failure
        url = default_on_failure if own is None else own
    else:
        return None
    if url is not None:
        try:
            host_of(url)
        except InvalidValue:
            # It is NOT_NOTIFIED, or another program wrote it into the database. It must not keep
            # the task from ending.
            return None
    return url


def build_notification(
    task: Task, now: float, default_on_failure: str | None = None
) -> Definition | None:
    """Return the task that reports a task's end; ``None`` where there is no URL to notify.

    It is due in the present minute, and has no notifications of its own.

    :param now: seconds since 1970.
    :param default_on_failure: the URL for failures of tasks that name none.
    """
    definition = task.definition
    url = notification_url(definition, task.state, default_on_failure)
    if url is None:
        return None
    event = "on_success" if task.state is State.SUCCEEDED else "on_failure"
    suffix = f".{definition.trigger_at}.{event}"
    name = _shortened(definition.task_name, MAX_NAME_LENGTH - len(suffix)) + suffix
    if (number := task.key.row_number) is not None:
        name = f"damaged-task-{number}.{event}"
    return Definition(
        task_name=name,
        trigger_at=floor_to_minute(now),
        callback=url,
        callback_method="POST",
        payload=_payload(task_to_dict(task)),
        headers={"Content-Type": "application/json"},
        expected_http_status=("2xx",),
        retry=RETRY,
        retry_delay=RETRY_DELAY,
        max_delay=MAX_DELAY_MINUTES,
        on_failure=NOT_NOTIFIED,
    )


def _shortened(name: str, max_length: int) -> str:
    """Return a name, cut to ``max_length`` characters with a digest at its end if it is longer."""
    if len(name) <= max_length:
        return name
    digest = "~" + sha256(name.encode()).hexdigest()[:DIGEST_LENGTH]
    return name[: max_length - len(digest)] + digest


def _payload(members: dict[str, Any]) -> str:
    """Return a task as JSON that fits into a payload.

    If need be the task's own payload is left out, which its client knows, and then all attempts
    but the last ones.
    """
    text = encode_compact(members)
    if len(text.encode()) > MAX_PAYLOAD_BYTES:
        members = {**members, "payload": ""}
        members.pop("payload_base64", None)
        text = encode_compact(members)
    if len(text.encode()) > MAX_PAYLOAD_BYTES:
        last = members["attempts"][-MAX_LISTED_ATTEMPTS:]
        text = encode_compact(members | {"attempts": last})
    return text
