"""What is written in PostgreSQL's own way: claims, and many records and puts in one statement.

The time that decides is the database's, unless a time is given with the statement.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from attrs import frozen

from ...core.task import Claim, Definition, State, Verdict
from ...core.trigger import Key
from .. import writes
from ..port import Put, PutResult
from ..rows import (
    ATTEMPT,
    CLAIM,
    DEFINITION,
    TASK,
    Row,
    attempt_values,
    definition_values,
    to_attempt,
    to_key,
    to_task,
)
from ..writes import LEASE_MARGIN, created, readable, same, to_ms
from .connections import Cursor

_MOST = 200
"""Rows that go into one statement."""
_MOST_TEXT = 4 * 1024 * 1024
"""Characters of their payloads."""

NOW = "coalesce(%(ms)s::bigint, floor(extract(epoch FROM statement_timestamp()) * 1000)::bigint)"
"""The time given, or the database's: milliseconds. The same wherever it stands in a statement."""
CLAIMED = f"{DEFINITION}, {CLAIM}, token"
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
_COLUMNS = {
    "task_id": "bigint",
    "claim_number": "int",
    "token": "bigint",
    "state": "text",
    "task_reason": "text",
    "task_detail": "text",
    "due_at": "bigint",
    "finished_at": "bigint",
    "unspent": "int",
    "number": "int",
    "started_at": "bigint",
    "lateness_ms": "bigint",
    "duration_ms": "bigint",
    "status": "int",
    "reason": "text",
    "detail": "text",
    "body": "text",
    "node": "text",
}
_NO_ATTEMPT = (None,) * 9
# A token stands there only while its task runs, which need not be asked: the index of those that
# run is full of those that have. The numbers are given once more by themselves so that the
# server knows how few they are.
_RECORD = f"""
    WITH verdict AS MATERIALIZED (
        SELECT * FROM json_to_recordset(?::json)
            AS given ({", ".join(f"{name} {kind}" for name, kind in _COLUMNS.items())})
    ), held AS (
        UPDATE task
        SET state = verdict.state, reason = verdict.task_reason, detail = verdict.task_detail,
            due_at = verdict.due_at, finished_at = verdict.finished_at, lease_until = NULL,
            holder = NULL, token = NULL, attempts_used = attempts_used - verdict.unspent,
            last_attempt = last_attempt - verdict.unspent
        FROM verdict
        WHERE task.task_id = verdict.task_id AND task.last_attempt = verdict.claim_number
            AND task.token = verdict.token AND task.task_id = ANY(?)
        RETURNING task.task_id
    ), made AS (
        INSERT INTO attempt (task_id, {ATTEMPT})
        SELECT task_id, {ATTEMPT.replace("body", "decode(body, 'hex')")}
        FROM verdict JOIN held USING (task_id) WHERE number IS NOT NULL
    )
    SELECT task_id FROM held
"""
_RECORDED = """
    SELECT 1 FROM attempt
    WHERE task_id = ? AND number = ? AND started_at = ? AND node = ?
        AND status IS NOT DISTINCT FROM ?::int AND reason IS NOT DISTINCT FROM ?::text
"""
_DEFINITION = {
    "task_name": "text",
    "trigger_at": "bigint",
    "callback": "text",
    "callback_method": "text",
    "payload": "text",
    "headers": "text",
    "expected_http_status": "text",
    "retry": "int",
    "retry_delay": "text",
    "max_delay": "int",
    "timeout": "int",
    "host": "text",
    "expires_at": "bigint",
    "created_at": "bigint",
}
_CREATE = f"""
    INSERT INTO task ({DEFINITION}, host, expires_at, state, due_at, created_at)
    SELECT {DEFINITION.replace("payload", "decode(payload, 'hex')")}, host, expires_at,
        'scheduled', trigger_at, created_at
    FROM json_to_recordset(?::json)
        AS given ({", ".join(f"{name} {kind}" for name, kind in _DEFINITION.items())})
    ON CONFLICT (task_name, trigger_at) DO NOTHING
    RETURNING task_name, trigger_at
"""
_STANDING = f"""
    SELECT task_id, {DEFINITION}, {TASK} FROM task
    WHERE (task_name, trigger_at) IN (SELECT * FROM unnest(?::text[], ?::bigint[]))
"""
_ATTEMPTS = f"SELECT task_id, {ATTEMPT} FROM attempt WHERE task_id = ANY(?) ORDER BY number"


