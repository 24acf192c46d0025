"""Which PostgreSQL database a daemon shares with others; no driver is needed to say so."""

from __future__ import annotations

from typing import Any

from attrs import field, frozen

SCHEMA = "callme"
"""The schema that holds the tables, so that they meet nobody else's."""


def is_url(database: str) -> bool:
    """Whether a ``--database`` names a PostgreSQL server, not a file."""
    return database.startswith(("postgresql://", "postgres://"))


@frozen(kw_only=True)
class Server:
    """A database that callme has looked at: reachable, and of the newest schema.

    :ivar conninfo: what libpq needs to connect; may hold a password.
    :ivar shown: the same for people, without secrets.
    :ivar version: the server's.
    :ivar own_time: whether the daemon's clock counts, not the database's: where a test or
        a benchmark turns it.
    :ivar starting: the connection that keeps the daemon's name from others, where it was told one.
    """

    conninfo: str = field(repr=False)
    shown: str
    version: str
    use_client_clock: bool = False
    starting: Any = field(default=None, repr=False, eq=False)

    def release(self) -> None:
        """Keep the name no longer: the daemon lives, and has it."""
        if self.starting is not None:
            self.starting.close()
