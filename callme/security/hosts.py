"""The hosts and origins that a request names."""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address

from ..errors import quoted

_AUTHORITY = re.compile(rb"(\[[0-9a-f:.]+\]|[a-z0-9._~!$&'()*+,;=-]+)(?::[0-9]*)?", re.IGNORECASE)
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)", re.IGNORECASE)


@lru_cache(maxsize=64)
def is_local(authority: bytes) -> bool | None:
    """Whether a host (and port) is a loopback address or a name without a dot.

    No name that others give out is one: a page of theirs cannot reach callme by it, nor by
    turning its name to another address once it is loaded (DNS rebinding).

    :return: ``None`` for what is no host at all.
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
        # A dot at the end only says that the name is whole.
        return "." not in host.removesuffix(".")


def is_loopback(address: str) -> bool:
    """Whether an IP address is this machine's own."""
    ip = ip_address(address.partition("%")[0])
    mapped = ip.ipv4_mapped if isinstance(ip, IPv6Address) else None
    return (mapped or ip).is_loopback


def authority_of(target: bytes, hosts: list[bytes], *, required: bool) -> bytes | None:
    """Return the host (and port) that a request is for.

    A target in absolute form says it, and the ``Host`` header then counts for nothing (RFC
    9112, section 3.2.2).

    :param required: whether there must be such a header: since HTTP/1.1.
    :raises ValueError: where there is none, or more than one (section 3.2).
    """
    if len(hosts) > 1 or (required and not hosts):
        many = "more than one Host" if hosts else "no Host"
        raise ValueError(f"the request has {many}: expected one")
    if not target.startswith(b"/") and (match := _ABSOLUTE.match(target)):
        return match[1]
    return hosts[0] if hosts else None


def is_cross_origin(origins: list[bytes], authority: bytes | None) -> bool:
    """Whether a request comes from a page that callme has not served.

    :param origins: the request's ``Origin`` headers: browsers send one, ``null`` where they
        would rather not say.
    """
    ours = None if authority is None else authority.lower()
    return any(origin.lower().partition(b"://")[2] != ours for origin in origins)


def path_of(target: bytes) -> bytes:
    """Return a target's path, without its query."""
    match = _ABSOLUTE.match(target)
    return target[match.end() if match else 0 :].partition(b"?")[0]


def printable(value: bytes) -> str:
    """Return a header's value as a person may read it."""
    return quoted(value.decode("latin-1"))
