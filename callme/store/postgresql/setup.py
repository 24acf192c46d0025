"""Preparation of a database before the daemon starts: checks, migrations, unique name."""

from __future__ import annotations

from contextlib import ExitStack

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from ..interface import CannotOpen, StartupCounts
from ..migrations import Migrations, read_migrations
from ..stats import startup_counts
from .cursor import PostgresqlCursor
from .dsn import SCHEMA, Server

MIN_SERVER_VERSION = 120_000
"""Oldest supported release: 12, the first with ``AS MATERIALIZED``."""
PEER_TIMEOUT_SECONDS = 30
"""Time without a heartbeat after which a daemon counts as dead, in seconds."""
MIGRATION_TIMEOUT_SECONDS = 300
"""Seconds that a starting daemon waits for another daemon's migration."""
_LOCK_CLASS = 0x63616C6D
"""First of the two numbers of callme's advisory locks."""
_MIGRATION_LOCK = 1
_STARTING_LOCK_CLASS = _LOCK_CLASS + 1
"""First number of the locks of names whose daemons have not sent a heartbeat yet."""

NEEDS_SESSIONS = (
    "a connection pooler gives each transaction another session: callme needs a session for each "
    "connection (PgBouncer: pool_mode=session)"
)

# Timeouts for a network outage, in seconds (tcp_user_timeout: milliseconds). After a failover, the
# address may be that of a standby, which does not accept writes. Parameters of the URL take
# precedence.
_NETWORK: dict[str, str | int] = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
    "application_name": "callme",
    "target_session_attrs": "read-write",
}

_CREATE_SCHEMA = f"""
    CREATE SCHEMA IF NOT EXISTS {SCHEMA};
    SET LOCAL search_path = {SCHEMA};
    CREATE TABLE IF NOT EXISTS migration (
        number INTEGER PRIMARY KEY, made_at TIMESTAMPTZ NOT NULL DEFAULT now()
    );
"""


def open_server(url: str, name: str | None = None) -> Server:
    """Check a database and migrate it to the newest schema.

    :param name: the daemon's configured name, which no other live daemon may have.
    :raises CannotOpen: when it cannot be reached, its schema is from a newer callme, or
        another daemon has the name.
    """
    try:
        given = conninfo_to_dict(url)
        conninfo = make_conninfo(url, **{k: v for k, v in _NETWORK.items() if k not in given})
    except psycopg.Error as error:
        # psycopg's message would repeat the URL with its password.
        raise CannotOpen(
            "--database is not a URL that PostgreSQL knows: expected "
            "postgresql://user@host:5432/database"
        ) from error
    try:
        with ExitStack() as stack:
            connection = psycopg.connect(conninfo, autocommit=True)
            stack.callback(connection.close)
            display_url = _display_url_of(connection.info)
            _check(connection, display_url)
            _refuse_transaction_pooling(connection, conninfo, display_url)
            migrate(connection, display_url)
            major, minor = divmod(connection.info.server_version, 10_000)
            version = f"{major}.{minor}"
            if name is None:
                return Server(conninfo=conninfo, display_url=display_url, version=version)
            _check_name(connection, name, display_url)
            # This connection reserves the name until the first heartbeat.
            stack.pop_all()
            return Server(
                conninfo=conninfo, display_url=display_url, version=version, name_lock=connection
            )
    except psycopg.Error as error:
        raise CannotOpen(f"PostgreSQL: {' '.join(str(error).split())}") from error


def startup_counts_of(server: Server, now: float) -> StartupCounts:
    """Return the counts that a daemon logs when it starts.

    :raises CannotOpen: when the database can no longer be reached.
    """
    try:
        with psycopg.connect(server.conninfo, autocommit=True) as connection:
            connection.execute(f"SET search_path = {SCHEMA}".encode())
            return startup_counts(PostgresqlCursor(connection), now)
    except psycopg.Error as error:
        raise CannotOpen(f"PostgreSQL: {' '.join(str(error).split())}") from error


def _display_url_of(info: psycopg.ConnectionInfo) -> str:
    return f"postgresql://{info.user}@{info.host}:{info.port}/{info.dbname}"


def _check(connection: psycopg.Connection, display_url: str) -> None:
    if connection.info.server_version < MIN_SERVER_VERSION:
        raise CannotOpen(f"{display_url}: PostgreSQL 12 or newer is needed")
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise CannotOpen(f"{display_url}: the database's encoding is {encoding}, not UTF8")


