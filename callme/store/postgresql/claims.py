"""Taking what is due, in one statement that no other daemon waits for.

The time that decides is the database's, unless a time is given with the statement.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from attrs import frozen

from ...core.task import Claim
from ..codec import CLAIM_COLUMNS, DEFINITION_COLUMNS, Row
from ..writes import LEASE_MARGIN, decode_or_fail
from .cursor import Cursor
from .puts import binary

NOW = "coalesce(%(ms)s::bigint, floor(extract(epoch FROM statement_timestamp()) * 1000)::bigint)"
"""The time given, or the database's: milliseconds. The same wherever it stands in a statement."""
CLAIMED = f"{DEFINITION_COLUMNS}, {CLAIM_COLUMNS}, token"
TASK_CLAIMED = ", ".join(f"task.{column}" for column in CLAIMED.split(", "))

# Materialized, so that it is run once: a LIMIT with SKIP LOCKED would find others each time.
# The daemon's own clock must not be before the minute either, nor after the end of max_delay.
_CLAIM = f"""
    WITH chosen AS MATERIALIZED (
        SELECT due.task_id FROM unnest(%(hosts)s::text[], %(most)s::int[]) AS share (host, most)
        CROSS JOIN LATERAL (
            SELECT task_id FROM task
            WHERE state = 'scheduled' AND host = share.host
                AND due_at <= {NOW} / 1000 AND trigger_at <= %(own)s
                AND expires_at > {NOW} / 1000 AND expires_at > %(own)s
            ORDER BY due_at, task_id LIMIT share.most FOR UPDATE SKIP LOCKED
        ) AS due
    )
    UPDATE task
    SET state = 'running', due_at = NULL, claimed_at = {NOW},
        lease_until = {NOW} / 1000 + {LEASE_MARGIN} + timeout, node = %(name)s,
        holder = %(me)s, token = %(token)s,
        attempts_used = attempts_used + 1, last_attempt = last_attempt + 1
    FROM chosen
    WHERE task.task_id = chosen.task_id AND EXISTS (SELECT FROM node WHERE node_id = %(me)s)
    RETURNING {TASK_CLAIMED}
"""
_CLAIMED_BEFORE = f"SELECT {CLAIMED} FROM task WHERE state = 'running' AND token = ANY(?)"


@frozen
class Claiming:
    """An operation: see :meth:`callme.store.port.Store.claim`.

    :ivar now: the daemon's own time, before which nothing may start either.
    :ivar ms: the time that decides; ``None`` for the database's.
    :ivar doubtful: tokens of claims whose answer was lost: what they took is returned
        before anything else is taken, as nobody has called it.
    """

    shares: Mapping[str, int]
    now: float
    ms: int | None
    name: str
    node_id: int | None
    token: int
    doubtful: Sequence[int] = ()

    def __call__(self, cursor: Cursor) -> Sequence[Claim]:
        return self.send(cursor)()[0]

    def send(self, cursor: Cursor) -> Callable[[], list[Sequence[Claim]]]:
        """Take tasks; return what looks at those that were taken."""
        if self.doubtful:
            before = cursor.execute(_CLAIMED_BEFORE, (list(self.doubtful),)).fetchall()
            if before:
                return lambda: [self._claims(cursor, before)]
        values = {
            "ms": self.ms,
            "own": int(self.now),
            "hosts": list(self.shares),
            "most": list(self.shares.values()),
            "name": self.name,
            "me": self.node_id,
            "token": self.token,
        }
        claiming = cursor.execute(_CLAIM, values)
        return lambda: [self._claims(cursor, claiming.fetchall())]

    def _claims(self, cursor: Cursor, rows: Sequence[Row]) -> Sequence[Claim]:
        claims = decode_or_fail(cursor, rows, self.now, binary)
        # RETURNING promises no order.
        claims.sort(key=lambda one: (one.definition.trigger_at, one.task_id))
        return claims
