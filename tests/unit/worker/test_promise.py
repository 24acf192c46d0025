"""The promise under any order of events: a state machine over a whole daemon.

Tasks come and go, time passes, endpoints respond or hang, the database locks, the daemon dies
and starts again. The invariants are checked after every step.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from twisted.internet.defer import Deferred

from callme.core.task import State
from callme.core.times import Key
from callme.store import tasks
from tests.helpers.world import World

NAMES = st.sampled_from(["a", "b", "c"])
MINUTES = st.integers(-2, 5)


class Promise(RuleBasedStateMachine):
    """A daemon whose calls are counted against the budgets of their tasks."""

    @initialize(concurrency=st.integers(1, 4), per_host=st.integers(1, 3))
    def begin(self, concurrency: int, per_host: int) -> None:
        self.limits = {"concurrency": concurrency, "per_host": per_host}
        self.world = World(**self.limits)
        self.world.scheduler.start()
        self.allowed: dict[Key, int] = {}
        self.counted: Counter[Key] = Counter()

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.close()

    def stored(self) -> dict[Key, Any]:
        broken, self.world.store.is_broken = self.world.store.is_broken, False
        page = World.result(self.world.store.read(tasks.list_page, limit=1000))
        self.world.store.is_broken = broken
        return {task.key: task for task in page.tasks}

    def minute(self, offset: int) -> int:
        return int(self.world.now() // 60 + offset) * 60

    @rule(
        name=NAMES,
        offset=MINUTES,
        retry=st.integers(0, 2),
        delay=st.integers(0, 2),
        most=st.integers(1, 6),
        host=st.sampled_from(["x", "y"]),
    )
    def put(self, name: str, offset: int, retry: int, delay: int, most: int, host: str) -> None:
        key = Key(name, self.minute(offset))
        if key in self.allowed or self.world.now() >= key.trigger_at + 60 * most:
            return
        more = {"retry": retry, "retry_delay": delay, "max_delay": most}
        if self.world.store.is_broken:
            return
        self.allowed[key] = 1 + retry
        self.counted.pop(key, None)
        self.world.put(name, key.trigger_at, callback=f"http://{host}.example/", **more)
        if key.trigger_at <= self.world.now():
            self.world.notify_due(f"{host}.example:80")

    @rule(seconds=st.floats(0.1, 200))
    def wait(self, seconds: float) -> None:
        self.world.turn_to(self.world.now() + seconds)

    @rule(response=st.sampled_from([200, 500, 503, None]))
    def response(self, response: int | None) -> None:
        self.world.caller.status = response

    @precondition(lambda self: self.world.caller.pending)
    @rule(which=st.integers(0, 10), status=st.sampled_from([200, 500]))
    def end(self, which: int, status: int) -> None:
        keys = sorted(self.world.caller.pending)
        self.world.caller.end(keys[which % len(keys)], status)

    @rule(broken=st.booleans())
    def lock(self, broken: bool) -> None:
        self.world.store.is_broken = broken

    @rule()
    def die(self) -> None:
        self.count()
        self.world.store.is_broken = False
        self.world.restart(**self.limits)

    @rule()
    def terminate(self) -> None:
        self.world.store.is_broken = False
        Deferred.fromCoroutine(self.world.scheduler.stop(10, 2))
        self.world.turn_to(self.world.now() + 12)
        assert State.RUNNING not in {task.state for task in self.stored().values()}
        self.count()
        self.world.restart(**self.limits)

    @rule(name=NAMES, offset=st.integers(0, 3), every=st.booleans())
    def reschedule(self, name: str, offset: int, every: bool) -> None:
        if self.world.store.is_broken:
            return
        self.count()
        trigger_at = self.minute(offset)
        moved = World.result(
            self.world.store.write(
                tasks.reschedule_name, name, trigger_at, self.world.now(), include_all_states=every
            )
        )
        if moved is None:
            return
        stored = self.stored()
        for old, new in moved.moved:
            del self.allowed[old]
            if old != new:
                self.counted.pop(old, None)
        for _, new in moved.moved:
            # A new budget, in addition to the calls already made under that key.
            budget = 1 + stored[new].definition.retry
            self.allowed[new] = self.counted[new] + budget

    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        if self.world.store.is_broken:
            return
        self.count()
        World.result(self.world.store.write(tasks.delete_name, name))
        stored = self.stored()
        for key in [key for key in self.allowed if key not in stored]:
            del self.allowed[key]
            self.counted.pop(key, None)

    def count(self) -> None:
        """Count the calls made since the last time."""
        for when, claim in self.world.caller.calls:
            key = claim.definition.key
            assert claim.definition.trigger_at <= when < claim.definition.expires_at
            if key in self.allowed:
                self.counted[key] += 1
        self.world.caller.calls.clear()

    @invariant()
    def never_more_than_asked_never_early_never_too_late(self) -> None:
        if hasattr(self, "world"):
            self.count()
            for key, calls in self.counted.items():
                assert calls <= self.allowed.get(key, calls), key

    @invariant()
    def nothing_is_lost_and_every_end_has_a_reason(self) -> None:
        if hasattr(self, "world"):
            stored = self.stored()
            assert set(self.allowed) == set(stored)
            for task in stored.values():
                assert (task.state is State.FAILED) == (task.reason is not None)
                assert (task.state is State.SCHEDULED) == (task.due_at is not None)
                assert task.attempts_used <= 1 + task.definition.retry

    @invariant()
    def limits_hold(self) -> None:
        if hasattr(self, "world"):
            pending = self.world.caller.pending
            assert len(pending) <= self.limits["concurrency"]
            assert self.world.scheduler.health().calls_in_flight == len(pending)

    @rule()
    def in_the_end_every_task_has_ended(self) -> None:
        self.world.store.is_broken = False
        self.world.caller.status = 200
        for key in sorted(self.world.caller.pending):
            self.world.caller.end(key, 200)
        self.world.turn_to(self.minute(20))
        assert {task.state for task in self.stored().values()} <= {State.SUCCEEDED, State.FAILED}


TestPromise = Promise.TestCase
TestPromise.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
