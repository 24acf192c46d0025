"""What a task is: its definition, its state, its attempts."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from attrs import field, frozen

from .times import MINUTE, Key, to_ms


class State(str, Enum):
    """Where a task stands. A retry waits in ``scheduled``."""

    SCHEDULED = "scheduled"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class Reason(str, Enum):
    """Why a task or an attempt failed."""

    UNEXPECTED_STATUS = "unexpected_status"
    TIMEOUT = "timeout"
    CONNECTION_FAILED = "connection_failed"
    TOO_LATE = "too_late"
    FORBIDDEN_ADDRESS = "forbidden_address"
    INTERRUPTED = "interrupted"


@frozen(kw_only=True)
class Definition:
    """What a person asked for; see the contract's parameters.

    What may hold a secret is left out of its repr, which tracebacks show.

    :ivar trigger_at: the minute of the call, seconds since 1970.
    :ivar expected_http_status: statuses (``204``) and classes (``"2xx"``), any
        of which is a success; never empty.
    :ivar retry: attempts after the first one.
    :ivar retry_delay: minutes between attempts; the last one repeats; never empty.
    :ivar max_delay: minutes after ``trigger_at`` from which no request may start.
    :ivar timeout: seconds for the whole call, connect to last byte.
    :ivar on_failure: the URL that is told of the task's end; as is ``on_success``.
    """

    task_name: str
    trigger_at: int
    callback: str = field(repr=False)
    callback_method: str = "GET"
    payload: str = field(default="", repr=False)
    headers: Mapping[str, str] = field(factory=dict, repr=False)
    expected_http_status: tuple[int | str, ...] = (200,)
    retry: int = 1
    retry_delay: tuple[int, ...] = (1,)
    max_delay: int = 10
    timeout: int = 30
    on_failure: str | None = field(default=None, repr=False)
    on_success: str | None = field(default=None, repr=False)

    @property
    def key(self) -> Key:
        """What identifies the task."""
        return Key(self.task_name, self.trigger_at)

    @property
    def expires_at(self) -> int:
        """The second from which on no request may start."""
        return self.trigger_at + MINUTE * self.max_delay

    def expects(self, status: int) -> bool:
        """Whether an answer of this status is a success."""
        expected = self.expected_http_status
        return status in expected or f"{status // 100}xx" in expected


@frozen(kw_only=True)
class Attempt:
    """One request made for a task, as it stands on record.

    :ivar number: counts on over the whole life of a task, reschedules included.
    :ivar started_at_ms: when the request started, milliseconds since 1970.
    :ivar lateness_ms: how long after ``trigger_at`` that was.
    :ivar duration_ms: how long it took; ``None`` when the daemon died meanwhile.
    :ivar status: the status of the answer, if there was one.
    :ivar reason: why it failed; ``None`` for a success.
    :ivar body: the first 1 KiB of the answer's body.
    :ivar node: the name of the daemon that made it; ``None`` for one of before they had names.
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
    """A task as it stands in the store.

    :ivar due_at: when the next attempt may start, seconds since 1970; ``None``
        unless ``scheduled``.
    :ivar attempts_used: how many of the ``1 + retry`` attempts were made since
        the task was last put or rescheduled.
    :ivar created_at_ms: milliseconds since 1970, as is ``finished_at_ms``.
    :ivar attempts: every attempt on record, those before a reschedule included,
        in order; ``None`` where only the task itself was asked for.
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

    @property
    def key(self) -> Key:
        """What identifies the task."""
        return self.definition.key

    @property
    def attempts_left(self) -> int:
        """How many attempts may still be made."""
        if self.state in (State.SUCCEEDED, State.FAILED):
            return 0
        return max(0, 1 + self.definition.retry - self.attempts_used)


def new_task(definition: Definition, now: float, attempts: tuple[Attempt, ...] | None = ()) -> Task:
    """Return a task as it stands once it is created, or put anew in the place of another.

    :param attempts: those on record already.
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
        attempts=attempts,
    )


@frozen(kw_only=True)
class Claim:
    """A task taken from the store to be called now, its attempt already counted.

    :ivar task_id: the store's own number of the task.
    :ivar number: the number of the attempt; with ``task_id`` and ``token`` it is what a
        result must name to be stored.
    :ivar attempts_used: as in :class:`Task`, this attempt included.
    :ivar claimed_at_ms: when it was taken, milliseconds since 1970.
    :ivar host: the ``host:port`` that the call goes to.
    :ivar node: the name of the daemon whose attempt it is.
    :ivar token: tells this taking of the task from every other, where several daemons may.
    """

    task_id: int
    number: int
    definition: Definition
    attempts_used: int
    claimed_at_ms: int
    host: str
    node: str | None = None
    token: int = 0


@frozen(kw_only=True)
class Outcome:
    """What came of one call.

    :ivar started_at_ms: when the request started, milliseconds since 1970.
    :ivar duration_ms: ``None`` when nobody was there to see the end.
    :ivar status: the status of the answer, if one arrived.
    :ivar reason: why there is no status; ``None`` when there is one.
    :ivar detail: one human sentence; empty when the status says it all.
    :ivar retry_after: the second named by the answer's ``Retry-After``, since 1970.
    """

    started_at_ms: int
    duration_ms: int | None = None
    status: int | None = None
    reason: Reason | None = None
    detail: str = ""
    body: str = field(default="", repr=False)
    retry_after: int | None = None


@frozen(kw_only=True)
class Transition:
    """What becomes of a task after an attempt, and the attempt's own record.

    :ivar attempt: ``None`` when no request was made at all.
    :ivar due_at: when the next attempt may start; ``None`` unless ``scheduled``.
    """

    state: State
    reason: Reason | None = None
    detail: str = ""
    due_at: int | None = None
    attempt: Attempt | None = None
