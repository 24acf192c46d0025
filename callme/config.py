"""Configuration: the table of options, which the command line and the environment set.

The fields of :class:`Settings` are the table. It is the source of ``twistd callme --help``, the
environment variables, the checks of values, and the table in docs/operations.md.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import attrs
from attrs import field, frozen
from twisted.internet.endpoints import serverFromString
from twisted.python import usage

from . import __version__
from .core.callback_url import parse_callback
from .core.text.nearest import Nearest
from .errors import InvalidValue
from .security.address_policy import AddressPolicy, parse_network
from .security.hosts import parse_origin
from .security.iana import Network
from .security.outgoing import ForHost, Proxy, parse_client_certificate, parse_proxy
from .security.proxies import parse_proxy_network
from .server.paths import parse_base_path
from .store.postgresql.dsn import is_url

MAX_CALLS = 10_000
MAX_RETENTION_DAYS = 36_500
MAX_CONNECTIONS = 100_000
MAX_GRACE_SECONDS = 3_600
MAX_NODE_LENGTH = 255
MIN_IDLE_SECONDS, MAX_IDLE_SECONDS = 5, 3600

_PORT = re.compile(r"[0-9]{1,5}")
_MAX_PORT = 65_535
_DEFAULT_PORT = "tcp:6777:interface=127.0.0.1"
_TRUE = ("1", "true", "yes", "on")
_FALSE = ("", "0", "false", "no", "off")
_NO_OPTION = re.compile(r"CALLME_(?:URL|TOKEN|(?:.*_)?SERVICE_(?:HOST|PORT.*)|PORT_[0-9]+_.*)$")
"""Variables of clients, and those that Kubernetes sets for a service named callme."""
_NO_REACTOR = object()


# Parsers of values, which raise InvalidValue with the expectation


def _integer(minimum: int, maximum: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", text) or not minimum <= int(text) <= maximum:
            raise InvalidValue(f"expected an integer from {minimum} to {maximum:,}")
        return int(text)

    return parse


def _parse_flag(text: str) -> bool:
    if text.lower() not in _TRUE + _FALSE:
        raise InvalidValue("expected 1 or 0")
    return text.lower() in _TRUE


def _parse_path(text: str) -> str:
    if not text or "\0" in text:
        raise InvalidValue("expected the path of a file")
    return text


def _parse_database(text: str) -> str:
    if "://" in text and not is_url(text):
        raise InvalidValue("expected the path of a SQLite file or postgresql://user@host/database")
    return _parse_path(text)


def _parse_endpoint(text: str) -> str:
    if _PORT.fullmatch(text):
        if int(text) > _MAX_PORT:
            raise InvalidValue(f"expected a port number of at most {_MAX_PORT}")
        return f"tcp:{int(text)}:interface=127.0.0.1"
    try:
        # This only parses the description; the daemon does not listen yet.
        serverFromString(_NO_REACTOR, text)
    except Exception as error:
        raise InvalidValue(
            "expected a port number or a Twisted endpoint description such as "
            f"{_DEFAULT_PORT} ({error or type(error).__name__})"
        ) from None
    return text


def _parse_node(text: str) -> str:
    if len(text) > MAX_NODE_LENGTH or not text.isprintable():
        raise InvalidValue(f"expected at most {MAX_NODE_LENGTH} printable characters")
    return text


@frozen(kw_only=True)
class Option:
    """Option with a value: one entry of the table.

    :ivar name: the name on the command line, without hyphens in front; set by :data:`OPTIONS`.
    :ivar short: the name of one letter.
    :ivar parse: returns the value of a text.
    :ivar default: the text of the default; ``None`` without a default.
    :ivar default_help: the description of the default, if it differs from ``default``.
    :ivar text: the meaning in Markdown: a sentence without initial capital and full stop.
    """

    name: str = ""
    short: str | None = None
    parse: Callable[[str], Any]
    default: str | None = None
    default_help: str = ""
    text: str

    @property
    def variable(self) -> str:
        """Name of the environment variable."""
        return f"CALLME_{self.name.upper().replace('-', '_')}"

    def default_value(self) -> Any:
        """Return the value that applies by default."""
        return None if self.default is None else self.parse(self.default)

    def usage(self) -> str:
        """Return the text for ``--help``."""
        default = self.default_help or self.default
        text = re.sub(r"(?<=[Ss]ee )\[[^]]*\]\(([\w-]+\.md)[^)]*\)", r"docs/\1", self.text)
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)|`", r"\1", text)
        text = f"{plain[0].upper()}{plain[1:]}."
        return f"{text} [default: {default}]" if default else text

    def source(self, given: Mapping[str, Any]) -> str:
        """Return the source of a value: the name of the option or of the variable.

        :param given: the command line by name of the option.
        """
        return f"--{self.name}" if given.get(self.name) else self.variable

    def read(self, given: Mapping[str, Any], environ: Mapping[str, str]) -> Any:
        """Return the value from the command line, the environment, or the default, in this order.

        :raises UsageError: when a value is not valid; the text contains the name of the option
            or the variable, the value, and the expectation.
        """
        if (text := given.get(self.name)) is not None:
            return self._parse(f"--{self.name}", text)
        if (text := environ.get(self.variable)) is not None:
            return self._parse(self.variable, text)
        return self.default_value()

    def _parse(self, source: str, text: str) -> Any:
        try:
            return self.parse(text)
        except InvalidValue as error:
            # The error omits most of a URL, because it may contain a password.
            scheme, separator, _ = text.partition("://")
            value = f"{scheme}://..." if separator else repr(text)
            raise usage.UsageError(f"{source} is {value}: {error}") from None


class Flag(Option):
    """Option without a value, whose variable is 1 or 0."""

    def default_value(self) -> bool:
        return False

    def read(self, given: Mapping[str, Any], environ: Mapping[str, str]) -> bool:
        # The variable is checked even if the flag is on the command line.
        variable: bool = self._parse(self.variable, environ.get(self.variable, ""))
        return bool(given.get(self.name)) or variable


class ListOption(Option):
    """Option that may be repeated, whose variable separates values by spaces or commas."""

    def default_value(self) -> tuple[Any, ...]:
        return ()

    def read(self, given: Mapping[str, Any], environ: Mapping[str, str]) -> tuple[Any, ...]:
        texts, source = given.get(self.name), f"--{self.name}"
        if texts is None:
            texts, source = re.split(r"[\s,]+", environ.get(self.variable, "")), self.variable
            texts = [text for text in texts if text]
        return tuple(self._parse(source, text) for text in texts)


def _field(kind: type[Option], **entry: Any) -> Any:
    option = kind(**entry)
    return field(factory=option.default_value, metadata={"option": option})


@frozen(kw_only=True)
class Settings:
    """Settings of a daemon: one field for each option.

    :ivar port: a Twisted endpoint description.
    :ivar database: the path of a SQLite file, or the URL of a PostgreSQL database.
    :ivar retention: the retention of finished tasks in days; 0 stands for indefinitely.
    :ivar node: the daemon's name; empty for the name of the host and the process id.
    """

    port: str = _field(
        Option,
        short="p",
        parse=_parse_endpoint,
        default=_DEFAULT_PORT,
        text="where to listen: a port number (on 127.0.0.1) or a [Twisted endpoint description]"
        "(https://docs.twisted.org/en/stable/core/howto/endpoints.html#servers)",
    )
    database: str = _field(
        Option,
        short="d",
        parse=_parse_database,
        default="callme.sqlite",
        text="a SQLite file for one daemon; it is created if necessary and readable by its "
        "owner only. Or `postgresql://user@host/database` for any number of daemons (needs "
        "the extra `postgresql`): see [several machines](scaling.md)",
    )
    backup_before_migration: bool = _field(
        Flag,
        parse=_parse_flag,
        text="copy the SQLite file before a new version of callme migrates its schema. The name of "
        "the copy, in the same directory, ends in `.schema-` and the number of the old schema",
    )
    concurrency: int = _field(
        Option,
        parse=_integer(1, MAX_CALLS),
        default="256",
        text=f"the maximum number of calls in flight, 1 to {MAX_CALLS:,}",
    )
    per_host: int = _field(
        Option,
        parse=_integer(1, MAX_CALLS),
        default="64",
        text=f"the maximum number of calls in flight to one host and port, 1 to {MAX_CALLS:,}",
    )
    grace: int = _field(
        Option,
        parse=_integer(0, MAX_GRACE_SECONDS),
        default="10",
        text="the number of seconds that calls in flight may take to end after SIGTERM, 0 to "
        f"{MAX_GRACE_SECONDS:,}; then callme cuts them off",
    )
    retention: int = _field(
        Option,
        parse=_integer(0, MAX_RETENTION_DAYS),
        default="30",
        text="the number of days for which finished tasks are kept, up to "
        f"{MAX_RETENTION_DAYS:,}; 0 keeps them indefinitely",
    )
    token_file: str | None = _field(
        Option,
        parse=_parse_path,
        text="a file of tokens, one per line. Clients must send one of them: `Authorization: "
        "Bearer <token>`. A line is `[read:]<token> [label] [prefix=<names>]`: see "
        "[Tokens](exposing.md#tokens). SIGHUP reloads the file",
    )
    no_auth: bool = _field(
        Flag, parse=_parse_flag, text="allow other machines to connect without a token"
    )
    origin: tuple[bytes, ...] = _field(
        ListOption,
        parse=parse_origin,
        text="the URL of the web page if a [proxy](exposing.md#behind-a-proxy) terminates TLS, "
        "such as `https://callme.example.com`. You can repeat the option",
    )
    trusted_proxy: tuple[Network | str, ...] = _field(
        ListOption,
        parse=parse_proxy_network,
        text="a proxy that may name the address of its client for the log, in `Forwarded` or "
        "`X-Forwarded-For`: an address, a CIDR, or `unix` for proxies that connect through a "
        "Unix socket. You can repeat the option",
    )
    base_path: str = _field(
        Option,
        parse=parse_base_path,
        default="/",
        text="the path of another site below which a [proxy](exposing.md#below-a-path-of-another-"
        "site) serves callme, such as `/callme`",
    )
    max_connections: int = _field(
        Option,
        parse=_integer(1, MAX_CONNECTIONS),
        default="1000",
        text=f"the maximum number of connected clients, 1 to {MAX_CONNECTIONS:,}. At the "
        "limit, a new client evicts the one that has been idle for longest",
    )
    idle_timeout: int = _field(
        Option,
        parse=_integer(MIN_IDLE_SECONDS, MAX_IDLE_SECONDS),
        default="60",
        text="the number of seconds after which callme closes a client's connection without a "
        f"request, {MIN_IDLE_SECONDS} to {MAX_IDLE_SECONDS:,}. Behind a [balancer or a proxy]"
        "(exposing.md#behind-a-proxy), this must exceed its idle timeout",
    )
    allow_network: tuple[Network, ...] = _field(
        ListOption,
        parse=parse_network,
        text="a network that callme may call even if a wider one is denied: a CIDR, IPv4 or "
        "IPv6. You can repeat the option",
    )
    deny_network: tuple[Network, ...] = _field(
        ListOption,
        parse=parse_network,
        default_help="link-local, cloud metadata",
        text="a network that callme may not call, in addition to the default ones. You can "
        "repeat the option",
    )
    public_only: bool = _field(
        Flag,
        parse=_parse_flag,
        text="call only globally reachable addresses and allowed networks",
    )
    proxy: tuple[ForHost[Proxy | None], ...] = _field(
        ListOption,
        parse=parse_proxy,
        text="the HTTP proxy for calls: `http://proxy:3128`, `HOST=http://proxy:3128` for one "
        "host, or `HOST=direct` for none. See [a proxy for calls]"
        "(exposing.md#a-proxy-for-calls). You can repeat the option",
    )
    ca_file: tuple[str, ...] = _field(
        ListOption,
        parse=_parse_path,
        text="a PEM file of certificate authorities whose endpoints callme trusts, in addition to "
        "those of the system. You can repeat the option",
    )
    client_cert: tuple[ForHost[str], ...] = _field(
        ListOption,
        parse=parse_client_certificate,
        text="`HOST=PATH`: a PEM file with the certificate and the key by which callme identifies "
        "itself to a host. See [private authorities and client certificates]"
        "(exposing.md#private-authorities-and-client-certificates). SIGHUP reloads the file. You "
        "can repeat the option",
    )
    signing_key_file: str | None = _field(
        Option,
        parse=_parse_path,
        text="a file of keys, one `whsec_<base64>` per line. callme signs its calls with each "
        "of them ([Standard Webhooks](https://www.standardwebhooks.com)). SIGHUP reloads the "
        "file",
    )
    on_failure: str | None = _field(
        Option,
        # postOptions checks the URL, because its permitted addresses depend on other options.
        parse=str,
        text="the URL to notify of the failure of each task that has no `on_failure` of its own: "
        "see [notifications](api.md#notifications)",
    )
    node: str = _field(
        Option,
        parse=_parse_node,
        default="",
        default_help="host name and process id",
        text="the name of the daemon, recorded with each of its attempts: at most "
        f"{MAX_NODE_LENGTH} characters. On PostgreSQL, it must be unique among running "
        "daemons",
    )

    @property
    def networks(self) -> AddressPolicy:
        """Policy about the addresses that callbacks may reach."""
        return AddressPolicy(
            allowed=self.allow_network, denied=self.deny_network, public_only=self.public_only
        )


OPTIONS: Mapping[str, Option] = {
    attribute.name: attrs.evolve(
        attribute.metadata["option"], name=attribute.name.replace("_", "-")
    )
    for attribute in attrs.fields(Settings)
}
"""All options by the name of their field in :class:`Settings`."""
_FLAGS = [option for option in OPTIONS.values() if isinstance(option, Flag)]
_LISTS = [option for option in OPTIONS.values() if isinstance(option, ListOption)]
_VALUES = [option for option in OPTIONS.values() if option not in _FLAGS + _LISTS]


class Options(usage.Options):
    """Command line of ``twistd callme``.

    An invalid command line ends the program with a single line, without the usage that Twisted
    would print above it.

    :ivar settings: the settings, after parsing.
    """

    synopsis = "[callme options]"
    longdesc = (
        "callme calls you back: register a task with one HTTP PUT, and callme makes its HTTP "
        "call in the minute that the task names. Every option can also be set in the environment, "
        "as CALLME_ and its name: CALLME_PORT, CALLME_PER_HOST."
    )
    optParameters: ClassVar = [
        [option.name, option.short, None, option.usage()] for option in _VALUES
    ]
    optFlags: ClassVar = [[option.name, option.short, option.usage()] for option in _FLAGS]
    compData: ClassVar = usage.Completions(
        # By default, Twisted completes file names for every option with a value.
        optActions={
            option.name: usage.CompleteFiles()
            if option.parse in (_parse_path, _parse_database)
            else usage.Completer()
            for option in _VALUES
        },
        multiUse=[option.name for option in _LISTS],
    )
    """Completion for zsh."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        super().__init__()
        self._environ = environ
        self._lists: dict[str, list[str]] = {}
        self.settings: Settings | None = None

    def opt_version(self) -> None:
        """Print callme's version and exit."""
        print(f"callme {__version__}")
        sys.exit(0)

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            raise SystemExit(f"callme: {error}") from None

    def parseArgs(self, *arguments: str) -> None:
        if arguments:
            raise usage.UsageError(f"{arguments[0]!r} is not an option; see twistd callme --help")

    def _check_environment(self) -> None:
        """Refuse unknown variables, so that a misspelt one does not silently mean the default."""
        known = {option.variable for option in OPTIONS.values()}
        for name in sorted(self._environ):
            if name.startswith("CALLME_") and name not in known and not _NO_OPTION.match(name):
                nearest = Nearest(OPTIONS).find(name.removeprefix("CALLME_"))
                advice = (
                    f"did you mean {OPTIONS[nearest].variable}?"
                    if nearest
                    else "see twistd callme --help"
                )
                raise usage.UsageError(f"{name} in the environment is not an option: {advice}")

    def _check_on_failure(self, settings: Settings, given: Mapping[str, Any]) -> None:
        """Refuse a URL that callme must not call."""
        parse = partial(parse_callback, networks=settings.networks)
        attrs.evolve(OPTIONS["on_failure"], parse=parse).read(given, self._environ)

    def postOptions(self) -> None:
        self._check_environment()
        given = {**self, **self._lists}
        self.settings = Settings(
            **{name: option.read(given, self._environ) for name, option in OPTIONS.items()}
        )
        self._check_on_failure(self.settings, given)
        if self.settings.token_file is not None and self.settings.no_auth:
            no_auth, token_file = (
                OPTIONS[name].source(given) for name in ("no_auth", "token_file")
            )
            raise usage.UsageError(
                f"{no_auth} and {token_file} contradict each other: give one of them"
            )


def _appender(option: Option) -> Callable[[Options, str], None]:
    """Return the method with which Twisted adds a value to a repeatable option."""

    def append(self: Options, value: str) -> None:
        self._lists.setdefault(option.name, []).append(value)

    append.__doc__ = option.usage()
    return append


for _option in _LISTS:
    setattr(Options, f"opt_{_option.name.replace('-', '_')}", _appender(_option))
