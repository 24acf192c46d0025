"""A fleet: several daemons on one database, each with its own clock and network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

from attrs import define

from callme.store.changes import Changes
from callme.store.postgresql import engine

from .endpoints import Seen
from .process import MemberProcess, Process
from .server import DatabaseServer, SimulatedConnections
from .world import RESTED, World

MAX_SKEW = 1.9
"""Seconds by which the clock of a daemon may differ from the database's: callme warns from 2 on."""
DEAD_AFTER = 30.0
"""Seconds without a heartbeat after which a daemon counts as dead."""
RESCUED_AFTER = DEAD_AFTER + 5 + 5 + 2
"""Seconds within which a claim of a dead daemon is taken over, if another one sends regular
heartbeats: each is up to 5 s late, and so is the beginning of their regularity."""
NOTICED_AFTER = 1.5
"""Seconds after an outage within which each daemon sends a heartbeat: it polls every 0.5 s."""
MAX_STOP = 6.0
"""Seconds within which a daemon stops that has no call in flight and no result to store."""
MAX_DRAIN = 10 + 2 + 2 + MAX_STOP
"""Seconds within which every daemon stops: calls and results, cut-off calls, connections."""
STOP_CHECK = 0.5
"""Seconds between two checks of a daemon that stops."""
HANDED_OVER_AFTER = 5 + 2.0
"""Seconds within which a claim that a stopped daemon could not return is taken over."""


@define(eq=False)
class Slot:
    """The place of one daemon of the fleet, for one process after the other.

    :ivar skew: as of :class:`MemberProcess`.
    :ivar is_retired: whether no process follows.
    :ivar runs: the number of processes so far.
    """

    name: str
    skew: float
    process: MemberProcess | None = None
    is_stopping: bool = False
    is_retired: bool = False
    runs: int = 0
    started: float = 0.0

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.alive


