"""Mutations: deliberate faults in callme, which the simulation must detect.

A simulation that reports nothing proves nothing unless it is known to detect faults.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from copy import copy
from typing import Any
from unittest.mock import patch

from attrs import evolve, frozen
from twisted.internet.defer import succeed

from callme.caller import call
from callme.caller.agent import Agent
from callme.caller.call import HttpCaller
from callme.caller.connection import Connection
from callme.core import times, transitions
from callme.core.task import Claim, Definition, Outcome, Reason, State, Transition, new_task
from callme.core.transitions import PutOutcome
from callme.errors import InvalidValue
from callme.hosts.limits import HostLimits
from callme.process.moments import TwoClocks
from callme.server.connection_limits import BufferBudget
from callme.service import Daemon
from callme.store import queue, tasks
from callme.store.changes import ChangeFeed, Changes
from callme.store.database import Operation, Store
from callme.store.group_commit import GroupCommit
from callme.store.interface import Deleted, PutResult
from callme.store.postgresql import membership
from callme.store.postgresql import queue as postgresql_queue
from callme.store.postgresql.engine import PostgresqlStore
from callme.store.postgresql.membership import Member
from callme.store.sqlite import bulk
from callme.store.sqlite.engine import SqliteStore
from callme.worker import dispatcher, scheduler
from callme.worker.dispatcher import Dispatcher
from callme.worker.poller import Poller
from callme.worker.recorder import Recorder, claim_id
from callme.worker.scheduler import Scheduler, TickState

Patch = Any


@frozen
class Mutation:
    """A deliberate fault.

    :ivar name: the fault in words.
    :ivar seed: the first seed that detects it.
    :ivar patches: returns the patches that cause it.
    """

    name: str
    seed: int
    patches: Callable[[], list[Patch]]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Apply the fault temporarily."""
        with ExitStack() as stack:
            for one in self.patches():
                stack.enter_context(one)
            yield


MUTATIONS: list[Mutation] = []


def mutation(name: str, seed: int) -> Callable[[Callable[[], list[Patch]]], None]:
    """Add a fault to the list."""

    def add(patches: Callable[[], list[Patch]]) -> None:
        MUTATIONS.append(Mutation(name, seed, patches))

    return add


def _sql(name: str, old: str, new: str, module: Any = None) -> Patch:
    """Replace a part of a statement, which must be in it."""
    if module is None:
        module = queue if hasattr(queue, name) else tasks
    statement: str = getattr(module, name)
    assert old in statement, f"{old!r} is not in {name}: {statement}"
    return patch.object(module, name, statement.replace(old, new))


def _around(owner: Any, name: str, changed: Callable[..., Any]) -> Patch:
    """Wrap a function: ``changed`` gets the original and its arguments."""
    real = getattr(owner, name)
    return patch.object(owner, name, lambda *args, **named: changed(real, *args, **named))


# No acknowledged task is lost


@mutation("the end of a call has no notification", 0)
def _() -> list[Patch]:
    return [patch.object(queue, "notification_url", lambda *_: None)]


@mutation("an expired task has no notification", 0)
def _() -> list[Patch]:
    def changed(real: Any, write: Any, row: Any, *args: Any) -> None:
        real(write, {**row, "on_failure": None}, *args)

    return [_around(queue, "_fail", changed)]


@mutation("a claim is returned without a commit", 0)
def _() -> list[Patch]:
    def changed(real: Any, write: Any, *args: Any, **named: Any) -> Any:
        write.cursor.execute("SAVEPOINT claim")
        taken = real(write, *args, **named)
        write.cursor.execute("ROLLBACK TO claim")
        return taken

    return [_around(queue, "claim", changed)]


@mutation("a put is acknowledged before its commit", 0)
def _() -> list[Patch]:
    def changed(real: Any, self: Any, operation: Any, *args: Any, **named: Any) -> Any:
        writing = real(self, operation, *args, **named)
        if operation is not tasks.put:
            return writing
        writing.addErrback(lambda _: None)
        return succeed(PutResult(PutOutcome.CREATED, new_task(args[0], args[2])))

    return [_around(Store, "write", changed)]


