"""Mapping between rows and values: lists of columns, and codecs by column name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from operator import itemgetter
from typing import Any

from ..core.callback_url import host_of
from ..core.parameters import PARAMETERS
from ..core.task import Attempt, Claim, Definition, Reason, State, Task
from ..core.times import MAX_TIMESTAMP, Key, is_key

Row = tuple[Any, ...]
NamedRow = Mapping[str, Any]


class Columns(tuple[str, ...]):
    """Columns of a SELECT or INSERT, in order; ``str()`` returns the list for SQL."""

    __slots__ = ()

    def __str__(self) -> str:
        return ", ".join(self)

    def select(self, **expressions: str) -> str:
        """Return the list with expressions instead of some columns."""
        return ", ".join(expressions.get(name, name) for name in self)

    def of(self, table: str) -> str:
        """Return the list with each column qualified by its table."""
        return ", ".join(f"{table}.{name}" for name in self)

    def placeholders(self) -> str:
        """Return a placeholder for the value of each column."""
        return ", ".join("?" for _ in self)

    def name(self, row: Sequence[Any]) -> dict[str, Any]:
        """Return the values of a row by the names of these columns."""
        return dict(zip(self, row, strict=False))


DEFINITION = Columns(Definition._fields)
STORED_DEFINITION = Columns((*DEFINITION, "host", "expires_at"))
"""The columns of a definition, and the columns derived from them for queries."""
TASK_STATE = Columns(
    ("state", "reason", "detail", "due_at", "attempts_used", "created_at_ms", "finished_at_ms")
)
TASK = Columns((*DEFINITION, *TASK_STATE, "task_id"))
SUMMARY = TASK.select(
    **{parameter.name: "''" for parameter in PARAMETERS if not parameter.is_listed}
)
"""The columns of :data:`TASK` for SQL, with empty values for parameters that lists omit."""
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

_pick = itemgetter(*DEFINITION)
_ENCODERS = tuple(
    (DEFINITION.index(parameter.name), parameter.column.encode)
    for parameter in PARAMETERS
    if parameter.column.encode
)
_DECODERS = tuple(
    (parameter.name, parameter.column.decode) for parameter in PARAMETERS if parameter.column.decode
)
_TYPES = {
    p.name: (p.column.python_type, type(None))
    if not p.is_required and p.default_value is None
    else (p.column.python_type,)
    for p in PARAMETERS
}
"""The types that the stored values of each parameter may have."""
_INTACT = frozenset(product(*(_TYPES[name] for name in DEFINITION)))


class UndecodableText(str):
    """Stored text that is not UTF-8, with replacement characters.

    Its type differs from that of intact text, so that the column counts as damaged.
    """

    __slots__ = ()


def decode_text(stored: bytes) -> str:
    """Return a stored text, or an :class:`UndecodableText`."""
    try:
        return stored.decode()
    except UnicodeDecodeError:
        return UndecodableText(stored.decode(errors="replace"))


class CorruptRow(Exception):
    """A row contains no valid definition, because another program has written to it."""


def definition_values(definition: Definition) -> Row:
    """Return the values of :data:`STORED_DEFINITION`."""
    values: list[Any] = list(definition)
    for place, encode in _ENCODERS:
        values[place] = encode(values[place])
    return (*values, host_of(definition.callback), definition.expires_at)


def to_definition(row: NamedRow) -> Definition:
    """Return the definition in a row.

    :raises CorruptRow: when a column cannot be decoded.
    """
    values, errors = _decode(row)
    for name, error in errors.items():
        raise _corrupt(row, name, error)
    return Definition(**values)


def _corrupt(row: NamedRow, name: str, error: object) -> CorruptRow:
    return CorruptRow(f"the stored definition of {to_key(row)} is broken: {name}: {error}")


def _decode(row: NamedRow) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the values of a definition, and an error for each that cannot be decoded."""
    stored = _pick(row)
    values = dict(zip(DEFINITION, stored, strict=False))
    errors: dict[str, str] = {}
    if tuple(map(type, stored)) not in _INTACT:
        for name, value in values.items():
            if type(value) not in _TYPES[name]:
                errors[name] = f"expected a value of type {_TYPES[name][0].__name__}"
    for name, decode in _DECODERS:
        if name not in errors:
            try:
                values[name] = decode(values[name])
            except ValueError as error:
                errors[name] = str(error)
    return values, errors


def _substituted_definition(values: dict[str, Any], damaged: Iterable[str]) -> Definition:
    """Return a definition with substitutes for values that cannot be decoded."""
    for name in damaged:
        if name in _SUBSTITUTES:
            values[name] = _SUBSTITUTES[name]
        else:
            del values[name]
    return Definition(**values)


_IN_KEY = frozenset({"task_name", "trigger_at"})
_SUBSTITUTES = {"task_name": "", "trigger_at": 0, "callback": ""}
"""Substitutes for required parameters; the others have defaults."""