class Fleet(World):
    """A world with several daemons on one database.

    :param size: the number of daemons.
    """

    def __init__(
        self,
        random: Random,
        directory: Path,
        wall: float,
        arguments: list[str],
        retention: int,
        size: int,
    ) -> None:
        super().__init__(random, directory, wall, arguments, retention)
        self.server = DatabaseServer(random, self.timeline, on_doubt=self._on_doubt)
        skewed = random.random() < 0.5
        self.keeps_names = random.random() < 0.5
        self.slots = [
            Slot(name, random.uniform(-MAX_SKEW, MAX_SKEW) if skewed else 0.0)
            for name in "abc"[:size]
        ]
        self._down_since: float | None = None
        # The end of all faults that are known yet.
        self._calm_at = 0.0
        self.service.choose = self._choose
        self.checker.skew = max(abs(slot.skew) for slot in self.slots)
        self.checker.hosts.is_shared = True

    @property
    def statements(self) -> int:
        return self.server.statements

    @property
    def lives(self) -> bool:
        return any(slot.process is not None and slot.process.listens for slot in self.slots)

    def _choose(self) -> MemberProcess | None:
        """Return a daemon that accepts connections, as a load balancer does."""
        processes = [slot.process for slot in self.slots]
        listening = [one for one in processes if one is not None and one.listens]
        return self.random.choice(listening) if listening else None

    def _on_request(self, seen: Seen) -> None:
        super()._on_request(seen)
        name, _, trigger_at = seen.key.rpartition("@")
        claimed = """
            SELECT 1 FROM task JOIN node ON node_id = holder
            WHERE task_name = ? AND trigger_at = ? AND last_attempt = ? AND name = ?
        """
        if not self.server.query(claimed, name, trigger_at, seen.number, seen.process.name):
            self.checker.breaks(f"{seen.process.name} has no claim for this call: {seen.key}")

    # Processes

    def start(self) -> None:
        for slot in self.slots:
            self._start(slot)

    def _start(self, slot: Slot) -> None:
        if slot.alive or slot.is_retired:
            return
        slot.runs += 1
        slot.is_stopping = False
        slot.started = self.timeline.elapsed
        name = slot.name if self.keeps_names else f"{slot.name}{slot.runs}"
        self.history.say(f"the daemon {name} starts, its clock is {slot.skew:+.3f} s ahead")
        self.history.hinders(1.0)
        if self._down_since is not None:
            self.history.hinders(RESTED, since=self._down_since)
            self._down_since = None
        self._unsettle()
        arguments = ["--node", name, *self.arguments]
        slot.process = MemberProcess(
            self.timeline, self.server, self.network, arguments, self._news_take, slot.skew
        )
        slot.process.daemon.parts.store.changes.subscribe(self._on_published)
        if self.server.is_down:
            # Its first heartbeat, and with it its membership, has to wait for the database.
            self._disturb(slot.process, self.server.down_until - self.timeline.elapsed)

    def _on_published(self, changes: Changes) -> None:
        """Judge whether the attempts that are published are in the database."""
        for one in changes.transitions:
            if one.transition.attempt is None:
                continue
            key = (one.key.task_name, one.key.trigger_at)
            task = "SELECT task_id FROM task WHERE task_name = ? AND trigger_at = ?"
            recorded = "SELECT 1 FROM attempt WHERE task_id = ? AND number = ?"
            for (task_id,) in self.server.query(task, *key):
                if not self.server.query(recorded, task_id, one.transition.attempt.number):
                    self.checker.breaks(f"{one.key} is published, but not committed: {one}")

    def _unsettle(self, seconds: float = 0.0) -> None:
        """Note that the shares of limits change in some seconds: each poll notices that."""
        settled = self.timeline.elapsed + seconds + 2.0
        self.checker.hosts.settled_at = max(self.checker.hosts.settled_at, settled)

    def _any(self) -> Slot | None:
        alive = [slot for slot in self.slots if slot.alive and not slot.is_stopping]
        return self.random.choice(alive) if alive else None

    def kill(self, down: float | None = None) -> None:
        slot = self._any()
        if slot is None or slot.process is None:
            return
        process = slot.process
        self.history.say(f"the daemon {slot.name} is killed")
        self.faults["kill"] += 1
        process.kill()
        self.service.drop(process)
        self.history.doubts += 1
        self.history.hinders(RESCUED_AFTER + RESTED)
        self._orphans_of(process)
        self._comes_back(slot, down)

    def _comes_back(self, slot: Slot, down: float | None) -> None:
        if not any(slot.alive for slot in self.slots):
            self._down_since = self.timeline.elapsed
        self.history.interruptions += 1
        self._unsettle(RESCUED_AFTER)
        seconds = self.random.choice((0.1, 2, 20, 90)) if down is None else down
        self.timeline.after(seconds, None, self._start, slot)

    def _retire(self, slot: Slot) -> None:
        slot.is_retired = True
        self._terminate(slot)

    def terminate(self) -> None:
        if (slot := self._any()) is not None:
            self._terminate(slot)

    def _terminate(self, slot: Slot) -> None:
        process = slot.process
        if process is None or not process.alive or slot.is_stopping:
            return
        self.history.say(f"the daemon {slot.name} is asked to end")
        self.faults["terminate"] += 1
        self.history.interruptions += 1
        # Its peers go on; they poll for the tasks that it returns.
        self.history.hinders(1.0)
        slot.is_stopping = True
        self._unsettle(16)
        began = self.timeline.elapsed
        self.timeline.after(STOP_CHECK, None, self._check_stop, process, began, began)

        def ended(_: object) -> None:
            self.history.say(f"the daemon {slot.name} has ended")
            self.service.drop(process)
            self._orphans_of(process, HANDED_OVER_AFTER)
            self._comes_back(slot, None)

        process.terminate().addCallbacks(ended, self._escaped)

    def _check_stop(self, process: MemberProcess, began: float, busy_at: float) -> None:
        """Check, until a daemon has stopped, that it waits for calls and results only.

        :param began: the beginning of the stop (monotonic).
        :param busy_at: the last moment at which the daemon had a reason to wait.
        """
        now = self.timeline.elapsed
        if not process.alive:
            return
        began = max(began, process.frozen_until)
        if process.frozen_until > busy_at or self._is_busy(process, began):
            busy_at = max(now, process.frozen_until)
        if now - busy_at > MAX_STOP:
            self.checker.breaks(f"a daemon without calls has not stopped for {now - busy_at:.1f} s")
        elif now - began > MAX_DRAIN:
            self.checker.breaks(f"a daemon has not stopped for {now - began:.1f} s")
        else:
            self.timeline.after(STOP_CHECK, None, self._check_stop, process, began, busy_at)

    def _is_busy(self, process: MemberProcess, stopping_since: float) -> bool:
        """Return whether a daemon that stops has calls in flight or results to store.

        The database may hold a result of which the daemon does not know that it is stored.
        """
        scheduler: Any = process.daemon.parts.scheduler
        claimed = "SELECT 1 FROM task WHERE state = 'running' AND holder = ?"
        is_in_doubt = process.is_in_doubt and scheduler._dispatcher._recorder.has_unrecorded
        return bool(
            scheduler.health().calls_in_flight
            or process.link.cut_until > stopping_since
            or is_in_doubt
            or (process.node_id is not None and self.server.query(claimed, process.node_id))
        )

    # Faults

    def freeze(self, seconds: float) -> None:
        """Freeze a daemon, as SIGSTOP or a busy hypervisor does."""
        slot = self._any()
        if slot is not None and slot.process is not None:
            self._freeze(slot.process, seconds)

    def _freeze(self, process: MemberProcess, seconds: float) -> None:
        self.faults["freeze"] += 1
        self.history.say(f"the daemon {process.name} is frozen for {seconds:.3f} s")
        process.frozen_until = self.timeline.elapsed + seconds
        self._disturb(process, seconds)

    def freeze_while_it_connects(self, seconds: float, *, is_suspended: bool) -> None:
        """Freeze the next daemon that connects to an endpoint, or suspend its machine.

        The connection is made during that time, or soon after.
        """

        def connecting(process: MemberProcess) -> float:
            self.network.on_connecting = lambda process: 0.0
            stop(process, seconds)
            # The call may have taken its whole time before the connection is made.
            self.network.unheard += after > 0
            return after

        after = self.random.choice((0.0, seconds + self.random.random()))
        stop = self._suspend if is_suspended else self._freeze
        self.network.on_connecting = connecting

    def suspend(self, seconds: float, monotonic_too: bool = False) -> None:
        """Suspend the machine of a daemon, whose monotonic clock stops."""
        slot = self._any()
        if slot is not None and slot.process is not None:
            self._suspend(slot.process, seconds)

    def _suspend(self, process: MemberProcess, seconds: float) -> None:
        self.faults["suspend"] += 1
        self.history.say(f"the machine of {process.name} is suspended for {seconds:.3f} s")
        process.frozen_until = self.timeline.elapsed + seconds
        process.slept += seconds
        self.timeline.stop_clock(process, seconds)
        self._disturb(process, seconds)

    def cut(self, seconds: float) -> None:
        """Cut a daemon off from the database."""
        slot = self._any()
        if slot is None or slot.process is None:
            return
        self.faults["cut off"] += 1
        self.history.say(f"the daemon {slot.name} is cut off for {seconds:.3f} s")
        slot.process.link.cut_until = self.timeline.elapsed + seconds
        self._disturb(slot.process, seconds)

    def _disturb(self, process: MemberProcess, seconds: float) -> None:
        now = self.timeline.elapsed
        process.disturbed.append((now, now + seconds))
        self._expect_trouble(seconds)
        self.history.interruptions += 1
        self.history.doubts += 1
        self.history.hinders(seconds + RESCUED_AFTER + RESTED)
        self._unsettle(seconds + RESCUED_AFTER)

    def _processes(self) -> list[Process]:
        return [slot.process for slot in self.slots if slot.process is not None and slot.alive]

    def outage(self, seconds: float) -> None:
        """Restart the server of the database."""
        self.faults["server down"] += 1
        self.history.say(f"the database is down for {seconds:.3f} s")
        self.server.down_until = self.timeline.elapsed + seconds
        for slot in self.slots:
            if slot.process is not None and slot.process.alive:
                self._disturb(slot.process, seconds)
                for pool in slot.process.pools:
                    pool.broken()
        if seconds > NOTICED_AFTER:
            # A daemon that has not polled has not noticed a shorter one.
            self.timeline.after(seconds + NOTICED_AFTER, None, self._check_heartbeats, seconds)

    def _check_heartbeats(self, seconds: float) -> None:
        """Check that each daemon has told its peers that it lives, after an outage."""
        since = self.timeline.elapsed - NOTICED_AFTER
        if abs(self.server.down_until - since) > 0.001:
            return  # It ended earlier, or another one followed.
        for slot in self.slots:
            process = slot.process
            if not self._is_regular(slot, since + 0.001, before=since - seconds):
                continue
            seen = "SELECT 1 FROM node WHERE node_id = ? AND seen_at_ms >= ?"
            back = (self.timeline.wall() - NOTICED_AFTER) * 1000
            if process is not None and not self.server.query(seen, process.node_id, back):
                self.checker.breaks(f"{slot.name} has sent no heartbeat since the outage")

    def outage_at_tick(self, seconds: float) -> None:
        """Restart the server as a minute begins, perhaps while a daemon is stopping."""
        begin = 60 - self.timeline.wall() % 60 + self.random.random() * 0.01
        self._expect_trouble(begin)
        self.timeline.after(begin, None, self.outage, seconds)
        if self.random.random() < 0.7:
            self.timeline.after(begin - self.random.random() * 0.003, None, self.terminate)

    def in_a_busy_moment(self, trouble: Callable[[Fleet], None]) -> None:
        """Inject a fault just after a minute begins, when tasks are claimed and called."""
        begin = 60 - self.timeline.wall() % 60
        begin += self.random.choice((0.01, 0.05, 5.0)) * self.random.random()
        self._expect_trouble(begin)
        self.timeline.after(begin, None, trouble, self)

    def settle(self, minutes: int) -> None:
        # The checker reads the tasks at the end: no fault may prevent that.
        while self.timeline.elapsed < self._calm_at:
            self.run_until(self._calm_at)
        super().settle(minutes)

    def _expect_trouble(self, seconds: float) -> None:
        """Note that a fault begins or ends in some seconds."""
        self._calm_at = max(self._calm_at, self.timeline.elapsed + seconds)

    def slow_network(self, seconds: float) -> None:
        """Delay every message to the database."""
        self.faults["slow network"] += 1
        self.history.say(f"the network is slow for {seconds:.3f} s")
        self.server.slow = self.random.choice((0.05, 0.3))
        self.history.hinders(seconds + RESTED)
        self.timeline.after(seconds, None, setattr, self.server, "slow", 0.002)

    def _on_doubt(self, why: str) -> None:
        self.faults["doubt"] += 1
        self.history.doubts += 1
        self.history.interruptions += 1
        self.history.say(why)
        # A claim without a known result is found by its token, or taken over after its lease.
        self.history.hinders(200.0)

    def heal(self) -> None:
        """End all faults; all daemons but one end soon.

        Faults that are to come in a busy moment still come.
        """
        super().heal()
        self.network.on_connecting = lambda process: 0.0
        for number, slot in enumerate(self.slots[1:]):
            self.timeline.after(60.0 + number, None, self._retire, slot)
        self.server.down_until = 0.0
        self.server.slow = 0.002
        for slot in self.slots:
            if slot.process is not None:
                slot.process.link.cut_until = 0.0

    # Orphans

    def _orphans_of(self, process: MemberProcess, within: float = RESCUED_AFTER) -> None:
        """Check later that a dead daemon's claims are taken over."""
        if process.node_id is not None:
            died = self.timeline.elapsed
            if any(end >= died - 5 for _, end in process.disturbed):
                within = RESCUED_AFTER  # It could not tell its peers.
            self.timeline.after(within, None, self._check_orphans, process.node_id, died)

    def _check_orphans(self, node_id: int, since: float) -> None:
        if not any(self._is_regular(slot, since - 5) for slot in self.slots):
            now = self.timeline.elapsed
            self.timeline.after(RESCUED_AFTER, None, self._check_orphans, node_id, now)
            return
        orphans = "SELECT task_name, trigger_at FROM task WHERE state = 'running' AND holder = ?"
        for name, at in self.server.query(orphans, node_id):
            self.checker.breaks(f"{name}@{at} is still claimed by a daemon that died at {since}")
        if self.server.query("SELECT 1 FROM node WHERE node_id = ?", node_id):
            self.checker.breaks(f"a daemon that died at {since} is still a member")

    def _is_regular(self, slot: Slot, since: float, before: float | None = None) -> bool:
        """Return whether nothing has prevented the heartbeats of a daemon since a moment.

        :param before: the moment before which it must have started; ``since`` by default.
        """
        process = slot.process
        if process is None or not process.alive or slot.is_stopping:
            return False
        started = since if before is None else before
        return slot.started < started - 1 and all(end < since for _, end in process.disturbed)

    def __enter__(self) -> Fleet:
        super().__enter__()
        self._patches.enter_context(patch.object(engine, "Connections", SimulatedConnections))
        return self

    def __exit__(self, *error: Any) -> None:
        for slot in self.slots:
            if slot.process is not None and slot.process.alive:
                slot.process.kill()
        self.server.connection.close()
        super().__exit__(*error)


def _seconds(world: Fleet, *choices: float) -> float:
    return world.random.choice(choices) * world.random.random()


TROUBLES: tuple[Callable[[Fleet], None], ...] = (
    lambda world: world.kill(),
    lambda world: world.kill(),
    lambda world: world.terminate(),
    lambda world: world.terminate(),
    lambda world: world.freeze(_seconds(world, 5, 60)),
    lambda world: world.freeze(35 + _seconds(world, 15)),
    lambda world: world.freeze_while_it_connects(35 + _seconds(world, 15), is_suspended=False),
    lambda world: world.freeze_while_it_connects(35 + _seconds(world, 15), is_suspended=True),
    lambda world: world.suspend(_seconds(world, 5, 60)),
    lambda world: world.cut(_seconds(world, 5, 30, 90)),
    lambda world: world.cut(_seconds(world, 60)),
    lambda world: world.outage(_seconds(world, 1, 10, 60)),
    lambda world: world.outage_at_tick(_seconds(world, 5, 30)),
    lambda world: world.outage_at_tick(_seconds(world, 5, 30)),
    lambda world: world.slow_network(_seconds(world, 60)),
)
"""What may happen to a fleet."""
