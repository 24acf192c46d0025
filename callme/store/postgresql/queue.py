"""The queue of due tasks in PostgreSQL: claims and records, many in one statement.

The database's time is authoritative, unless a statement has a time as a parameter.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from attrs import frozen

from ...core.notification import notification_url
from ...core.task import Attempt, Claim, State, Transition
from ...core.times import floor_to_minute, to_ms
from ..codec import ATTEMPT, CLAIM, Columns, CorruptRow, Row, attempt_values, to_claim
from ..database import Operation, Unfinished, Write
from ..interface import Cursor
from ..queue import (
    LEASE_MARGIN,
    decode_or_fail,
    finish_record,
    in_claim_order,
    next_number,
)

NOW = "coalesce(%(ms)s::bigint, floor(extract(epoch FROM statement_timestamp()) * 1000)::bigint)"
"""SQL for the authoritative time in ms, which is constant within a statement."""
TOKEN_CLAIM = Columns((*CLAIM, "token"))
DUE_HOSTS = f"""
    SELECT DISTINCT host FROM (
        SELECT host FROM task
        WHERE state = 'scheduled' AND due_at <= {NOW} / 1000
        ORDER BY due_at LIMIT 10000
    ) AS longest_due
"""
IN_DOUBT_HOSTS = "SELECT DISTINCT host FROM task WHERE state = 'running' AND token = ANY(?)"

# MATERIALIZED makes the subquery run once: a LIMIT with SKIP LOCKED finds other tasks each time.
# A claim must be neither early nor late, by both the database's clock and the daemon's.
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
    SET state = 'running', due_at = NULL, claimed_at_ms = {NOW},
        lease_until = {NOW} / 1000 + {LEASE_MARGIN} + timeout, node = %(name)s,
        holder = %(me)s, token = %(token)s,
        attempts_used = {next_number("attempts_used")}, last_attempt = {next_number("last_attempt")}
    FROM chosen
    WHERE task.task_id = chosen.task_id AND EXISTS (SELECT FROM node WHERE node_id = %(me)s)
    RETURNING {TOKEN_CLAIM.of("task")}
"""
_CLAIMED_BEFORE = f"SELECT {TOKEN_CLAIM} FROM task WHERE state = 'running' AND token = ANY(?)"

_STATEMENT_LIMIT = 200
"""Maximum number of records in one statement."""
_ATTEMPT_TYPES = {
    "number": "int",
    "started_at_ms": "bigint",
    "lateness_ms": "bigint",
    "duration_ms": "bigint",
    "status": "int",
    "reason": "text",
    "detail": "text",
    "body": "text",
    "node": "text",
}
_TYPES = {
    "task_id": "bigint",
    "claim_number": "int",
    "token": "bigint",
    "state": "text",
    "task_reason": "text",
    "task_detail": "text",
    "due_at": "bigint",
    "finished_at_ms": "bigint",
    "unspent": "int",
    **_ATTEMPT_TYPES,
}
# The statement compares only the token, which only a running task has: a condition on the state
# would make the planner use the index of running tasks, which is full of dead entries. The task_ids
# are also passed as an array, so that the planner knows their number.
_RECORD = f"""
    WITH transition AS MATERIALIZED (
        SELECT * FROM json_to_recordset(?::json)
            AS given ({", ".join(f"{name} {kind}" for name, kind in _TYPES.items())})
    ), recorded AS (
        UPDATE task
        SET state = transition.state, reason = transition.task_reason,
            detail = transition.task_detail, due_at = transition.due_at,
            finished_at_ms = transition.finished_at_ms, lease_until = NULL,
            holder = NULL, token = NULL, attempts_used = attempts_used - transition.unspent,
            last_attempt = last_attempt - transition.unspent,
            first_lateness_ms = coalesce(first_lateness_ms, transition.lateness_ms)
        FROM transition
        WHERE task.task_id = transition.task_id AND task.last_attempt = transition.claim_number
            AND task.token = transition.token AND task.task_id = ANY(?)
        RETURNING task.task_id
    ), made AS (
        INSERT INTO attempt (task_id, {ATTEMPT})
        SELECT task_id, {ATTEMPT.select(body="decode(body, 'hex')")}
        FROM transition JOIN recorded USING (task_id) WHERE number IS NOT NULL
    )
    SELECT task_id FROM recorded
"""


@frozen(kw_only=True)
class ClaimCall:
    """The arguments of a claim: see :func:`callme.store.queue.claim`.

    :ivar now: the daemon's own time: seconds since 1970. Calls must not be early by this time
        either.
    :ivar ms: the authoritative time: milliseconds since 1970; ``None`` for the database's.
    :ivar in_doubt: tokens of claims whose result was lost: their tasks, which have not been called,
        are returned before further tasks are claimed.
    """

    shares: Mapping[str, int]
    now: float
    ms: int | None
    name: str
    node_id: int | None
    token: int
    in_doubt: Sequence[int] = ()

    def values(self) -> dict[str, object]:
        """Return the values of :data:`_CLAIM`."""
        return {
            "ms": self.ms,
            "own": int(self.now),
            "hosts": list(self.shares),
            "most": list(self.shares.values()),
            "name": self.name,
            "me": self.node_id,
            "token": self.token,
        }


