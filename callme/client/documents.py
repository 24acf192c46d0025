"""Types of the JSON documents that the client sends and receives, with the names of the API."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Literal, TypedDict

When = datetime | timedelta | str | int | float
"""A time: an aware ``datetime``, a ``timedelta`` from now, or any form that the API accepts."""

State = Literal["scheduled", "running", "succeeded", "failed"]

Statuses = int | str | list[int | str]

FINAL_STATES = frozenset({"succeeded", "failed"})


class Definition(TypedDict, total=False):
    """The parameters that a request and a task have, except for its name, time and callback."""

    callback_method: str
    payload: str | dict[str, Any] | list[Any]
    payload_base64: str
    headers: dict[str, str]
    expected_http_status: Statuses
    no_retry_http_status: Statuses
    retry: int
    retry_delay: int | list[int]
    max_delay: int
    timeout: int
    on_failure: str | None
    on_success: str | None
    labels: dict[str, str]


class Parameters(Definition, total=False):
    """The parameters of a task, except for its name, its time and its callback.

    ``json`` and ``data`` are the client's own: see :func:`.requests.definition`.
    """

    json: Any
    data: str | bytes


class TaskFilters(TypedDict, total=False):
    """The conditions that tasks must match, all of them."""

    state: State
    reason: str
    host: str
    prefix: str
    label: str | list[str]
    due_from: When
    due_before: When


class Filters(TaskFilters, total=False):
    """The conditions of a list of tasks; ``limit`` is the number of tasks per request."""

    future_only: bool
    order: Literal["name", "due"]
    limit: int
    start_from: str


class FieldError(TypedDict):
    """A place in a request, and a sentence about it."""

    pointer: str
    detail: str


class Attempt(TypedDict, total=False):
    """One request that callme made for a task."""

    number: int
    started_at: str
    lateness_ms: int
    duration_ms: int
    status: int | None
    reason: str | None
    detail: str | None
    body: str | None
    node: str | None


class Task(Definition, total=False):
    """A task; in a list it has no payload and no attempts.

    If another program has changed the database, ``damaged`` names the members whose stored values
    cannot be read: these are ``None`` whatever their type. An intact task has no ``damaged``.
    """

    task: str
    task_name: str
    trigger_at: str
    callback: str
    state: State
    reason: str | None
    detail: str | None
    attempts_used: int
    attempts_left: int
    next_attempt_at: str | None
    created_at: str
    finished_at: str | None
    damaged: list[str]
    attempts: list[Attempt]
    attempts_dropped: int
    next: str
    warnings: list[FieldError]


class BatchResult(TypedDict, total=False):
    """The result of one task of a batch: its key, or the problem of its own ``PUT``."""

    status: int
    task: str
    title: str
    detail: str
    errors: list[FieldError]
    warnings: list[FieldError]


BatchResults = list[BatchResult]


# "from" is a keyword, so that it cannot be a name in a class body.
Moved = TypedDict("Moved", {"from": str, "to": str})


class Skipped(TypedDict):
    """A task that was not changed, and the reason."""

    task: str
    reason: str


class _More(TypedDict, total=False):
    next: str
    warnings: list[FieldError]


class Rescheduled(_More):
    """The result of a reschedule; ``next`` is absent once no more tasks match the filters."""

    rescheduled: list[Moved]
    skipped: list[Skipped]


class _Next(TypedDict, total=False):
    next: str


class Deleted(_Next):
    """The result of a deletion; ``next`` is as in :class:`Rescheduled`."""

    deleted: int
    skipped: list[Skipped]


class TaskList(TypedDict, total=False):
    """One page of a list, and the ``start_from`` of the page after it."""

    tasks: list[Task]
    next: str


class HostSettings(TypedDict, total=False):
    """The settings of a host, or of all hosts under the name ``*``."""

    host: str
    max_concurrent: int | None
    max_per_minute: int | None
    paused: bool | str


class Host(HostSettings, total=False):
    """A host that tasks call: its calls and its settings."""

    scheduled: int
    due: int
    in_flight: int
    last_success_at: str | None
    last_failure_at: str | None
    failures_in_a_row: int


class NewHostSettings(TypedDict, total=False):
    """Settings of a host that change; ``None`` returns one to its default."""

    max_concurrent: int | None
    max_per_minute: int | None
    paused: bool | When | None


class Health(TypedDict, total=False):
    """The health of a daemon; without a valid token, only its status."""

    status: Literal["ok", "failing"]
    ticking: bool
    writable: bool
    last_tick: str | None
    backlog: int | None
    calls_in_flight: int
    saturated_seconds: int
    all_paused: bool
    paused_hosts: int
