"""Who lives: each daemon says so every few seconds; whose word is missed for long is dead.

The time is the database's alone. A daemon that was itself away, frozen or cut off, or whose
database was, judges nobody until it has been steady for as long as that takes: after a
restart of the database all have been away, and none is dead.
"""

from __future__ import annotations

from collections.abc import Sequence

import psycopg
from attrs import define

from ...core.task import Claim
from ..changes import Changes
from ..codec import Row
from ..database import Write
from ..interface import HEARTBEAT_SECONDS
from ..queue import LEASE_MARGIN, decode_or_fail
from .cursor import PostgresqlCursor, in_transaction
from .queue import NOW, TOKEN_CLAIM
from .setup import PEER_TIMEOUT_SECONDS, take_name

_GAP_SECONDS = 3 * HEARTBEAT_SECONDS
"""After how long a silence a daemon is no longer steady."""
_AT_ONCE = 1000
"""How many claims of the dead one statement takes over."""

# One statement, in the order of its parts: say that I live, delete whom I judge dead, take over
# the claims that no row in node stands for. A claim of my own whose lease has ended is one whose
# answer I never had.
_ALIVE = f"""
    WITH time AS (SELECT {NOW} AS ms),
    me AS (
        UPDATE node
        SET seen_at_ms = ms,
            stable_since_ms = CASE WHEN ms - seen_at_ms > {_GAP_SECONDS * 1000} THEN ms
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
        LIMIT {_AT_ONCE} FOR UPDATE SKIP LOCKED
    ), taken AS (
        UPDATE task
        SET token = CASE WHEN holder = %(me)s THEN token ELSE %(token)s END,
            holder = %(me)s,
            lease_until = ms / 1000 + {LEASE_MARGIN}
        FROM time, chosen WHERE task.task_id = chosen.task_id
        RETURNING {TOKEN_CLAIM.of("task")}
    )
    SELECT (SELECT count(*) FROM me), (SELECT count(*) FROM dead), taken.*
    FROM time LEFT JOIN taken ON true
"""
_REGISTER = f"""
    INSERT INTO node (name, seen_at_ms, stable_since_ms)
    SELECT %(name)s, ms, ms FROM (SELECT {NOW} AS ms) AS time RETURNING node_id
"""
_KEEP = "UPDATE task SET holder = ? WHERE state = 'running' AND holder = ?"


@define(eq=False)
class Member:
    """One run of a daemon: this one, as the others see it.

    :ivar node_id: its number; ``None`` before it has said for the first time that it lives.
    """

    name: str
    node_id: int | None = None

    def heartbeat(
        self, connection: psycopg.Connection, now: float, ms: int | None, token: int
    ) -> tuple[Sequence[Claim], Changes]:
        """Say that this daemon lives, and take over the claims of those that do not.

        :param now: the daemon's own time.
        :param ms: the time that decides; ``None`` for the database's.
        :param token: what tells what is taken over from every other claim.
        """
        cursor = PostgresqlCursor(connection)
        if self.node_id is None:
            self.node_id = self._register(connection, ms)
        rows = self._say(cursor, ms, token)
        if not rows[0][0]:
            # Others took this daemon for dead: its claims are theirs. It is a new one now.
            self.node_id = self._register(connection, ms)
            rows = self._say(cursor, ms, token)
        taken = [TOKEN_CLAIM.name(row) for _, _, *row in rows if row[0] is not None]
        if not taken:
            return [], Changes()

        # A corrupt row fails, and its notification is put: both or neither.
        def decode(cursor: PostgresqlCursor) -> tuple[Sequence[Claim], Changes]:
            write = Write(cursor=cursor, node=lambda: self.name)
            return decode_or_fail(write, taken, now), write.changes

        return in_transaction(connection, b"BEGIN", decode)

    def _say(self, cursor: PostgresqlCursor, ms: int | None, token: int) -> list[Row]:
        values = {"ms": ms, "me": self.node_id, "token": token}
        return cursor.execute(_ALIVE, values).fetchall()

    def _register(self, connection: psycopg.Connection, ms: int | None) -> int:
        named = take_name(connection, self.name)

        def register(cursor: PostgresqlCursor) -> int:
            if named:
                # Whoever had the name is gone, and need not be missed first.
                cursor.execute("DELETE FROM node WHERE name = ?", (self.name,))
            node_id: int = cursor.execute(_REGISTER, {"name": self.name, "ms": ms}).fetchone()[0]
            # What nobody has taken from us meanwhile is still ours.
            cursor.execute(_KEEP, (node_id, self.node_id))
            return node_id

        return in_transaction(connection, b"BEGIN", register)

    def leave(self, connection: psycopg.Connection) -> None:
        """Say that this daemon ends: what it leaves behind is anybody's at once."""
        connection.execute("DELETE FROM node WHERE node_id = %s", (self.node_id,))
