"""The address of a PostgreSQL database, without a dependency on psycopg."""

from __future__ import annotations

from typing import Any

from attrs import field, frozen

SCHEMA = "callme"
"""Name of the schema that contains callme's tables."""


def is_url(database: str) -> bool:
    """Return whether ``--database`` names a PostgreSQL server, not a file."""
    return database.startswith(("postgresql://", "postgres://"))


@frozen(kw_only=True)
class Server:
    """Reachable PostgreSQL database with the newest schema.

    :ivar conninfo: libpq's connection string, which may contain a password.
    :ivar display_url: the URL for people, without secrets.
    :ivar version: the version of the server.
    :ivar use_client_clock: whether the daemon's clock is authoritative instead of the database's,
        for tests and benchmarks that set it.
    :ivar name_lock: the connection that reserves the daemon's configured name until its first
        heartbeat.
    """

    conninfo: str = field(repr=False)
    display_url: str
    version: str
    use_client_clock: bool = False
    name_lock: Any = field(default=None, repr=False, eq=False)

    def release(self) -> None:
        """Close the connection that reserves the name; that of the heartbeat replaces it."""
        if self.name_lock is not None:
            self.name_lock.close()
