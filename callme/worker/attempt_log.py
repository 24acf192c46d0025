"""The log's lines on attempts: every failure, and of many successes at once only some."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field
from twisted.logger import Logger

from ..core.task import Claim, Transition
from ..core.times import Key, rfc3339
from ..errors import quoted

log = Logger(namespace="callme")

SUCCESSES_PER_SECOND = 100
"""Successes that have a line each; a line costs a sixth of what a whole call does, and
thousands of them tell nobody more than their number: each stands in its task's record."""


@define(eq=False)
class AttemptLog:
    """Writes a line on how an attempt ended.

    :param now: the wall clock: seconds since 1970.
    """

    _now: Callable[[], float]
    _second: int = field(default=0, init=False)
    _written: int = field(default=0, init=False)
    _left_out: int = field(default=0, init=False)

    def ended(self, claim: Claim, transition: Transition) -> None:
        """Write that an attempt ended, and what becomes of its task."""
        attempt = transition.attempt
        assert attempt is not None
        if attempt.reason is None:
            self._succeeded(claim, attempt.status)
            return
        then = "the task failed"
        if transition.due_at is not None:
            then = f"next attempt {rfc3339(transition.due_at * 1000)}"
        log.warn(
            "{task} attempt {number} failed: {reason} ({detail}); {then}",
            task=quoted(str(claim.definition.key)),
            number=attempt.number,
            reason=attempt.reason.value,
            detail=quoted(attempt.detail, 300),
            then=then,
        )

    def failed_without_call(self, key: Key, transition: Transition) -> None:
        """Write that a task failed for which no request was made."""
        assert transition.reason is not None
        log.warn(
            "{task} failed: {reason} ({detail})",
            task=quoted(str(key)),
            reason=transition.reason.value,
            detail=quoted(transition.detail, 300),
        )

    def _succeeded(self, claim: Claim, status: int | None) -> None:
        if (second := int(self._now())) != self._second:
            self.flush()
            self._second = second
        if self._written == SUCCESSES_PER_SECOND:
            self._left_out += 1
            return
        self._written += 1
        log.info(
            "{task} attempt {number} succeeded: {status}",
            task=quoted(str(claim.definition.key)),
            number=claim.number,
            status=status,
        )

    def flush(self) -> None:
        """Write how many successes were left out, if any were."""
        if self._left_out:
            log.info("{count} more attempts succeeded in that second", count=self._left_out)
        self._written = self._left_out = 0
