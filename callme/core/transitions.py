"""Decisions about the state of a task: the effects of a put, a reschedule and an attempt."""

from __future__ import annotations

import math
from enum import Enum

from .task import Attempt, Claim, Definition, Outcome, Reason, State, Task, Transition
from .times import MAX_TIMESTAMP, MINUTE, ceil_to_minute, floor_to_minute, rfc3339

PROMPT_ATTEMPTS = 10
"""Maximum number of attempts of a task that follow each other without a delay."""


class PutCondition(Enum):
    """Precondition of a put (RFC 9110, section 13.1)."""

    NONE = "no condition"
    MUST_EXIST = "If-Match: *"
    MUST_NOT_EXIST = "If-None-Match: *"


class PutOutcome(Enum):
    """Effect of a put, or the reason for its refusal."""

    CREATED = "no task existed under the key; the new one does now"
    REPLACED = "a scheduled task existed; it has the new definition now"
    UNCHANGED = "a task with the same definition exists already"
    MISSING = "refused: no task exists, and one was required"
    EXISTS = "refused: a task exists, and none was allowed to"
    CONFLICT = "refused: a scheduled task with another definition exists"
    NOT_SCHEDULED = "refused: a task with another definition exists that is not scheduled"
    NEVER_RUNS = "refused: max_delay is over, so that the task could never run"


def decide_put(
    existing: Task | None, definition: Definition, condition: PutCondition, now: float
) -> PutOutcome:
    """Return the effect of a put at ``now`` (seconds since 1970).

    :param existing: the task under the key of the definition, if any.
    """
    if existing is None:
        if condition is PutCondition.MUST_EXIST:
            return PutOutcome.MISSING
        too_late = is_too_late(definition, now)
        return PutOutcome.NEVER_RUNS if too_late else PutOutcome.CREATED
    return _decide_put_on(existing, definition, condition, now)


def _decide_put_on(
    existing: Task, definition: Definition, condition: PutCondition, now: float
) -> PutOutcome:
    if condition is PutCondition.MUST_NOT_EXIST:
        return PutOutcome.EXISTS
    if not existing.is_corrupt and existing.definition == definition:
        return PutOutcome.UNCHANGED
    if existing.state is not State.SCHEDULED:
        return PutOutcome.NOT_SCHEDULED
    if condition is not PutCondition.MUST_EXIST:
        return PutOutcome.CONFLICT
    return PutOutcome.NEVER_RUNS if is_too_late(definition, now) else PutOutcome.REPLACED


class MoveDecision(Enum):
    """Effect of a reschedule on one task, or the reason why the task stays."""

    MOVE = "it moves"
    RUNNING = "it is running"
    NOT_FAILED = "it has not failed, and the request moves failed tasks only"
    TOO_LATE = "it could no longer start at the new time"
    DAMAGED = "its stored values cannot be read"


def decide_move(
    state: State, expires_at: int, now: float, *, include_all_states: bool
) -> MoveDecision:
    """Return the effect of a reschedule on a task.

    :param expires_at: the end of ``max_delay`` after the new time: seconds since 1970.
    :param now: seconds since 1970.
    :param include_all_states: whether tasks that have not failed move as well.
    """
    if state is State.RUNNING:
        return MoveDecision.RUNNING
    if state is not State.FAILED and not include_all_states:
        return MoveDecision.NOT_FAILED
    return MoveDecision.TOO_LATE if now >= expires_at else MoveDecision.MOVE


def decide_after_attempt(claim: Claim, outcome: Outcome, now: float) -> Transition:
    """Return the transition of a task after an attempt.

    :param now: the end of the attempt: seconds since 1970.
    """
    definition = claim.definition
    if outcome.status is not None and definition.expects(outcome.status):
        return Transition(
            state=State.SUCCEEDED, attempt=_attempt(claim, outcome, None, outcome.detail)
        )
    reason = outcome.reason or Reason.UNEXPECTED_STATUS
    detail = outcome.detail or _unexpected(definition, outcome.status)
    attempt = _attempt(claim, outcome, reason, detail)
    if reason is Reason.FORBIDDEN_ADDRESS:
        return Transition(state=State.FAILED, reason=reason, detail=detail, attempt=attempt)
    if outcome.status is not None and definition.gives_up_after(outcome.status):
        final = f"{detail}; no_retry_http_status allows no further attempt"
        return Transition(state=State.FAILED, reason=reason, detail=final, attempt=attempt)
    if claim.attempts_used > definition.retry:
        allowed = 1 + definition.retry
        used = "the only attempt is used" if allowed == 1 else f"all {allowed} attempts are used"
        return Transition(
            state=State.FAILED, reason=reason, detail=f"{detail}; {used}", attempt=attempt
        )
    due_at = next_attempt_at(claim, outcome, now)
    if due_at >= definition.expires_at:
        late = f"{detail}; the next attempt would be {_delay(definition)} late or more"
        return Transition(state=State.FAILED, reason=reason, detail=late, attempt=attempt)
    return Transition(state=State.SCHEDULED, due_at=due_at, attempt=attempt)


