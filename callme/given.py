"""What a person has set, by an option or in the environment: found, and checked."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen
from twisted.internet.endpoints import serverFromString
from twisted.python.usage import UsageError

from .core.address_space import Network
from .core.errors import InvalidValue
from .core.networks import parse_network
from .store.postgresql.server import is_url

_PORT = re.compile(r"[0-9]{1,5}")
_YES = ("1", "true", "yes", "on")
_NO = ("", "0", "false", "no", "off")
_NO_REACTOR = object()


@frozen
class Given:
    """The values of options: as the command line has them, else the environment, else by default.

    What makes no sense is a ``UsageError``, which names the option or the variable, the value, and
    what was expected.

    :param options: what the command line has: ``None`` (0 for a flag) where an option is not there.
    :param lists: ... of options that may be given again.
    :param environ: the environment.
    :param defaults: the default of each option that has one.
    """

    _options: Mapping[str, Any]
    _lists: Mapping[str, Sequence[str]]
    _environ: Mapping[str, str]
    _defaults: Mapping[str, str]

    def source(self, name: str) -> str:
        """Return how the person who set a value calls it."""
        from_environ = self._options[name] in (None, 0) and _variable(name) in self._environ
        return _variable(name) if from_environ else f"--{name}"

    def number(self, name: str, least: int, most: int) -> int:
        """Return an integer within bounds."""
        value = self._value(name)
        if not re.fullmatch(r"[0-9]{1,9}", value) or not least <= int(value) <= most:
            expected = f"expected an integer from {least} to {most:,}"
            raise UsageError(f"{self.source(name)} is {value!r}: {expected}")
        return int(value)

    def flag(self, name: str) -> bool:
        """Return whether a flag is set."""
        value = self._environ.get(_variable(name), "")
        if value.lower() not in _YES + _NO:
            raise UsageError(f"{_variable(name)} is {value!r}: expected 1 or 0")
        return bool(self._options[name]) or value.lower() in _YES

    def file(self, name: str) -> str | None:
        """Return the path of a file; ``None`` where none was given."""
        given: str | None = self._options[name]
        value = self._environ.get(_variable(name)) if given is None else given
        return None if value is None else self._path(name, value)

    def database(self, name: str) -> str:
        """Return the path of a file, or the URL of a PostgreSQL database."""
        value = self._path(name, self._value(name))
        if "://" in value and not is_url(value):
            raise UsageError(
                f"{self.source(name)} is {value.partition('://')[0]}://...: expected the path of a "
                "SQLite file or postgresql://user@host/database"
            )
        return value

    def endpoint(self, name: str) -> str:
        """Return a Twisted endpoint description; a port alone is one on 127.0.0.1."""
        value = self._value(name)
        if _PORT.fullmatch(value):
            if int(value) > 65_535:
                raise UsageError(f"{self.source(name)} is {value!r}: a port is at most 65535")
            return f"tcp:{int(value)}:interface=127.0.0.1"
        try:
            # Parsed only: nothing listens before its time.
            serverFromString(_NO_REACTOR, value)
        except Exception as error:
            raise UsageError(
                f"{self.source(name)} is {value!r}: expected a port number or a Twisted endpoint "
                f"description such as {self._defaults[name]} ({error or type(error).__name__})"
            ) from None
        return value

    def networks(self, name: str) -> Sequence[Network]:
        """Return the networks of an option, or those that its variable lists."""
        source, given = f"--{name}", self._lists.get(name)
        if given is None:
            source = _variable(name)
            given = [one for one in re.split(r"[\s,]+", self._environ.get(source, "")) if one]
        networks = []
        for text in given:
            try:
                networks.append(parse_network(text))
            except InvalidValue as error:
                raise UsageError(f"{source} is {text!r}: {error}") from None
        return networks

    def printable(self, name: str, most: int) -> str:
        """Return a text that a person can read, of so many characters at the most."""
        value = self._value(name)
        if len(value) > most or not value.isprintable():
            expected = f"expected at most {most} printable characters"
            raise UsageError(f"{self.source(name)} is {value!r}: {expected}")
        return value

    def _value(self, name: str) -> str:
        given: str | None = self._options[name]
        return self._environ.get(_variable(name), self._defaults[name]) if given is None else given

    def _path(self, name: str, value: str) -> str:
        if not value or "\0" in value:
            raise UsageError(f"{self.source(name)} is {value!r}: expected the path of a file")
        return value


def _variable(name: str) -> str:
    return f"CALLME_{name.upper().replace('-', '_')}"