@mutation("a failed transaction is reported as successful", 6)
def _() -> list[Patch]:
    def changed(real: Any, self: Any, failure: Any, batch: Any) -> None:
        functions = [operation.function for operation, _ in batch]
        if tasks.delete in functions and len(batch) == 1:
            batch[0][1].callback(Deleted(count=1))
            self._next()
        else:
            real(self, failure, batch)

    return [_around(GroupCommit, "_failed", changed)]


@mutation("a put overwrites the task of its key", 0)
def _() -> list[Patch]:
    def changed(real: Any, *args: Any) -> Any:
        outcome = real(*args)
        return PutOutcome.REPLACED if outcome is PutOutcome.CONFLICT else outcome

    return [_around(tasks, "decide_put", changed)]


@mutation("statements run outside a transaction", 91)
def _() -> list[Patch]:
    def changed(real: Any, store: Any, pool: Any, begin: str, run: Any) -> Any:
        return real(store, pool, "SELECT 1", run)

    return [_around(SqliteStore, "_run", changed)]


@mutation("a purge deletes tasks before the end of their retention", 2)
def _() -> list[Patch]:
    def changed(real: Any, write: Any, finished_before: float, *args: Any) -> Any:
        return real(write, finished_before + 86_400 * 30, *args)

    return [_around(queue, "purge", changed)]


@mutation("a batch omits its last task", 3)
def _() -> list[Patch]:
    def changed(real: Any, write: Any, statement: Any, rows: Any) -> None:
        is_insert = statement is bulk._insert_tasks
        real(write, statement, rows[:-1] if is_insert else rows)

    return [_around(bulk, "_run", changed)]


# Never more than 1 + retry


@mutation("a claim does not count its attempt", 3)
def _() -> list[Patch]:
    return [_sql("_CLAIM", f"attempts_used = {queue.next_number('attempts_used')}, ", "")]


@mutation("attempts have no unique numbers", 0)
def _() -> list[Patch]:
    return [_sql("_CLAIM", f", last_attempt = {queue.next_number('last_attempt')}", "")]


@mutation("a task has one retry too many", 3)
def _() -> list[Patch]:
    def changed(real: Any, claim: Any, outcome: Any, now: float) -> Any:
        return real(evolve(claim, attempts_used=claim.attempts_used - 1), outcome, now)

    return [_around(transitions, "decide_after_attempt", changed)]


@mutation("an interrupted attempt does not use up the budget", 27)
def _() -> list[Patch]:
    def changed(self: Any, claims: Any) -> None:
        for claim in claims:
            if claim_id(claim) not in self._unrecorded:
                self.add(claim)
                self.record(
                    claim, Transition(state=State.SCHEDULED, due_at=claim.definition.trigger_at)
                )

    return [patch.object(Recorder, "recover_orphans", changed)]


@mutation("a call is repeated at once after a broken connection", 8)
def _() -> list[Patch]:
    def changed(real: Any, *args: Any) -> Any:
        def again(outcome: Any) -> Any:
            return real(*args) if outcome.reason is Reason.CONNECTION_FAILED else outcome

        return real(*args).addCallback(again)

    return [_around(HttpCaller, "call", changed)]


@mutation("a running task can be rescheduled", 137)
def _() -> list[Patch]:
    return [_sql("_ONE", "state, max", "replace(state, 'running', 'scheduled'), max")]


@mutation("a running task can be deleted", 13)
def _() -> list[Patch]:
    def changed(real: Any, write: Any, key: Any) -> Any:
        write.cursor.execute(
            "UPDATE task SET state = 'scheduled', due_at = 0 "
            "WHERE state = 'running' AND task_name = ? AND trigger_at = ?",
            (key.task_name, key.trigger_at),
        )
        return real(write, key)

    return [_around(tasks, "delete", changed)]


@mutation("a succeeded task is called again", 3)
def _() -> list[Patch]:
    def changed(real: Any, claim: Any, outcome: Any, now: float) -> Any:
        transition = real(claim, outcome, now)
        if transition.state is State.SUCCEEDED and claim.attempts_used == 1:
            return evolve(transition, state=State.SCHEDULED, due_at=times.next_minute(now))
        return transition

    return [_around(transitions, "decide_after_attempt", changed)]


