"""The dispatcher, which claims due tasks as slots become free, and starts their calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum, auto
from typing import Protocol

from attrs import define, field
from twisted.internet import defer
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..core import transitions
from ..core.task import Claim, ClaimLost, Outcome, State, Transition
from ..core.times import floor_to_minute, quoted_key
from ..hosts.limits import HostLimits
from ..hosts.operations import SettingsSnapshot
from ..store import queue
from ..store.changes import Changes
from ..store.database import Store
from .attempt_log import AttemptLog
from .fair_share import allocate_slots
from .host_memory import HostMemory, HostResults
from .recorder import Recorder, claim_id
from .slots import Slots
from .throughput import Capacity, ThroughputMeter

log = Logger(namespace="callme")


LIMIT_CHECK_SECONDS = 1.0
"""Interval in seconds at which the pauses and limits of due hosts are checked again."""


def always() -> bool:
    """Return ``True``."""
    return True


class Caller(Protocol):
    """Interface of the HTTP client that makes the calls."""

    def call(
        self, claim: Claim, has_more: Callable[[str], bool], keeps_claim: Callable[[], bool]
    ) -> Deferred[Outcome]:
        """Make one call within its task's ``timeout``.

        The Deferred fails only with :class:`ClaimLost`, and then no request was sent. Cancelling
        it drops the connection; the outcome is then meaningless.

        :param has_more: returns whether more calls to a host are queued; if none are, the
            connection may be closed.
        :param keeps_claim: returns whether no other daemon can have taken the claim; called just
            before the request is sent.
        """

    def close(self) -> Deferred[None]:
        """Close all connections."""


class Phase(Enum):
    """Phases of a dispatcher, in order."""

    NEW = auto()
    OPEN = auto()
    DRAINING = auto()
    CUTTING_OFF = auto()


@define(eq=False, kw_only=True)
class Dispatcher:
    """Claim loop, which keeps as many calls in flight as slots and due tasks permit.

    :param clock: schedules timers.
    :param now: returns the wall-clock time: seconds since 1970.
    :param slots: the slots for calls in flight.
    :param on_claim_failure: called with the failure of a claim; it must ensure that
        :meth:`notify_due` is called again.
    :param guard_claims: called before a claim; returns a function that returns whether no other
        daemon can have taken the tasks of the claim since.
    :param knows_settings: returns whether the settings of hosts are recent enough to start calls.
    """

    _store: Store
    _caller: Caller
    _clock: IReactorTime
    _now: Callable[[], float]
    _slots: Slots
    _on_claim_failure: Callable[[Failure], None]
    _guard_claims: Callable[[], Callable[[], bool]] = lambda: always
    _knows_settings: Callable[[], bool] = always
    _attempt_log: AttemptLog = field(init=False)
    _recorder: Recorder = field(init=False)
    _meter: ThroughputMeter = field(init=False)
    _limits: HostLimits = field(init=False)
    # The timer of the next check of the limits of due hosts.
    _limit_check: IDelayedCall | None = field(default=None, init=False)
    _hosts: HostMemory = field(factory=HostMemory, init=False)
    _phase: Phase = field(default=Phase.NEW, init=False)
    # Hosts that may have due tasks, the least recently served first.
    _due_hosts: dict[str, None] = field(factory=dict, init=False)
    # The maximum number of tasks by host of the claim in progress, if any.
    _claiming: Mapping[str, int] | None = field(default=None, init=False)
    # True while claimed tasks are launched, some of which do not occupy their slots yet.
    _is_launching: bool = field(default=False, init=False)
    _calls: dict[tuple[int, int], Deferred[Outcome]] = field(factory=dict, init=False)
    _drained: list[Deferred[None]] = field(factory=list, init=False)
    # Timers for tasks due between two ticks, by host and second.
    _wakeups: dict[tuple[str, int], IDelayedCall] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self._attempt_log = AttemptLog(self._now)
        self._recorder = Recorder(
            store=self._store,
            clock=self._clock,
            now=self._now,
            attempt_log=self._attempt_log,
            on_released=self._check_drained,
        )
        self._meter = ThroughputMeter(self._clock.seconds)
        self._limits = HostLimits(
            per_host=self._slots.per_host, seconds=self._clock.seconds, now=self._now
        )

    @property
    def calls_in_flight(self) -> int:
        """The number of calls in flight."""
        return len(self._calls)

    @property
    def saturated_seconds(self) -> float:
        """Seconds for which due calls have found no free slot; 0 while they find one."""
        return self._meter.saturated_seconds

    @property
    def limits(self) -> HostLimits:
        """The pauses and limits of hosts."""
        return self._limits

    @property
    def host_results(self) -> Mapping[str, HostResults]:
        """The results of each host's latest calls."""
        return self._hosts.results

    @property
    def failing_hosts(self) -> int:
        """The number of hosts whose latest attempts have all failed."""
        return self._hosts.failing()

    @property
    def capacity(self) -> Capacity:
        """The measured rate and durations of calls, and their limits."""
        return self._meter.capacity(self._slots.concurrency, self._slots.per_host)

    def open(self) -> None:
        """Begin to claim; the orphans of an earlier daemon must be recovered before."""
        if self._phase is Phase.NEW:
            self._phase = Phase.OPEN

    def begin_minute(self) -> None:
        """Flush the log of the previous minute."""
        self._attempt_log.flush()

    def apply_settings(self, snapshot: SettingsSnapshot, change: int = 0) -> None:
        """Apply new settings of hosts.

        :param change: the number of the last change that they certainly contain.
        """
        self._limits.apply(snapshot, change)
        self._claim()

    def recover_orphans(self, claims: Iterable[Claim]) -> None:
        """Record orphaned claims as interrupted."""
        self._recorder.recover_orphans(claims)

    def on_changes(self, changes: Changes) -> None:
        """Log tasks that failed without a call; claim tasks that have become due."""
        for one in changes.transitions:
            if one.transition.attempt is None and one.transition.state is State.FAILED:
                self._attempt_log.failed_without_call(one.key, one.transition)
        # The time after the commit is used: if a minute began during the write, the tick of that
        # minute did not find the new tasks.
        now = self._now()
        if due := [host for host, due_at in changes.due_hosts.items() if due_at <= now]:
            self.notify_due(due)
        for host, due_at in changes.due_soon:
            self._wake_at(host, due_at)

    def _wake_at(self, host: str, due_at: int) -> None:
        """Schedule a claim of a host's tasks at a second between two ticks."""
        seconds = due_at - self._now()
        if seconds <= 0:
            self.notify_due([host])
        elif (host, due_at) not in self._wakeups and self._phase in (Phase.NEW, Phase.OPEN):
            self._wakeups[host, due_at] = self._clock.callLater(seconds, self._wake, host, due_at)

    def _wake(self, host: str, due_at: int) -> None:
        del self._wakeups[host, due_at]
        # The time may not have come yet by the wall clock, which may have been set back, or be
        # behind by a fraction of a second.
        self._wake_at(host, due_at)

    # Claims

    def notify_due(self, hosts: Iterable[str]) -> None:
        """Claim due tasks of these hosts as slots become free."""
        self._due_hosts.update(dict.fromkeys(hosts))
        self._claim()

    def _claim(self) -> None:
        """Claim as many due tasks as there are free slots, one claim at a time."""
        is_busy = self._claiming is not None or self._is_launching
        if is_busy or self._phase is not Phase.OPEN or not self._due_hosts:
            return
        keeps_claim = self._guard_claims()
        if not (self._knows_settings() and keeps_claim()):
            # Loading the settings triggers another claim, and so does the next heartbeat.
            return
        seconds = self._clock.seconds()
        shares = allocate_slots(
            self._slots,
            due_hosts=self._due_hosts,
            max_in_flight=self._max_in_flight,
            trust=lambda host: self._hosts.trust(host, seconds),
            responses=lambda host: self._hosts.responses(host, seconds),
            newcomers=self._hosts.newcomers(),
        )
        self._check_limits_later()
        if not shares:
            self._note_saturation()
            return
        self._claiming = shares
        for host in shares:
            del self._due_hosts[host]
        claiming = self._store.write(queue.claim, shares, self._now())
        claimed = (shares, keeps_claim)
        claiming.addCallbacks(self._claimed, self._claim_failed, claimed, {}, (shares,))
        claiming.addErrback(lambda failure: log.failure("a claim failed", failure))

    def _claimed(
        self, claims: Sequence[Claim], shares: Mapping[str, int], keeps_claim: Callable[[], bool]
    ) -> None:
        self._claiming = None
        claimed = Counter(claim.host for claim in claims)
        # A host whose whole share was claimed may have more tasks, and moves to the end of the
        # queue. The queue is updated before the calls start, because each call checks it.
        self._due_hosts.update(
            dict.fromkeys(host for host, share in shares.items() if claimed[host] >= share)
        )
        # A call may end at once, but the next claim must wait until all of these occupy their
        # slots.
        self._is_launching = True
        for claim in claims:
            self._launch(claim, keeps_claim)
        self._is_launching = False
        self._note_saturation()
        self._claim()
        self._check_drained()

    def _claim_failed(self, failure: Failure, shares: Mapping[str, int]) -> None:
        self._claiming = None
        self._due_hosts.update(dict.fromkeys(shares))
        self._on_claim_failure(failure)
        self._check_drained()

    def _note_saturation(self) -> None:
        # The loop ends at the first host below its limit, and few hosts can be at their limit.
        in_flight = self._slots.in_flight
        has_room = (in_flight.get(host, 0) < self._max_in_flight(host) for host in self._due_hosts)
        self._meter.set_saturated(any(has_room))

    def _max_in_flight(self, host: str) -> int:
        return self._limits.max_in_flight(host, self._slots.in_flight.get(host, 0))

    def _check_limits_later(self) -> None:
        """Schedule another claim if a due host may be paused or at a temporary limit."""
        if self._limit_check is None and self._limits.may_limit(self._due_hosts):
            self._limit_check = self._clock.callLater(LIMIT_CHECK_SECONDS, self._check_limits)

    def _check_limits(self) -> None:
        self._limit_check = None
        self._claim()

    def _has_more(self, host: str) -> bool:
        return host in self._due_hosts or (self._claiming is not None and host in self._claiming)

    # Calls

    def _launch(self, claim: Claim, keeps_claim: Callable[[], bool]) -> None:
        self._recorder.add(claim)
        now = self._now()
        is_early = now < claim.definition.trigger_at
        if self._phase is not Phase.OPEN or is_early or self._limits.is_paused(claim.host):
            # The daemon is stopping, the wall clock was set back, or the host was paused during
            # the claim.
            self._return(claim)
        elif not keeps_claim():
            self._give_up(claim)
        elif transitions.is_too_late(claim.definition, now):
            self._recorder.record(claim, transitions.too_late(claim.definition))
        else:
            self._call(claim, keeps_claim)

    def _return(self, claim: Claim) -> None:
        """Make a task due again for which no request was sent; its attempt does not count."""
        due_at = max(floor_to_minute(self._now()), claim.definition.trigger_at)
        self._recorder.record(claim, Transition(state=State.SCHEDULED, due_at=due_at))

    def _give_up(self, claim: Claim) -> None:
        """Return a claim that another daemon may have taken; the store finds out if one has."""
        self._attempt_log.given_up(claim)
        self._return(claim)

    def _call(self, claim: Claim, keeps_claim: Callable[[], bool]) -> None:
        self._slots.take(claim.host)
        self._limits.record_start(claim.host)
        self._hosts.begin_call(claim.host, claim_id(claim), self._clock.seconds())
        calling = maybeDeferred(self._caller.call, claim, self._has_more, keeps_claim)
        self._calls[claim_id(claim)] = calling
        calling.addCallbacks(self._called, self._call_failed, (claim,), {}, (claim,))
        calling.addErrback(
            lambda failure: log.failure("handling the end of a call failed", failure)
        )

    def _called(self, outcome: Outcome, claim: Claim) -> None:
        del self._calls[claim_id(claim)]
        self._slots.release(claim.host)
        self._meter.record_call(claim.host, outcome.duration_ms)
        responded = outcome.status is not None
        ended_at = self._clock.seconds()
        self._hosts.end_call(claim.host, claim_id(claim), ended_at, responded=responded)
        succeeded = responded and claim.definition.expects(outcome.status or 0)
        self._hosts.record_result(claim.host, succeeded=succeeded, at=self._now())
        if self._phase is Phase.CUTTING_OFF and outcome.status is None:
            # The call was cancelled, so its outcome is meaningless.
            outcome = transitions.interrupted(claim)
        self._recorder.record_attempt(claim, outcome)
        self._claim()

    def _call_failed(self, failure: Failure, claim: Claim) -> None:
        """Handle a call that was not made or was cancelled, or an error in the caller itself."""
        if failure.check(ClaimLost):
            del self._calls[claim_id(claim)]
            self._slots.release(claim.host)
            self._limits.withdraw_start(claim.host)
            self._hosts.withdraw_call(claim.host, claim_id(claim))
            self._give_up(claim)
            self._claim()
            return
        if failure.check(CancelledError):
            self._called(transitions.interrupted(claim), claim)
            return
        log.failure("the call of {task} failed", failure, task=quoted_key(claim.definition.key))
        self._called(transitions.caller_failed(claim, self._now()), claim)

    # Shutdown

    async def drain(self, grace_seconds: float, flush_seconds: float) -> None:
        """Stop claiming, wait for the calls in flight, and release claims without a call.

        :param grace_seconds: time limit for the calls; calls that exceed it are cancelled and
            recorded as interrupted.
        :param flush_seconds: time limit for storing the results of cancelled calls.
        """
        self._phase = Phase.DRAINING
        self._cancel_timers()
        await self._wait_until_drained(grace_seconds)
        self._phase = Phase.CUTTING_OFF
        for calling in list(self._calls.values()):
            calling.cancel()
        await self._wait_until_drained(flush_seconds)
        self._attempt_log.flush()

    def _cancel_timers(self) -> None:
        for wakeup in self._wakeups.values():
            wakeup.cancel()
        if self._limit_check is not None:
            self._limit_check.cancel()
            self._limit_check = None
        self._wakeups.clear()

    @property
    def _is_drained(self) -> bool:
        return self._claiming is None and not self._recorder.has_unrecorded

    def _check_drained(self) -> None:
        if self._is_drained:
            drained, self._drained = self._drained, []
            for waiter in drained:
                waiter.callback(None)

    async def _wait_until_drained(self, seconds: float) -> None:
        """Wait, up to some seconds, until no claim is in progress and every result is stored."""
        if not self._is_drained:
            drained: Deferred[None] = Deferred()
            self._drained.append(drained)
            drained.addTimeout(seconds, self._clock)
            try:
                await drained
            except defer.TimeoutError:
                self._drained.clear()
