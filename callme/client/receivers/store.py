"""Stores of the calls that an endpoint has handled: the interface, in memory, and in a file."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, Protocol

Claim = Literal["new", "running"] | int
"""The result of a claim; a number is the status of the response to the call before."""

LEASE_SECONDS = 1800.0
"""The longest time that a call may last; the claim of a process that died ends with it."""


class OnceStore(Protocol):
    """A store of idempotency keys. Several processes may share it."""

    def claim(self, key: str) -> Claim:
        """Claim a key for the handler, and return ``"new"``.

        Return ``"running"`` if another request has claimed it, or the status of the response if
        the call was handled.
        """

    def finish(self, key: str, status: int) -> None:
        """Store that the call was handled, and the status of the response."""

    def forget(self, key: str) -> None:
        """Release a claim, so that the next attempt is handled."""


class MemoryStore:
    """A store for one process, which forgets everything when it ends: for tests."""

    def __init__(self) -> None:
        self._statuses: dict[str, int | None] = {}
        self._lock = threading.Lock()

    def claim(self, key: str) -> Claim:
        with self._lock:
            if key not in self._statuses:
                self._statuses[key] = None
                return "new"
            status = self._statuses[key]
            return "running" if status is None else status

    def finish(self, key: str, status: int) -> None:
        with self._lock:
            self._statuses[key] = status

    def forget(self, key: str) -> None:
        with self._lock:
            self._statuses.pop(key, None)


class SqliteStore:
    """A store in a SQLite file, for any number of processes on one machine.

    :param path: the file; it is created if it does not exist.
    :param days: the number of days for which a key is stored.
    :param now: the time, seconds since 1970.
    """

    def __init__(
        self, path: str | Path, *, days: float = 30, now: Callable[[], float] = time.time
    ) -> None:
        self._path = str(path)
        self._keep_seconds = days * 86400
        self._now = now
        with self._transaction() as database:
            database.execute(
                "CREATE TABLE IF NOT EXISTS callme_once"
                " (key TEXT PRIMARY KEY, claimed_at REAL NOT NULL, status INTEGER)"
            )

    def claim(self, key: str) -> Claim:
        now = self._now()
        with self._transaction() as database:
            database.execute(
                "DELETE FROM callme_once WHERE key = ? AND status IS NULL AND claimed_at <= ?",
                (key, now - LEASE_SECONDS),
            )
            database.execute(
                "DELETE FROM callme_once WHERE claimed_at < ?", (now - self._keep_seconds,)
            )
            added = database.execute(
                "INSERT OR IGNORE INTO callme_once VALUES (?, ?, NULL)", (key, now)
            )
            if added.rowcount:
                return "new"
            (status,) = database.execute(
                "SELECT status FROM callme_once WHERE key = ?", (key,)
            ).fetchone()
        return "running" if status is None else int(status)

    def finish(self, key: str, status: int) -> None:
        with self._transaction() as database:
            database.execute(
                "INSERT OR REPLACE INTO callme_once VALUES (?, ?, ?)", (key, self._now(), status)
            )

    def forget(self, key: str) -> None:
        with self._transaction() as database:
            database.execute("DELETE FROM callme_once WHERE key = ?", (key,))

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        # A connection belongs to one thread, and servers call from several.
        database = sqlite3.connect(self._path, timeout=30, isolation_level=None)
        try:
            database.execute("BEGIN IMMEDIATE")
            yield database
            database.execute("COMMIT")
        finally:
            database.close()
