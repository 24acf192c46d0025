"""Prometheus counters and histograms of this daemon since its start."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

from ..core.task import Reason, State
from ..server.refusals import Refusal
from ..store.changes import Changes, TaskTransition

LATENESS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
"""Buckets in seconds, from the lateness of an idle daemon to the default ``max_delay``."""
DURATION = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
"""Buckets in seconds, up to the maximum ``timeout`` of a task."""
OPERATIONS = (1, 2, 5, 10, 20, 50, 100, 200, 500)
"""Buckets in operations, up to the maximum of one transaction."""


class Counters:
    """Counters of one daemon, in a registry of its own.

    All label values exist from the start with the value 0: Prometheus would not detect the increase
    of a series that appears with its first event.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        attempts = Counter(
            "callme_attempts", "Attempts that ended.", ["outcome"], registry=registry
        )
        self._attempt_succeeded = attempts.labels("succeeded")
        self._attempts_failed: dict[Reason, Counter] = {
            one: attempts.labels(one.value) for one in Reason
        }
        finished = Counter(
            "callme_tasks_finished", "Tasks that ended.", ["state", "reason"], registry=registry
        )
        self._task_succeeded = finished.labels(State.SUCCEEDED.value, "")
        self._tasks_failed = {
            reason: finished.labels(State.FAILED.value, reason.value) for reason in Reason
        }
        self._lateness = Histogram(
            "callme_attempt_lateness_seconds",
            "Time from trigger_at to the start of the first attempt of a task.",
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
            "Results of attempts that were not stored because the claim was lost.",
            registry=registry,
        )
        refused = Counter(
            "callme_refused_requests",
            "Requests that were refused before any other work.",
            ["reason"],
            registry=registry,
        )
        self._refused = {reason: refused.labels(reason.value) for reason in Refusal}
        self._commits = Counter(
            "callme_commits", "Transactions that were committed.", registry=registry
        )
        self._operations = Histogram(
            "callme_commit_operations",
            "Operations that shared a transaction.",
            buckets=OPERATIONS,
            registry=registry,
        )

    def request_refused(self, reason: Refusal) -> None:
        """Count a refused request."""
        self._refused[reason].inc()

    def on_changes(self, changes: Changes) -> None:
        """Count the changes of a commit."""
        if changes.operations:
            self._commits.inc()
            self._operations.observe(changes.operations)
        for one in changes.transitions:
            self._count_attempt(one)
            self._count_end(one)
        for one in changes.lost:
            self._count_attempt(one)
            self._lost.inc()

    def _count_attempt(self, one: TaskTransition) -> None:
        attempt = one.transition.attempt
        if attempt is None:
            return
        # A success, the usual case, avoids a lookup that would cost more than the rest of this
        # method.
        if attempt.reason is None:
            self._attempt_succeeded.inc()
        else:
            self._attempts_failed[attempt.reason].inc()
        if attempt.duration_ms is None:
            # The daemon died during the attempt, so its duration is unknown.
            return
        self._duration.observe(attempt.duration_ms / 1000)
        if one.attempts_used == 1:
            # Retries are excluded, because retry_delay determines their lateness.
            self._lateness.observe(attempt.lateness_ms / 1000)

    def _count_end(self, one: TaskTransition) -> None:
        state, reason = one.transition.state, one.transition.reason
        if state is State.SUCCEEDED:
            self._task_succeeded.inc()
        elif state is State.FAILED and reason is not None:
            self._tasks_failed[reason].inc()
