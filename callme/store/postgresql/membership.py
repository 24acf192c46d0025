"""Membership in a fleet: heartbeats, detection of dead daemons, and rescue of their claims.

All times are the database's. A daemon that has missed heartbeats itself declares no other daemon
dead until its own heartbeats have been regular for the whole timeout: after a restart of the
database, all daemons have missed heartbeats, although none is dead.
"""

from __future__ import annotations

from collections.abc import Sequence

import psycopg
from attrs import define, field, frozen
from twisted.logger import Logger

from ...core.task import Claim
from ..changes import Changes
from ..codec import NamedRow, Row
from ..database import Write
from ..interface import HEARTBEAT_SECONDS
from ..queue import LEASE_MARGIN, decode_or_fail
from .cursor import PostgresqlCursor, in_transaction
from .queue import NOW, TOKEN_CLAIM
from .setup import PEER_TIMEOUT_SECONDS, take_name

log = Logger(namespace="callme")

MAX_CLOCK_DIFFERENCE_SECONDS = 2
"""Difference to the database's clock above which a daemon logs a warning, in seconds."""
CLOCK_WARNING_SECONDS = 60
"""Minimum interval between two warnings, in seconds."""
_CLOCK_WARNING = (
    "this daemon's clock is {seconds:.1f} s {side} the database's: calls are late, or fail as "
    "too_late; synchronize both clocks (NTP)"
)
_MAX_GAP_SECONDS = 3 * HEARTBEAT_SECONDS
"""Maximum time between regular heartbeats, in seconds."""
_RESCUE_LIMIT = 1000
"""Maximum number of claims that one heartbeat rescues."""

# The statement updates the daemon's own row, deletes the rows of dead daemons, and takes over
# orphaned claims. A claim is orphaned if its holder has no row. A claim of this daemon is orphaned
# if its lease has ended: its result was lost, so that the call was never made.
_HEARTBEAT = f"""
    WITH time AS (SELECT {NOW} AS ms),
    me AS (
        UPDATE node
        SET seen_at_ms = ms,
            stable_since_ms = CASE WHEN ms - seen_at_ms > {_MAX_GAP_SECONDS * 1000} THEN ms
                ELSE stable_since_ms END
        FROM time WHERE node_id = %(me)s RETURNING node_id, stable_since_ms
    ), dead AS (
        DELETE FROM node USING time, me
        WHERE node.seen_at_ms < ms - {PEER_TIMEOUT_SECONDS * 1000}
            AND me.stable_since_ms <= ms - {PEER_TIMEOUT_SECONDS * 1000}
            AND node.node_id <> me.node_id
        RETURNING node.node_id
    ), chosen AS MATERIALIZED (
        SELECT task_id FROM task
        WHERE state = 'running' AND EXISTS (SELECT FROM me) AND (
            holder IS NULL
            OR NOT EXISTS (SELECT FROM node WHERE node_id = holder)
            OR holder IN (SELECT node_id FROM dead)
            OR holder = %(me)s AND lease_until <= {NOW} / 1000
        )
        LIMIT {_RESCUE_LIMIT} FOR UPDATE SKIP LOCKED
    ), taken AS (
        UPDATE task
        SET token = CASE WHEN holder = %(me)s THEN token ELSE %(token)s END,
            holder = %(me)s,
            lease_until = ms / 1000 + {LEASE_MARGIN}
        FROM time, chosen WHERE task.task_id = chosen.task_id
        RETURNING {TOKEN_CLAIM.of("task")}
    )
    SELECT (SELECT count(*) FROM me), (SELECT count(*) FROM dead), pg_backend_pid(),
        floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint, taken.*
    FROM time LEFT JOIN taken ON true
"""
_REGISTER = f"""
    INSERT INTO node (name, seen_at_ms, stable_since_ms)
    SELECT %(name)s, ms, ms FROM (SELECT {NOW} AS ms) AS time RETURNING node_id
"""
_KEEP_CLAIMS = "UPDATE task SET holder = ? WHERE state = 'running' AND holder = ?"


@frozen(kw_only=True)
class Heartbeat:
    """Result of a heartbeat.

    :ivar claims: the claims of dead daemons that this daemon has taken over.
    :ivar pid: the process id of the server process that served the heartbeat.
    :ivar database_ms: the time of the database: milliseconds since 1970.
    """

    claims: Sequence[Claim]
    changes: Changes
    pid: int
    database_ms: int


