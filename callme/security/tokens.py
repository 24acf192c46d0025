"""Access tokens of the API's clients: bearer tokens (RFC 6750) and their permissions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from hashlib import sha256
from hmac import compare_digest

from attrs import field, frozen

from .secret_file import parse_lines

READ_ONLY = "read:"
"""The prefix, in the token file, of a token that only permits reading."""
MIN_LENGTH = 16
"""Minimum length of a token, in characters."""
# All printable ASCII but the space. RFC 6750's own set is narrower, and an operator who
# chooses a token is unlikely to know it.
_TOKEN = re.compile(r"[!-~]+")
_BEARER = re.compile(rb"bearer +([!-~]+)", re.IGNORECASE)


class Permission(Enum):
    """The permission that a request's credentials give."""

    NONE = "no token was sent"
    UNKNOWN = "the token is not in the token file"
    READ = "read only"
    WRITE = "read and write"


@frozen(eq=False)
class Tokens:
    """The accepted tokens; stored as digests, so that comparing them takes a constant time."""

    _permissions: tuple[tuple[bytes, Permission], ...] = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Tokens:
        """Return the tokens of a token file, one per line: see :func:`.secret_file.iter_lines`.

        :raises ValueError: when a line is not a token, or when there is no token at all. The
            text names the line's number and does not repeat the line.
        """
        permissions: dict[bytes, Permission] = {}

        def add(entry: str) -> None:
            permission = Permission.READ if entry.startswith(READ_ONLY) else Permission.WRITE
            token = entry.removeprefix(READ_ONLY)
            if not _TOKEN.fullmatch(token):
                raise ValueError("is not a token: expected printable ASCII without spaces")
            if len(token) < MIN_LENGTH:
                raise ValueError(
                    f"is a token of fewer than {MIN_LENGTH} characters, which can be guessed: make "
                    "one with: openssl rand -base64 32"
                )
            digest = sha256(token.encode("ascii")).digest()
            if permissions.setdefault(digest, permission) is not permission:
                raise ValueError("repeats a token with another permission")

        parse_lines(text, add)
        if not permissions:
            raise ValueError("it contains no token: expected one per line")
        return cls(tuple(permissions.items()))

    def __len__(self) -> int:
        return len(self._permissions)

    def __iter__(self) -> Iterator[tuple[bytes, Permission]]:
        """Yield the SHA-256 digest and the permission of each token."""
        return iter(self._permissions)

    def permission_of(self, authorization: bytes | None) -> Permission:
        """Return the permission that the value of an ``Authorization`` header gives.

        Any scheme but ``Bearer`` counts as no token (RFC 6750, section 3.1). The time taken
        does not depend on which part of a token is right.
        """
        if authorization is None:
            return Permission.NONE
        if authorization.partition(b" ")[0].lower() != b"bearer":
            return Permission.NONE
        match = _BEARER.fullmatch(authorization)
        digest = sha256(match[1] if match else b"").digest()
        found = Permission.UNKNOWN
        for known, permission in self._permissions:
            if compare_digest(known, digest):
                found = permission
        return found
