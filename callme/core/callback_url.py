"""The URL that a task calls, and the host that its calls are counted against."""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from urllib.parse import urlsplit

from ..errors import InvalidValue, quoted
from ..security.address_policy import AddressPolicy
from .json_schema import any_case, string

MAX_CALLBACK = 2083
# Printable ASCII without the space, and without the backslash, which some take for a slash.
IN_URLS = re.compile(r"[!-\[\]-~]*")
_DEFAULT_PORTS = {"http": 80, "https": 443}
# RFC 1123, section 2.1. An underscore, though common in private networks, is no part of
# a host name, and Twisted looks up none that has one.
LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
# What inet_aton(3), and so the system's look-up, takes for an address, or others might: a
# decimal, octal or hexadecimal number in each label. https://url.spec.whatwg.org/#host-parsing
_NUMERIC = re.compile(r"(?:0[Xx][0-9A-Fa-f]*|[0-9]+)(?:\.(?:0[Xx][0-9A-Fa-f]*|[0-9]+))*")

_HOST = rf"{LABEL.pattern}(?:\.{LABEL.pattern})*\.?|\[[0-9A-Fa-f:.]+\]"
CALLBACK_SCHEMA = string(
    maxLength=MAX_CALLBACK,
    pattern=f"^(?:{any_case(['http'])})[Ss]?://(?:{_HOST})(?::[0-9]+)?(?:[/?#]{IN_URLS.pattern})?$",
    examples=["http://example.com/run-it"],
)


def parse_callback(value: object, networks: AddressPolicy) -> str:
    """Return a URL that can be called exactly as it is written.

    :param networks: where callbacks may go.
    :raises InvalidValue: when it is not an absolute ``http`` or ``https`` URL
        (RFC 3986) in ASCII with a host, without user info, of at most 2,083
        characters; or when its host is an address that may not be called. What a name
        stands for is not known before the call.
    """
    if not isinstance(value, str):
        raise InvalidValue(f"{quoted(value)} is not a URL: expected a string")
    if len(value) > MAX_CALLBACK:
        raise InvalidValue(f"a URL of {len(value)} characters: expected at most {MAX_CALLBACK}")
    if not IN_URLS.fullmatch(value):
        raise InvalidValue(
            f"{_named(value)} contains a character that a URL cannot: "
            "percent-encode it, and write an international host as xn--..."
        )
    host = host_of(value).rpartition(":")[0]
    # Whatever is a number begins with a digit.
    if host[0] == "[" or (host[0].isdigit() and _NUMERIC.fullmatch(host)):
        _check_address(host.strip("[]"), value, networks)
    return value


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
    """Return the ``host:port`` that a callback goes to, which limits are counted by.

    :raises InvalidValue: when it is not an absolute http or https URL with a host.
    """
    try:
        parts = urlsplit(callback)
        port = parts.port
    except ValueError:
        # Not as Python tells it: that repeats what stands where a port or an address should.
        raise InvalidValue(
            f"{_named(callback)} is not a URL: expected http://host/, http://host:port/ or "
            "http://[address]/"
        ) from None
    if parts.scheme not in _DEFAULT_PORTS or not callback[len(parts.scheme) :].startswith("://"):
        raise InvalidValue(f"{_named(callback)} is not an absolute http:// or https:// URL")
    if "@" in parts.netloc:
        # Not repeated here: what stands before the @ may be a password.
        raise InvalidValue("user info in a URL is not accepted: send an Authorization header")
    if port == 0 or parts.netloc.endswith(":"):
        raise InvalidValue(f"{_named(callback)} has no valid port: expected 1 to 65535")
    # Whether brackets hold an address, urlsplit() says only since Python 3.11.4.
    if parts.netloc.startswith("["):
        # What stands between them and the port, it drops.
        if parts.netloc.partition("]")[2][:1] not in ("", ":"):
            _no_host(callback)
        host = _check_ipv6(parts.hostname or "", callback)
    else:
        host = _check_name(parts.hostname or "", callback)
    return f"{host}:{port or _DEFAULT_PORTS[parts.scheme]}"


def _check_ipv6(host: str, callback: str) -> str:
    try:
        # A zone (RFC 6874) means something on one machine only.
        return f"[{ipaddress.IPv6Address(host)}]" if "%" not in host else _no_host(callback)
    except ValueError:
        return _no_host(callback)


def _check_name(host: str, callback: str) -> str:
    name = host.removesuffix(".")
    if len(name) > 253 or not all(LABEL.fullmatch(label) for label in name.split(".")):
        _no_host(callback)
    return name


def _no_host(callback: str) -> str:
    raise InvalidValue(
        f"{_named(callback)} has no valid host: expected an address, "
        "or a name of letters, digits, hyphens and dots"
    )


def _named(callback: str) -> str:
    """Name a URL in an error, without its query, unless it may hold a password."""
    if "@" in callback or "%40" in callback:
        return "a URL with @ in it"
    return quoted(re.split(r"[?#]", callback, maxsplit=1)[0])
