"""The database: looked at before the daemon says that it runs, brought to the newest schema."""

from __future__ import annotations

from contextlib import ExitStack

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from ..interface import CannotOpen, StartupCounts
from ..migrations import Migrations, read_migrations
from ..stats import startup_counts
from .cursor import PostgresqlCursor
from .dsn import SCHEMA, Server

OLDEST_POSTGRESQL = 120_000
"""The first release with ``AS MATERIALIZED``: 12."""
PEER_TIMEOUT_SECONDS = 30
"""After how long without a sign of life a daemon counts as dead."""
MIGRATING_SECONDS = 300
"""How long a daemon that starts waits for another one that migrates the database."""
_LOCKS = 0x63616C6D
"""The first of the two numbers of each advisory lock that callme takes."""
_MIGRATION_LOCK = 1
_STARTING = _LOCKS + 1
"""The same, of the locks of names whose daemons have not yet said that they live."""

# How soon a network that is silent is noticed, in seconds but for tcp_user_timeout. What is
# set in the URL goes before.
_NETWORK: dict[str, str | int] = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
    "application_name": "callme",
}

_CREATE = f"""
    CREATE SCHEMA IF NOT EXISTS {SCHEMA};
    SET LOCAL search_path = {SCHEMA};
    CREATE TABLE IF NOT EXISTS migration (
        number INTEGER PRIMARY KEY, made_at TIMESTAMPTZ NOT NULL DEFAULT now()
    );
"""


def open_server(url: str, name: str | None = None) -> Server:
    """Look at a database, and bring it to the newest schema.

    :param name: the name that the daemon is told to have; no other living one may have it.
    :raises CannotOpen: when it cannot be reached, its schema is of a newer callme, or
        another daemon has the name.
    """
    try:
        # Where both say something, the URL has the last word.
        asked = conninfo_to_dict(url)
        conninfo = make_conninfo(url, **{k: v for k, v in _NETWORK.items() if k not in asked})
    except psycopg.Error as error:
        # It would repeat the URL, and the password in it.
        raise CannotOpen(
            "--database is not a URL that PostgreSQL knows: expected "
            "postgresql://user@host:5432/database"
        ) from error
    try:
        with ExitStack() as stack:
            connection = psycopg.connect(conninfo, autocommit=True)
            stack.callback(connection.close)
            shown = _shown(connection.info)
            _check(connection, shown)
            migrate(connection, shown)
            major, minor = divmod(connection.info.server_version, 10_000)
            version = f"{major}.{minor}"
            if name is None:
                return Server(conninfo=conninfo, shown=shown, version=version)
            _check_name(connection, name, shown)
            # The name must be nobody else's until the daemon has said that it lives.
            stack.pop_all()
            return Server(conninfo=conninfo, shown=shown, version=version, starting=connection)
    except psycopg.Error as error:
        raise CannotOpen(f"PostgreSQL: {' '.join(str(error).split())}") from error


def startup_counts_of(server: Server, now: float) -> StartupCounts:
    """Say how the tasks stand.

    :raises CannotOpen: when the database cannot be reached any more.
    """
    try:
        with psycopg.connect(server.conninfo, autocommit=True) as connection:
            connection.execute(f"SET search_path = {SCHEMA}".encode())
            return startup_counts(PostgresqlCursor(connection), now)
    except psycopg.Error as error:
        raise CannotOpen(f"PostgreSQL: {' '.join(str(error).split())}") from error


def _shown(info: psycopg.ConnectionInfo) -> str:
    return f"postgresql://{info.user}@{info.host}:{info.port}/{info.dbname}"


def _check(connection: psycopg.Connection, shown: str) -> None:
    if connection.info.server_version < OLDEST_POSTGRESQL:
        raise CannotOpen(f"{shown}: PostgreSQL 12 or newer is needed")
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise CannotOpen(f"{shown}: the database's encoding is {encoding}, not UTF8")


def migrations() -> Migrations:
    """Return the migrations of PostgreSQL."""
    assert __package__ is not None
    return read_migrations(__package__)


def migrate(connection: psycopg.Connection, name: str) -> None:
    """Run the migrations that the database lacks, all in one transaction.

    If several daemons start at the same moment, one migrates and the others wait.

    :param name: the name of the database, for errors.
    :raises CannotOpen: if the schema is of a newer callme, or too old.
    """
    with connection.transaction():
        connection.execute(f"SET LOCAL lock_timeout = '{MIGRATING_SECONDS}s'".encode())
        connection.execute("SELECT pg_advisory_xact_lock(%s, %s)", (_LOCKS, _MIGRATION_LOCK))
        pending = migrations().pending(schema_version(connection), name)
        if pending:
            connection.execute(_CREATE.encode())
        for number, script in pending:
            connection.execute(script.encode())
            connection.execute("INSERT INTO migration (number) VALUES (%s)", (number,))


def hold_migrations(connection: psycopg.Connection) -> None:
    """Let daemons that start wait for as long as the connection lasts."""
    connection.execute("SELECT pg_advisory_lock(%s, %s)", (_LOCKS, _MIGRATION_LOCK))


def schema_version(connection: psycopg.Connection) -> int:
    """Return the number of the last migration that the database has seen; 0 without any."""
    table = f"{SCHEMA}.migration"
    found = connection.execute("SELECT to_regclass(%s) IS NOT NULL", (table,)).fetchone()
    if found != (True,):
        return 0
    row = connection.execute(f"SELECT max(number) FROM {table}".encode()).fetchone()
    return 0 if row is None or row[0] is None else int(row[0])


def _check_name(connection: psycopg.Connection, name: str, shown: str) -> None:
    """Refuse a name that another daemon has: one that holds its lock, and was seen just now.

    A lock alone may be that of a connection whose daemon is gone without a word; a row
    alone that of one which was killed. A daemon that starts at the same moment has neither
    yet, and holds another lock, as this one does from now on until the connection ends.
    """
    taken = CannotOpen(f"another callme daemon named {name} uses {shown}: give it another --node")
    if not _try_lock(connection, _STARTING, name):
        raise taken
    if take_name(connection, name):
        # It is the connection that says that the daemon lives which is to have it.
        connection.execute("SELECT pg_advisory_unlock(%s, hashtext(%s))", (_LOCKS, name))
        return
    row = connection.execute(
        f"SELECT 1 FROM {SCHEMA}.node WHERE name = %s AND seen_at_ms > "
        "extract(epoch FROM clock_timestamp()) * 1000 - %s".encode(),
        (name, PEER_TIMEOUT_SECONDS * 1000),
    ).fetchone()
    if row is not None:
        raise taken


def take_name(connection: psycopg.Connection, name: str) -> bool:
    """Take a daemon's name for as long as the connection lasts, unless another one has it."""
    return _try_lock(connection, _LOCKS, name)


def _try_lock(connection: psycopg.Connection, kind: int, name: str) -> bool:
    row = connection.execute(
        "SELECT pg_try_advisory_lock(%s, hashtext(%s))", (kind, name)
    ).fetchone()
    return row == (True,)
