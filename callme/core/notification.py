"""Notifications: tasks that report the end of another task to ``on_failure`` or ``on_success``.

A failure without an ``on_failure`` of the task is reported to the daemon's ``--on-failure``.
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
"""Minutes of a day, because a receiver may be down for hours."""
DIGEST_LENGTH = 16
"""Length of the digest that replaces the end of a name that is too long, in characters."""
MAX_LISTED_ATTEMPTS = 10
"""Maximum attempts, the last ones, in a payload that would be too large with all attempts."""


def notification_url(
    definition: Definition, state: State, default_on_failure: str | None
) -> str | None:
    """Return the URL to notify of a task's state; ``None`` if nothing is notified.

    :param default_on_failure: the URL for failures of tasks without ``on_failure``.
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
            # The URL is NOT_NOTIFIED, or another program wrote it into the database. The task must
            # end in either case.
            return None
    return url


def build_notification(
    task: Task, now: float, default_on_failure: str | None = None
) -> Definition | None:
    """Return the task that reports a task's end; ``None`` if there is no URL to notify.

    The notification is due in the current minute, and sends no notifications itself.

    :param now: seconds since 1970.
    :param default_on_failure: the URL for failures of tasks without ``on_failure``.
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
    """Return a name of at most ``max_length`` characters; a cut name ends with a digest."""
    if len(name) <= max_length:
        return name
    digest = "~" + sha256(name.encode()).hexdigest()[:DIGEST_LENGTH]
    return name[: max_length - len(digest)] + digest


def _payload(members: dict[str, Any]) -> str:
    """Return a task as JSON that fits into a payload.

    If the JSON is too large, the task's own payload is omitted, which the client knows, and then
    all attempts but the last ones.
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
