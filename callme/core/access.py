"""Who may ask: tokens (RFC 6750), hosts (RFC 9110, section 7.2), origins (RFC 6454)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from functools import lru_cache
from hashlib import sha256
from hmac import compare_digest
from ipaddress import IPv4Address, IPv6Address, ip_address

from attrs import field, frozen

from .errors import shown
from .lines import entries

READ_ONLY = "read:"
"""What stands before a token that may only read."""
# Any printable ASCII but the space: wider than RFC 6750's own characters, which no person
# remembers.
_TOKEN = re.compile(r"[!-~]+")
_BEARER = re.compile(rb"bearer +([!-~]+)", re.IGNORECASE)
_AUTHORITY = re.compile(rb"(\[[0-9a-f:.]+\]|[a-z0-9._~!$&'()*+,;=-]+)(?::[0-9]*)?", re.IGNORECASE)
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)", re.IGNORECASE)


class Right(Enum):
    """What somebody may do."""

    NONE = "showed no token"
    UNKNOWN = "showed a token that is none of ours"
    READ = "may read"
    WRITE = "may read and write"


@frozen(eq=False)
class Tokens:
    """The tokens that callers may show; held as digests, so that their lengths tell nothing."""

    _rights: tuple[tuple[bytes, Right], ...] = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Tokens:
        """Read tokens, one a line: see :func:`.lines.entries`.

        :raises ValueError: where a line holds no token, or no line does; it names the line,
            and not what stands there.
        """
        rights: dict[bytes, Right] = {}
        for number, entry in entries(text):
            right = Right.READ if entry.startswith(READ_ONLY) else Right.WRITE
            token = entry.removeprefix(READ_ONLY)
            if not _TOKEN.fullmatch(token):
                raise ValueError(
                    f"line {number} is no token: expected printable ASCII without spaces"
                )
            digest = sha256(token.encode("ascii")).digest()
            if rights.setdefault(digest, right) is not right:
                raise ValueError(f"line {number} has a token that stands there with another right")
        if not rights:
            raise ValueError("there is no token in it: expected one a line")
        return cls(tuple(rights.items()))

    def __len__(self) -> int:
        return len(self._rights)

    def __iter__(self) -> Iterator[tuple[bytes, Right]]:
        """Yield the digest of each token, and what it gives."""
        return iter(self._rights)

    def right_of(self, authorization: bytes | None) -> Right:
        """Return what the sender of an ``Authorization`` header may do.

        Other schemes than ``Bearer`` count as no token: RFC 6750, section 3.1. It takes the
        same time whatever part of a token is right.
        """
        if authorization is None:
            return Right.NONE
        if authorization.partition(b" ")[0].lower() != b"bearer":
            return Right.NONE
        match = _BEARER.fullmatch(authorization)
        digest = sha256(match[1] if match else b"").digest()
        found = Right.UNKNOWN
        for known, right in self._rights:
            if compare_digest(known, digest):
                found = right
        return found


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


def is_foreign(origins: list[bytes], authority: bytes | None) -> bool:
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


def told(value: bytes) -> str:
    """Return a header's value as a person may read it."""
    return shown(value.decode("latin-1"))