@mutation("a live daemon counts as dead after three seconds", 85)
def _() -> list[Patch]:
    return [_sql("_HEARTBEAT", "seen_at_ms < ms - 30000", "seen_at_ms < ms - 3000", membership)]


@mutation("the calls in flight exceed the slots by one", 14)
def _() -> list[Patch]:
    def changed(real: Any, slots: Any, **named: Any) -> Any:
        larger = copy(slots)
        larger.free += 1
        return real(larger, **named)

    return [_around(dispatcher, "allocate_slots", changed)]


@mutation("the pause of a host is ignored", 12)
def _() -> list[Patch]:
    return [patch.object(HostLimits, "is_paused", lambda self, host: False)]


@mutation("the calls of the last minute are not counted", 19)
def _() -> list[Patch]:
    return [patch.object(HostLimits, "_recent", lambda self, host: 0)]


@mutation("a daemon does not notice that another one pauses a host", 8)
def _() -> list[Patch]:
    async def nothing() -> None:
        """Load no settings."""

    def changed(real: Any, self: Any, **named: Any) -> None:
        real(self, **{**named, "load_settings": nothing})

    return [_around(Poller, "__init__", changed)]


@mutation("the settings of hosts are forgotten at a restart", 8)
def _() -> list[Patch]:
    def changed(real: Any, self: Any) -> Any:
        return succeed(None) if self._settings_changes == 0 else real(self)

    return [_around(Scheduler, "_load_settings", changed)]


# Nothing early, nothing past max_delay, and on the minute


@mutation("calls start half a second early", 0)
def _() -> list[Patch]:
    def changed(self: Any, *args: Any, now: Any, **named: Any) -> None:
        real(self, *args, now=lambda: now() + 0.5, **named)

    real: Any = Daemon.__init__
    return [patch.object(Daemon, "__init__", changed)]


@mutation("a call ignores that the clock was stepped back", 137)
def _() -> list[Patch]:
    def changed(self: Any, claim: Any) -> None:
        self._recorder.add(claim)
        self._call(claim)

    return [patch.object(Dispatcher, "_launch", changed)]


@mutation("a claim follows the daemon's clock alone", 36)
def _() -> list[Patch]:
    due = f"due_at <= {postgresql_queue.NOW} / 1000"
    return [_sql("_CLAIM", due, "due_at <= %(own)s", postgresql_queue)]


@mutation("a reschedule within max_delay is refused", 87)
def _() -> list[Patch]:
    def changed(self: Any, trigger_at: int, now: float, *, include_all_states: bool) -> Any:
        expires_at = trigger_at + 60 + self.max_delay
        every = include_all_states
        return transitions.decide_move(self.state, expires_at, now, include_all_states=every)

    return [patch.object(tasks.Candidate, "decide", changed)]


@mutation("an offset that ends with 59 minutes is refused", 3)
def _() -> list[Patch]:
    def changed(real: Any, match: Any) -> int:
        if str(match.group()).endswith(":59") and match.group()[-6] in "+-":
            raise InvalidValue("an offset is at most 23:59")
        seconds: int = real(match)
        return seconds

    return [_around(times, "_from_rfc3339", changed)]


@mutation("max_delay is not checked after connecting", 14)
def _() -> list[Patch]:
    def changed(real: Any, self: Any) -> Any:
        lasting = self.claim.definition._replace(max_delay=525_600)
        self.claim = evolve(self.claim, definition=lasting)
        return real(self)

    return [_around(call.Call, "start", changed)]


@mutation("a put of a due task does not notify the dispatcher", 3)
def _() -> list[Patch]:
    def changed(real: Any, write: Any, *args: Any) -> Any:
        result = real(write, *args)
        write.changes.due_hosts.clear()
        return result

    return [_around(tasks, "put", changed)]


@mutation("a reschedule to the present minute does not notify the dispatcher", 6)
def _() -> list[Patch]:
    def changed(real: Any, write: Any, *args: Any, **named: Any) -> Any:
        result = real(write, *args, **named)
        write.changes.due_hosts.clear()
        return result

    return [_around(tasks, "reschedule", changed)]


