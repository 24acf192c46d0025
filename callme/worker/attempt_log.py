"""The log of attempts: a limited number of lines per second, followed by a count."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field
from twisted.logger import Logger

from ..core.task import Claim, Transition
from ..core.times import Key, quoted_key, rfc3339
from ..errors import quoted
from ..process.log_limit import LogLimit

log = Logger(namespace="callme")


def _log_omitted(count: int, verb: str) -> None:
    log.info("{count} more attempts {verb} in that second", count=count, verb=verb)


@define(eq=False)
class AttemptLog:
    """Log of ended attempts.

    :param now: returns the wall-clock time: seconds since 1970.
    """

    _now: Callable[[], float]
    _limit: LogLimit[str] = field(init=False)

    def __attrs_post_init__(self) -> None:
        # The log is limited because a line costs a sixth of a whole call, and each attempt is also
        # stored with its task.
        self._limit = LogLimit(self._now, _log_omitted)

    def ended(self, claim: Claim, transition: Transition) -> None:
        """Log the end of an attempt, and the next step of its task."""
        attempt = transition.attempt
        assert attempt is not None
        if attempt.reason is None:
            if self._limit.has_line("succeeded"):
                log.info(
                    "{task} attempt {number} succeeded: {status}",
                    task=quoted_key(claim.definition.key),
                    number=claim.number,
                    status=attempt.status,
                )
            return
        if not self._limit.has_line("failed"):
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

    def given_up(self, claim: Claim) -> None:
        """Log that an attempt is not made, as another daemon may make it."""
        if self._limit.has_line("were returned"):
            log.warn(
                "{task} attempt {number} is returned without a request: the heartbeats of this "
                "daemon had a gap, and another daemon may make the call",
                task=quoted_key(claim.definition.key),
                number=claim.number,
            )

    def failed_without_call(self, key: Key, transition: Transition) -> None:
        """Log the failure of a task for which no request was made."""
        if self._limit.has_line("failed"):
            assert transition.reason is not None
            log.warn(
                "{task} failed: {reason} ({detail})",
                task=quoted_key(key),
                reason=transition.reason.value,
                detail=quoted(transition.detail, 300),
            )

    def flush(self) -> None:
        """Log the number of attempts without a line."""
        self._limit.flush()