def run_all(cursor: Cursor, operations: Sequence[Any]) -> list[Any]:
    """Run operations in order, those of one kind that follow each other in one statement.

    What can be is sent without waiting for the answers, which are looked at in the end.
    """
    results: list[Any] = []
    sent: list[Callable[[], Sequence[Any]]] = []
    for kind, group in groupby(operations, key=type):
        if kind is Record:
            sent.append(send_records(cursor, list(group)))
        elif kind is PutTask:
            sent.append(send_puts(cursor, list(group)))
        elif kind is Claiming:
            sent += [operation.send(cursor) for operation in group]
        else:
            results += _received(sent)
            results += [operation(cursor) for operation in group]
    return results + _received(sent)


def _received(sent: list[Callable[[], Sequence[Any]]]) -> list[Any]:
    received = [result for receive in sent for result in receive()]
    sent.clear()
    return received


@frozen
class PutTask:
    """An operation: see :meth:`callme.store.port.Store.put`."""

    definition: Definition
    now: float
    create: bool
    replace: bool

    def __call__(self, cursor: Cursor) -> PutResult:
        return send_puts(cursor, [self])()[0]


def send_puts(cursor: Cursor, puts: Sequence[PutTask]) -> Callable[[], list[PutResult]]:
    """Create tasks in one statement; return what looks at those that it did not create."""
    # Of several under one key the first goes into that statement, if any.
    first: dict[Key, PutTask] = {}
    for one in puts:
        first.setdefault(one.definition.key, one)
    # In one order for all daemons: two that put the same tasks wait, but never for each other.
    fresh = [first[key] for key in sorted(first) if first[key].create]
    creating = []
    for some in _in_parts(fresh):
        values = json.dumps([dict(zip(_DEFINITION, _row(one), strict=True)) for one in some])
        creating.append(cursor.execute(_CREATE, (values,)))

    def receive() -> list[PutResult]:
        made = {Key(*row) for creation in creating for row in creation}
        return _put_results(cursor, puts, first, made)

    return receive


def _put_results(
    cursor: Cursor, puts: Sequence[PutTask], first: Mapping[Key, PutTask], made: Container[Key]
) -> list[PutResult]:
    rest = [one for one in puts if one is not first[one.definition.key]]
    rest += [one for key, one in first.items() if key not in made]
    standing = _standing(cursor, {one.definition.key for one in rest}) if rest else {}
    results = []
    for one in puts:
        key = one.definition.key
        if key in made and one is first[key]:
            results.append(PutResult(Put.CREATED, created(one.definition, one.now)))
        elif key in standing and not one.replace:
            results.append(standing[key].answer(one.definition))
        else:
            results.append(_put_one(cursor, one))
    return results


@frozen
class _Standing:
    row: Row
    attempts: Sequence[Row]

    def answer(self, definition: Definition) -> PutResult:
        task = to_task(self.row[1:], tuple(map(to_attempt, self.attempts)))
        unchanged = same(self.row[1:], definition)
        return PutResult(Put.UNCHANGED if unchanged else Put.DIFFERENT, task)


def _standing(cursor: Cursor, keys: Iterable[Key]) -> dict[Key, _Standing]:
    """Look at the tasks of some keys: in two statements, however many they are."""
    names, times = zip(*((key.task_name, key.trigger_at) for key in keys), strict=True)
    rows = cursor.execute(_STANDING, (list(names), list(times))).fetchall()
    attempts: dict[int, list[Row]] = {row[0]: [] for row in rows}
    for task_id, *attempt in cursor.execute(_ATTEMPTS, (list(attempts),)):
        attempts[task_id].append(tuple(attempt))
    return {to_key(row[1:]): _Standing(row, attempts[row[0]]) for row in rows}


