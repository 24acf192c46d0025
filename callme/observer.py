"""What whoever counts is told while the daemon works; how it counts is its own affair."""

from __future__ import annotations

from .core.task import Attempt, Claim, Reason, State


class Observer:
    """Is told what happens, and does nothing about it: what counts is made of this.

    Every method is called on the reactor's thread, once for each thing that happened, and must
    return at once.
    """

    def attempt_ended(self, claim: Claim, attempt: Attempt) -> None:
        """Hear that an attempt ended, or that one was found which nobody saw the end of."""

    def task_finished(self, state: State, reason: Reason | None) -> None:
        """Hear that a task ended, and that this is on record."""

    def claim_lost(self) -> None:
        """Hear that the result of an attempt was not stored, as its claim was no longer held."""

    def committed(self, operations: int) -> None:
        """Hear that a transaction with so many operations was committed."""