@mutation("a daemon does not poll for the tasks of its peers", 8)
def _() -> list[Patch]:
    def nothing(self: Any, now: float) -> Any:
        return succeed([])

    return [patch.object(PostgresqlStore, "_hosts_with_due_tasks", nothing)]


@mutation("hosts with due tasks are not published", 2)
def _() -> list[Patch]:
    def changed(real: Any, self: Any, changes: Changes) -> None:
        real(self, evolve(changes, due_hosts={}))

    return [_around(ChangeFeed, "publish", changed)]


@mutation("transitions are published without a commit", 0)
def _() -> list[Patch]:
    def changed(real: Any, self: Any, operations: Any) -> Any:
        def early(write: Any, operation: Operation) -> Any:
            result = operation.run(write)
            self.changes.publish(Changes(transitions=list(write.changes.transitions)))
            return result

        return real(self, [Operation(function=early, args=(one,), kwargs={}) for one in operations])

    return [_around(SqliteStore, "_transact", changed)]


@mutation("a failed tick is not retried", 39)
def _() -> list[Patch]:
    return [patch.object(Scheduler, "_tick_failed", lambda self, failure: None)]


@mutation("the first failure of a tick ends all ticks", 7)
def _() -> list[Patch]:
    def changed(self: Any, failure: Any) -> None:
        self._state = TickState.TICKING
        self._minute.stop()

    return [patch.object(Scheduler, "_tick_failed", changed)]


@mutation("the wall clock is checked once a minute only", 6)
def _() -> list[Patch]:
    return [patch.object(scheduler, "CLOCK_CHECK_SECONDS", 60)]


@mutation("a wall clock step back stops the ticks", 137)
def _() -> list[Patch]:
    def changed(self: Any) -> None:
        self._minute.stop()
        self._align_to_minute()
        if times.floor_to_minute(self._now()) > self._ticked_minute:
            self.tick()

    return [patch.object(Scheduler, "_check_wall_clock", changed)]


@mutation("a wall clock step back during a tick is not noticed", 555)
def _() -> list[Patch]:
    return [patch.object(Scheduler, "_now", lambda self: self._wall())]


@mutation("times are parsed in the local time zone", 0)
def _() -> list[Patch]:
    def changed(real: Any, match: Any) -> int:
        seconds: int = real(match)
        return seconds - time.localtime(seconds).tm_gmtoff

    return [_around(times, "_from_rfc3339", changed)]


# Every task ends, with a reason


@mutation("an expired lease is ignored", 601)
def _() -> list[Patch]:
    def changed(real: Any, write: Any, now: float, *, every: bool = False) -> Any:
        return real(write, now, every=every) if every else []

    return [_around(queue, "take_orphans", changed)]


@mutation("claims of a dead daemon are not rescued", 21)
def _() -> list[Patch]:
    return [patch.object(queue, "take_orphans", lambda write, now, **_: [])]


@mutation("the claims of a daemon that died are not taken over", 491)
def _() -> list[Patch]:
    dead = "OR holder IN (SELECT node_id FROM dead)"
    gone = "OR NOT EXISTS (SELECT FROM node WHERE node_id = holder)"
    return [_sql("_HEARTBEAT", dead, "", membership), _sql("_HEARTBEAT", gone, "", membership)]


@mutation("a daemon that stops remains a member of its fleet", 1)
def _() -> list[Patch]:
    return [patch.object(Member, "deregister", lambda self, connection: None)]


@mutation("a daemon that counts as dead does not join again", 169)
def _() -> list[Patch]:
    def changed(real: Any, self: Any, connection: Any, ms: Any) -> Any:
        return real(self, connection, ms) if self.node_id is None else self.node_id

    return [_around(Member, "_register", changed)]


@mutation("a daemon that was frozen while it connected makes its call", 8)
def _() -> list[Patch]:
    def changed(real: Any, self: Any, claim: Claim, has_more: Any, _: Any) -> Any:
        return real(self, claim, has_more)

    return [_around(HttpCaller, "call", changed)]


