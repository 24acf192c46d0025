"""The task: its definition, its state, its attempts, and the claim on it."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Container, Mapping
from enum import Enum
from typing import NamedTuple

from attrs import field, frozen

from .times import MINUTE, Key, to_ms


class State(str, Enum):
    """State of a task. A task that waits for a retry is ``scheduled``."""

    SCHEDULED = "scheduled"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class Reason(str, Enum):
    """Reason for the failure of a task or an attempt."""

    UNEXPECTED_STATUS = "unexpected_status"
    TIMEOUT = "timeout"
    CONNECTION_FAILED = "connection_failed"
    TOO_LATE = "too_late"
    FORBIDDEN_ADDRESS = "forbidden_address"
    INTERRUPTED = "interrupted"


NOT_NOTIFIED = ""
"""The ``on_failure`` of a notification, whose own failure is not notified. No client can set it."""


_NOTHING: Mapping[str, str] = {}
_IN_REPR = (
    "task_name",
    "trigger_at",
    "callback_method",
    "expected_http_status",
    "no_retry_http_status",
    "retry",
    "retry_delay",
    "max_delay",
    "timeout",
    "labels",
)
"""The attributes of a definition that cannot contain a secret."""


class Definition(NamedTuple):
    """Definition of a task by its client: an attribute for each entry of ``PARAMETERS``.

    The class is a named tuple because each request and each claim creates an instance, and tuples
    are the fastest to create. Its ``repr``, which tracebacks display, omits attributes that may
    contain a secret.

    :ivar trigger_at: the minute of the call: seconds since 1970.
    :ivar payload: the body of the request as text; empty if there is none or if it is binary.
    :ivar payload_base64: a binary body of the request, in base64.
    :ivar expected_http_status: statuses (``204``) and classes (``"2xx"``) that count as success;
        never empty.
    :ivar no_retry_http_status: statuses and classes after which no further attempt is made.
    :ivar retry: attempts after the first one.
    :ivar retry_delay: minutes between attempts; the last one repeats; never empty.
    :ivar max_delay: minutes after ``trigger_at``; no request starts later.
    :ivar timeout: seconds for the whole call, from connecting to the last byte.
    :ivar on_failure: the URL to notify of the task's failure; ``None`` for the daemon's default.
    :ivar on_success: the URL to notify of the task's success.
    :ivar labels: values by key, by which lists filter tasks; they are not sent.
    """

    task_name: str
    trigger_at: int
    callback: str
    callback_method: str = "GET"
    payload: str = ""
    payload_base64: str = ""
    headers: Mapping[str, str] = _NOTHING
    expected_http_status: tuple[int | str, ...] = (200,)
    no_retry_http_status: tuple[int | str, ...] = ()
    retry: int = 1
    retry_delay: tuple[int, ...] = (1,)
    max_delay: int = 10
    timeout: int = 30
    on_failure: str | None = None
    on_success: str | None = None
    labels: Mapping[str, str] = _NOTHING

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={getattr(self, name)!r}" for name in _IN_REPR)
        return f"{type(self).__name__}({values})"

    @property
    def key(self) -> Key:
        """The identifier of the task."""
        return Key(self.task_name, self.trigger_at)

    @property
    def has_payload(self) -> bool:
        """Return whether the request has a body."""
        return bool(self.payload or self.payload_base64)

    @property
    def body(self) -> bytes:
        """The body of the request."""
        if self.payload_base64:
            return b64decode(self.payload_base64)
        return self.payload.encode("utf-8")

    @property
    def expires_at(self) -> int:
        """The end of ``max_delay``: no request starts at this time or later. Seconds since 1970."""
        return self.trigger_at + MINUTE * self.max_delay

    def expects(self, status: int) -> bool:
        """Return whether a response with this status is a success."""
        return _matches(status, self.expected_http_status)

    def gives_up_after(self, status: int) -> bool:
        """Return whether no further attempt is made after a response with this status."""
        return _matches(status, self.no_retry_http_status)


def _matches(status: int, statuses: Container[int | str]) -> bool:
    return status in statuses or f"{status // 100}xx" in statuses


MAX_ATTEMPTS = 1_000
"""Maximum number of attempts of a task on record; older ones are deleted."""
ATTEMPTS_PER_PAGE = 100
"""Maximum number of attempts in one response, and in one query."""


@frozen(kw_only=True)
class Attempt:
    """Record of one request for a task.

    :ivar number: 1 for the first attempt of a task; a reschedule does not restart it.
    :ivar started_at_ms: the start of the request: milliseconds since 1970.
    :ivar lateness_ms: the time from ``trigger_at`` to the start of the request.
    :ivar duration_ms: the duration of the call; ``None`` if the daemon died during the call.
    :ivar status: the status of the response, if any.
    :ivar reason: the reason for the failure; ``None`` for a success.
    :ivar body: the first 1 KiB of the response's body.
    :ivar node: the name of the daemon that made the request; ``None`` for a request by a version of
        callme in which daemons had no names.
    """

    number: int
    started_at_ms: int
    lateness_ms: int
    duration_ms: int | None
    status: int | None
    reason: Reason | None
    detail: str
    body: str = field(repr=False)
    node: str | None = None


@frozen(kw_only=True)
class Task:
    """Task in the store.

    :ivar due_at: the earliest start of the next attempt: seconds since 1970; ``None`` unless the
        task is ``scheduled``.
    :ivar attempts_used: attempts since the task was last put or rescheduled, of ``1 + retry``.
    :ivar created_at_ms: milliseconds since 1970, as is ``finished_at_ms``.
    :ivar attempts: a page of the attempts on record in order, including those before a reschedule;
        ``None`` if the query did not read them.
    :ivar first_attempt: the number of the first attempt on record; 1 unless there were more than
        :data:`MAX_ATTEMPTS`.
    :ivar last_attempt: the number of the last attempt on record; 0 without any.
    :ivar damaged: the names of the members whose stored values cannot be read. The attributes
        contain substitutes instead, which no response displays.
    :ivar row_key: the key of a task whose stored name or minute cannot be read; otherwise ``None``.
    """

    definition: Definition
    state: State
    reason: Reason | None
    detail: str
    due_at: int | None
    attempts_used: int
    created_at_ms: int
    finished_at_ms: int | None
    attempts: tuple[Attempt, ...] | None = None
    first_attempt: int = 1
    last_attempt: int = 0
    damaged: tuple[str, ...] = ()
    row_key: Key | None = None

    @property
    def key(self) -> Key:
        """The identifier of the task."""
        return self.row_key or self.definition.key

    @property
    def is_corrupt(self) -> bool:
        """Return whether a stored value of the task cannot be read."""
        return bool(self.damaged)

    @property
    def earlier_attempts(self) -> int | None:
        """The number of the last attempt before those in ``attempts``; ``None`` without one."""
        if not self.attempts or self.attempts[0].number <= self.first_attempt:
            return None
        return self.attempts[0].number - 1

    @property
    def attempts_left(self) -> int:
        """The rest of the retry budget; 0 for a task that has ended."""
        if self.state in (State.SUCCEEDED, State.FAILED):
            return 0
        return max(0, 1 + self.definition.retry - self.attempts_used)


def new_task(definition: Definition, now: float, replaced: Task | None = None) -> Task:
    """Return the task that a new definition creates, or that replaces another task.

    :param now: seconds since 1970.
    :param replaced: the task to replace, whose attempts stay on record.
    """
    return Task(
        definition=definition,
        state=State.SCHEDULED,
        reason=None,
        detail="",
        due_at=definition.trigger_at,
        attempts_used=0,
        created_at_ms=to_ms(now),
        finished_at_ms=None,
        attempts=() if replaced is None else replaced.attempts,
        first_attempt=1 if replaced is None else replaced.first_attempt,
        last_attempt=0 if replaced is None else replaced.last_attempt,
    )


@frozen(kw_only=True)
class Claim:
    """Right of one daemon to make one attempt of a task, which is already counted.

    :ivar task_id: the primary key of the task in the store.
    :ivar number: the number of the attempt. The store accepts a result only with the ``task_id``,
        ``number`` and ``token`` of the current claim.
    :ivar attempts_used: as in :class:`Task`, including this attempt.
    :ivar claimed_at_ms: milliseconds since 1970.
    :ivar host: the ``host:port`` of the callback.
    :ivar node: the name of the daemon.
    :ivar token: a number that identifies the claim if several daemons share a database.
    :ivar created_at_ms: when the definition was put: milliseconds since 1970.
    :ivar rescheduled_from: the task's ``trigger_at`` before it was last rescheduled.
    """

    task_id: int
    number: int
    definition: Definition
    attempts_used: int
    claimed_at_ms: int
    host: str
    node: str | None = None
    token: int = 0
    created_at_ms: int = 0
    rescheduled_from: int | None = None


class ClaimLost(Exception):
    """A claim may belong to another daemon by now, and its request has not been sent."""


@frozen(kw_only=True)
class Outcome:
    """Outcome of one call.

    :ivar started_at_ms: the start of the request: milliseconds since 1970.
    :ivar duration_ms: ``None`` if the daemon died during the call.
    :ivar status: the status of the response, if one arrived.
    :ivar reason: the reason for the lack of a status; ``None`` when there is one.
    :ivar detail: a sentence for a person; empty when the status is enough.
    :ivar retry_after: the earliest start of the next attempt, by the response's
        ``Retry-After``: seconds since 1970.
    :ivar stale_connection: whether the endpoint closed an idle connection just as it was reused, so
        that the failure does not indicate a fault of the endpoint.
    """

    started_at_ms: int
    duration_ms: int | None = None
    status: int | None = None
    reason: Reason | None = None
    detail: str = ""
    body: str = field(default="", repr=False)
    retry_after: int | None = None
    stale_connection: bool = False


@frozen(kw_only=True)
class Transition:
    """Change of a task's state after an attempt, and the record of the attempt.

    :ivar due_at: the earliest start of the next attempt: seconds since 1970; ``None`` unless the
        new state is ``scheduled``.
    :ivar attempt: ``None`` if no request was made.
    """

    state: State
    reason: Reason | None = None
    detail: str = ""
    due_at: int | None = None
    attempt: Attempt | None = None
