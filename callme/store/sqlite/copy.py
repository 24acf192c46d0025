"""Copies of a database file, verified, and made while a daemon may use it."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from attrs import frozen

from ..interface import CannotOpen
from .file import APPLICATION_ID, BUSY_SECONDS

_STEPS = 10_000
"""Number of steps of SQLite's virtual machine between two progress reports."""

Report = Callable[[int, int], None]
"""Receiver of progress: the bytes of the copy so far, and the expected total."""


@frozen(kw_only=True)
class Copied:
    """Finished copy.

    :ivar tasks: the number of tasks.
    :ivar size: the size in bytes.
    """

    path: Path
    tasks: int
    size: int


def copy_database(source: Path, target: Path, report: Report) -> Copied:
    """Copy a database into a new file that only its owner can access; sync and verify the copy.

    The copy is a consistent snapshot without free pages. It is renamed to its final name at the
    end, so that no incomplete copy has that name.

    :raises CannotOpen: if the source is not a database of callme, or the target exists or cannot be
        written.
    """
    try:
        if target.exists() or target.is_symlink():
            raise CannotOpen(f"{target} exists already: a backup does not overwrite")
        descriptor, name = tempfile.mkstemp(
            prefix=f"{target.name}.", suffix=".part", dir=target.parent
        )
    except OSError as error:
        raise CannotOpen(f"{target}: {error.strerror}") from error
    part = Path(name)
    try:
        _copy(source, part, report)
        tasks = _verify(part)
        os.fsync(descriptor)
        size = os.fstat(descriptor).st_size
        report(size, size)
        if target.exists():
            raise CannotOpen(f"{target} exists already: a backup does not overwrite")
        part.rename(target)
        _sync_directory(target.parent)
    except (OSError, sqlite3.Error) as error:
        raise CannotOpen(f"{source}: {error}") from error
    finally:
        os.close(descriptor)
        part.unlink(missing_ok=True)
    return Copied(path=target, tasks=tasks, size=size)


def _copy(source: Path, part: Path, report: Report) -> None:
    """Copy the database into an empty file."""
    with closing(_connect(source, "rw")) as connection:
        _check_owner(connection, source)
        pages, free, size = (
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        expected: int = (pages - free) * size

        def progress() -> None:
            report(part.stat().st_size, expected)

        connection.set_progress_handler(progress, _STEPS)
        # VACUUM INTO is one read transaction. SQLite's online backup restarts after each commit of
        # another process, so that it does not end while a daemon is busy.
        connection.execute("VACUUM INTO ?", (str(part),))


def _verify(part: Path) -> int:
    """Check every page and index of a copy; return the number of its tasks."""
    with closing(_connect(part, "ro")) as connection:
        _check_owner(connection, part)
        # Damaged rows of the source, which the copy contains as well, do not make the copy invalid.
        connection.execute("PRAGMA ignore_check_constraints = ON")
        found = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if found != "ok":
            raise CannotOpen(f"the copy is damaged: {' '.join(found.split())}")
        count: int = connection.execute("SELECT count(*) FROM task").fetchone()[0]
        return count


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        isolation_level=None,
        timeout=BUSY_SECONDS,
    )


def _check_owner(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise CannotOpen(f"{path} is not a database of callme")


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