@mutation("a heartbeat after a freeze makes lost claims valid", 162)
def _() -> list[Patch]:
    def changed(real: Any, self: Poller, _: int) -> Any:
        return real(self, self._gaps)

    return [_around(Poller, "_keeps_claims", changed)]


@mutation("a daemon does not notice that its machine was suspended", 8)
def _() -> list[Patch]:
    return [
        patch.object(TwoClocks, "age", lambda self, moment: self._monotonic() - moment.monotonic)
    ]


@mutation("the heartbeat after an outage waits for its interval", 15)
def _() -> list[Patch]:
    return [patch.object(Poller, "_failed", lambda self, failure: None)]


@mutation("a stop takes each call without a status for a failure of its endpoint", 3)
def _() -> list[Patch]:
    def changed(real: Any, self: Dispatcher, outcome: Outcome, claim: Claim) -> None:
        is_cut_off = self._phase is dispatcher.Phase.CUTTING_OFF
        self._phase = dispatcher.Phase.DRAINING if is_cut_off else self._phase
        real(self, outcome, claim)
        self._phase = dispatcher.Phase.CUTTING_OFF if is_cut_off else self._phase

    return [_around(Dispatcher, "_called", changed)]


@mutation("a connection to an endpoint that speaks no HTTP stays open", 0)
def _() -> list[Patch]:
    return [patch.object(Connection, "drop", lambda self: setattr(self, "_is_closed", True))]


@mutation("each body makes the bound of all bodies looser", 0)
def _() -> list[Patch]:
    def changed(real: Any, self: Any, connection: Any, size: int) -> None:
        self._total -= connection not in self._usage
        real(self, connection, size)

    return [_around(BufferBudget, "set_usage", changed)]


@mutation("a stop forgets the status of a response that it cuts off", 3)
def _() -> list[Patch]:
    def changed(real: Any, self: Dispatcher, outcome: Outcome, claim: Claim) -> None:
        cut_off = self._phase is dispatcher.Phase.CUTTING_OFF
        real(self, transitions.interrupted(claim) if cut_off else outcome, claim)

    return [_around(Dispatcher, "_called", changed)]


@mutation("a call that a stop cuts off counts as a failure of its endpoint", 3)
def _() -> list[Patch]:
    def changed(real: Any, claim: Claim) -> Outcome:
        cut_off: Outcome = real(claim)
        return evolve(cut_off, reason=Reason.CONNECTION_FAILED)

    return [_around(transitions, "interrupted", changed)]


@mutation("a failed record is not retried", 35)
def _() -> list[Patch]:
    def changed(real: Any, self: Any, operation: Any, *args: Any, **named: Any) -> Any:
        writing = real(self, operation, *args, **named)
        return writing.addErrback(lambda _: True) if operation is queue.record else writing

    return [_around(Store, "write", changed)]


@mutation("an expired task fails without a reason", 0)
def _() -> list[Patch]:
    return [_sql("_FAIL", "reason = ?", "reason = nullif(?, 'too_late')")]


@mutation("a failure is recorded without a detail", 3)
def _() -> list[Patch]:
    return [_sql("_RECORD", "detail = ?", "detail = substr(?, 999)")]


@mutation("a task that expires while it waits is not failed", 0)
def _() -> list[Patch]:
    return [_sql("_TOO_LATE", "AND expires_at <= ?", "AND expires_at <= ? AND 0")]


@mutation("no connection can be made", 0)
def _() -> list[Patch]:
    def changed(real: Any, self: Any, uri: Any) -> Any:
        raise TypeError("an argument is missing")

    return [_around(Agent, "_make_endpoint", changed)]


@mutation("every status counts as success", 4)
def _() -> list[Patch]:
    def changed(real: Any, self: Any, status: int) -> bool:
        return True

    return [_around(Definition, "expects", changed)]


@mutation("a call that timed out counts as success", 3)
def _() -> list[Patch]:
    def changed(real: Any, claim: Any, outcome: Any, now: float) -> Any:
        if outcome.reason is not None and outcome.reason.value == "timeout":
            outcome = evolve(outcome, status=200, reason=None)
        return real(claim, outcome, now)

    return [_around(transitions, "decide_after_attempt", changed)]
