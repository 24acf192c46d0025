"""Mapping between rows and values: column lists, encoding and decoding, by column name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter, itemgetter
from typing import Any

from ..core.callback_url import host_of
from ..core.parameters import PARAMETERS
from ..core.task import Attempt, Claim, Definition, Reason, State, Task
from ..core.times import Key

Row = tuple[Any, ...]
NamedRow = Mapping[str, Any]


class Columns(tuple[str, ...]):
    """Columns of a SELECT or INSERT, in order. As text: the list for SQL."""

    __slots__ = ()

    def __str__(self) -> str:
        return ", ".join(self)

    def select(self, **expressions: str) -> str:
        """Return the list with an expression in the place of some columns."""
        return ", ".join(expressions.get(name, name) for name in self)

    def of(self, table: str) -> str:
        """Return the list with each column qualified by its table."""
        return ", ".join(f"{table}.{name}" for name in self)

    def placeholders(self) -> str:
        """Return as many placeholders for values as there are columns."""
        return ", ".join("?" for _ in self)

    def name(self, row: Sequence[Any]) -> dict[str, Any]:
        """Return the values of a row by the names of these columns."""
        return dict(zip(self, row, strict=False))


DEFINITION = Columns(parameter.name for parameter in PARAMETERS)
STORED_DEFINITION = Columns((*DEFINITION, "host", "expires_at"))
"""The same, and what is derived from it for queries."""
TASK_STATE = Columns(
    ("state", "reason", "detail", "due_at", "attempts_used", "created_at_ms", "finished_at_ms")
)
TASK = Columns((*DEFINITION, *TASK_STATE))
SUMMARY = TASK.select(
    **{parameter.name: "''" for parameter in PARAMETERS if not parameter.is_listed}
)
"""The columns of :data:`TASK` for SQL, empty where lists leave out a parameter."""
CLAIM = Columns(
    (
        *DEFINITION,
        "task_id",
        "last_attempt",
        "attempts_used",
        "claimed_at_ms",
        "host",
        "node",
        "created_at_ms",
        "rescheduled_from",
    )
)
ATTEMPT = Columns(
    (
        "number",
        "started_at_ms",
        "lateness_ms",
        "duration_ms",
        "status",
        "reason",
        "detail",
        "body",
        "node",
    )
)

_values = attrgetter(*DEFINITION)
_pick = itemgetter(*DEFINITION)
_ENCODERS = tuple(
    (place, parameter.column.encode)
    for place, parameter in enumerate(PARAMETERS)
    if parameter.column.encode
)
_DECODERS = tuple(
    (parameter.name, parameter.column.decode) for parameter in PARAMETERS if parameter.column.decode
)


class CorruptRow(Exception):
    """A row, written by another program, that holds no valid definition."""


def definition_values(definition: Definition) -> Row:
    """Return the values of :data:`STORED_DEFINITION`."""
    values = list(_values(definition))
    for place, encode in _ENCODERS:
        values[place] = encode(values[place])
    return (*values, host_of(definition.callback), definition.expires_at)


def to_definition(row: NamedRow) -> Definition:
    """Return the definition in a row.

    :raises CorruptRow: when a column cannot be decoded.
    """
    values = dict(zip(DEFINITION, _pick(row), strict=False))
    for name, decode in _DECODERS:
        try:
            values[name] = decode(values[name])
        except ValueError as error:
            raise CorruptRow(
                f"the stored definition of {to_key(row)} is broken: {name}: {error}"
            ) from None
    return Definition(**values)


def _readable_definition(row: NamedRow) -> Definition:
    """Return the definition in a corrupt row, with defaults for what cannot be decoded."""
    values = dict(zip(DEFINITION, _pick(row), strict=False))
    for name, decode in _DECODERS:
        try:
            values[name] = decode(values[name])
        except ValueError:
            del values[name]
    return Definition(**values)


def to_task(row: NamedRow, attempts: tuple[Attempt, ...] | None = None) -> Task:
    """Return the task in a row of :data:`TASK`.

    A corrupt definition is returned as far as it can be read, so that one row does not hide
    the others.
    """
    try:
        definition, is_corrupt = to_definition(row), False
    except CorruptRow:
        definition, is_corrupt = _readable_definition(row), True
    return Task(
        definition=definition,
        state=State(row["state"]),
        reason=None if row["reason"] is None else Reason(row["reason"]),
        detail=row["detail"],
        due_at=row["due_at"],
        attempts_used=row["attempts_used"],
        created_at_ms=row["created_at_ms"],
        finished_at_ms=row["finished_at_ms"],
        attempts=attempts,
        is_corrupt=is_corrupt,
    )


def to_claim(row: NamedRow) -> Claim:
    """Return the claim in a row of :data:`CLAIM` and perhaps a token.

    :raises CorruptRow: as :func:`to_definition`.
    """
    return Claim(
        task_id=row["task_id"],
        number=row["last_attempt"],
        definition=to_definition(row),
        attempts_used=row["attempts_used"],
        claimed_at_ms=row["claimed_at_ms"],
        host=row["host"],
        node=row["node"],
        token=row.get("token", 0),
        created_at_ms=row["created_at_ms"],
        rescheduled_from=row["rescheduled_from"],
    )


def attempt_values(attempt: Attempt) -> Row:
    """Return the values of :data:`ATTEMPT`."""
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


def to_attempt(row: NamedRow) -> Attempt:
    """Return the attempt in a row of :data:`ATTEMPT`."""
    reason = row["reason"]
    return Attempt(**{**row, "reason": None if reason is None else Reason(reason)})


def to_key(row: NamedRow) -> Key:
    """Return the key of the task in a row."""
    return Key(row["task_name"], row["trigger_at"])
