"""The database of the simulation: SQLite on a file, with faults at any statement."""

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

from callme.store.sqlite.cursor import SqliteCursor


class Killed(BaseException):
    """The kill of the process at this point."""


class Fault(str, Enum):
    """A fault of a statement."""

    LOCKED = "database is locked"
    FULL = "database or disk is full"
    BROKEN = "disk I/O error"
    DOUBT = "disk I/O error after the commit"
    KILL = "the process is killed"


_WRITES = ("INSERT", "UPDATE", "DELETE", "COMMIT")


@define(eq=False)
class Disk:
    """The faults of a database; they outlast a daemon.

    :ivar planned: the number of the statement that fails, counted from 1.
    :ivar until: the end (monotonic) of each kind of fault that affects every statement.
    :ivar flaky: the probability that a statement meets ``FULL`` or ``BROKEN``.
    :ivar slow: the maximum seconds before a transaction begins.
    :ivar on_fault: called with each fault and its statement.
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
        """Return whether a fault of this kind affects every statement now."""
        return self.clock() < self.until.get(fault, 0.0)

    def heal(self) -> None:
        """End all faults."""
        self.planned.clear()
        self.until.clear()
        self.flaky = self.slow = 0.0

    def wait(self) -> float:
        """Return the seconds before a transaction begins."""
        if self.lasts(Fault.LOCKED):
            return 2.0  # busy_timeout of callme
        return self.random.random() * self.slow

    def before(self, connection: Connection, sql: str) -> None:
        """Count a statement, and raise its fault."""
        self.statements += 1
        fault = self.planned.pop(self.statements, None)
        if fault is Fault.DOUBT and sql != "COMMIT":
            # This fault is for a commit: the next one takes it.
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
            # SQLite may roll back the whole transaction by itself.
            sqlite3.Connection.rollback(connection)
        raise sqlite3.OperationalError(fault.value)

    def after_commit(self, connection: Connection) -> None:
        """Let a successful commit appear to fail, if that is its fault."""
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
    """A connection to SQLite whose statements may fail."""

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


class Cursor(SqliteCursor):
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
    """A replacement for the threads of a pool: their work happens at a later step.

    A transaction is a single step, so that its intermediate states are invisible. Other steps
    may come before it, and between its end and the delivery of its result.
    """

    reactor: Any
    disk: Disk
    jobs: list[tuple[Any, ...]] = field(factory=list)
    busy: bool = False

    def start(self) -> None:
        """Do nothing: there are no threads."""

    def stop(self) -> None:
        """Do the queued work, as threads do before they end."""
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
    """The connections of one process, which end with a kill."""

    disk: Disk
    made: list[Connection] = field(factory=list)

    def join(self, pool: Any, reactor: Any) -> None:
        """Let an adbapi pool work in simulated steps, over these connections."""
        pool.threadpool = Threads(reactor, self.disk)
        pool.connkw["factory"] = partial(self._make)

    def _make(self, *args: Any, **named: Any) -> Connection:
        connection = Connection(*args, **named)
        connection.disk = self.disk
        self.made.append(connection)
        return connection

    def cut_off(self, path: Path, to: Path) -> None:
        """Copy the state on disk after a kill to another file; close the connections."""
        for suffix in ("", "-wal"):
            source = path.with_name(path.name + suffix)
            if source.exists():
                shutil.copyfile(source, to.with_name(to.name + suffix))
        for connection in self.made:
            connection.dead = True
            connection.close()
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
