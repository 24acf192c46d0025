"""The settings of a host: their values, parsers and representation."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from attrs import frozen

from ..core.callback_url import host_of
from ..core.text.integers import parse_integer
from ..core.text.nearest import Nearest
from ..core.times import MAX_TIMESTAMP, MINUTE, floor_to_minute, parse_trigger, rfc3339
from ..errors import FieldError, Invalid, InvalidValue, pointer_token, quoted

ALL_HOSTS = "*"
"""The name for settings that apply to every host."""
INDEFINITELY = MAX_TIMESTAMP + MINUTE
"""The end of an indefinite pause: seconds since 1970."""
MAX_CONCURRENT = 10_000
MAX_PER_MINUTE = 1_000_000
MAX_HOST_LENGTH = 300
_WITH_PORT = re.compile(r"[^/?#\\]+:[0-9]{1,5}")


@frozen(kw_only=True)
class HostSettings:
    """Settings of one host, or of all hosts.

    :ivar host: a ``host:port``, or :data:`ALL_HOSTS`.
    :ivar max_concurrent: the maximum number of calls in flight; ``None`` for ``--per-host``.
    :ivar max_per_minute: the maximum number of calls that start in a minute; ``None`` for no limit.
    :ivar paused_at: the start of the last pause: seconds since 1970.
    :ivar paused_until: the end of the last pause: seconds since 1970.
    :ivar damaged: the names, as in responses, of settings whose stored values cannot be read. A
        damaged limit does not apply. A damaged pause applies until it is set again, because an
        operator has forbidden calls.
    """

    host: str
    max_concurrent: int | None = None
    max_per_minute: int | None = None
    paused_at: int | None = None
    paused_until: int | None = None
    damaged: tuple[str, ...] = ()

    @classmethod
    def stored(cls, row: Mapping[str, Any]) -> HostSettings:
        """Return the settings in a row, whose host must be readable."""
        values = {name: _stored(row[name], maximum) for name, maximum in _MAXIMA.items()}
        damaged = {_MEMBERS.get(name, name) for name, value in values.items() if value is _DAMAGED}
        intact = {name: None if value is _DAMAGED else value for name, value in values.items()}
        if values["paused_until"] is _DAMAGED:
            intact["paused_until"] = INDEFINITELY
        return cls(host=row["host"], damaged=tuple(sorted(damaged)), **intact)

    def is_paused(self, now: float) -> bool:
        """Return whether calls are paused at ``now`` (seconds since 1970)."""
        return self.paused_until is not None and now < self.paused_until

    def to_dict(self, now: float) -> dict[str, Any]:
        """Return the settings as members of a response."""
        paused: bool | str = self.is_paused(now)
        if paused and self.paused_until is not None and self.paused_until < INDEFINITELY:
            paused = rfc3339(self.paused_until * 1000)
        members: dict[str, Any] = {
            "max_concurrent": self.max_concurrent,
            "max_per_minute": self.max_per_minute,
            "paused": paused,
        }
        if self.damaged:
            members |= dict.fromkeys(self.damaged)
            members["damaged"] = list(self.damaged)
        return members


_DAMAGED: Any = object()
_MAXIMA = {
    "max_concurrent": MAX_CONCURRENT,
    "max_per_minute": MAX_PER_MINUTE,
    "paused_at": INDEFINITELY,
    "paused_until": INDEFINITELY,
}
_MEMBERS = {"paused_at": "paused", "paused_until": "paused"}
"""Names in responses by the columns that have other names."""


def _stored(value: object, maximum: int) -> Any:
    """Return a stored value; :data:`_DAMAGED` if it cannot be read."""
    if value is None or (type(value) is int and 1 <= value <= maximum):
        return value
    return _DAMAGED


def is_host(stored: object) -> bool:
    """Return whether a stored value is the name of a host, or of all hosts."""
    if type(stored) is not str:
        return False
    try:
        return parse_host(stored) == stored
    except InvalidValue:
        return False


def parse_host(text: str) -> str:
    """Return the host in a path, in the normalized form that tasks use.

    :raises InvalidValue: when it is neither a ``host:port`` nor :data:`ALL_HOSTS`.
    """
    if text == ALL_HOSTS:
        return text
    if len(text) > MAX_HOST_LENGTH or not text.isascii() or not _WITH_PORT.fullmatch(text):
        raise InvalidValue(
            f"{quoted(text)} is not a host: "
            "expected host:port, such as example.com:443, or * for all hosts"
        )
    try:
        return host_of(f"http://{text}/")
    except InvalidValue:
        raise InvalidValue(
            f"{quoted(text)} is not a host: expected a name or an address, and a port up to 65535"
        ) from None


def parse_settings(body: Mapping[str, object], now: float) -> dict[str, int | None]:
    """Return the settings that a request changes: ``None`` for a default.

    :param body: the decoded JSON object.
    :param now: the server's time, from which relative times count: seconds since 1970.
    :raises Invalid: with an error for every field that is unknown or has an invalid value.
    """
    changes: dict[str, int | None] = {}
    errors = [] if body else [FieldError("", f"the object is empty: expected {_EXPECTED}")]
    for name, value in body.items():
        try:
            changes |= _parse(name, value, now)
        except InvalidValue as error:
            errors.append(FieldError(pointer_token(name), str(error)))
    if errors:
        raise Invalid(errors)
    return changes


_NAMES = ("max_concurrent", "max_per_minute", "paused")
_EXPECTED = f"one of {', '.join(_NAMES)}"


def _parse(name: str, value: object, now: float) -> dict[str, int | None]:
    if name == "max_concurrent":
        return {name: _limit(value, MAX_CONCURRENT)}
    if name == "max_per_minute":
        return {name: _limit(value, MAX_PER_MINUTE)}
    if name == "paused":
        return {"paused_until": _pause_end(value, now)}
    nearest = Nearest(_NAMES).find(name)
    advice = f"did you mean {nearest}? Expected" if nearest else "expected"
    raise InvalidValue(f"{quoted(name)} is not a setting: {advice} one of {', '.join(_NAMES)}")


def _limit(value: object, maximum: int) -> int | None:
    return None if value is None else parse_integer(value, 1, maximum)


_EXPECTED_PAUSE = "expected true, false or a time to come, such as +30m"


def _pause_end(value: object, now: float) -> int | None:
    if value is None or value is False:
        return None
    if value is True:
        return INDEFINITELY
    try:
        until = parse_trigger(value, now)
    except InvalidValue as error:
        if isinstance(value, str) and value.isalpha():
            raise InvalidValue(f"{quoted(value)} is not accepted: {_EXPECTED_PAUSE}") from None
        raise error
    if until <= floor_to_minute(now):
        raise InvalidValue(f"{quoted(value)} is past: {_EXPECTED_PAUSE}")
    return until
