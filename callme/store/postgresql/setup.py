"""Preparation of a database before the daemon starts: checks, migrations, the daemon's name."""

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
"""The first release with ``AS MATERIALIZED``: 12."""
PEER_TIMEOUT_SECONDS = 30
"""Time without a heartbeat after which a daemon counts as dead, in seconds."""
MIGRATION_TIMEOUT_SECONDS = 300
"""Time that a daemon that starts waits for the migration of another one, in seconds."""
_LOCK_CLASS = 0x63616C6D
"""First of the two numbers of each advisory lock of callme."""
_MIGRATION_LOCK = 1
_STARTING_LOCK_CLASS = _LOCK_CLASS + 1
"""The same for the names of daemons that have not sent a heartbeat yet."""

NEEDS_SESSIONS = (
    "a connection pooler gives each transaction another session: callme needs a session for each "
    "connection (PgBouncer: pool_mode=session)"
)

# Timeouts for a silent network, in seconds, tcp_user_timeout in milliseconds. After a failover
# the address may lead to a standby. Parameters of the URL take precedence.
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
    :raises CannotOpen: when it cannot be reached, its schema is of a newer callme, or
        another daemon has the name.
    """
    try:
        given = conninfo_to_dict(url)
        conninfo = make_conninfo(url, **{k: v for k, v in _NETWORK.items() if k not in given})
    except psycopg.Error as error:
        # psycopg's text would repeat the URL, and the password in it.
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
    """Return the counts that a starting daemon reports.

    :raises CannotOpen: when the database cannot be reached any more.
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
    """Return the number of the server's process that serves a connection."""
    row = connection.execute("SELECT pg_backend_pid()").fetchone()
    assert row is not None
    return int(row[0])


def _refuse_transaction_pooling(
    connection: psycopg.Connection, conninfo: str, display_url: str
) -> None:
    """Refuse a pooler that gives each transaction another session, before callme leaves any traces.

    Such a pooler lends the session that was used last, or the one that was not used for longest,
    to the next transaction. The transaction of a second connection thus gets either the session
    of the first, or one that moves the first to another.
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
    """Run the migrations that the database lacks, all in one transaction.

    If several daemons start at the same moment, one migrates and the others wait.

    :param name: the name of the database, for errors.
    :raises CannotOpen: if the schema is of a newer callme, or too old.
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
    """Block daemons that start until the connection ends."""
    connection.execute("SELECT pg_advisory_lock(%s, %s)", (_LOCK_CLASS, _MIGRATION_LOCK))


def schema_version(connection: psycopg.Connection) -> int:
    """Return the number of the database's last migration; 0 without any."""
    table = f"{SCHEMA}.migration"
    found = connection.execute("SELECT to_regclass(%s) IS NOT NULL", (table,)).fetchone()
    if found != (True,):
        return 0
    row = connection.execute(f"SELECT max(number) FROM {table}".encode()).fetchone()
    return 0 if row is None or row[0] is None else int(row[0])


def _check_name(connection: psycopg.Connection, name: str, display_url: str) -> None:
    """Refuse the name of a live daemon; reserve any other until the connection ends.

    A live daemon holds the lock of its name and has sent a heartbeat recently. A daemon that
    vanished may leave a connection that still holds the lock; one that was killed leaves a recent
    heartbeat. Daemons that start have neither yet: a second lock excludes them from each other.
    """
    taken = CannotOpen(
        f"another callme daemon named {name} uses {display_url}: give it another --node"
    )
    if not _try_lock(connection, _STARTING_LOCK_CLASS, name):
        raise taken
    if take_name(connection, name):
        # Released, because the connection of the heartbeat will hold this lock.
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
