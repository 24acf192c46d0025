"""The database as a daemon meets it: SQLite itself, on a file, with faults at any statement."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from enum import Enum
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from attrs import define, field
from twisted.python.failure import Failure


class Killed(BaseException):
    """The process dies here."""


class Fault(str, Enum):
    """What a statement meets."""

    LOCKED = "database is locked"
    FULL = "database or disk is full"
    BROKEN = "disk I/O error"
    DOUBT = "disk I/O error after the commit"
    KILL = "the process is killed"


_WRITES = ("INSERT", "UPDATE", "DELETE", "COMMIT")


@define(eq=False)
class Disk:
    """The faults of a database; they outlive the daemons that meet them.

    :ivar planned: the statement, counted from 1, that meets a fault.
    :ivar until: until when (on the monotonic clock) every statement meets a fault of a kind.
    :ivar flaky: how likely a statement is to meet one of ``FULL`` and ``BROKEN``.
    :ivar slow: how many seconds a transaction may have to wait for its turn.
    :ivar on_fault: told of each fault that is met, and the statement that meets it.
    """

    random: Random
    clock: Callable[[], float]
    planned: dict[int, Fault] = field(factory=dict)
    until: dict[Fault, float] = field(factory=dict)
    flaky: float = 0.0
    slow: float = 0.0
    statements: int = 0
    on_fault: Callable[[Fault, str], None] = lambda fault, sql: None

    def lasts(self, fault: Fault) -> bool:
        """Whether a fault of this kind is there all the time now."""
        return self.clock() < self.until.get(fault, 0.0)

    def heal(self) -> None:
        """Be without fault from now on."""
        self.planned.clear()
        self.until.clear()
        self.flaky = self.slow = 0.0

    def wait(self) -> float:
        """Return how long a transaction waits before it begins."""
        if self.lasts(Fault.LOCKED):
            return 2.0  # callme's busy_timeout
        return self.random.random() * self.slow

    def before(self, connection: Connection, sql: str) -> None:
        """Count a statement, and let it meet its fault."""
        self.statements += 1
        fault = self.planned.pop(self.statements, None)
        if fault is Fault.DOUBT and sql != "COMMIT":
            # It is a commit's; the next one will do.
            self.planned[self.statements + 1] = fault
            fault = None
        if fault is None:
            fault = self._lasting(sql)
        if fault is None or fault is Fault.DOUBT:
            connection.in_doubt = fault is not None
            return
        self._meet(fault, sql)
        if fault is Fault.KILL:
            raise Killed
        if fault is not Fault.LOCKED and connection.in_transaction and self.random.random() < 0.5:
            # SQLite may undo the whole transaction by itself.
            sqlite3.Connection.rollback(connection)
        raise sqlite3.OperationalError(fault.value)

    def after_commit(self, connection: Connection) -> None:
        """Let a commit that was made look as if it had failed, if that is its fault."""
        if connection.in_doubt:
            connection.in_doubt = False
            self._meet(Fault.DOUBT, "COMMIT")
            raise sqlite3.OperationalError(Fault.BROKEN.value)

    def _lasting(self, sql: str) -> Fault | None:
        word = sql.split(None, 1)[0]
        if self.lasts(Fault.BROKEN):
            return Fault.BROKEN
        if self.lasts(Fault.LOCKED) and sql == "BEGIN IMMEDIATE":
            return Fault.LOCKED
        if self.lasts(Fault.FULL) and word in _WRITES:
            return Fault.FULL
        if self.flaky and self.random.random() < self.flaky:
            if word == "COMMIT" and self.random.random() < 0.5:
                return Fault.DOUBT
            return self.random.choice((Fault.FULL, Fault.BROKEN))
        return None

    def _meet(self, fault: Fault, sql: str) -> None:
        self.on_fault(fault, sql)


class Connection(sqlite3.Connection):
    """A connection to SQLite, each statement of which may meet a fault."""

    disk: Disk
    in_doubt = False
    dead = False

    def cursor(self, factory: Any = None) -> Any:
        return super().cursor(Cursor)

    def commit(self) -> None:
        if self.in_transaction:
            self.disk.before(self, "COMMIT")
        super().commit()
        self.disk.after_commit(self)

    def rollback(self) -> None:
        if not self.dead:
            super().rollback()


class Cursor(sqlite3.Cursor):
    """A cursor of such a connection."""

    connection: Connection

    def execute(self, sql: str, *values: Any) -> Cursor:
        self._before(sql)
        return super().execute(sql, *values)

    def executemany(self, sql: str, rows: Any) -> Cursor:
        self._before(sql)
        return super().executemany(sql, rows)

    def _before(self, sql: str) -> None:
        connection = self.connection
        try:
            connection.disk.before(connection, sql.strip())
        except Killed:
            connection.dead = True
            raise


@define(eq=False)
class Threads:
    """Takes the place of a pool's threads: what they would do happens at a later step.

    A transaction happens at one step: what it does in between is seen by nobody. Before it,
    and between its end and the news of it, anything else may happen.
    """

    reactor: Any
    disk: Disk
    jobs: list[tuple[Any, ...]] = field(factory=list)
    busy: bool = False

    def start(self) -> None:
        """Nothing to start."""

    def stop(self) -> None:
        """Do what waits to be done, as threads do before they end."""
        while self.jobs:
            self._work()

    def callInThreadWithCallback(self, done: Any, work: Any, *args: Any, **named: Any) -> None:
        self.jobs.append((done, work, args, named))
        if not self.busy:
            self._begin()

    def _begin(self) -> None:
        self.busy = True
        self.reactor.callLater(self.disk.wait(), self._work)

    def _work(self) -> None:
        if not self.jobs:
            self.busy = False
            return
        done, work, args, named = self.jobs.pop(0)
        try:
            result, good = work(*args, **named), True
        except Exception:
            result, good = Failure(), False
        done(good, result)
        if self.jobs:
            self._begin()
        else:
            self.busy = False


@define(eq=False)
class Connections:
    """The connections of one process, which a kill cuts off."""

    disk: Disk
    made: list[Connection] = field(factory=list)

    def join(self, pool: Any, reactor: Any) -> None:
        """Have an adbapi pool work in our steps, over our connections."""
        pool.threadpool = Threads(reactor, self.disk)
        pool.connkw["factory"] = partial(self._make)

    def _make(self, *args: Any, **named: Any) -> Connection:
        connection = Connection(*args, **named)
        connection.disk = self.disk
        self.made.append(connection)
        return connection

    def cut_off(self, path: Path, to: Path) -> None:
        """Leave in another file what a kill leaves on disk, and let go of the connections."""
        for suffix in ("", "-wal"):
            source = path.with_name(path.name + suffix)
            if source.exists():
                shutil.copyfile(source, to.with_name(to.name + suffix))
        for connection in self.made:
            connection.dead = True
            connection.close()
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
