"""Factories for the store of a daemon: a file (SQLite) or a server (PostgreSQL)."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.interfaces import IReactorTime

from .database import Store
from .interface import CannotOpen, StartupCounts
from .postgresql.dsn import Server, is_url
from .sqlite.copy import copy_database
from .sqlite.engine import SqliteStore
from .sqlite.file import DatabaseFile, open_database, startup_counts_of


def open_store_database(
    database: str, node: str, rundir: str, *, backs_up: bool = False
) -> DatabaseFile | Server:
    """Check a database, migrate it to the newest schema, and return it.

    :param database: a path, or PostgreSQL's URL.
    :param node: the daemon's unique name; empty for a generated name.
    :param rundir: the directory that a relative path starts from.
    :param backs_up: whether to copy a file before its schema is migrated.
    :raises CannotOpen: if it cannot be used.
    """
    if is_url(database):
        return _open_server(database, node)
    path = Path(rundir, database)
    return open_database(path, _back_up) if backs_up else open_database(path)


def _ignore_progress(done: int, total: int) -> None:
    """Do nothing: the copy reports no progress while the daemon starts."""


def _back_up(path: Path, schema: int) -> None:
    """Copy a database to a file beside it, whose name contains the number of its schema."""
    copy_database(path, path.with_name(f"{path.name}.schema-{schema}"), _ignore_progress)


def _open_server(url: str, node: str) -> Server:
    try:
        # psycopg is optional: only daemons on PostgreSQL need it.
        from .postgresql.setup import open_server  # noqa: PLC0415
    except ImportError as error:
        raise CannotOpen(
            f"--database postgresql://... needs psycopg ({error}): "
            "pip install 'callme-daemon[postgresql]'"
        ) from error
    return open_server(url, node or None)


def create_store(
    database: DatabaseFile | Server,
    reactor: Any,
    node: Callable[[], str],
    clock: IReactorTime,
) -> Store:
    """Return the store on an open database.

    :param node: returns the daemon's name, which is stored with attempts.
    :param clock: schedules the timers.
    """
    if isinstance(database, DatabaseFile):
        return SqliteStore(database, reactor, node, clock)
    from .postgresql.engine import PostgresqlStore  # noqa: PLC0415 - as above

    return PostgresqlStore(database, reactor, node, clock)


def release(database: DatabaseFile | Server) -> None:
    """Close an open database that no store uses."""
    if isinstance(database, DatabaseFile):
        database.release()


def startup_counts(database: DatabaseFile | Server) -> StartupCounts:
    """Return the counts that a daemon logs when it starts."""
    if isinstance(database, DatabaseFile):
        return startup_counts_of(database, time.time())
    from .postgresql import setup  # noqa: PLC0415 - as above

    return setup.startup_counts_of(database, time.time())


def describe(database: DatabaseFile | Server) -> str:
    """Return the name of a database for the log."""
    if isinstance(database, DatabaseFile):
        return f"{database.path} (SQLite {sqlite3.sqlite_version})"
    return f"{database.display_url} (PostgreSQL {database.version})"