@define(eq=False)
class ClockWatch:
    """Monitor of the difference between the daemon's clock and the database's clock."""

    _warned_at: float = field(default=-CLOCK_WARNING_SECONDS, init=False)

    def compare(self, *, sent_at: float, duration_seconds: float, database_ms: int) -> None:
        """Log a warning if the clocks differ, at most once a minute.

        :param sent_at: the time of a request by the daemon's clock: seconds since 1970.
        :param duration_seconds: the time until the response, during which the database has read its
            clock.
        :param database_ms: the time of the database: milliseconds since 1970.
        """
        ahead = sent_at - database_ms / 1000
        behind = -ahead - duration_seconds
        differs = max(ahead, behind) > MAX_CLOCK_DIFFERENCE_SECONDS
        if differs and abs(sent_at - self._warned_at) >= CLOCK_WARNING_SECONDS:
            self._warned_at = sent_at
            log.warn(
                _CLOCK_WARNING,
                seconds=max(ahead, behind),
                side="ahead of" if ahead > 0 else "behind",
            )


@define(eq=False, kw_only=True)
class Member:
    """Daemon as a member of its fleet.

    :param on_failure: as in :class:`callme.store.database.Store`.
    :ivar node_id: the primary key of its row; ``None`` before the first heartbeat.
    """

    name: str
    _on_failure: str | None = None
    node_id: int | None = None

    def heartbeat(
        self, connection: psycopg.Connection, now: float, ms: int | None, token: int
    ) -> Heartbeat:
        """Send a heartbeat, and take over the claims of dead daemons.

        :param now: the daemon's own time, seconds since 1970.
        :param ms: the authoritative time: milliseconds since 1970; ``None`` for the database's.
        :param token: the unique token for the claims that are taken over.
        """
        cursor = PostgresqlCursor(connection)
        if self.node_id is None:
            self.node_id = self._register(connection, ms)
        rows = self._send_heartbeat(cursor, ms, token)
        if not rows[0][0]:
            # Another daemon has declared this one dead, and owns its claims.
            self.node_id = self._register(connection, ms)
            rows = self._send_heartbeat(cursor, ms, token)
        _, _, pid, database_ms, *_ = rows[0]
        taken = [TOKEN_CLAIM.name(row) for _, _, _, _, *row in rows if row[0] is not None]
        claims, changes = self._decode(connection, taken, now) if taken else ([], Changes())
        return Heartbeat(claims=claims, changes=changes, pid=pid, database_ms=database_ms)

    def _decode(
        self, connection: psycopg.Connection, taken: Sequence[NamedRow], now: float
    ) -> tuple[Sequence[Claim], Changes]:
        # A corrupt task fails, and its notification is put, in one transaction.
        def decode(cursor: PostgresqlCursor) -> tuple[Sequence[Claim], Changes]:
            write = Write(cursor=cursor, node=lambda: self.name, on_failure=self._on_failure)
            return decode_or_fail(write, taken, now), write.changes

        return in_transaction(connection, b"BEGIN", decode)

    def _send_heartbeat(self, cursor: PostgresqlCursor, ms: int | None, token: int) -> list[Row]:
        values = {"ms": ms, "me": self.node_id, "token": token}
        return cursor.execute(_HEARTBEAT, values).fetchall()

    def _register(self, connection: psycopg.Connection, ms: int | None) -> int:
        named = take_name(connection, self.name)

        def register(cursor: PostgresqlCursor) -> int:
            if named:
                # The lock of the name was free, so its previous owner no longer exists.
                cursor.execute("DELETE FROM node WHERE name = ?", (self.name,))
            node_id: int = cursor.execute(_REGISTER, {"name": self.name, "ms": ms}).fetchone()[0]
            # Claims of the previous row that no other daemon has taken over still belong to this
            # one.
            cursor.execute(_KEEP_CLAIMS, (node_id, self.node_id))
            return node_id

        return in_transaction(connection, b"BEGIN", register)

    def deregister(self, connection: psycopg.Connection) -> None:
        """Delete this daemon's row, so that its peers take over its claims without a timeout."""
        connection.execute("DELETE FROM node WHERE node_id = %s", (self.node_id,))
