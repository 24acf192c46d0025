from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from callme.core.task import Claim, Outcome, Reason, State, new_task
from callme.core.transitions import (
    MoveDecision,
    PutCondition,
    PutOutcome,
    caller_failed,
    decide_after_attempt,
    decide_move,
    decide_put,
    interrupted,
    is_too_late,
    next_attempt_at,
    too_late,
    unreadable,
)
from tests.helpers.tasks import NOON, definition


def claim(used: int = 1, number: int | None = None, **more: Any) -> Claim:
    return Claim(
        task_id=1,
        number=number or used,
        definition=definition(**{"max_delay": 10, **more}),
        attempts_used=used,
        claimed_at_ms=NOON * 1000 + 20,
        host="sink.example:80",
    )


def answered(status: int, **more: Any) -> Outcome:
    return Outcome(started_at_ms=NOON * 1000 + 25, duration_ms=7, status=status, **more)


def test_expected_status_succeeds_and_is_recorded() -> None:
    transition = decide_after_attempt(claim(number=4), answered(200, body="ok"), NOON + 1)
    assert (transition.state, transition.reason, transition.due_at) == (State.SUCCEEDED, None, None)
    assert transition.attempt is not None
    assert (
        transition.attempt.number,
        transition.attempt.lateness_ms,
        transition.attempt.duration_ms,
        transition.attempt.status,
        transition.attempt.reason,
        transition.attempt.body,
    ) == (4, 25, 7, 200, None, "ok")


def test_failed_attempt_is_retried_after_retry_delay() -> None:
    transition = decide_after_attempt(claim(), answered(500), NOON + 1)
    assert (transition.state, transition.due_at) == (State.SCHEDULED, NOON + 60)
    assert transition.attempt is not None
    assert Reason.UNEXPECTED_STATUS is transition.attempt.reason
    assert transition.attempt.detail == "the endpoint responded with 500, expected 200"


@pytest.mark.parametrize(
    ("used", "due_at"), [(1, 0), (9, 0), (10, 31), (11, 32), (12, 33), (69, 90), (500, 90)]
)
def test_attempts_without_delay_wait_after_the_tenth(used: int, due_at: int) -> None:
    made = claim(used, retry=1000, retry_delay=[0])
    transition = decide_after_attempt(made, answered(500), NOON + 29.5)
    assert transition.due_at == NOON + due_at


def test_stale_connection_does_not_wait_after_the_tenth_attempt() -> None:
    stale = Outcome(
        started_at_ms=NOON * 1000, reason=Reason.CONNECTION_FAILED, stale_connection=True
    )
    made = claim(50, retry=1000, retry_delay=[0])
    assert decide_after_attempt(made, stale, NOON + 29.5).due_at == NOON


def test_redirect_is_not_followed() -> None:
    assert (
        State.SUCCEEDED
        is decide_after_attempt(claim(expected_http_status=302), answered(302), NOON).state
    )
    assert State.SCHEDULED is decide_after_attempt(claim(), answered(302), NOON).state


@pytest.mark.parametrize(
    ("retry", "used", "detail"),
    [(0, 1, "; the only attempt is used"), (2, 3, "; all 3 attempts are used")],
)
def test_last_failed_attempt_fails_the_task(retry: int, used: int, detail: str) -> None:
    transition = decide_after_attempt(claim(used, retry=retry), answered(500), NOON + 1)
    assert (transition.state, transition.reason) == (State.FAILED, Reason.UNEXPECTED_STATUS)
    assert transition.detail.endswith(detail)


@pytest.mark.parametrize(
    ("statuses", "status", "state"),
    [
        ([410], 410, State.FAILED),
        (["4xx"], 404, State.FAILED),
        ([410], 500, State.SCHEDULED),
        ("2xx", 200, State.SUCCEEDED),
        ("2xx", 204, State.FAILED),
    ],
)
def test_status_that_forbids_a_retry_fails_the_task(
    statuses: Any, status: int, state: State
) -> None:
    made = claim(retry=3, no_retry_http_status=statuses)
    transition = decide_after_attempt(made, answered(status), NOON + 1)
    assert state is transition.state
    if state is State.FAILED:
        assert transition.reason is Reason.UNEXPECTED_STATUS
        assert "no_retry_http_status" in transition.detail


