"""A world: successive daemons on one database, their clients, endpoints and clocks."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.python.failure import Failure

from callme import service
from callme.caller import agent
from callme.server.channel import BoundedChannel
from callme.store.changes import Changes, TaskTransition

from .checker import ENDS, Checker
from .database import Disk, Fault, Killed
from .endpoints import Host, Network, Seen
from .history import FOREVER, History
from .hosts import HOSTS, HostRule
from .process import LoneProcess, Process, Steady
from .timeline import Timeline
from .wire import ON_ITS_WAY, Service

RESTED = 6.0
"""Seconds after a fault in which calls may still be delayed: a lock is awaited for 2 s, failed
writes are retried after 2 s, and the wall clock is checked every 5 s."""
LEASE = 200.0
"""Seconds of delay after a fault that may have orphaned a claim."""
ENOUGH = 10
"""Number of breaches of the promise after which a world ends."""


def _contradiction(one: TaskTransition) -> tuple[str, tuple[object, ...]]:
    """Return the statement that finds a task without its published transition, and its values.

    A task that is not found says nothing: a client may have moved or deleted it in the same
    transaction.
    """
    key, attempt = (one.key.task_name, one.key.trigger_at), one.transition.attempt
    task = "SELECT 1 FROM task WHERE task_name = ? AND trigger_at = ?"
    if attempt is None:
        return f"{task} AND state != ?", (*key, one.transition.state.value)
    recorded = "SELECT 1 FROM attempt WHERE task_id = task.task_id AND number = ?"
    return f"{task} AND NOT EXISTS ({recorded})", (*key, attempt.number)


class Enough(Exception):
    """Number of breaches after which a run ends."""


class World:
    """The whole world of a run.

    :param arguments: the command-line arguments of the daemon.
    :param wall: the wall clock at the beginning.
    :ivar before_step: actions on the world by the number of the step that they precede.
    """

    def __init__(
        self, random: Random, directory: Path, wall: float, arguments: list[str], retention: int = 0
    ) -> None:
        self.random, self.directory = random, directory
        self.arguments = [*arguments, "--retention", str(retention)]
        self.timeline = Timeline(random, wall - 1000.0)
        self.history = History(self.timeline, retention)
        self.disk = Disk(random, lambda: self.timeline.elapsed, on_fault=self._on_fault)
        self.checker = Checker(self.history)
        self.network = Network(random, self.timeline, self._on_request)
        self.service = Service(self.timeline)
        self.process: LoneProcess | None = None
        self.faults: Counter[str] = Counter()
        self.before_step: dict[int, Callable[[], None]] = {}
        self.has_operator = False
        self.has_edges = False
        self._paths = 0
        self._observer: Any = self._observe
        self._dying = False
        self._stopping = False

    @property
    def statements(self) -> int:
        """The number of statements that the database has executed."""
        return self.disk.statements

    # Processes

    @property
    def lives(self) -> bool:
        """Return whether a daemon runs."""
        return self.process is not None and self.process.alive

    def _path(self) -> Path:
        return self.directory / f"{self._paths}.sqlite"

    def start(self) -> None:
        """Start a daemon unless one runs."""
        if self.lives:
            return
        self._stopping = False
        self.history.say("the daemon starts")
        self.history.hinders(1.0)
        path = self._path()
        self.process = self.service.process = LoneProcess(
            self.timeline, self.disk, self.network, path, self.arguments, self._news_take
        )
        self.process.daemon.parts.store.changes.subscribe(partial(self._on_changes, path))

    def _on_changes(self, path: Path, changes: Changes) -> None:
        """Check that published changes are on disk."""
        if not self.lives or not changes.transitions:
            return
        with closing(sqlite3.connect(path)) as connection:
            for one in changes.transitions:
                if connection.execute(*_contradiction(one)).fetchone():
                    self.checker.breaks(f"{one.key} is published, but not committed: {one}")

    def _news_take(self) -> float:
        return self.random.choice((0.0, 0.0002, 0.002))

    def kill(self, down: float | None = None) -> None:
        """Kill the daemon now; another one starts after some seconds."""
        if self.process is None or not self.process.alive:
            return
        self.history.say("the daemon is killed")
        self.faults["kill"] += 1
        self._paths += 1
        self.process.kill(self._path())
        self.service.drop(self.process)
        self._is_down(down)

    def _is_down(self, down: float | None) -> None:
        self.history.interruptions += 1
        seconds = self.random.choice((0.1, 2, 20, 90)) if down is None else down
        self.history.hinders(seconds + RESTED)
        self.timeline.after(seconds, None, self.start)

    def terminate(self) -> None:
        """Stop the daemon, as SIGTERM does; another one starts after its end."""
        if self.process is None or not self.process.alive or self._stopping:
            return
        self.history.say("the daemon is asked to end")
        self.faults["terminate"] += 1
        self.history.interruptions += 1
        # A stop may take 16 s: responses, calls and records.
        self.history.hinders(16 + RESTED)
        self._stopping = True
        process = self.process

        def ended(_: object) -> None:
            self.history.say("the daemon has ended")
            self.service.drop(process)
            self._is_down(None)

        process.terminate().addCallbacks(ended, self._escaped)

    def _escaped(self, failure: Failure) -> None:
        self.checker.breaks(f"an error reached the reactor: {failure.getTraceback()}")

    # Faults

    def set_wall(self, seconds: float) -> None:
        """Set the wall clock."""
        self.faults["clock set forward" if seconds > 0 else "clock set back"] += 1
        self.timeline.set_wall(seconds)
        self.history.clock_was_set()
        self.history.say(f"the wall clock is set by {seconds:+.3f} s")
        self.history.hinders(RESTED)

    def suspend(self, seconds: float, monotonic_too: bool) -> None:
        """Suspend the machine for some seconds."""
        self.faults["suspend"] += 1
        self.history.hinders(0, since=self.timeline.elapsed)
        before = self.timeline.elapsed
        self.timeline.sleep(seconds, monotonic_too)
        self.history.clock_was_set()
        self.history.say(f"the machine was suspended for {seconds:.3f} s")
        self.history.hinders(RESTED, since=before)

    def trouble(self, fault: Fault, seconds: float) -> None:
        """Let every statement fail for some seconds."""
        self.history.say(f"{fault.value}, for {seconds:.3f} s")
        self.disk.until[fault] = self.timeline.elapsed + seconds
        self.history.hinders(seconds + RESTED)

    def _on_fault(self, fault: Fault, sql: str) -> None:
        self.faults[fault.name.lower()] += 1
        self.history.say(f"{fault.value}, at {sql[:40]!r}")
        if fault is Fault.DOUBT:
            self.history.doubts += 1
            self.history.interruptions += 1
            self.history.hinders(LEASE)
        elif fault is Fault.KILL:
            self.faults["kill"] -= 1  # it is counted when it happens
            self._dying = True
        else:
            self.history.hinders(RESTED)

    def never_in_time(self) -> None:
        """Note that no call of this world can be expected to be prompt."""
        self.history.in_the_way.append((0.0, FOREVER))

    def heal(self) -> None:
        """End all faults."""
        self.history.say("all trouble ends")
        self.disk.heal()
        self.network.heal()
        self.before_step.clear()
        self.timeline.lateness = 0.0

    # Time

    def run_until(self, until: float, done: Callable[[], bool] = lambda: False) -> None:
        """Run events up to a moment on the monotonic clock, or until a condition holds.

        :raises Enough: after too many breaches of the promise.
        """
        while not done():
            if len(self.checker.broken) > ENOUGH:
                raise Enough
            timer = self.timeline.step(until)
            if timer is None:
                break
            if (trouble := self.before_step.pop(self.timeline.steps, None)) is not None:
                trouble()
                if timer.cancelled or not (timer.owner is None or timer.owner.alive):
                    continue
            timer.called = True
            try:
                timer.happen(*timer.args, **timer.named)
            except Killed:
                self._dying = True
            except Exception:
                self._escaped(Failure())
            if self._dying:
                self._dying = False
                self.kill()
        self.history.latest_wall = max(self.history.latest_wall, self.timeline.wall())

    def _on_request(self, seen: Seen) -> None:
        self.checker.on_request(seen)
        in_flight, settings = self.network.in_flight(seen.process), seen.process.settings
        if in_flight.total() > settings.concurrency:
            self.checker.breaks(f"{in_flight.total()} calls, not {settings.concurrency}, at once")
        if in_flight[seen.host] > settings.per_host:
            self.checker.breaks(f"{in_flight[seen.host]} calls at once to {seen.host}")

    def answer_to(self, method: str, path: str) -> tuple[int, Any]:
        """Make a request to the daemon, and wait for the response."""
        answers: list[tuple[int, Any]] = []
        self.service.ask(method, path, None, lambda status, body: answers.append((status, body)))
        self.run_until(self.timeline.elapsed + 60, lambda: bool(answers))
        return answers[0] if answers else (0, None)

    def release_hosts(self) -> None:
        """Return all hosts to the defaults, once all requests have a response."""
        self.run_until(self.timeline.elapsed + 120, lambda: not self.service.exchanges)
        for host in HOSTS:
            for _ in range(100):
                # The daemon may be down for some seconds.
                self.run_until(self.timeline.elapsed + 5, lambda: self.lives)
                self.checker.hosts[host].may_be_set(self.timeline.elapsed)
                status, _body = self.answer_to("DELETE", f"/hosts/{host}")
                if status == 204:
                    break
            self.checker.hosts[host].is_set(HostRule(), self.timeline.elapsed)

    def tasks(self) -> list[dict[str, Any]]:
        """Return every task with all details."""
        tasks: list[dict[str, Any]] = []
        following = ""
        while True:
            status, page = self.answer_to("GET", f"/status/?limit=20{following}")
            if status != 200:
                self.checker.breaks(f"GET /status/ was answered {status}")
                break
            for task in page["tasks"]:
                status, whole = self.answer_to("GET", f"/status/{task['task']}")
                if status == 200:
                    tasks.append(whole)
            if "next" not in page:
                break
            following = f"&start_from={page['next']}"
        return tasks

    def all_have_ended(self) -> bool:
        """Return whether no task is scheduled or running."""
        if not self.lives:
            return False
        status, page = self.answer_to("GET", "/status/?limit=1000")
        # A notification may be retried for hours: its existence is enough.
        return status == 200 and all(
            task["state"] in ENDS or "told.example" in task["callback"] for task in page["tasks"]
        )

    def _skip(self) -> None:
        """Step the clock forward to the next due task, if it was stepped far back."""
        status, page = self.answer_to("GET", "/status/?limit=1000&state=scheduled")
        if status == 200 and page["tasks"]:
            following = min(History.parse(task["next_attempt_at"]) for task in page["tasks"])
            if following > self.timeline.wall() + 120:
                self.set_wall(following - 60 - self.timeline.wall())

    def settle(self, minutes: int) -> None:
        """Run until every task has ended, for a bounded time; then check the promise."""
        # The checker would report a write that completes during the read as lost.
        self.run_until(self.timeline.elapsed + 60, lambda: not self.service.exchanges)
        self.run_until(self.timeline.elapsed + ON_ITS_WAY)
        for minute in range(minutes):
            if self.all_have_ended():
                break
            if minute >= 30:
                self._skip()
            self.run_until(self.timeline.elapsed + 60)
        self.checker.finish(self.tasks(), self.network.unseen)
        self._check_resources()

    def _processes(self) -> list[Process]:
        """Return the processes that run."""
        return [] if self.process is None or not self.process.alive else [self.process]

    def _check_resources(self) -> None:
        """Check that nothing remains of requests and calls that have ended."""
        self.run_until(self.timeline.elapsed + 60, lambda: not self.service.exchanges)
        self.run_until(self.timeline.elapsed + 1)
        if self.network.useless:
            self.checker.breaks(f"{self.network.useless} connections that speak no HTTP are open")
        for process in self._processes():
            site = process.daemon.parts.site
            if not site.registry.connections and site.buffers._total:
                self.checker.breaks(f"{site.buffers._total} bytes are buffered for no connection")

    def __enter__(self) -> World:
        self._patches = ExitStack()
        self._patches.enter_context(patch.object(agent, "HostEndpoint", Host))
        self._patches.enter_context(patch.object(service, "MonotonicClock", Steady))
        # The callback would keep the memory of each world alive.
        self._patches.enter_context(patch.object(service, "tune_gc", lambda: None))
        self._patches.enter_context(patch.object(service, "release_free_memory", lambda: None))
        # Sets of these are iterated in the order of their hashes, which differs between runs:
        # a seed must always give the same run.
        self._patches.enter_context(patch.object(BoundedChannel, "__hash__", lambda _: 1))
        globalLogPublisher.addObserver(self._observer)
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.alive:
            self._paths += 1
            self.process.kill(self._path())
        globalLogPublisher.removeObserver(self._observer)
        self._patches.close()

    def _observe(self, event: LogEvent) -> None:
        if self.lives and "log_failure" in event:
            failure: Failure = event["log_failure"]
            self.checker.breaks(f"an error was logged: {failure.getTraceback()}")
        if self.history.verbose and event.get("log_namespace", "").startswith("callme"):
            self.history.say(f"callme: {formatEvent(event)}")
