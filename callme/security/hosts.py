"""Hosts and origins of HTTP requests (RFC 9110, section 7.2; RFC 6454)."""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address

from ..errors import InvalidValue, quoted

_AUTHORITY = re.compile(rb"(\[[0-9a-f:.]+\]|[a-z0-9._~!$&'()*+,;=-]+)(?::[0-9]*)?", re.IGNORECASE)
_DEFAULT_PORTS = {b"http": b":80", b"https": b":443"}
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)", re.IGNORECASE)


@lru_cache(maxsize=64)
def is_local(authority: bytes) -> bool | None:
    """Return whether a host (and port) is a loopback address or a name without a dot.

    Public names contain a dot. A web page of another site therefore cannot reach callme under its
    own name, even if the site points that name to a loopback address (DNS rebinding).

    :return: ``None`` if ``authority`` is not a valid host.
    """
    match = _AUTHORITY.fullmatch(authority)
    if match is None:
        return None
    host = match[1].decode("ascii")
    if host.startswith("["):
        try:
            return is_loopback(str(IPv6Address(host[1:-1])))
        except ValueError:
            return None
    try:
        return is_loopback(str(IPv4Address(host)))
    except ValueError:
        # A trailing dot only marks a fully qualified name.
        return "." not in host.removesuffix(".")


def is_loopback(address: str) -> bool:
    """Return whether an IP address is a loopback address, including IPv4-mapped ones."""
    ip = ip_address(address.partition("%")[0])
    mapped = ip.ipv4_mapped if isinstance(ip, IPv6Address) else None
    return (mapped or ip).is_loopback


def authority_of(target: bytes, hosts: list[bytes], *, required: bool) -> bytes | None:
    """Return the host (and port) that a request addresses; ``None`` if it names none.

    The host of a target in absolute form takes precedence over the ``Host`` header (RFC 9112,
    section 3.2.2).

    :param hosts: the values of the ``Host`` headers.
    :param required: whether the header is required, as in HTTP/1.1.
    :raises ValueError: when the header is missing or repeated (section 3.2).
    """
    if len(hosts) > 1 or (required and not hosts):
        number = "more than one Host" if hosts else "no Host"
        raise ValueError(f"the request has {number}: expected one")
    if not target.startswith(b"/") and (match := _ABSOLUTE.match(target)):
        return match[1]
    return hosts[0] if hosts else None


def origin_of(scheme: bytes, authority: bytes) -> bytes:
    """Return an origin in the form of browsers: in lower case, without the default port."""
    return scheme + b"://" + authority.lower().removesuffix(_DEFAULT_PORTS[scheme])


def parse_origin(text: str) -> bytes:
    """Return the origin in an option, such as ``https://callme.example.com``.

    :raises InvalidValue: when it is not an origin (RFC 6454, section 6.2).
    """
    scheme, _, authority = text.lower().removesuffix("/").partition("://")
    encoded = authority.encode("ascii", "replace")
    if scheme.encode("ascii", "replace") not in _DEFAULT_PORTS or is_local(encoded) is None:
        raise InvalidValue("expected an origin such as https://callme.example.com")
    return origin_of(scheme.encode("ascii"), encoded)


def path_of(target: bytes) -> bytes:
    """Return a request target's path, without scheme, host and query."""
    match = _ABSOLUTE.match(target)
    return target[match.end() if match else 0 :].partition(b"?")[0]


def printable(value: bytes) -> str:
    """Return a header's value quoted and escaped for an error text."""
    return quoted(value.decode("latin-1"))