def test_failure_without_a_status_is_retried_despite_no_retry_http_status() -> None:
    made = claim(no_retry_http_status=["2xx", "3xx", "4xx", "5xx"])
    outcome = Outcome(started_at_ms=NOON * 1000, reason=Reason.TIMEOUT)
    assert decide_after_attempt(made, outcome, NOON + 1).state is State.SCHEDULED


def test_retry_past_max_delay_is_not_scheduled() -> None:
    transition = decide_after_attempt(claim(retry=5, max_delay=2), answered(500), NOON + 30)
    assert (transition.state, transition.reason) == (State.FAILED, Reason.UNEXPECTED_STATUS)
    assert transition.detail.endswith("; the next attempt would be 2 minutes late or more")
    assert (
        State.SCHEDULED
        is decide_after_attempt(claim(retry=5, max_delay=2), answered(500), NOON + 29.9).state
    )


def test_forbidden_address_is_not_retried() -> None:
    outcome = Outcome(started_at_ms=NOON * 1000, reason=Reason.FORBIDDEN_ADDRESS, detail="no")
    transition = decide_after_attempt(claim(retry=5), outcome, NOON + 1)
    assert (
        transition.state,
        transition.reason,
        transition.detail,
    ) == (State.FAILED, Reason.FORBIDDEN_ADDRESS, "no")


@pytest.mark.parametrize(
    ("delays", "used", "minutes"),
    [(3, 1, 3), (3, 5, 3), ([1, 2, 7], 1, 1), ([1, 2, 7], 2, 2), ([1, 2, 7], 9, 7), (0, 1, 0)],
)
def test_last_retry_delay_repeats(delays: Any, used: int, minutes: int) -> None:
    made = claim(used, retry=20, retry_delay=delays)
    assert NOON + 60 * minutes == next_attempt_at(made, answered(500), NOON + 29)


@pytest.mark.parametrize(
    ("delay", "ended", "expected"),
    [
        (1, 0, 60),
        (1, 29.999, 60),
        (1, 30, 120),
        (1, 58.5, 120),
        (2, 29.999, 120),
        (2, 30, 180),
        (0, 0.5, 0),
        (0, 59.999, 0),
    ],
)
def test_next_attempt_is_made_at_the_nearest_minute(
    delay: int, ended: float, expected: int
) -> None:
    made = claim(retry=5, retry_delay=delay)
    assert NOON + expected == next_attempt_at(made, answered(500), NOON + ended)


@given(st.integers(1, 100), st.floats(0, 600))
def test_time_between_attempts_is_within_half_a_minute_of_retry_delay(
    delay: int, ended: float
) -> None:
    made = claim(retry=5, retry_delay=delay)
    between = next_attempt_at(made, answered(500), NOON + ended) - (NOON + ended)
    assert abs(between - 60 * delay) <= 30.001


def test_attempt_after_a_stale_connection_follows_at_once() -> None:
    stale = Outcome(
        started_at_ms=NOON * 1000,
        reason=Reason.CONNECTION_FAILED,
        detail="no",
        stale_connection=True,
    )
    transition = decide_after_attempt(claim(retry_delay=5), stale, NOON + 59.9)
    assert (transition.state, transition.due_at) == (State.SCHEDULED, NOON)
    assert transition.attempt is not None
    assert Reason.CONNECTION_FAILED is transition.attempt.reason
    last = decide_after_attempt(claim(2, retry=1), stale, NOON + 59.9)
    assert (last.state, last.reason) == (State.FAILED, Reason.CONNECTION_FAILED)


@pytest.mark.parametrize(
    ("retry_after", "expected"),
    [
        (NOON + 30, NOON + 60),
        (NOON + 121, NOON + 180),
        (NOON - 5000, NOON + 60),
        (NOON + 10**9, NOON + 540),
        (10**30, NOON + 540),
    ],
)
def test_retry_after_postpones_the_retry_within_max_delay(retry_after: int, expected: int) -> None:
    outcome = answered(503, retry_after=retry_after)
    assert expected == next_attempt_at(claim(), outcome, NOON + 1)


