"""A caller that makes no requests: the test decides the outcome of each call."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field
from twisted.internet.defer import Deferred, succeed

from callme.core.task import Claim, ClaimLost, Outcome
from callme.core.times import Key


@define
class FakeCaller:
    """A caller whose calls end as the test decides.

    :ivar calls: all calls, each with its time.
    :ivar pending: the calls in flight by key.
    :ivar connecting: the checks, by key, that come before the requests of these.
    :ivar status: the status of every response, which is immediate; ``None`` leaves calls pending.
    :ivar failing: a function that replaces the call, in order to misbehave.
    :ivar cancelled_outcome: the outcome of a call that is cancelled; ``None`` fails it.
    """

    now: Callable[[], float]
    status: int | None = 200
    failing: Callable[[Claim], Deferred[Outcome]] | None = None
    calls: list[tuple[float, Claim]] = field(factory=list)
    pending: dict[Key, Deferred[Outcome]] = field(factory=dict)
    cancelled_outcome: Outcome | None = None
    connecting: dict[Key, Callable[[], bool]] = field(factory=dict)
    cancelled: list[Key] = field(factory=list)

    def call(
        self,
        claim: Claim,
        has_more: Callable[[str], bool] = lambda host: False,
        keeps_claim: Callable[[], bool] = lambda: True,
    ) -> Deferred[Outcome]:
        self.calls.append((self.now(), claim))
        if self.failing is not None:
            return self.failing(claim)
        outcome = Outcome(started_at_ms=int(self.now() * 1000), duration_ms=5, status=self.status)
        if self.status is not None:
            return succeed(outcome)
        key = claim.definition.key
        ending: Deferred[Outcome] = Deferred(lambda cancelled: self._cancel(key, cancelled))
        self.pending[key] = ending
        self.connecting[key] = keeps_claim
        return ending

    def _cancel(self, key: Key, cancelled: Deferred[Outcome]) -> None:
        self.cancelled.append(key)
        if self.cancelled_outcome is not None:
            cancelled.callback(self.cancelled_outcome)

    def connect(self, key: Key) -> bool:
        """Connect a pending call, and return whether its request is sent."""
        if self.connecting.pop(key)():
            return True
        self.pending.pop(key).errback(ClaimLost())
        return False

    def end(self, key: Key, status: int) -> None:
        """End a pending call with a response of this status."""
        outcome = Outcome(started_at_ms=int(self.now() * 1000), duration_ms=5, status=status)
        self.pending.pop(key).callback(outcome)

    def close(self) -> Deferred[None]:
        return succeed(None)

    @property
    def called(self) -> list[str]:
        """The key of each call, in order."""
        return [str(claim.definition.key) for _, claim in self.calls]
