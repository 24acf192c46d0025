"""The caller as the rest of callme sees it."""

from __future__ import annotations

from typing import Protocol

from twisted.internet.defer import Deferred

from ..core.task import Claim, Outcome


class Caller(Protocol):
    """What makes the calls."""

    def call(self, claim: Claim) -> Deferred[Outcome]:
        """Make one call within its task's ``timeout``; never fails.

        Cancelling it drops the connection; the outcome then means nothing.
        """

    def close(self) -> Deferred[None]:
        """Close the connections that are kept for further calls."""