def test_interrupted_attempt_is_retried_at_once() -> None:
    transition = decide_after_attempt(claim(retry_delay=5), interrupted(claim()), NOON + 90)
    assert (transition.state, transition.due_at) == (State.SCHEDULED, NOON + 60)
    assert transition.attempt is not None
    assert (
        transition.attempt.reason,
        transition.attempt.lateness_ms,
        transition.attempt.duration_ms,
    ) == (Reason.INTERRUPTED, 20, None)


@pytest.mark.parametrize(("used", "now"), [(2, NOON + 90), (1, NOON + 600)])
def test_interrupted_task_without_budget_or_time_fails(used: int, now: int) -> None:
    transition = decide_after_attempt(claim(used), interrupted(claim(used)), now)
    assert (transition.state, transition.reason) == (State.FAILED, Reason.INTERRUPTED)
    assert "unknown" in transition.detail


def test_max_delay_is_checked_in_seconds() -> None:
    made = definition(max_delay=10)
    assert not is_too_late(made, NOON + 599.999)
    assert is_too_late(made, NOON + 600)
    transition = too_late(made)
    assert (transition.state, transition.reason, transition.attempt) == (
        State.FAILED,
        Reason.TOO_LATE,
        None,
    )
    assert (
        transition.detail
        == "no request could start before 2027-01-15T12:10:00.000Z, 10 minutes after trigger_at"
    )
    assert "1 minute after" in too_late(definition(max_delay=1)).detail


@given(
    retry=st.integers(0, 5),
    used=st.integers(1, 6),
    delays=st.lists(st.integers(0, 20), min_size=1, max_size=4),
    max_delay=st.integers(1, 20),
    now=st.integers(0, 1500),
    status=st.none() | st.sampled_from([200, 301, 404, 500, 503]),
    retry_after=st.none() | st.integers(-100, 3000),
)
def test_attempts_stay_within_budget_and_max_delay(
    retry: int,
    used: int,
    delays: list[int],
    max_delay: int,
    now: int,
    status: int | None,
    retry_after: int | None,
) -> None:
    """No attempt exceeds the budget or max_delay, and every failure has a reason."""
    made = claim(min(used, 1 + retry), retry=retry, retry_delay=delays, max_delay=max_delay)
    reason = None if status else Reason.TIMEOUT
    asked = None if retry_after is None else NOON + retry_after
    outcome = Outcome(
        started_at_ms=NOON * 1000, duration_ms=5, status=status, reason=reason, retry_after=asked
    )
    transition = decide_after_attempt(made, outcome, NOON + now)
    assert transition.attempt is not None
    if status == 200:
        assert State.SUCCEEDED is transition.state
    elif transition.state is State.SCHEDULED:
        assert transition.due_at is not None
        assert made.attempts_used < 1 + retry
        assert transition.due_at < made.definition.expires_at
        assert transition.due_at % 60 == 0
        if delays[0] or asked:
            assert transition.due_at > NOON + now - 60
    else:
        assert State.FAILED is transition.state
        assert transition.reason is not None
        assert transition.detail


ANY, EXISTING, ABSENT = PutCondition.NONE, PutCondition.MUST_EXIST, PutCondition.MUST_NOT_EXIST


@pytest.mark.parametrize(
    ("condition", "now", "outcome"),
    [
        (ANY, NOON + 599.9, PutOutcome.CREATED),
        (ANY, NOON + 600, PutOutcome.NEVER_RUNS),
        (ABSENT, NOON, PutOutcome.CREATED),
        (EXISTING, NOON, PutOutcome.MISSING),
    ],
)
def test_put_of_a_free_key(condition: PutCondition, now: float, outcome: PutOutcome) -> None:
    assert outcome is decide_put(None, definition(max_delay=10), condition, now)


