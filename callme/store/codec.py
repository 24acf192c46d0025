"""Between rows and what they stand for: columns, their order, their encoding."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

from ..core.callback_url import host_of
from ..core.parameters import PARAMETERS
from ..core.task import Attempt, Claim, Definition, Reason, State, Task
from ..core.times import Key

Row = tuple[Any, ...]

_NAMES = tuple(parameter.name for parameter in PARAMETERS)
DEFINITION_COLUMNS = ", ".join(_NAMES)
SUMMARY_COLUMNS = ", ".join(p.name if p.is_listed else "''" for p in PARAMETERS)
"""The same without what lists leave out."""
TASK_STATE_COLUMNS = "state, reason, detail, due_at, attempts_used, created_at, finished_at"
CLAIM_COLUMNS = "task_id, last_attempt, attempts_used, claimed_at, host, node, created_at"
ATTEMPT_COLUMNS = "number, started_at, lateness_ms, duration_ms, status, reason, detail, body, node"

_DEFINITION_COLUMNS = len(_NAMES)
_ON_FAILURE = _NAMES.index("on_failure")
_values = attrgetter(*_NAMES)
_ENCODERS = tuple(
    (place, parameter.column.encode)
    for place, parameter in enumerate(PARAMETERS)
    if parameter.column.encode is not None
)
_DECODERS = tuple(
    (place, parameter.name, parameter.column.decode)
    for place, parameter in enumerate(PARAMETERS)
    if parameter.column.decode is not None
)


def on_failure_of(row: Row) -> str | None:
    """Return what the first columns of a row, broken or not, say of who is told of a failure."""
    url: str | None = row[_ON_FAILURE]
    return url


class CorruptRow(Exception):
    """A row that does not say what a task is: somebody else wrote it."""


def definition_values(definition: Definition) -> Row:
    """Return the values of the definition's columns, then those of ``host`` and ``expires_at``."""
    values = list(_values(definition))
    for place, encode in _ENCODERS:
        values[place] = encode(values[place])
    return (*values, host_of(definition.callback), definition.expires_at)


def to_definition(row: Row, *, lenient: bool = False) -> Definition:
    """Return the definition that the first columns of a row hold.

    :param lenient: replace what cannot be decoded with the parameter's default.
    :raises CorruptRow: when a column cannot be decoded.
    """
    values = dict(zip(_NAMES, row, strict=False))
    for place, name, decode in _DECODERS:
        try:
            values[name] = decode(row[place])
        except ValueError as error:
            if not lenient:
                key = Key(row[0], row[1])
                raise CorruptRow(
                    f"the stored definition of {key} is broken: {name}: {error}"
                ) from None
            del values[name]
    return Definition(**values)


def to_task(row: Row, attempts: tuple[Attempt, ...] | None = None) -> Task:
    """Return the task that a row of its definition and its state holds.

    A corrupt definition is returned as far as it can be decoded, so that one row does not
    make the others of a list unreadable.
    """
    definition = to_definition(row, lenient=True)
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
    task_id, number, used, claimed_at_ms, host, node, created_at_ms, *token = row[
        _DEFINITION_COLUMNS:
    ]
    return Claim(
        task_id=task_id,
        number=number,
        definition=to_definition(row),
        attempts_used=used,
        claimed_at_ms=claimed_at_ms,
        host=host,
        node=node,
        token=token[0] if token else 0,
        created_at_ms=created_at_ms,
    )


def attempt_values(attempt: Attempt) -> Row:
    """Return the values of :data:`ATTEMPT_COLUMNS`."""
    return (
        attempt.number,
        attempt.started_at_ms,
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
    number, started_at_ms, lateness_ms, duration_ms, status, reason, detail, body, node = row
    return Attempt(
        number=number,
        started_at_ms=started_at_ms,
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
