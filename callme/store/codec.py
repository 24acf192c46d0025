"""Between rows and what they stand for: columns, their order, their encoding."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from ..core.callback_url import host_of
from ..core.task import Attempt, Claim, Definition, Reason, State, Task
from ..core.times import Key

Row = tuple[Any, ...]

DEFINITION_COLUMNS = (
    "task_name, trigger_at, callback, callback_method, payload, headers, "
    "expected_http_status, retry, retry_delay, max_delay, timeout, on_failure, on_success"
)
SUMMARY_COLUMNS = DEFINITION_COLUMNS.replace("payload", "''")
"""The same without the payload, which lists leave out."""
TASK_STATE_COLUMNS = "state, reason, detail, due_at, attempts_used, created_at, finished_at"
CLAIM_COLUMNS = "task_id, last_attempt, attempts_used, claimed_at, host, node"
ATTEMPT_COLUMNS = "number, started_at, lateness_ms, duration_ms, status, reason, detail, body, node"

_DEFINITION_COLUMNS = len(DEFINITION_COLUMNS.split(","))
_ON_FAILURE = DEFINITION_COLUMNS.split(", ").index("on_failure")
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


@lru_cache(maxsize=256)
def _encoded(values: tuple[int | str, ...]) -> str:
    """Return a list as it is stored; kept, as most tasks have the same few."""
    return _encode(values)


def on_failure_of(row: Row) -> str | None:
    """Return what the first columns of a row, broken or not, say of who is told of a failure."""
    url: str | None = row[_ON_FAILURE]
    return url


class CorruptRow(Exception):
    """A row that does not say what a task is: somebody else wrote it."""


def definition_values(definition: Definition) -> Row:
    """Return the values of the definition's columns, then those of ``host`` and ``expires_at``."""
    return (
        definition.task_name,
        definition.trigger_at,
        definition.callback,
        definition.callback_method,
        definition.payload,
        _encode(definition.headers) if definition.headers else "{}",
        _encoded(definition.expected_http_status),
        definition.retry,
        _encoded(definition.retry_delay),
        definition.max_delay,
        definition.timeout,
        definition.on_failure,
        definition.on_success,
        host_of(definition.callback),
        definition.expires_at,
    )


def to_definition(row: Row) -> Definition:
    """Return the definition that the first columns of a row hold.

    :raises BrokenRow: when they hold none.
    """
    name, trigger_at, callback, method, payload, headers, expected, retry, delay, most, *rest = row[
        :_DEFINITION_COLUMNS
    ]
    timeout, on_failure, on_success = rest
    try:
        return Definition(
            task_name=name,
            trigger_at=trigger_at,
            callback=callback,
            callback_method=method,
            payload=payload,
            headers=_decoded(headers, dict),
            expected_http_status=tuple(_decoded(expected, list)),
            retry=retry,
            retry_delay=tuple(_decoded(delay, list)),
            max_delay=most,
            timeout=timeout,
            on_failure=on_failure,
            on_success=on_success,
        )
    except ValueError as error:
        raise CorruptRow(
            f"the stored definition of {name}@{trigger_at} is broken: {error}"
        ) from None


_DEFAULTS = {"{}": {}, "[200]": [200], "[1]": [1]}
"""What most tasks hold, decoded once; nobody changes a definition's values."""


def _decoded(text: str, kind: type) -> Any:
    if text in _DEFAULTS:
        return _DEFAULTS[text]
    value = json.loads(text)
    if not isinstance(value, kind) or not value:
        raise ValueError(f"a column holds no {kind.__name__}")
    return value


def to_task(row: Row, attempts: tuple[Attempt, ...] | None = None) -> Task:
    """Return the task that a row of its definition and its state holds.

    A broken definition is shown as far as it can be read, so that one row does
    not hide the others.
    """
    try:
        definition = to_definition(row)
    except CorruptRow:
        broken = list(row)
        broken[5], broken[6], broken[8] = "{}", "[200]", "[1]"
        definition = to_definition(tuple(broken))
    state, reason, detail, due_at, used, created_at_ms, finished_at_ms = row[_DEFINITION_COLUMNS:]
    return Task(
        definition=definition,
        state=State(state),
        reason=None if reason is None else Reason(reason),
        detail=detail,
        due_at=due_at,
        attempts_used=used,
        created_at_ms=created_at_ms,
        finished_at_ms=finished_at_ms,
        attempts=attempts,
    )


def to_claim(row: Row) -> Claim:
    """Return the claim that a row of definition, claim and perhaps a token holds.

    :raises BrokenRow: as :func:`to_definition`.
    """
    task_id, number, used, claimed_at_ms, host, node, *token = row[_DEFINITION_COLUMNS:]
    return Claim(
        task_id=task_id,
        number=number,
        definition=to_definition(row),
        attempts_used=used,
        claimed_at_ms=claimed_at_ms,
        host=host,
        node=node,
        token=token[0] if token else 0,
    )


def attempt_values(attempt: Attempt) -> Row:
    """Return the values of :data:`ATTEMPT_COLUMNS`."""
    return (
        attempt.number,
        attempt.started_at,
        attempt.lateness_ms,
        attempt.duration_ms,
        attempt.status,
        None if attempt.reason is None else attempt.reason.value,
        attempt.detail,
        attempt.body,
        attempt.node,
    )


def to_attempt(row: Row) -> Attempt:
    """Return the attempt that a row of :data:`ATTEMPT_COLUMNS` holds."""
    number, started_at, lateness_ms, duration_ms, status, reason, detail, body, node = row
    return Attempt(
        number=number,
        started_at=started_at,
        lateness_ms=lateness_ms,
        duration_ms=duration_ms,
        status=status,
        reason=None if reason is None else Reason(reason),
        detail=detail,
        body=body,
        node=node,
    )


def to_key(row: Row) -> Key:
    """Return the key that the first two columns of a row hold."""
    return Key(row[0], row[1])
