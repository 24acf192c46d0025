"""The database file: locked for one daemon, checked, migrated to the newest schema.

This happens once, before the daemon goes to the background, so that each error is one line on
the operator's terminal.
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
"""The first release with ``RETURNING``."""
BUSY_SECONDS = 2
"""Time that a statement waits for another program's lock before it fails, in seconds."""
CHECKPOINT_PAGES = 8000
"""Pages (of 4 KiB) in the write-ahead log from which on a commit checkpoints them."""
WAL_LIMIT_BYTES = CHECKPOINT_PAGES * 4096
"""Size to which the write-ahead log is cut after a long reader let it grow."""
CACHE_KIB = 4 * 1024
"""Memory for the page cache of the connection that writes. The system caches the file too: with
16 MiB, a PUT takes as much processor time, and the daemon's memory grows for ten minutes."""
_MAX_CHECKED_BYTES = 64 * 1024 * 1024
"""Maximum size of a file that is checked page by page at start: this takes about 0.1 s."""


@frozen
class DatabaseFile:
    """A database file that this process has locked until it ends.

    :ivar path: absolute.
    :ivar lock: the descriptor that holds the lock; it survives a fork. It must
        not be closed while the database is open: POSIX drops all locks of a
        process on a file, SQLite's too, when it closes any descriptor of it.
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
        """Unlock the file; every connection must be closed."""
        os.close(self.lock)


BeforeMigration = Callable[[Path, int], None]
"""Called with the path and the schema of a database that is about to be migrated."""


def _do_nothing(path: Path, schema: int) -> None:
    """Let the migration begin."""


def open_database(path: Path, before_migration: BeforeMigration = _do_nothing) -> DatabaseFile:
    """Lock a database file for this process and migrate it to the newest schema.

    A missing file is created, for its owner alone.

    :param before_migration: is not called for a new database.
    :raises CannotOpen: when another daemon uses the file, when it is damaged, of
        another program or of a newer callme, or cannot be written.
    """
    if sqlite3.sqlite_version_info < MIN_SQLITE_VERSION:
        raise CannotOpen(f"SQLite {sqlite3.sqlite_version} is too old: 3.35 or newer is needed")
    try:
        path = path.absolute()
    except FileNotFoundError as error:
        raise CannotOpen("the present directory does not exist any more") from error
    lock = _lock(path)
    try:
        connection = sqlite3.connect(path, isolation_level=None, timeout=BUSY_SECONDS)
        try:
            _check(connection, path)
            # After the check, because the mode of another program's file must not change.
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
    """Return the counts that a starting daemon reports, before any store uses the file.

    :raises CannotOpen: when it cannot be read.
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
    """Refuse a file that is damaged, another program's, or of an unknown schema."""
    _distrust(connection)
    application_id = _pragma(connection, "application_id")
    empty = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
    if application_id != APPLICATION_ID and not (empty and application_id == 0):
        raise CannotOpen(f"{_printable(path)} is a database of another program")
    migrations().pending(_pragma(connection, "user_version"), _printable(path))
    if path.stat().st_size <= _MAX_CHECKED_BYTES:
        # A row with a value that callme never stores is a damaged row, not a damaged file.
        connection.execute("PRAGMA ignore_check_constraints = ON")
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise CannotOpen(f"{_printable(path)} is damaged: {' '.join(found.split())}")
        connection.execute("PRAGMA ignore_check_constraints = OFF")


def _check_schema(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse a schema that the migrations did not make."""
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
    """Run the migrations that the database lacks, each in a transaction of its own."""
    for number, script in migrations().pending(_pragma(connection, "user_version"), name):
        connection.execute("BEGIN IMMEDIATE")
        try:
            # Not executescript(), which would commit before it begins.
            for statement in _statements(script):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {number}")
            connection.execute("COMMIT")
        except BaseException:
            # If COMMIT itself failed, SQLite may have rolled back already.
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


def _distrust(connection: sqlite3.Connection) -> None:
    """Let SQLite check what it reads, and run no function that the schema names."""
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")


def configure_writer(connection: sqlite3.Connection) -> None:
    """Configure the only connection that writes; see SQLite's pragma documentation."""
    _distrust(connection)
    connection.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")
    connection.execute("PRAGMA journal_mode = WAL")
    # NORMAL may lose an acknowledged commit in WAL mode when the power goes.
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    # A checkpoint writes a page once, however many commits changed it. Eight times SQLite's
    # default, at most 32 MB of write-ahead log, halves the cost of a PUT.
    connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
    connection.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT_BYTES}")
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")


def configure_reader(connection: sqlite3.Connection) -> None:
    """Configure a connection that only reads.

    It never checkpoints: until SQLite 3.51.3 two connections that write or
    checkpoint at the same time can damage a database in WAL mode.
    """
    _distrust(connection)
    connection.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    connection.execute("PRAGMA query_only = ON")


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    value: int = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return value