def put_many(
    cursor: Cursor, tasks: Sequence[tuple[Definition, bool]], now: float
) -> Sequence[PutResult]:
    """Create many tasks."""
    puts = [PutTask(definition, now, create, replace=False) for definition, create in tasks]
    results = send_puts(cursor, puts)()
    return [_NEW if result.put is Put.CREATED else result for result in results]


_NEW = PutResult(Put.CREATED, None)


def _put_one(cursor: Cursor, one: PutTask) -> PutResult:
    return writes.put(cursor, one.definition, one.now, one.create, one.replace, _binary)


def _row(one: PutTask) -> Row:
    values = list(definition_values(one.definition))
    values[4] = values[4].encode().hex()
    return (*values, to_ms(one.now))


def _binary(definition: Definition) -> Row:
    values = list(definition_values(definition))
    values[4] = values[4].encode()
    return tuple(values)


def _in_parts(puts: Sequence[PutTask]) -> Iterator[list[PutTask]]:
    part: list[PutTask] = []
    text = 0
    for one in puts:
        text += len(one.definition.payload)
        if part and (len(part) == _MOST or text > _MOST_TEXT):
            yield part
            part, text = [], len(one.definition.payload)
        part.append(one)
    if part:
        yield part


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
        claims = readable(cursor, rows, self.now)
        # RETURNING promises no order.
        claims.sort(key=lambda one: (one.definition.trigger_at, one.task_id))
        return claims


@frozen
class Record:
    """An operation: see :meth:`callme.store.port.Store.record`."""

    claim: Claim
    verdict: Verdict
    now: float

    def __call__(self, cursor: Cursor) -> bool:
        return send_records(cursor, [self])()[0]

    def row(self) -> Row:
        """Return the values of the columns of a record."""
        claim, verdict = self.claim, self.verdict
        attempt: Row = _NO_ATTEMPT
        if verdict.attempt is not None:
            *begin, detail, body, node = attempt_values(verdict.attempt)
            attempt = (*begin, _no_nul(detail), body.encode().hex(), node)
        return (
            claim.task_id,
            claim.number,
            claim.token,
            verdict.state.value,
            None if verdict.reason is None else verdict.reason.value,
            _no_nul(verdict.detail),
            verdict.due_at,
            None if verdict.state is State.SCHEDULED else to_ms(self.now),
            0 if verdict.attempt is not None else 1,
            *attempt,
        )


def send_records(cursor: Cursor, records: Sequence[Record]) -> Callable[[], list[bool]]:
    """Store what became of claimed tasks; return what says of each whether its claim was held."""
    parts = []
    for some in _without_repeats(records):
        values = json.dumps([dict(zip(_COLUMNS, one.row(), strict=True)) for one in some])
        task_ids = [one.claim.task_id for one in some]
        parts.append((some, cursor.execute(_RECORD, (values, task_ids))))

    def receive() -> list[bool]:
        results: list[bool] = []
        for some, recording in parts:
            held = {task_id for (task_id,) in recording}
            results += [one.claim.task_id in held or _was_recorded(cursor, one) for one in some]
        return results

    return receive


def _was_recorded(cursor: Cursor, one: Record) -> bool:
    """Whether the same was stored before: its answer was lost, and it is tried again."""
    attempt = one.verdict.attempt
    if attempt is None:
        return False
    reason = None if attempt.reason is None else attempt.reason.value
    began = (one.claim.task_id, attempt.number, attempt.started_at, attempt.node)
    values = (*began, attempt.status, reason)
    return cursor.execute(_RECORDED, values).fetchone() is not None


def _without_repeats(records: Iterable[Record]) -> Iterator[list[Record]]:
    """Split records so that none of the parts holds two of one task."""
    part: dict[int, Record] = {}
    for one in records:
        if one.claim.task_id in part or len(part) == _MOST:
            yield list(part.values())
            part = {}
        part[one.claim.task_id] = one
    if part:
        yield list(part.values())


def _no_nul(text: str) -> str:
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")