@pytest.mark.parametrize(
    ("condition", "retry", "state", "now", "outcome"),
    [
        (ANY, 1, State.SCHEDULED, NOON, PutOutcome.UNCHANGED),
        (ANY, 1, State.RUNNING, NOON, PutOutcome.UNCHANGED),
        (ANY, 2, State.SCHEDULED, NOON, PutOutcome.CONFLICT),
        (ANY, 2, State.RUNNING, NOON, PutOutcome.NOT_SCHEDULED),
        (EXISTING, 1, State.SCHEDULED, NOON, PutOutcome.UNCHANGED),
        (EXISTING, 2, State.SCHEDULED, NOON + 599.9, PutOutcome.REPLACED),
        (EXISTING, 2, State.SCHEDULED, NOON + 600, PutOutcome.NEVER_RUNS),
        (EXISTING, 2, State.FAILED, NOON, PutOutcome.NOT_SCHEDULED),
        (ABSENT, 1, State.SCHEDULED, NOON, PutOutcome.EXISTS),
        (ABSENT, 2, State.SUCCEEDED, NOON, PutOutcome.EXISTS),
    ],
)
def test_put_on_a_task(
    condition: PutCondition, retry: int, state: State, now: float, outcome: PutOutcome
) -> None:
    existing = evolve(new_task(definition(max_delay=10), NOON - 60), state=state)
    assert outcome is decide_put(existing, definition(max_delay=10, retry=retry), condition, now)


def test_put_on_a_task_that_cannot_be_read_is_a_conflict_even_if_it_seems_equal() -> None:
    existing = evolve(new_task(definition(), NOON), damaged=("headers",))
    assert existing.is_corrupt
    assert PutOutcome.CONFLICT is decide_put(existing, definition(), ANY, NOON)


@pytest.mark.parametrize(
    ("state", "include_all_states", "now", "decision"),
    [
        (State.FAILED, False, NOON + 599.9, MoveDecision.MOVE),
        (State.FAILED, True, NOON + 599.9, MoveDecision.MOVE),
        (State.FAILED, False, NOON + 600, MoveDecision.TOO_LATE),
        (State.SCHEDULED, False, NOON, MoveDecision.NOT_FAILED),
        (State.SCHEDULED, True, NOON, MoveDecision.MOVE),
        (State.SUCCEEDED, True, NOON, MoveDecision.MOVE),
        (State.RUNNING, False, NOON, MoveDecision.RUNNING),
        (State.RUNNING, True, NOON, MoveDecision.RUNNING),
    ],
)
def test_reschedule_of_a_task(
    state: State, include_all_states: bool, now: float, decision: MoveDecision
) -> None:
    assert decision is decide_move(state, NOON + 600, now, include_all_states=include_all_states)


def test_attempt_that_an_error_in_callme_ended_is_repeated_in_the_next_minute() -> None:
    outcome = caller_failed(claim(), NOON + 59.9)
    assert (outcome.reason, outcome.started_at_ms) == (Reason.INTERRUPTED, NOON * 1000 + 20)
    assert "an error in callme" in outcome.detail
    transition = decide_after_attempt(claim(retry_delay=0), outcome, NOON + 59.9)
    assert (transition.state, transition.due_at) == (State.SCHEDULED, NOON + 60)


def test_task_that_cannot_be_read_fails_without_an_attempt() -> None:
    transition = unreadable("headers: no JSON")
    assert (transition.state, transition.reason, transition.attempt) == (
        State.FAILED,
        Reason.CONNECTION_FAILED,
        None,
    )
    assert transition.detail == "no request was made: headers: no JSON"


def test_task_that_expired_during_a_pause_says_so() -> None:
    assert "paused" not in too_late(definition()).detail
    assert too_late(definition(), was_paused=True).detail.endswith(
        "; calls to the host were paused"
    )


@pytest.mark.parametrize(
    ("status", "has_hint"), [(199, False), (204, True), (299, True), (300, False)]
)
def test_unexpected_success_has_a_hint(status: int, has_hint: bool) -> None:
    transition = decide_after_attempt(claim(), answered(status), NOON)
    assert transition.attempt is not None
    assert ("accepts any success" in transition.attempt.detail) is has_hint