def next_attempt_at(claim: Claim, outcome: Outcome, now: float) -> int:
    """Return the time of the attempt after one that failed at ``now``, in seconds since 1970.

    Normally the time is the whole minute nearest to ``retry_delay`` minutes after the end of the
    attempt, so that a delay of 1 is between half a minute and one and a half.

    - With a delay of 0, the first :data:`PROMPT_ATTEMPTS` attempts follow at once. After that, each
      waits a second longer than the previous one, up to a minute, so that one task cannot flood an
      endpoint.
    - A ``Retry-After`` postpones the attempt to the first minute at or after its time, but not past
      the last minute that ``max_delay`` allows.
    - After an interrupted attempt or a stale connection, neither of which is the fault of the
      endpoint, the next attempt follows at once.
    """
    definition = claim.definition
    is_cut_off = outcome.reason is Reason.INTERRUPTED and outcome.retry_after is None
    if outcome.stale_connection or is_cut_off:
        return floor_to_minute(now)
    delays = definition.retry_delay
    delay = delays[min(claim.attempts_used, len(delays)) - 1]
    if delay:
        due_at = floor_to_minute(now + MINUTE * delay + MINUTE / 2)
    else:
        seconds = prompt_delay(claim.attempts_used)
        due_at = math.ceil(now + seconds) if seconds else floor_to_minute(now)
    if outcome.retry_after is not None:
        requested = ceil_to_minute(min(outcome.retry_after, MAX_TIMESTAMP))
        due_at = max(due_at, min(requested, definition.expires_at - MINUTE))
    return due_at


def prompt_delay(attempts_used: int) -> int:
    """Return the seconds before the next attempt of a task whose ``retry_delay`` is 0."""
    return min(MINUTE, max(0, attempts_used + 1 - PROMPT_ATTEMPTS))


def is_too_late(definition: Definition, now: float) -> bool:
    """Return whether a request that started at ``now`` would be ``max_delay`` late or more."""
    return now >= definition.expires_at


def too_late(definition: Definition, *, was_paused: bool = False) -> Transition:
    """Return the failure of a task for which no request may start any more.

    :param was_paused: whether an operator had paused calls to its host.
    """
    detail = (
        f"no request could start before {rfc3339(definition.expires_at * 1000)}, "
        f"{_delay(definition)} after trigger_at"
    )
    if was_paused:
        detail += "; calls to the host were paused"
    return Transition(state=State.FAILED, reason=Reason.TOO_LATE, detail=detail)


def unreadable(error: str) -> Transition:
    """Return the failure of a task whose stored definition cannot be read."""
    detail = f"no request was made: {error}"
    return Transition(state=State.FAILED, reason=Reason.CONNECTION_FAILED, detail=detail)


def interrupted(claim: Claim) -> Outcome:
    """Return the outcome of an attempt whose end callme did not observe."""
    return Outcome(
        started_at_ms=claim.claimed_at_ms,
        reason=Reason.INTERRUPTED,
        detail="callme stopped during the call: whether the endpoint acted on it is unknown",
    )


def caller_failed(claim: Claim, now: float) -> Outcome:
    """Return the outcome of an attempt that an error in callme itself ended at ``now``.

    The error may recur, so the next attempt waits at least until the next minute.
    """
    return Outcome(
        started_at_ms=claim.claimed_at_ms,
        reason=Reason.INTERRUPTED,
        detail="an error in callme ended the call, and is in its log: whether the endpoint acted "
        "on it is unknown",
        retry_after=floor_to_minute(now) + MINUTE,
    )


def _attempt(claim: Claim, outcome: Outcome, reason: Reason | None, detail: str) -> Attempt:
    return Attempt(
        number=claim.number,
        started_at_ms=outcome.started_at_ms,
        lateness_ms=outcome.started_at_ms - claim.definition.trigger_at * 1000,
        duration_ms=outcome.duration_ms,
        status=outcome.status,
        reason=reason,
        detail=detail,
        body=outcome.body,
        node=claim.node,
    )


def _unexpected(definition: Definition, status: int | None) -> str:
    expected = " or ".join(str(one) for one in definition.expected_http_status)
    hint = ""
    if status is not None and 200 <= status < 300:
        hint = ' ("expected_http_status": "2xx" accepts any success)'
    return f"the endpoint responded with {status}, expected {expected}{hint}"


def _delay(definition: Definition) -> str:
    minutes = definition.max_delay
    return "1 minute" if minutes == 1 else f"{minutes:,} minutes"
