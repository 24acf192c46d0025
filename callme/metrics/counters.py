"""The counters: events of this daemon since its start."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

from ..core.task import Attempt, Claim, Reason, State
from ..store.changes import Observer

LATENESS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
"""Buckets in seconds, from the lateness at an idle daemon to the default ``max_delay``."""
DURATION = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
"""Buckets in seconds, up to the longest ``timeout`` of a task."""
OPERATIONS = (1, 2, 5, 10, 20, 50, 100, 200, 500)
"""Buckets in operations, up to the largest number in one transaction."""


class Counters(Observer):
    """The counters of one daemon, on a registry of its own.

    All label values exist from the start, at 0: Prometheus sees no increase in a series that
    appears with its first event.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        attempts = Counter(
            "callme_attempts",
            "Attempts that have ended, by outcome.",
            ["outcome"],
            registry=registry,
        )
        self._attempt_succeeded = attempts.labels("succeeded")
        self._attempts_failed: dict[Reason, Counter] = {
            reason: attempts.labels(reason.value) for reason in Reason
        }
        finished = Counter(
            "callme_tasks_finished",
            "Tasks that have ended, by final state and reason.",
            ["state", "reason"],
            registry=registry,
        )
        self._task_succeeded = finished.labels(State.SUCCEEDED.value, "")
        self._tasks_failed = {
            reason: finished.labels(State.FAILED.value, reason.value) for reason in Reason
        }
        self._lateness = Histogram(
            "callme_attempt_lateness_seconds",
            "Delay from trigger_at to the start of the first attempt of a task.",
            buckets=LATENESS,
            registry=registry,
        )
        self._duration = Histogram(
            "callme_attempt_duration_seconds",
            "Duration of attempts.",
            buckets=DURATION,
            registry=registry,
        )
        self._lost = Counter(
            "callme_claims_lost",
            "Results of attempts that were discarded because their claim was lost.",
            registry=registry,
        )
        self._commits = Counter("callme_commits", "Committed transactions.", registry=registry)
        self._operations = Histogram(
            "callme_commit_operations",
            "Operations in each transaction.",
            buckets=OPERATIONS,
            registry=registry,
        )

    def attempt_ended(self, claim: Claim, attempt: Attempt) -> None:
        # No lookup for a success, the usual case: it would cost more than the rest of this.
        if attempt.reason is None:
            self._attempt_succeeded.inc()
        else:
            self._attempts_failed[attempt.reason].inc()
        if attempt.duration_ms is None:
            # The attempt of a daemon that has died: its duration is unknown.
            return
        self._duration.observe(attempt.duration_ms / 1000)
        if claim.attempts_used == 1:
            # The lateness of a retry follows from retry_delay.
            self._lateness.observe(attempt.lateness_ms / 1000)

    def task_finished(self, state: State, reason: Reason | None) -> None:
        (self._task_succeeded if reason is None else self._tasks_failed[reason]).inc()

    def claim_lost(self) -> None:
        self._lost.inc()

    def committed(self, operations: int) -> None:
        self._commits.inc()
        self._operations.observe(operations)
