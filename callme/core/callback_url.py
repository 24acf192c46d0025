"""Callback URLs: validation, and extraction of the ``host:port`` that limits are counted by."""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from urllib.parse import SplitResult, urlsplit

from ..errors import InvalidValue, quoted
from ..security.address_policy import AddressPolicy
from .json_schema import any_case, string

MAX_URL_LENGTH = 2083
# Printable ASCII without the space, and without the backslash, which some software reads as a
# slash.
_URL_CHARACTERS = r"[!-\[\]-~]"
_NOT_IN_URLS = re.compile(_URL_CHARACTERS.replace("[", "[^", 1))
_DEFAULT_PORTS = {"http": 80, "https": 443}
# RFC 1123, section 2.1, and the underscores that private networks use: a URL may have them (RFC
# 3986, section 3.2.2), and systems resolve them.
_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
# Decimal, octal or hexadecimal numbers in all labels: inet_aton(3), and therefore the system's
# resolver, reads such a host as an IPv4 address. https://url.spec.whatwg.org/#host-parsing
_NUMERIC = re.compile(r"(?:0[Xx][0-9A-Fa-f]*|[0-9]+)(?:\.(?:0[Xx][0-9A-Fa-f]*|[0-9]+))*")

_HOST = rf"{_LABEL.pattern}(?:\.{_LABEL.pattern})*\.?|\[[0-9A-Fa-f:.]+\]"
CALLBACK_SCHEMA = string(
    maxLength=MAX_URL_LENGTH,
    pattern=f"^(?:{any_case(['http'])})[Ss]?://(?:{_HOST})(?::[0-9]+)?"
    f"(?:[/?#]{_URL_CHARACTERS}*)?$",
    examples=["http://example.com/run-it"],
)


def parse_callback(value: object, networks: AddressPolicy) -> str:
    """Return a callback's URL, unchanged.

    The host name is resolved only when callme makes the call.

    :param networks: the addresses that callbacks may go to.
    :raises InvalidValue: when it is not an absolute ``http`` or ``https`` URL (RFC 3986) in ASCII
        with a host, without user info, of at most 2,083 characters; or when its host is an
        address that callme may not call.
    """
    if not isinstance(value, str):
        raise InvalidValue(f"{quoted(value)} is not a URL: expected a string")
    host = _checked_host(value)
    # The first character is tested first because that is cheap.
    if host[0] == "[" or (host[0].isdigit() and _NUMERIC.fullmatch(host)):
        _check_address(host.strip("[]"), value, networks)
    return value


@lru_cache(maxsize=1024)
def _checked_host(callback: str) -> str:
    """Return the host of a callback, cached because many tasks have the same callback.

    :raises InvalidValue: when it is not an acceptable URL.
    """
    if len(callback) > MAX_URL_LENGTH:
        raise InvalidValue(
            f"a URL of {len(callback)} characters: expected at most {MAX_URL_LENGTH}"
        )
    _check_characters(callback)
    return host_of(callback).rpartition(":")[0]


def _check_characters(callback: str) -> None:
    if callback != callback.strip():
        raise InvalidValue(
            f"{_named(callback)} begins or ends with white space: expected none there"
        )
    if bad := _NOT_IN_URLS.search(callback):
        raise InvalidValue(
            f"{_named(callback)} contains {quoted(bad[0])}, which is not allowed in a URL: "
            "percent-encode it, and write an international host as xn--..."
        )


def _check_address(address: str, callback: str, networks: AddressPolicy) -> None:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        raise InvalidValue(
            f"{_named(callback)} has a number for a host: write an address as 192.0.2.1, "
            "four decimal numbers without leading zeros"
        ) from None
    refusal = networks.reason_denied(address)
    if refusal is not None:
        raise InvalidValue(refusal)


@lru_cache(maxsize=1024)
def host_of(callback: str) -> str:
    """Return the ``host:port`` of a callback, by which limits count its calls.

    :raises InvalidValue: when it is not an absolute ``http`` or ``https`` URL with a host.
    """
    try:
        parts = urlsplit(callback)
    except ValueError:
        # The text of Python's error is omitted, because it quotes a part of the URL.
        raise InvalidValue(
            f"{_named(callback)} is not a URL: expected http://host/, http://host:port/ or "
            "http://[address]/"
        ) from None
    if parts.scheme not in _DEFAULT_PORTS or not callback[len(parts.scheme) :].startswith("://"):
        raise InvalidValue(
            f"{_named(callback)} is not an absolute http:// or https:// URL, "
            "such as http://example.com/run-it"
        )
    if "@" in parts.netloc:
        # The error omits the URL, because the part before the @ may be a password.
        raise InvalidValue("user info in a URL is not accepted: send an Authorization header")
    port = _port_of(parts)
    if port == 0 or parts.netloc.endswith(":"):
        raise InvalidValue(f"{_named(callback)} has no valid port: expected 1 to 65535")
    # Before Python 3.11.4 urlsplit() does not check that brackets enclose an address.
    if parts.netloc.startswith("["):
        # urlsplit() drops any text between the brackets and the port.
        if parts.netloc.partition("]")[2][:1] not in ("", ":"):
            _no_host(callback)
        host = _check_ipv6(parts.hostname or "", callback)
    else:
        host = _check_name(parts.hostname or "", callback)
    return f"{host}:{port or _DEFAULT_PORTS[parts.scheme]}"


def _port_of(parts: SplitResult) -> int | None:
    """Return the port of a URL; ``None`` without a port, and 0 for an invalid port."""
    try:
        return parts.port
    except ValueError:
        return 0


def _check_ipv6(host: str, callback: str) -> str:
    try:
        # A zone (RFC 6874) is meaningful on one machine only.
        return f"[{ipaddress.IPv6Address(host)}]" if "%" not in host else _no_host(callback)
    except ValueError:
        return _no_host(callback)


def _check_name(host: str, callback: str) -> str:
    name = host.removesuffix(".")
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in name.split(".")):
        _no_host(callback)
    return name


def _no_host(callback: str) -> str:
    raise InvalidValue(
        f"{_named(callback)} has no valid host: expected an address, "
        "or a name of letters, digits, hyphens and dots"
    )


def _named(callback: str) -> str:
    """Return a URL for the text of an error, without its query and without a password."""
    if "@" in callback or "%40" in callback:
        return "a URL with @ in it"
    return quoted(re.split(r"[?#]", callback, maxsplit=1)[0])
