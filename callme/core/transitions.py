"""What becomes of a task after an attempt: succeeded, tried again (when?) or failed (why?)."""

from __future__ import annotations

from .task import Attempt, Claim, Definition, Outcome, Reason, State, Transition
from .times import MAX_TIMESTAMP, MINUTE, ceil_to_minute, floor_to_minute, next_minute, rfc3339


def decide_after_attempt(claim: Claim, outcome: Outcome, now: float) -> Transition:
    """Return what becomes of a task whose attempt ended at ``now`` with ``outcome``."""
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
    """Return the minute of the attempt after one that failed at ``now``.

    Normally that is the whole minute nearest to ``retry_delay`` minutes after the
    attempt ended, so that a delay of 1 is half a minute or more; 0 is at once. A
    ``Retry-After`` postpones it to the minute it names, but not past the last one that
    ``max_delay`` allows. An interrupted attempt is made again at the next minute, or at
    once where the next minute would be too late. After a stale connection, the next
    attempt follows at once.
    """
    definition = claim.definition
    if outcome.stale_connection:
        return floor_to_minute(now)
    if outcome.reason is Reason.INTERRUPTED:
        due_at = next_minute(now)
        return due_at if due_at < definition.expires_at else floor_to_minute(now)
    delays = definition.retry_delay
    delay = delays[min(claim.attempts_used, len(delays)) - 1]
    due_at = floor_to_minute(now + MINUTE * delay + MINUTE / 2 if delay else now)
    if outcome.retry_after is not None:
        asked = ceil_to_minute(min(outcome.retry_after, MAX_TIMESTAMP))
        due_at = max(due_at, min(asked, definition.expires_at - MINUTE))
    return due_at


def is_too_late(definition: Definition, now: float) -> bool:
    """Whether a request that started at ``now`` would be ``max_delay`` late or more."""
    return now >= definition.expires_at


def too_late(definition: Definition) -> Transition:
    """Return what becomes of a task that no request can start for any more."""
    detail = (
        f"no request could start before {rfc3339(definition.expires_at * 1000)}, "
        f"{_delay(definition)} after trigger_at"
    )
    return Transition(state=State.FAILED, reason=Reason.TOO_LATE, detail=detail)


def interrupted(claim: Claim) -> Outcome:
    """Return the outcome of an attempt whose end nobody saw."""
    return Outcome(
        started_at_ms=claim.claimed_at_ms,
        reason=Reason.INTERRUPTED,
        detail="callme stopped during the call: whether the endpoint acted on it is unknown",
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
    return f"the endpoint answered {status}, expected {expected}"


def _delay(definition: Definition) -> str:
    minutes = definition.max_delay
    return "1 minute" if minutes == 1 else f"{minutes:,} minutes"
