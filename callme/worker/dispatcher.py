"""From due to done: claim what there is room for, call it, record what came of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from attrs import define, evolve, field
from twisted.internet import defer
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..core import transitions
from ..core.task import Claim, Outcome, State, Transition
from ..core.times import floor_to_minute, quoted_key
from ..errors import quoted
from ..store import queue
from ..store.changes import Changes
from ..store.database import Store
from ..store.interface import StoreUnavailable
from .attempt_log import AttemptLog
from .fair_share import allocate_slots
from .throughput import Capacity, ThroughputMeter


class Caller(Protocol):
    """What makes the calls."""

    def call(self, claim: Claim, has_more: Callable[[str], bool]) -> Deferred[Outcome]:
        """Make one call within its task's ``timeout``; never fails.

        Cancelling it drops the connection; the outcome then means nothing.

        :param has_more: returns whether more calls to a host wait for a slot: where none
            does, a connection need not be kept.
        """

    def close(self) -> Deferred[None]:
        """Close the connections that are kept for further calls."""


log = Logger(namespace="callme")

MAX_TRACKED_HOSTS = 10_000
"""Hosts of which is kept that they answered when last called."""
RETRY_SECONDS = 2.0
"""How soon something is tried again that the database did not take."""


@define(eq=False)
class Dispatcher:
    """Keeps as many calls under way as there is room for and tasks are due.

    :param now: the wall clock: seconds since 1970.
    :param clock: what sets timers.
    :param concurrency: calls under way at once.
    :param per_host: ... of them to one host and port.
    :param claim_failed: told when the database gave no claims; must see to it that
        :meth:`notify_due` is called again.
    """

    _store: Store
    _caller: Caller
    _clock: IReactorTime
    _now: Callable[[], float]
    _concurrency: int
    _per_host: int
    _claim_failed: Callable[[Failure], None]
    _log: AttemptLog = field(init=False)
    _pace: ThroughputMeter = field(init=False)
    _open: bool = field(default=False, init=False)
    _closed: bool = field(default=False, init=False)
    # Hosts of the claim in progress, and how many tasks it may take of each.
    _claiming: Mapping[str, int] | None = field(default=None, init=False)
    _cutting_off: bool = field(default=False, init=False)
    # Hosts that may have tasks due, the longest unserved first.
    _waiting: dict[str, None] = field(factory=dict, init=False)
    # Hosts that have answered since the last tick.
    _responsive: set[str] = field(factory=set, init=False)
    # Hosts that answered when last called, the longest uncalled first.
    _recently_responsive: dict[str, None] = field(factory=dict, init=False)
    _in_flight: dict[str, int] = field(factory=dict, init=False)
    # By task and number: of a claim that was lost the call may outlast the next claim.
    _calls: dict[tuple[int, int], Deferred[Outcome]] = field(factory=dict, init=False)
    # Claims whose end is not yet on record.
    _unrecorded: dict[tuple[int, int], Claim] = field(factory=dict, init=False)
    _drained: list[Deferred[None]] = field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        self._log = AttemptLog(self._now)
        self._pace = ThroughputMeter(self._clock.seconds)

    @property
    def calls_in_flight(self) -> int:
        """How many calls are under way."""
        return len(self._calls)

    @property
    def capacity(self) -> Capacity:
        """How fast calls can be made."""
        return self._pace.capacity(self._concurrency, self._per_host)

    def open(self) -> None:
        """Begin to claim, unless it was closed: what an earlier daemon left is taken up."""
        self._open = not self._closed

    def reset_responsive_hosts(self) -> None:
        """Forget who answered in the last minute: they may hang by now."""
        self._responsive.clear()
        self._log.flush()

    def recover_orphans(self, claims: Iterable[Claim]) -> None:
        """Record as interrupted the claims that nobody holds any more."""
        for claim in claims:
            if _id(claim) not in self._unrecorded:
                self._unrecorded[_id(claim)] = claim
                self._ended(claim, transitions.interrupted(claim))

    def on_changes(self, changes: Changes) -> None:
        """Log the tasks that failed without a call; claim those that are due by now."""
        for one in changes.transitions:
            if one.transition.attempt is None and one.transition.state is State.FAILED:
                self._log.failed_without_call(one.key, one.transition)
        # By the time of the commit: a minute that began during the write has had its tick.
        now = self._now()
        if due := [host for host, due_at in changes.due_hosts.items() if due_at <= now]:
            self.notify_due(due)

    def notify_due(self, hosts: Iterable[str]) -> None:
        """Claim due tasks of these hosts as slots become free."""
        self._waiting.update(dict.fromkeys(hosts))
        self._claim()

    def _claim(self) -> None:
        """Claim as many of the due tasks as there is room for, one claim at a time."""
        if self._claiming is not None or not self._open or not self._waiting:
            return
        shares = self._allocate()
        if not shares:
            return
        self._claiming = shares
        for host in shares:
            del self._waiting[host]
        claiming = self._store.write(queue.claim, shares, self._now())
        claiming.addCallbacks(self._claimed, self._not_claimed, (shares,), {}, (shares,))
        claiming.addErrback(lambda failure: log.failure("a claim failed", failure))

    def _allocate(self) -> Mapping[str, int]:
        """Return how many tasks to claim for each host."""
        # No reserve if one host may take all the slots.
        reserve = min(self._concurrency // 2, self._concurrency - self._per_host)
        return allocate_slots(
            self._concurrency - len(self._calls),
            self._per_host,
            self._in_flight,
            self._waiting,
            max(0, reserve),
            self._responsive,
            self._recently_responsive,
        )

    def _claimed(self, claims: Sequence[Claim], shares: Mapping[str, int]) -> None:
        self._claiming = None
        taken = Counter(claim.host for claim in claims)
        # A host of which as many tasks were taken as asked for may have more; it waits behind
        # the others. This comes first: each call wants to know whether more calls wait.
        self._waiting.update(
            dict.fromkeys(host for host, share in shares.items() if taken[host] >= share)
        )
        for claim in claims:
            self._launch(claim)
        # Few can have all their places, so that this soon finds one that has not.
        short = any(self._in_flight.get(host, 0) < self._per_host for host in self._waiting)
        self._pace.room(short=short)
        self._claim()
        self._check_drained()

    def _has_more(self, host: str) -> bool:
        return host in self._waiting or (self._claiming is not None and host in self._claiming)

    def _not_claimed(self, failure: Failure, shares: Mapping[str, int]) -> None:
        self._claiming = None
        self._waiting.update(dict.fromkeys(shares))
        self._claim_failed(failure)
        self._check_drained()

    def _launch(self, claim: Claim) -> None:
        self._unrecorded[_id(claim)] = claim
        now = self._now()
        if not self._open or now < claim.definition.trigger_at:
            # Not started: its time has not come (the clock was set back) or ours has.
            due_at = max(floor_to_minute(now), claim.definition.trigger_at)
            self._record(claim, Transition(state=State.SCHEDULED, due_at=due_at))
        elif transitions.is_too_late(claim.definition, now):
            self._record(claim, transitions.too_late(claim.definition))
        else:
            self._in_flight[claim.host] = self._in_flight.get(claim.host, 0) + 1
            calling = self._calls[_id(claim)] = self._caller.call(claim, self._has_more)
            ended = calling.addCallbacks(self._called, self._call_failed, (claim,), {}, (claim,))
            ended.addErrback(lambda failure: log.failure("a call's end failed", failure))

    def _called(self, outcome: Outcome, claim: Claim) -> None:
        self._leave(claim)
        self._pace.ended(claim.host, outcome.duration_ms)
        self._remember(claim.host, outcome.status is not None)
        # A call that is cut off has failed in no way of its own.
        cut_off = self._cutting_off and outcome.status is None
        self._ended(claim, transitions.interrupted(claim) if cut_off else outcome)
        self._claim()

    def _remember(self, host: str, answered: bool) -> None:
        self._recently_responsive.pop(host, None)
        if answered:
            self._responsive.add(host)
            self._recently_responsive[host] = None
            if len(self._recently_responsive) > MAX_TRACKED_HOSTS:
                del self._recently_responsive[next(iter(self._recently_responsive))]

    def _ended(self, claim: Claim, outcome: Outcome) -> None:
        transition = transitions.decide_after_attempt(claim, outcome, self._now())
        self._log.ended(claim, transition)
        self._record(claim, transition)

    def _call_failed(self, failure: Failure, claim: Claim) -> None:
        """Take an error of the caller's own, or the end of a call that was cut off."""
        if not failure.check(CancelledError):
            log.failure("the call of {task} failed", failure, task=quoted_key(claim.definition.key))
        self._called(transitions.interrupted(claim), claim)

    def _leave(self, claim: Claim) -> None:
        del self._calls[_id(claim)]
        self._in_flight[claim.host] -= 1
        if not self._in_flight[claim.host]:
            del self._in_flight[claim.host]

    def _record(self, claim: Claim, transition: Transition) -> None:
        """Store a verdict, however often that has to be tried."""

        def recorded(held: bool) -> None:
            self._release(claim)
            if not held:
                log.error(
                    "{task} attempt {number} ended, but its claim was lost: not stored",
                    task=quoted_key(claim.definition.key),
                    number=claim.number,
                )

        def failed(failure: Failure) -> None:
            verdict_then = transition
            log.error(
                "the attempt of {task} could not be recorded: {error}; trying again soon",
                task=quoted_key(claim.definition.key),
                error=quoted(str(failure.value), 300),
            )
            if not failure.check(StoreUnavailable):
                log.failure("the database refused a record", failure)
                verdict_then = _without_response_data(transition)
            self._clock.callLater(RETRY_SECONDS, self._record, claim, verdict_then)

        recording = self._store.write(queue.record, claim, transition, self._now())
        recording.addCallbacks(recorded, failed)
        recording.addErrback(lambda failure: log.failure("a record failed", failure))

    def _release(self, claim: Claim) -> None:
        if self._unrecorded.get(_id(claim)) is claim:
            del self._unrecorded[_id(claim)]
        self._check_drained()

    async def close(self, grace: float, then: float) -> None:
        """Claim no more, let the calls under way finish, and give back what is not called.

        :param grace: seconds after which calls are cut off, and recorded as interrupted.
        :param then: seconds for the records of those.
        """
        self._closed = True
        self._open = False
        await self._drain(grace)
        self._cutting_off = True
        for calling in list(self._calls.values()):
            calling.cancel()
        await self._drain(then)
        self._log.flush()

    def _check_drained(self) -> None:
        if self._drained and self._claiming is None and not self._unrecorded:
            drained, self._drained = self._drained, []
            for waiter in drained:
                waiter.callback(None)

    async def _drain(self, seconds: float) -> None:
        """Wait until nothing is held any more, or until the time is over."""
        if self._claiming is not None or self._unrecorded:
            drained: Deferred[None] = Deferred()
            self._drained.append(drained)
            drained.addTimeout(seconds, self._clock)
            try:
                await drained
            except defer.TimeoutError:
                self._drained.clear()


def _id(claim: Claim) -> tuple[int, int]:
    return claim.task_id, claim.number


def _without_response_data(transition: Transition) -> Transition:
    """Return a verdict with nothing in it that came from outside, so that it can be stored."""
    if transition.attempt is None:
        return transition
    detail = "the answer could not be recorded"
    return evolve(
        transition, attempt=evolve(transition.attempt, status=None, detail=detail, body="")
    )