def backend_pid(connection: psycopg.Connection) -> int:
    """Return the process id of the server process that serves a connection."""
    row = connection.execute("SELECT pg_backend_pid()").fetchone()
    assert row is not None
    return int(row[0])


def _refuse_transaction_pooling(
    connection: psycopg.Connection, conninfo: str, display_url: str
) -> None:
    """Refuse a pooler in transaction mode, before callme writes to the database.

    Such a pooler assigns the most or the least recently used session to the next transaction. A
    transaction of a second connection therefore either gets the session of the first connection, or
    makes the first connection change its session.
    """
    pid = backend_pid(connection)
    with psycopg.connect(conninfo, autocommit=True) as other, other.transaction():
        if backend_pid(other) == pid or backend_pid(connection) != pid:
            raise CannotOpen(f"{display_url}: {NEEDS_SESSIONS}")


def migrations() -> Migrations:
    """Return the migrations of PostgreSQL."""
    assert __package__ is not None
    return read_migrations(__package__)


def migrate(connection: psycopg.Connection, name: str) -> None:
    """Run the pending migrations, all in one transaction.

    If several daemons start at the same time, one migrates, and the others wait.

    :param name: the name of the database, for errors.
    :raises CannotOpen: if the schema is from a newer callme, or too old.
    """
    with connection.transaction():
        connection.execute(f"SET LOCAL lock_timeout = '{MIGRATION_TIMEOUT_SECONDS}s'".encode())
        connection.execute("SELECT pg_advisory_xact_lock(%s, %s)", (_LOCK_CLASS, _MIGRATION_LOCK))
        pending = migrations().pending(schema_version(connection), name)
        if pending:
            connection.execute(_CREATE_SCHEMA.encode())
        for number, script in pending:
            connection.execute(script.encode())
            connection.execute("INSERT INTO migration (number) VALUES (%s)", (number,))


def hold_migrations(connection: psycopg.Connection) -> None:
    """Block starting daemons until the connection ends."""
    connection.execute("SELECT pg_advisory_lock(%s, %s)", (_LOCK_CLASS, _MIGRATION_LOCK))


def schema_version(connection: psycopg.Connection) -> int:
    """Return the number of the database's last migration; 0 for an empty database."""
    table = f"{SCHEMA}.migration"
    found = connection.execute("SELECT to_regclass(%s) IS NOT NULL", (table,)).fetchone()
    if found != (True,):
        return 0
    row = connection.execute(f"SELECT max(number) FROM {table}".encode()).fetchone()
    return 0 if row is None or row[0] is None else int(row[0])


def _check_name(connection: psycopg.Connection, name: str, display_url: str) -> None:
    """Check that no live daemon has a name, and reserve it until the connection ends.

    A live daemon holds the lock of its name, and has sent a heartbeat recently. Neither alone
    suffices: after a network failure, the lock of a dead daemon may remain for a while, and after a
    kill, its last heartbeat is recent. Starting daemons have neither yet, so a second lock excludes
    them from each other.

    :raises CannotOpen: if a daemon with the name is alive.
    """
    taken = CannotOpen(
        f"another callme daemon named {name} uses {display_url}: give this one another --node"
    )
    if not _try_lock(connection, _STARTING_LOCK_CLASS, name):
        raise taken
    if take_name(connection, name):
        # This lock is released because the connection of the heartbeat will take it.
        connection.execute("SELECT pg_advisory_unlock(%s, hashtext(%s))", (_LOCK_CLASS, name))
        return
    row = connection.execute(
        f"SELECT 1 FROM {SCHEMA}.node WHERE name = %s AND seen_at_ms > "
        "extract(epoch FROM clock_timestamp()) * 1000 - %s".encode(),
        (name, PEER_TIMEOUT_SECONDS * 1000),
    ).fetchone()
    if row is not None:
        raise taken


def take_name(connection: psycopg.Connection, name: str) -> bool:
    """Lock a daemon's name until the connection ends; return whether it was free."""
    return _try_lock(connection, _LOCK_CLASS, name)


def _try_lock(connection: psycopg.Connection, kind: int, name: str) -> bool:
    row = connection.execute(
        "SELECT pg_try_advisory_lock(%s, hashtext(%s))", (kind, name)
    ).fetchone()
    return row == (True,)
