"""The minute's tick: claim what is due, launch it, record what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from attrs import define, field, frozen
from twisted.internet import defer
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from .caller import Caller
from .core import policy
from .core.errors import shown
from .core.fairness import share_out
from .core.task import Claim, Outcome, State, Verdict
from .core.trigger import MINUTE, minute_of
from .retention import Retention
from .store.port import Store, StoreUnavailable

log = Logger(namespace="callme")

RETRY_SECONDS = 2.0
"""How soon a tick or a record that failed is tried again."""
STALE_SECONDS = 90
"""How old the last tick may be before the scheduler counts as stopped."""


@frozen
class Health:
    """How the scheduler is.

    :ivar ticking: whether it has ticked as it should.
    :ivar last_tick: when it last ticked, seconds since 1970; ``None`` before the first.
    """

    ticking: bool
    last_tick: float | None
    calls_under_way: int


@define(eq=False)
class Scheduler:
    """Calls what is due, on the minute.

    :param now: the wall clock: seconds since 1970.
    :param clock: what sets timers.
    :param concurrency: calls under way at once.
    :param per_host: ... of them to one host and port.
    """

    _store: Store
    _caller: Caller
    _retention: Retention
    _clock: IReactorTime
    _now: Callable[[], float]
    _concurrency: int = 256
    _per_host: int = 64
    _minute: LoopingCall | None = field(default=None, init=False)
    _retry: IDelayedCall | None = field(default=None, init=False)
    _ticking: bool = field(default=False, init=False)
    _recovered: bool = field(default=False, init=False)
    _claiming: bool = field(default=False, init=False)
    _stopping: bool = field(default=False, init=False)
    _cutting_off: bool = field(default=False, init=False)
    _started_at: float = field(default=0.0, init=False)
    _last_tick: float | None = field(default=None, init=False)
    _waiting: dict[str, None] = field(factory=dict, init=False)
    _under_way: dict[str, int] = field(factory=dict, init=False)
    _calls: dict[int, Deferred[Outcome]] = field(factory=dict, init=False)
    _held: dict[int, Claim] = field(factory=dict, init=False)
    _drained: list[Deferred[None]] = field(factory=list, init=False)

    # The minute

    def start(self) -> None:
        """Catch up with what fell due meanwhile, then tick at every minute."""
        self._started_at = self._now()
        self._align()
        self.tick()

    def _align(self) -> None:
        # A loop of 60 s counted from its start would drift away from the wall clock.
        self._minute = LoopingCall(self._minute_turns)
        self._minute.clock = self._clock
        self._minute.start(MINUTE - self._now() % MINUTE, now=False)

    def _minute_turns(self) -> None:
        assert self._minute is not None
        self._minute.stop()
        self._align()
        self.tick()

    def tick(self) -> None:
        """Find what is due and launch it; returns at once, and never raises."""
        if not self._ticking and not self._stopping:
            self._ticking = True
            ticking = Deferred.fromCoroutine(self._tick())
            ticking.addErrback(lambda failure: log.failure("a tick failed", failure))

    async def _tick(self) -> None:
        try:
            await self._recover()
            more = True
            while more and not self._stopping:
                due = await self._store.due(self._now())
                for key in due.too_late:
                    log.warn("{task} failed: too_late", task=shown(str(key)))
                self._last_tick = self._now()
                self.wake(due.hosts)
                more = due.more
        except Exception:
            self._tick_failed(Failure())
        finally:
            self._ticking = False
        self._retention.purge()

    def _tick_failed(self, failure: Failure) -> None:
        if failure.check(StoreUnavailable):
            error = shown(str(failure.value), 300)
            log.error("the tick failed: {error}; trying again soon", error=error)
        else:
            log.failure("the tick failed; trying again soon", failure)
        if not self._stopping and (self._retry is None or not self._retry.active()):
            self._retry = self._clock.callLater(RETRY_SECONDS, self.tick)

    async def _recover(self) -> None:
        """Record as interrupted what was cut off by a daemon's death.

        No other daemon uses the database: at the start every claim is a dead one's.
        """
        for claim in await self._store.abandoned(self._now(), every=not self._recovered):
            if claim.task_id not in self._held:
                self._held[claim.task_id] = claim
                self._ended(claim, policy.interrupted(claim))
        self._recovered = True

    # Claiming

    def wake(self, hosts: Iterable[str]) -> None:
        """Say that tasks of these hosts are due."""
        self._waiting.update(dict.fromkeys(hosts))
        self._claim()

    def _claim(self) -> None:
        """Claim as many of the due tasks as there is room for, one claim at a time."""
        if self._claiming or self._stopping or not self._recovered or not self._waiting:
            return
        free = self._concurrency - len(self._calls)
        shares = share_out(free, self._per_host, self._under_way, self._waiting) if free else {}
        if not shares:
            return
        self._claiming = True
        for host in shares:
            del self._waiting[host]
        claiming = self._store.claim(shares, self._now())
        claiming.addCallbacks(self._claimed, self._claim_failed, (shares,), {}, (shares,))
        claiming.addErrback(lambda failure: log.failure("a claim failed", failure))

    def _claimed(self, claims: Sequence[Claim], shares: Mapping[str, int]) -> None:
        self._claiming = False
        taken: dict[str, int] = {}
        for claim in claims:
            taken[claim.host] = taken.get(claim.host, 0) + 1
            self._launch(claim)
        # Who got all that was asked may have more; behind those who still wait.
        self._waiting.update(
            dict.fromkeys(host for host, share in shares.items() if taken.get(host, 0) >= share)
        )
        self._claim()
        self._check_drained()

    def _claim_failed(self, failure: Failure, shares: Mapping[str, int]) -> None:
        self._claiming = False
        self._waiting.update(dict.fromkeys(shares))
        self._tick_failed(failure)
        self._check_drained()

    # Calling

    def _launch(self, claim: Claim) -> None:
        self._held[claim.task_id] = claim
        now = self._now()
        if self._stopping or now < claim.definition.trigger_at:
            # Not started: its time has not come (the clock was set back) or ours has.
            due_at = max(minute_of(now), claim.definition.trigger_at)
            self._record(claim, Verdict(State.SCHEDULED, due_at=due_at))
        elif policy.is_too_late(claim.definition, now):
            self._record(claim, policy.too_late(claim.definition))
        else:
            self._under_way[claim.host] = self._under_way.get(claim.host, 0) + 1
            calling = self._calls[claim.task_id] = self._caller.call(claim)
            ended = calling.addCallbacks(self._called, self._call_failed, (claim,), {}, (claim,))
            ended.addErrback(lambda failure: log.failure("a call's end failed", failure))

    def _called(self, outcome: Outcome, claim: Claim) -> None:
        self._leave(claim)
        # What the caller makes of a call that is cut off from here means nothing.
        self._ended(claim, policy.interrupted(claim) if self._cutting_off else outcome)
        self._claim()

    def _ended(self, claim: Claim, outcome: Outcome) -> None:
        verdict = policy.judge(claim, outcome, self._now())
        attempt = verdict.attempt
        if attempt is not None and attempt.reason is not None:
            log.warn(
                "{task} attempt {number} failed: {reason} ({detail}); {state}",
                task=shown(str(claim.definition.key)),
                number=claim.number,
                reason=attempt.reason.value,
                detail=shown(attempt.detail, 300),
                state=verdict.state.value,
            )
        self._record(claim, verdict)

    def _call_failed(self, failure: Failure, claim: Claim) -> None:
        """Take an error of the caller's own, or the end of a call that was cut off."""
        if not failure.check(CancelledError):
            log.failure("the call of {task} failed", failure, task=shown(str(claim.definition.key)))
        self._called(policy.interrupted(claim), claim)

    def _leave(self, claim: Claim) -> None:
        del self._calls[claim.task_id]
        self._under_way[claim.host] -= 1
        if not self._under_way[claim.host]:
            del self._under_way[claim.host]

    def _record(self, claim: Claim, verdict: Verdict) -> None:
        """Store a verdict, however often that has to be tried."""

        def recorded(held: bool) -> None:
            self._let_go(claim)
            if not held:
                log.error(
                    "{task} attempt {number} ended, but its claim was lost: not stored",
                    task=shown(str(claim.definition.key)),
                    number=claim.number,
                )
            elif verdict.due_at is not None and verdict.due_at <= self._now():
                self.wake([claim.host])

        def failed(failure: Failure) -> None:
            log.error(
                "the attempt of {task} could not be recorded: {error}; trying again soon",
                task=shown(str(claim.definition.key)),
                error=shown(str(failure.value), 300),
            )
            self._clock.callLater(RETRY_SECONDS, self._record, claim, verdict)

        recording = self._store.record(claim, verdict, self._now())
        recording.addCallbacks(recorded, failed)
        recording.addErrback(lambda failure: log.failure("a record failed", failure))

    def _let_go(self, claim: Claim) -> None:
        self._held.pop(claim.task_id, None)
        self._check_drained()

    # The end

    async def stop(self, grace: float, then: float) -> None:
        """Stop ticking, let the calls under way finish, and give back what is not called.

        :param grace: seconds after which calls are cut off, and recorded as interrupted.
        :param then: seconds for the records of those.
        """
        self._stopping = True
        if self._minute is not None and self._minute.running:
            self._minute.stop()
        if self._retry is not None and self._retry.active():
            self._retry.cancel()
        self._retention.stop()
        await self._drain(grace)
        self._cutting_off = True
        for calling in list(self._calls.values()):
            calling.cancel()
        await self._drain(then)

    def _check_drained(self) -> None:
        if self._drained and not self._claiming and not self._held:
            drained, self._drained = self._drained, []
            for waiter in drained:
                waiter.callback(None)

    async def _drain(self, seconds: float) -> None:
        """Wait until nothing is held any more, or until the time is over."""
        if self._claiming or self._held:
            drained: Deferred[None] = Deferred()
            self._drained.append(drained)
            drained.addTimeout(seconds, self._clock)
            try:
                await drained
            except defer.TimeoutError:
                self._drained.clear()

    def health(self) -> Health:
        """Say how the scheduler is."""
        since = self._started_at if self._last_tick is None else self._last_tick
        return Health(
            ticking=not self._stopping and self._now() - since < STALE_SECONDS,
            last_tick=self._last_tick,
            calls_under_way=len(self._calls),
        )
