"""The guard of an open database's files, which detects when one is deleted, moved or replaced.

SQLite continues to write to a file that was deleted or renamed. Such writes are lost at the next
start, so callme must not acknowledge them and must not start calls.
"""

from __future__ import annotations

import os
import sqlite3

from attrs import define, field
from twisted.logger import Logger

from ..interface import StoreUnavailable
from .file import DatabaseFile

log = Logger(namespace="callme")

_COMPANIONS = ("-wal", "-shm")
"""The suffixes of the files that SQLite creates beside a database in WAL mode."""
_RESTORE = (
    "put back the very file that callme opened, and it continues; to use another file, restart "
    "callme. See docs/operations.md, 'If the file is deleted or replaced'"
)
_RESTART = (
    "restart callme: all that it has acknowledged is in {path} itself. See docs/operations.md, "
    "'If the file is deleted or replaced'"
)

Identity = tuple[int, int]
"""The device and the inode of a file."""


@define(eq=False)
class FileGuard:
    """Guard of one database.

    :ivar is_in_place: whether every file was in its place at the last check.
    """

    _database: DatabaseFile
    is_in_place: bool = field(default=True, init=False)
    _companions: dict[str, Identity | None] = field(factory=dict, init=False)

    def note_companions(self) -> None:
        """Record the identities of the files beside the database, which the writer has opened.

        :raises StoreUnavailable: if the database is not in its place, so that these files may be
            missing too.
        """
        # SQLite creates these files beside the database itself, not beside a symbolic link to it.
        path = os.path.realpath(self._database.path)
        companions = {path + suffix: _identity(path + suffix) for suffix in _COMPANIONS}
        self._companions = {}
        self.check()
        self._companions = companions

    def check(self) -> None:
        """Check that every path still refers to the file that callme has opened.

        :raises StoreUnavailable: if a path does not.
        """
        path = str(self._database.path)
        if (found := _identity(path)) != self._database.identity:
            raise self._unavailable(path, found, _RESTORE)
        for companion, identity in self._companions.items():
            if (found := _identity(companion)) != identity:
                raise self._unavailable(companion, found, _RESTART.format(path=ascii(path)))
        if not self.is_in_place:
            self.is_in_place = True
            log.info("{path} is in its place again", path=ascii(path))

    def check_commit(self, connection: sqlite3.Connection) -> None:
        """Check the files before a transaction is committed; roll it back if one is missing.

        :raises StoreUnavailable: as :meth:`check`.
        """
        try:
            self.check()
        except StoreUnavailable:
            connection.execute("ROLLBACK")
            # A deleted write-ahead log is lost when the process ends, so its content is
            # checkpointed.
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
            raise

    def _unavailable(self, path: str, found: Identity | None, remedy: str) -> StoreUnavailable:
        """Return the error for a file that is not in its place; log it once."""
        change = "is gone" if found is None else "was replaced by another file"
        event = f"{path!a} {change}"
        if self.is_in_place:
            self.is_in_place = False
            log.critical(
                "{event}: callme accepts no task and makes no call; {remedy}",
                event=event,
                remedy=remedy,
            )
        return StoreUnavailable(event)


def _identity(path: str) -> Identity | None:
    """Return the identity of the file at a path; ``None`` if there is no readable file."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
