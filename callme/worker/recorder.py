"""The recorder, which stores the results of claims, and retries each write until it succeeds."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from attrs import define, evolve, field
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..core import transitions
from ..core.task import Claim, Outcome, Transition
from ..core.times import quoted_key
from ..store import queue
from ..store.database import Store
from ..store.interface import StoreUnavailable, log_store_failure
from .attempt_log import AttemptLog

log = Logger(namespace="callme")

RETRY_SECONDS = 2.0
"""Seconds after which a failed write is retried."""


def claim_id(claim: Claim) -> tuple[int, int]:
    """Return the task and the attempt of a claim.

    The task alone is ambiguous: the call of a lost claim may outlast the next claim of the task.
    """
    return claim.task_id, claim.number


@define(eq=False, kw_only=True)
class Recorder:
    """Recorder of results, with the claims whose results are not stored yet.

    :param clock: schedules retries of writes.
    :param now: returns the wall-clock time: seconds since 1970.
    :param attempt_log: logs each attempt that ends.
    :param on_released: called when a result is stored, or turns out to belong to a lost claim.
    """

    _store: Store
    _clock: IReactorTime
    _now: Callable[[], float]
    _attempt_log: AttemptLog
    _on_released: Callable[[], None]
    _unrecorded: dict[tuple[int, int], Claim] = field(factory=dict, init=False)

    @property
    def has_unrecorded(self) -> bool:
        """Return whether there are claims without a stored result."""
        return bool(self._unrecorded)

    def add(self, claim: Claim) -> None:
        """Register a claim whose result follows."""
        self._unrecorded[claim_id(claim)] = claim

    def recover_orphans(self, claims: Iterable[Claim]) -> None:
        """Record orphaned claims as interrupted.

        Claims that still wait for their result here are skipped: only their lease has ended.
        """
        for claim in claims:
            if claim_id(claim) not in self._unrecorded:
                self.add(claim)
                self.record_attempt(claim, transitions.interrupted(claim))

    def record_attempt(self, claim: Claim, outcome: Outcome) -> None:
        """Log the outcome of an attempt, and store the resulting transition."""
        transition = transitions.decide_after_attempt(claim, outcome, self._now())
        self._attempt_log.ended(claim, transition)
        self.record(claim, transition)

    def record(self, claim: Claim, transition: Transition) -> None:
        """Store a transition; retry the write until it succeeds."""

        def stored(is_ours: bool) -> None:
            self._release(claim)
            if not is_ours:
                # Another daemon makes the call, so that a call that was not made is no loss.
                was_made = transition.attempt is not None
                (log.error if was_made else log.info)(
                    "{task} attempt {number} {ended}, but its claim was lost: not stored",
                    task=quoted_key(claim.definition.key),
                    number=claim.number,
                    ended="ended" if was_made else "was not made",
                )

        def failed(failure: Failure) -> None:
            following = transition
            event = f"recording an attempt of {quoted_key(claim.definition.key)} failed"
            log_store_failure(log, event, failure, is_retried=True)
            if not failure.check(StoreUnavailable):
                following = _without_response_data(transition)
            self._clock.callLater(RETRY_SECONDS, self.record, claim, following)

        recording = self._store.write(queue.record, claim, transition, self._now())
        recording.addCallbacks(stored, failed)
        recording.addErrback(lambda failure: log.failure("storing a result failed", failure))

    def _release(self, claim: Claim) -> None:
        if self._unrecorded.get(claim_id(claim)) is claim:
            del self._unrecorded[claim_id(claim)]
        self._on_released()


def _without_response_data(transition: Transition) -> Transition:
    """Return a transition without the data of the response, which the database may reject."""
    if transition.attempt is None:
        return transition
    detail = "the response could not be recorded"
    return evolve(
        transition, attempt=evolve(transition.attempt, status=None, detail=detail, body="")
    )