def send_claims(
    write: Write, calls: Sequence[ClaimCall]
) -> Callable[[], list[Sequence[Claim] | Unfinished]]:
    """Send the statements of claims; return a function that receives the claimed tasks.

    A claim of a corrupt task is unfinished.
    """
    receiving = [_send_claim(write, call) for call in calls]
    return lambda: [receive() for receive in receiving]


def _send_claim(write: Write, call: ClaimCall) -> Callable[[], Sequence[Claim] | Unfinished]:
    if call.in_doubt:
        before = write.cursor.execute(_CLAIMED_BEFORE, (list(call.in_doubt),)).fetchall()
        if before:
            claims = decode_claims(write, rows=before, now=call.now)
            return lambda: _within_shares(write, call, claims)
    claiming = write.cursor.execute(_CLAIM, call.values())

    def receive() -> Sequence[Claim] | Unfinished:
        rows = claiming.fetchall()
        try:
            claims = [to_claim(TOKEN_CLAIM.name(row)) for row in rows]
        except CorruptRow:
            values = {"rows": rows, "now": call.now}
            return Unfinished(Operation(function=decode_claims, args=(), kwargs=values))
        return in_claim_order(write.changes, claims)

    return receive


def decode_claims(write: Write, *, rows: Sequence[Row], now: float) -> Sequence[Claim]:
    """Return the claims in some rows, and fail the tasks of those that are corrupt."""
    return in_claim_order(write.changes, decode_or_fail(write, map(TOKEN_CLAIM.name, rows), now))


def _within_shares(write: Write, call: ClaimCall, claims: Sequence[Claim]) -> Sequence[Claim]:
    """Return the claims that current slots suffice for, and release the others unspent."""
    left = Counter(call.shares)
    launched: list[Claim] = []
    returned: list[RecordCall] = []
    for claim in claims:
        if left[claim.host] > 0:
            left[claim.host] -= 1
            launched.append(claim)
            continue
        due_at = max(floor_to_minute(call.now), claim.definition.trigger_at)
        transition = Transition(state=State.SCHEDULED, due_at=due_at)
        returned.append(RecordCall(claim=claim, transition=transition, now=call.now))
    send_records(write, returned)()
    return launched


@frozen(kw_only=True)
class RecordCall:
    """The arguments of :func:`callme.store.queue.record`."""

    claim: Claim
    transition: Transition
    now: float

    def row(self) -> dict[str, object]:
        """Return the values of :data:`_TYPES`, by name."""
        claim, transition = self.claim, self.transition
        return {
            "task_id": claim.task_id,
            "claim_number": claim.number,
            "token": claim.token,
            "state": transition.state.value,
            "task_reason": None if transition.reason is None else transition.reason.value,
            "task_detail": _without_nul(transition.detail),
            "due_at": transition.due_at,
            "finished_at_ms": None if transition.state is State.SCHEDULED else to_ms(self.now),
            "unspent": 0 if transition.attempt is not None else 1,
            **_attempt_row(transition.attempt),
        }


def _attempt_row(attempt: Attempt | None) -> dict[str, object]:
    if attempt is None:
        return dict.fromkeys(ATTEMPT)
    row = ATTEMPT.name(attempt_values(attempt))
    row["detail"] = _without_nul(attempt.detail)
    row["body"] = attempt.body.encode().hex()
    return row


def send_records(
    write: Write, records: Sequence[RecordCall]
) -> Callable[[], list[bool | Unfinished]]:
    """Send the statements of records; return a function that receives the results.

    A result is whether the claim was valid. A record that was not stored, or that requires a
    notification, is unfinished.
    """
    parts = []
    for part in _without_repeats(records):
        values = json.dumps([record.row() for record in part])
        task_ids = [record.claim.task_id for record in part]
        parts.append((part, write.cursor.execute(_RECORD, (values, task_ids))))

    return lambda: [valid for part in parts for valid in _receive_records(write, *part)]


def _receive_records(
    write: Write, records: Sequence[RecordCall], recording: Cursor
) -> Iterator[bool | Unfinished]:
    stored = {task_id for (task_id,) in recording}
    for record in records:
        claim, transition = record.claim, record.transition
        is_stored = claim.task_id in stored
        if (
            is_stored
            and notification_url(claim.definition, transition.state, write.on_failure) is None
        ):
            yield finish_record(write, claim, transition, record.now, stored=True)
        else:
            args = (claim, transition, record.now)
            finish = Operation(function=finish_record, args=args, kwargs={"stored": is_stored})
            yield Unfinished(finish)


def _without_repeats(records: Iterable[RecordCall]) -> Iterator[list[RecordCall]]:
    """Split records into parts without two records of the same task."""
    part: dict[int, RecordCall] = {}
    for record in records:
        if record.claim.task_id in part or len(part) == _STATEMENT_LIMIT:
            yield list(part.values())
            part = {}
        part[record.claim.task_id] = record
    if part:
        yield list(part.values())


def _without_nul(text: str) -> str:
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")
