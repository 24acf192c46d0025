"""Storing what became of claimed tasks: many records in one statement."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence

from attrs import frozen

from ...core.notification import notification_url
from ...core.task import Claim, State, Transition
from ...core.times import to_ms
from ..codec import ATTEMPT_COLUMNS, Row, attempt_values
from ..writes import enqueue_notification
from .cursor import Cursor
from .puts import binary

_MOST = 200
"""Records that go into one statement."""
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
        INSERT INTO attempt (task_id, {ATTEMPT_COLUMNS})
        SELECT task_id, {ATTEMPT_COLUMNS.replace("body", "decode(body, 'hex')")}
        FROM verdict JOIN held USING (task_id) WHERE number IS NOT NULL
    )
    SELECT task_id FROM held
"""
_RECORDED = """
    SELECT 1 FROM attempt
    WHERE task_id = ? AND number = ? AND started_at = ? AND node = ?
        AND status IS NOT DISTINCT FROM ?::int AND reason IS NOT DISTINCT FROM ?::text
"""


@frozen
class Record:
    """An operation: see :meth:`callme.store.port.Store.record`."""

    claim: Claim
    transition: Transition
    now: float

    def __call__(self, cursor: Cursor) -> bool:
        return send_records(cursor, [self])()[0]

    def row(self) -> Row:
        """Return the values of the columns of a record."""
        claim, transition = self.claim, self.transition
        attempt: Row = _NO_ATTEMPT
        if transition.attempt is not None:
            *begin, detail, body, node = attempt_values(transition.attempt)
            attempt = (*begin, _no_nul(detail), body.encode().hex(), node)
        return (
            claim.task_id,
            claim.number,
            claim.token,
            transition.state.value,
            None if transition.reason is None else transition.reason.value,
            _no_nul(transition.detail),
            transition.due_at,
            None if transition.state is State.SCHEDULED else to_ms(self.now),
            0 if transition.attempt is not None else 1,
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
            for one in some:
                definition = one.claim.definition
                if (
                    one.claim.task_id in held
                    and notification_url(definition, one.transition) is not None
                ):
                    enqueue_notification(cursor, definition.key, one.now, binary)
            results += [one.claim.task_id in held or _was_recorded(cursor, one) for one in some]
        return results

    return receive


def _was_recorded(cursor: Cursor, one: Record) -> bool:
    """Whether the same was stored before: its answer was lost, and it is tried again."""
    attempt = one.transition.attempt
    if attempt is None:
        return False
    reason = None if attempt.reason is None else attempt.reason.value
    began = (one.claim.task_id, attempt.number, attempt.started_at_ms, attempt.node)
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
