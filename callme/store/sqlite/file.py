"""The database file: its lock, its checks, and its migration to the newest schema.

They run once, before the daemon goes to the background, so that each error is one line on the
operator's terminal.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from attrs import field, frozen
from twisted.logger import Logger

from ..interface import CannotOpen, StartupCounts
from ..migrations import Migrations, read_migrations
from ..stats import startup_counts
from .cursor import SqliteCursor
from .schema import difference, read_schema

log = Logger(namespace="callme")

APPLICATION_ID = 0x63616C6D
"""The value of ``PRAGMA application_id`` in callme's files: "calm" in ASCII."""
MIN_SQLITE_VERSION = (3, 35, 0)
"""Oldest supported release, the first with ``RETURNING``."""
BUSY_SECONDS = 2
"""Seconds that a statement waits for another program's lock before it fails."""
CHECKPOINT_PAGES = 8000
"""Number of pages (of 4 KiB) in the write-ahead log that triggers a checkpoint."""
WAL_LIMIT_BYTES = CHECKPOINT_PAGES * 4096
"""Size to which the write-ahead log is truncated after a long read transaction made it grow."""
CACHE_KIB = 4 * 1024
"""Size of the page cache of the write connection, in KiB. More brings nothing, because the system
caches the file too: with 16 MiB, a PUT takes the same processor time, and the daemon's memory grows
for ten minutes."""
_MAX_CHECKED_BYTES = 64 * 1024 * 1024
"""Maximum size of a file that is checked page by page at start, which takes about 0.1 s."""


@frozen
class DatabaseFile:
    """Database file that this process has locked.

    :ivar path: the absolute path.
    :ivar lock: the descriptor that holds the lock; it survives a fork. It must
        not be closed while the database is open: POSIX releases all locks of a
        process on a file, SQLite's too, when the process closes any descriptor of the file.
    :ivar identity: the device and the inode of the locked file.
    """

    path: Path
    lock: int
    identity: tuple[int, int] = field(init=False)

    @identity.default
    def _read_identity(self) -> tuple[int, int]:
        status = os.fstat(self.lock)
        return status.st_dev, status.st_ino

    def release(self) -> None:
        """Unlock the file; every connection must be closed before."""
        os.close(self.lock)


BeforeMigration = Callable[[Path, int], None]
"""Function that is called with the path and the schema version before a migration."""


def _do_nothing(path: Path, schema: int) -> None:
    """Do nothing before a migration."""


def open_database(path: Path, before_migration: BeforeMigration = _do_nothing) -> DatabaseFile:
    """Lock a database file for this process and migrate it to the newest schema.

    A missing file is created with access for its owner only.

    :param before_migration: called before an existing database is migrated.
    :raises CannotOpen: when another daemon uses the file, when the file is damaged, belongs to
        another program or a newer callme, or cannot be written.
    """
    if sqlite3.sqlite_version_info < MIN_SQLITE_VERSION:
        raise CannotOpen(f"SQLite {sqlite3.sqlite_version} is too old: 3.35 or newer is needed")
    try:
        path = path.absolute()
    except FileNotFoundError as error:
        raise CannotOpen("the current directory no longer exists") from error
    lock = _lock(path)
    try:
        connection = sqlite3.connect(path, isolation_level=None, timeout=BUSY_SECONDS)
        try:
            _check(connection, path)
            # The mode changes only after the check, because the file may belong to another program.
            os.fchmod(lock, 0o600)
            configure_writer(connection)
            schema = _pragma(connection, "user_version")
            if 0 < schema < migrations().newest:
                before_migration(path, schema)
                log.info(
                    "{path}: the schema is migrated from {old} to {new}",
                    path=_printable(path),
                    old=schema,
                    new=migrations().newest,
                )
            migrate(connection, _printable(path))
            _check_schema(connection, path)
        finally:
            connection.close()
    except (OSError, sqlite3.Error) as error:
        os.close(lock)
        raise CannotOpen(f"{_printable(path)}: {error}") from error
    except CannotOpen:
        os.close(lock)
        raise
    return DatabaseFile(path, lock)