def to_task(row: NamedRow, attempts: tuple[Attempt, ...] | None = None) -> Task:
    """Return the task in a row of :data:`TASK`.

    Unreadable values of a corrupt task are replaced by substitutes and named in ``damaged``, so
    that one damaged row does not break a whole list.
    """
    values, errors = _decode(row)
    definition = _substituted_definition(values, errors) if errors else Definition(**values)
    state, damaged = _decode_state(row)
    return Task(
        definition=definition,
        attempts=attempts,
        damaged=(*errors, *damaged),
        row_key=Key.of_row(row["task_id"]) if _IN_KEY & errors.keys() else None,
        **state,
    )


def _decode_state(row: NamedRow) -> tuple[dict[str, Any], list[str]]:
    """Return the values of :data:`TASK_STATE`, and the names of those that cannot be decoded."""
    values: dict[str, Any] = {}
    damaged = []
    for name, decode, substitute in _STATE_DECODERS:
        try:
            values[name] = decode(row[name])
        except ValueError:
            values[name] = substitute
            damaged.append(name)
    return values, damaged


def _optional_reason(value: Any) -> Reason | None:
    return None if value is None else Reason(value)


def _typed(*types: type) -> Callable[[Any], Any]:
    """Return a decoder that accepts values of some types."""

    def decode(value: Any) -> Any:
        if type(value) not in types:
            raise ValueError(f"expected a value of type {types[0].__name__}")
        return value

    return decode


def _integer(maximum: int, *, is_optional: bool = False) -> Callable[[Any], Any]:
    """Return a decoder of an integer from 0 to a maximum, or ``None`` if it is optional."""

    def decode(value: Any) -> Any:
        if value is None and is_optional:
            return None
        if type(value) is not int or not 0 <= value <= maximum:
            raise ValueError(f"expected an integer from 0 to {maximum}")
        return value

    return decode


MAX_TIME = 2 * MAX_TIMESTAMP
"""Maximum of a stored time, including the end of ``max_delay``: seconds since 1970."""
MAX_TIME_MS = 1000 * MAX_TIME
MAX_NUMBER = 2**31 - 1
"""Maximum of a stored number of attempts."""
_OPTIONAL_TIME_MS = _integer(MAX_TIME_MS, is_optional=True)
_OPTIONAL_TEXT = _typed(str, type(None))
_STATE_DECODERS: tuple[tuple[str, Callable[[Any], Any], Any], ...] = (
    ("state", State, State.FAILED),
    ("reason", _optional_reason, None),
    ("detail", _typed(str), ""),
    ("due_at", _integer(MAX_TIME, is_optional=True), None),
    ("attempts_used", _integer(MAX_NUMBER), 0),
    ("created_at_ms", _integer(MAX_TIME_MS), 0),
    ("finished_at_ms", _OPTIONAL_TIME_MS, None),
)
"""For each column of :data:`TASK_STATE`: its name, its decoder, and a substitute."""
_ATTEMPT_DECODERS: Mapping[str, Callable[[Any], Any]] = {
    "number": _integer(MAX_NUMBER),
    "started_at_ms": _integer(MAX_TIME_MS),
    "lateness_ms": _typed(int),
    "duration_ms": _OPTIONAL_TIME_MS,
    "status": _integer(MAX_NUMBER, is_optional=True),
    "reason": _optional_reason,
    "detail": _typed(str),
    "body": _typed(str),
    "node": _OPTIONAL_TEXT,
}
_CLAIM_DECODERS: Mapping[str, Callable[[Any], Any]] = {
    "last_attempt": _integer(MAX_NUMBER),
    "attempts_used": _integer(MAX_NUMBER),
    "claimed_at_ms": _integer(MAX_TIME_MS),
    "host": _typed(str),
    "node": _OPTIONAL_TEXT,
    "created_at_ms": _integer(MAX_TIME_MS),
    "rescheduled_from": _integer(MAX_TIME, is_optional=True),
}


def to_claim(row: NamedRow) -> Claim:
    """Return the claim in a row of :data:`CLAIM`, with or without a token.

    :raises CorruptRow: when a column of the definition cannot be decoded.
    """
    for name, decode in _CLAIM_DECODERS.items():
        try:
            decode(row[name])
        except ValueError as error:
            raise _corrupt(row, name, error) from None
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


def to_attempt(row: NamedRow) -> Attempt | None:
    """Return the attempt in a row of :data:`ATTEMPT`; ``None`` if it is damaged."""
    try:
        return Attempt(**{name: _ATTEMPT_DECODERS[name](value) for name, value in row.items()})
    except ValueError:
        return None


def to_key(row: NamedRow) -> Key:
    """Return the key of the task in a row of :data:`KEY`."""
    name, trigger_at = row["task_name"], row["trigger_at"]
    return Key(name, trigger_at) if is_key(name, trigger_at) else Key.of_row(row["task_id"])


KEY = Columns(("task_name", "trigger_at", "task_id"))
"""The columns that :func:`to_key` requires."""
KEY_IS = "task_name = ? AND trigger_at = ?"
_ROW_IS = "task_id = ?"


def where_key(key: Key) -> tuple[str, tuple[Any, ...]]:
    """Return the condition on the row of a task, and its values."""
    if (number := key.row_number) is not None:
        return _ROW_IS, (number,)
    return KEY_IS, (key.task_name, key.trigger_at)
