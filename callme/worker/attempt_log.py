"""Log lines on attempts: a limited number in each second, and then only a count."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field
from twisted.logger import Logger

from ..core.task import Claim, Transition
from ..core.times import Key, quoted_key, rfc3339
from ..errors import quoted

log = Logger(namespace="callme")

LINES_PER_SECOND = 100
"""Maximum number of lines on successes in a second, and of lines on failures.

A line costs a sixth of a whole call, and each attempt is in the record of its task anyway.
"""


@define(eq=False)
class AttemptLog:
    """The log of ended attempts.

    :param now: the wall clock, seconds since 1970.
    """

    _now: Callable[[], float]
    _second: int = field(default=0, init=False)
    # Attempts in the current second, by verb.
    _attempts: dict[str, int] = field(factory=dict, init=False)

    def ended(self, claim: Claim, transition: Transition) -> None:
        """Log the end of an attempt, and the next step of its task."""
        attempt = transition.attempt
        assert attempt is not None
        if attempt.reason is None:
            if self._has_line("succeeded"):
                log.info(
                    "{task} attempt {number} succeeded: {status}",
                    task=quoted_key(claim.definition.key),
                    number=claim.number,
                    status=attempt.status,
                )
            return
        if not self._has_line("failed"):
            return
        then = "the task failed"
        if transition.due_at is not None:
            then = f"next attempt {rfc3339(transition.due_at * 1000)}"
        log.warn(
            "{task} attempt {number} failed: {reason} ({detail}); {then}",
            task=quoted_key(claim.definition.key),
            number=attempt.number,
            reason=attempt.reason.value,
            detail=quoted(attempt.detail, 300),
            then=then,
        )

    def failed_without_call(self, key: Key, transition: Transition) -> None:
        """Log the failure of a task for which no request was made."""
        if self._has_line("failed"):
            assert transition.reason is not None
            log.warn(
                "{task} failed: {reason} ({detail})",
                task=quoted_key(key),
                reason=transition.reason.value,
                detail=quoted(transition.detail, 300),
            )

    def _has_line(self, verb: str) -> bool:
        """Count an attempt; return whether it gets a line."""
        if (second := int(self._now())) != self._second:
            self.flush()
            self._second = second
        self._attempts[verb] = count = self._attempts.get(verb, 0) + 1
        return count <= LINES_PER_SECOND

    def flush(self) -> None:
        """Log the number of attempts that got no line."""
        for verb, count in self._attempts.items():
            if count > LINES_PER_SECOND:
                omitted = count - LINES_PER_SECOND
                log.info("{count} more attempts {verb} in that second", count=omitted, verb=verb)
        self._attempts.clear()
