"""The databases that callme can be on, told apart: a file (SQLite) or a server (PostgreSQL)."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.interfaces import IReactorTime

from .interface import CannotOpen, StartupCounts, Store
from .postgresql.server import Server, is_url
from .sqlite.database import DatabaseFile, open_database
from .sqlite.database import standing as standing_in_file
from .sqlite.store import SqliteStore


def open_store_database(database: str, node: str, rundir: str) -> DatabaseFile | Server:
    """Return the database of a name, certain to be usable.

    :param database: a path, or PostgreSQL's URL.
    :param node: the daemon's name, which it is to have alone; empty where it has none of its own.
    :param rundir: the directory that a path is taken from.
    :raises CannotOpen: if it cannot be used.
    """
    if is_url(database):
        try:
            # Only who asks for PostgreSQL needs psycopg.
            from .postgresql.database import open_server  # noqa: PLC0415
        except ImportError as error:
            raise CannotOpen(
                f"--database postgresql://... needs psycopg ({error}): "
                "pip install 'callme[postgresql]'"
            ) from error
        return open_server(database, node or None)
    return open_database(Path(rundir, database))


def create_store(
    database: DatabaseFile | Server,
    reactor: Any,
    node: Callable[[], str],
    clock: IReactorTime,
    committed: Callable[[int], None],
) -> Store:
    """Return the store on a database that was opened."""
    if isinstance(database, DatabaseFile):
        return SqliteStore(database, reactor, node, clock, committed)
    from .postgresql.store import PostgresqlStore  # noqa: PLC0415 - as above

    return PostgresqlStore(database, reactor, node, clock, committed)


def startup_counts(database: DatabaseFile | Server) -> StartupCounts:
    """Return how the tasks in it stand now."""
    if isinstance(database, DatabaseFile):
        return standing_in_file(database, time.time())
    from .postgresql.database import standing  # noqa: PLC0415 - as above

    return standing(database, time.time())


def describe(database: DatabaseFile | Server) -> str:
    """Return what the log says of a database."""
    if isinstance(database, DatabaseFile):
        return f"{database.path} (SQLite {sqlite3.sqlite_version})"
    return f"{database.shown} (PostgreSQL {database.version})"
