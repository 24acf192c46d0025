"""The command line and the environment: ``twistd callme --help``."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from attrs import field, frozen
from twisted.internet.endpoints import serverFromString
from twisted.python import usage
from twisted.python.usage import UsageError

from . import __version__
from .errors import InvalidValue
from .security.address_policy import AddressPolicy, parse_network
from .security.iana import Network
from .store.postgresql.server import is_url

_PORT = re.compile(r"[0-9]{1,5}")
_YES = ("1", "true", "yes", "on")
_NO = ("", "0", "false", "no", "off")
_NO_REACTOR = object()


@frozen
class OptionReader:
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


_DEFAULTS = {
    "port": "tcp:6777:interface=127.0.0.1",
    "database": "callme.sqlite",
    "concurrency": "256",
    "per-host": "64",
    "retention": "30",
    "max-connections": "1000",
    "node": "",
}
_FILES = ("database", "token-file", "signing-key-file")
MAX_CALLS = 10_000
MAX_RETENTION = 36_500
MAX_CONNECTIONS = 100_000
MAX_NODE = 255


@frozen
class Settings:
    """What a daemon is told.

    :ivar port: a Twisted endpoint description.
    :ivar database: the path of a file, or the URL of a PostgreSQL database.
    :ivar concurrency: calls under way at once.
    :ivar per_host: ... of them to one host and port.
    :ivar retention: days that a finished task is kept; 0 keeps it for ever.
    :ivar token_file: the path of a file; ``None`` where callers need no token.
    :ivar no_auth: whether it is meant that whoever reaches the port may ask.
    :ivar max_connections: clients connected at once.
    :ivar networks: where callbacks may go.
    :ivar signing_key_file: the path of a file; ``None`` where callbacks are not signed.
    :ivar node: the daemon's name; empty for its host and process id.
    """

    port: str
    database: str
    concurrency: int
    per_host: int
    retention: int
    token_file: str | None = None
    no_auth: bool = False
    max_connections: int = int(_DEFAULTS["max-connections"])
    networks: AddressPolicy = field(factory=AddressPolicy)
    signing_key_file: str | None = None
    node: str = ""


class Options(usage.Options):
    """Options of ``twistd callme``, each also from the environment.

    Whatever makes no sense ends the program with one line: Twisted would print
    the whole usage above it.
    """

    synopsis = "[callme options]"
    longdesc = (
        "callme calls you back: register a task with one HTTP PUT, and callme makes its "
        "HTTP call when its minute comes. Each option may also be set in the environment, as "
        "CALLME_ and its name: CALLME_PORT, CALLME_PER_HOST."
    )
    optParameters: ClassVar = [
        [
            "port",
            "p",
            None,
            "Where to listen: a port number (on 127.0.0.1) or a Twisted endpoint description."
            f" [default: {_DEFAULTS['port']}]",
        ],
        [
            "database",
            "d",
            None,
            "The SQLite file that holds the tasks, created where there is none; or"
            " postgresql://user@host/database, which any number of daemons share."
            f" [default: {_DEFAULTS['database']}]",
        ],
        [
            "concurrency",
            None,
            None,
            f"Calls under way at once. [default: {_DEFAULTS['concurrency']}]",
        ],
        [
            "per-host",
            None,
            None,
            f"... of them to one host and port. [default: {_DEFAULTS['per-host']}]",
        ],
        [
            "retention",
            None,
            None,
            "Days that a finished task is kept; 0 keeps it for ever."
            f" [default: {_DEFAULTS['retention']}]",
        ],
        [
            "token-file",
            None,
            None,
            "Callers must send a line of this file as their token: Authorization: Bearer <token>. "
            "read:<token> may only GET. Read again on SIGHUP.",
        ],
        [
            "max-connections",
            None,
            None,
            f"Clients connected at once. [default: {_DEFAULTS['max-connections']}]",
        ],
        [
            "signing-key-file",
            None,
            None,
            "Callbacks are signed (Standard Webhooks) with each key of this file: whsec_<base64>, "
            "one a line. Read again on SIGHUP.",
        ],
        [
            "node",
            None,
            None,
            "This daemon's name, which its attempts carry. [default: its host and process id]",
        ],
    ]

    compData: ClassVar = usage.Completions(
        # Left to itself it offers files for every option that takes a value.
        optActions={
            name: usage.CompleteFiles() if name in _FILES else usage.Completer()
            for name, *_ in optParameters
        },
        multiUse=["allow-network", "deny-network"],
    )
    """What twistd's completion for zsh knows besides the options themselves."""

    optFlags: ClassVar = [
        ["no-auth", None, "Listen beyond this machine though no token is asked for."],
        ["public-only", None, "Call only what is globally reachable, and networks allowed."],
    ]

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        super().__init__()
        self._environ = environ
        self._lists: dict[str, list[str]] = {}
        self.settings: Settings | None = None

    def opt_version(self) -> None:
        """Print callme's version and exit."""
        print(f"callme {__version__}")
        sys.exit(0)

    def opt_allow_network(self, network: str) -> None:
        """Callbacks may go to this network (a CIDR), though a wider one is denied; repeatable."""
        self._lists.setdefault("allow-network", []).append(network)

    def opt_deny_network(self, network: str) -> None:
        """Callbacks may not go there (besides link-local and cloud metadata); repeatable."""
        self._lists.setdefault("deny-network", []).append(network)

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            raise SystemExit(f"callme: {error}") from None

    def parseArgs(self, *arguments: str) -> None:
        if arguments:
            raise usage.UsageError(f"{arguments[0]!r} is not an option; see twistd callme --help")

    def postOptions(self) -> None:
        given = OptionReader(self, self._lists, self._environ, _DEFAULTS)
        self.settings = Settings(
            port=given.endpoint("port"),
            database=given.database("database"),
            concurrency=given.number("concurrency", 1, MAX_CALLS),
            per_host=given.number("per-host", 1, MAX_CALLS),
            retention=given.number("retention", 0, MAX_RETENTION),
            token_file=given.file("token-file"),
            no_auth=given.flag("no-auth"),
            max_connections=given.number("max-connections", 1, MAX_CONNECTIONS),
            networks=AddressPolicy(
                allowed=given.networks("allow-network"),
                denied=given.networks("deny-network"),
                public_only=given.flag("public-only"),
            ),
            signing_key_file=given.file("signing-key-file"),
            node=given.printable("node", MAX_NODE),
        )
        if self.settings.token_file is not None and self.settings.no_auth:
            raise usage.UsageError(
                f"{given.source('no-auth')} and {given.source('token-file')} contradict each "
                "other: give one of them"
            )
