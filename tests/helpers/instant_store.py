"""A SQLite store in memory, without threads."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any, TypeVar

from attrs import evolve
from twisted.internet.defer import Deferred, fail, succeed

from callme.store.changes import Changes
from callme.store.database import Operation, Store, Write
from callme.store.interface import StoreUnavailable
from callme.store.sqlite.cursor import run_decoded
from callme.store.sqlite.file import configure_writer, migrate

T = TypeVar("T")


class InstantStore(Store):
    """A SQLite store on a database in memory, without threads: each call is done at once.

    :ivar is_broken: whether every call fails as if the database were locked.
    :ivar is_full: whether every write fails as if the disk were full.
    """

    def __init__(self) -> None:
        super().__init__()
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        configure_writer(self.connection)
        migrate(self.connection)
        self.is_broken = self.is_full = self._failing = False

    @property
    def is_writable(self) -> bool:
        return not self._failing

    def run(self, operation: Callable[..., Any], *args: Any, **kwargs: Any) -> Deferred[Any]:
        """Run an operation although it is overridden."""
        return self._write(Operation(function=operation, args=args, kwargs=kwargs))

    def query(self, query: Callable[..., Any], *args: Any, **kwargs: Any) -> Deferred[Any]:
        """Run a query although it is overridden."""
        return self._read(lambda cursor: query(cursor, *args, **kwargs))

    def elsewhere(self, operation: Callable[..., Any], *args: Any, **kwargs: Any) -> Deferred[Any]:
        """Run an operation as another daemon on the same database would: nothing is published."""
        return self._read(lambda cursor: operation(self._write_on(cursor), *args, **kwargs))

    def _write(self, operation: Operation) -> Deferred[Any]:
        self._failing = self.is_broken or self.is_full
        if self._failing:
            reason = "database is locked" if self.is_broken else "disk is full"
            return fail(StoreUnavailable(reason))

        def run(cursor: Any) -> tuple[Any, Changes]:
            write = self._write_on(cursor)
            return operation.run(write), evolve(write.changes, operations=1)

        def publish(committed: tuple[Any, Changes]) -> Any:
            result, changes = committed
            self.changes.publish(changes)
            return result

        return self._read(run).addCallback(publish)

    def _read(self, query: Callable[[Any], T]) -> Deferred[T]:
        if self.is_broken:
            return fail(StoreUnavailable("database is locked"))
        try:
            result = run_decoded(self.connection, "BEGIN", query)
        except Exception:
            self.connection.rollback()
            return fail()
        self.connection.commit()
        return succeed(result)

    def _write_on(self, cursor: Any) -> Write:
        return Write(cursor=cursor, node=lambda: "node", on_failure=self.on_failure)

    def close(self) -> Deferred[None]:
        self.connection.close()
        return succeed(None)
