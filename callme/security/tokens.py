"""Who may ask: tokens (RFC 6750), hosts (RFC 9110, section 7.2), origins (RFC 6454)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from hashlib import sha256
from hmac import compare_digest

from attrs import field, frozen


def iter_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield each line that holds something, and its number, from 1.

    Those that are empty hold nothing, and those that begin with ``#`` are remarks.
    """
    for number, line in enumerate(text.split("\n"), start=1):
        entry = line.strip()
        if entry and not entry.startswith("#"):
            yield number, entry


READ_ONLY = "read:"
"""What stands before a token that may only read."""
# Any printable ASCII but the space: wider than RFC 6750's own characters, which no person
# remembers.
_TOKEN = re.compile(r"[!-~]+")
_BEARER = re.compile(rb"bearer +([!-~]+)", re.IGNORECASE)


class Permission(Enum):
    """What somebody may do."""

    NONE = "showed no token"
    UNKNOWN = "showed a token that is none of ours"
    READ = "may read"
    WRITE = "may read and write"


@frozen(eq=False)
class Tokens:
    """The tokens that callers may show; held as digests, so that their lengths tell nothing."""

    _rights: tuple[tuple[bytes, Permission], ...] = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Tokens:
        """Read tokens, one a line: see :func:`.lines.iter_lines`.

        :raises ValueError: where a line holds no token, or no line does; it names the line,
            and not what stands there.
        """
        rights: dict[bytes, Permission] = {}
        for number, entry in iter_lines(text):
            right = Permission.READ if entry.startswith(READ_ONLY) else Permission.WRITE
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

    def __iter__(self) -> Iterator[tuple[bytes, Permission]]:
        """Yield the digest of each token, and what it gives."""
        return iter(self._rights)

    def permission_of(self, authorization: bytes | None) -> Permission:
        """Return what the sender of an ``Authorization`` header may do.

        Other schemes than ``Bearer`` count as no token: RFC 6750, section 3.1. It takes the
        same time whatever part of a token is right.
        """
        if authorization is None:
            return Permission.NONE
        if authorization.partition(b" ")[0].lower() != b"bearer":
            return Permission.NONE
        match = _BEARER.fullmatch(authorization)
        digest = sha256(match[1] if match else b"").digest()
        found = Permission.UNKNOWN
        for known, right in self._rights:
            if compare_digest(known, digest):
                found = right
        return found