def startup_counts_of(database: DatabaseFile, now: float) -> StartupCounts:
    """Return the counts that a daemon logs when it starts, before a store uses the file.

    :raises CannotOpen: when the file cannot be read.
    """
    try:
        connection = sqlite3.connect(database.path, isolation_level=None, timeout=BUSY_SECONDS)
        try:
            configure_reader(connection)
            return startup_counts(connection.cursor(SqliteCursor), now)
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise CannotOpen(f"{_printable(database.path)}: {error}") from error


def _lock(path: Path) -> int:
    if not path.parent.is_dir():
        raise CannotOpen(
            f"{_printable(path)}: the directory {_printable(path.parent)} does not exist"
        )
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CannotOpen(f"{_printable(path)}: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(lock).st_mode):
        os.close(lock)
        raise CannotOpen(f"{_printable(path)} is not a file that can hold a database")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise CannotOpen(f"{_printable(path)} is in use by another callme daemon") from error
    return lock


def _printable(path: Path) -> str:
    """Return a path as one line."""
    return str(path) if str(path).isprintable() else ascii(str(path))


def _check(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse a file that is damaged, that belongs to another program, or has an unknown schema."""
    _verify_reads(connection)
    application_id = _pragma(connection, "application_id")
    empty = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
    if application_id != APPLICATION_ID and not (empty and application_id == 0):
        raise CannotOpen(f"{_printable(path)} is a database of another program")
    migrations().pending(_pragma(connection, "user_version"), _printable(path))
    if path.stat().st_size <= _MAX_CHECKED_BYTES:
        # An invalid value damages a row, not the file.
        connection.execute("PRAGMA ignore_check_constraints = ON")
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise CannotOpen(f"{_printable(path)} is damaged: {' '.join(found.split())}")
        connection.execute("PRAGMA ignore_check_constraints = OFF")


def _check_schema(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse a schema that differs from the one that the migrations create."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as model:
        migrate(model)
        found = difference(read_schema(connection), read_schema(model))
    if found is not None:
        raise CannotOpen(
            f"{_printable(path)} does not have the schema that callme makes: {found}. Remove the "
            "difference, or restore a backup"
        )


def migrations() -> Migrations:
    """Return the migrations of SQLite."""
    assert __package__ is not None
    return read_migrations(__package__)


def migrate(connection: sqlite3.Connection, name: str = "the database") -> None:
    """Run the pending migrations, each in a transaction of its own."""
    for number, script in migrations().pending(_pragma(connection, "user_version"), name):
        connection.execute("BEGIN IMMEDIATE")
        try:
            # executescript() would commit the transaction before it runs.
            for statement in _statements(script):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {number}")
            connection.execute("COMMIT")
        except BaseException:
            # If COMMIT itself failed, SQLite may already have rolled back.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def _statements(script: str) -> list[str]:
    statements, current = [], ""
    for line in script.splitlines(keepends=True):
        current += line
        if sqlite3.complete_statement(current):
            statements.append(current)
            current = ""
    return statements


def _verify_reads(connection: sqlite3.Connection) -> None:
    """Make SQLite check the pages that it reads, and run no functions that the schema names."""
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")


def configure_writer(connection: sqlite3.Connection) -> None:
    """Configure the only write connection; see SQLite's documentation of pragmas."""
    _verify_reads(connection)
    connection.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")
    connection.execute("PRAGMA journal_mode = WAL")
    # NORMAL may lose an acknowledged commit in WAL mode after a power failure.
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    # A checkpoint writes a page once, even if many commits have changed it. Eight times SQLite's
    # default, with up to 32 MB of write-ahead log, halves the cost of a PUT.
    connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
    connection.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT_BYTES}")
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")


def configure_reader(connection: sqlite3.Connection) -> None:
    """Configure a read connection.

    It never checkpoints: before SQLite 3.51.3, two connections that write or checkpoint
    concurrently can damage a database in WAL mode.
    """
    _verify_reads(connection)
    connection.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    connection.execute("PRAGMA query_only = ON")


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    value: int = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return value
