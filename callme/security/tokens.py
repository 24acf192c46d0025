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
MAX_LABEL_LENGTH = 64
"""Maximum length of the label of a token, in characters."""
# All printable ASCII but the space. RFC 6750's own set is narrower, and an operator who
# chooses a token is unlikely to know it.
_TOKEN = re.compile(r"[!-~]+")
_LABEL = re.compile(rf"[A-Za-z0-9_.@-]{{1,{MAX_LABEL_LENGTH}}}")
_PREFIX = "prefix="
_BEARER = re.compile(rb"bearer +([!-~]+)", re.IGNORECASE)


class Permission(Enum):
    """The permission that a request's credentials give."""

    NONE = "no token was sent"
    UNKNOWN = "the token is not in the token file"
    READ = "read only"
    WRITE = "read and write"


@frozen(kw_only=True)
class Access:
    """The access that a request's credentials give.

    :ivar label: the name of the token's holder for the log; empty if it has none.
    :ivar prefix: the beginning of the names of all tasks that it permits to see and to change.
    """

    permission: Permission = Permission.WRITE
    label: str = ""
    prefix: str = ""

    @property
    def is_anonymous(self) -> bool:
        """Return whether there is no token that callme knows."""
        return self.permission in (Permission.NONE, Permission.UNKNOWN)


FULL_ACCESS = Access()
"""The access of every request where no token is required."""
_NO_TOKEN, _UNKNOWN = Access(permission=Permission.NONE), Access(permission=Permission.UNKNOWN)


@frozen(eq=False)
class Tokens:
    """The accepted tokens; stored as digests, so that comparing them takes a constant time."""

    _accesses: tuple[tuple[bytes, Access], ...] = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Tokens:
        """Return the tokens of a token file, one per line: see :func:`.secret_file.iter_lines`.

        :raises ValueError: when a line is not a token, or when there is no token at all. The
            text names the line's number and does not repeat the line.
        """
        accesses: dict[bytes, Access] = {}

        def add(entry: str) -> None:
            token, access = _parse_entry(entry)
            digest = sha256(token.encode("ascii")).digest()
            if accesses.setdefault(digest, access) != access:
                raise ValueError("repeats a token with another permission, label or prefix")

        parse_lines(text, add)
        if not accesses:
            raise ValueError("it contains no token: expected one per line")
        return cls(tuple(accesses.items()))

    def __len__(self) -> int:
        return len(self._accesses)

    def __iter__(self) -> Iterator[tuple[bytes, Access]]:
        """Yield the SHA-256 digest and the access of each token."""
        return iter(self._accesses)

    def access_of(self, authorization: bytes | None) -> Access:
        """Return the access that the value of an ``Authorization`` header gives.

        Any scheme but ``Bearer`` counts as no token (RFC 6750, section 3.1). The time taken
        does not depend on which part of a token is right.
        """
        if authorization is None:
            return _NO_TOKEN
        if authorization.partition(b" ")[0].lower() != b"bearer":
            return _NO_TOKEN
        match = _BEARER.fullmatch(authorization)
        return self.access_by(match[1] if match else b"") or _UNKNOWN

    def access_by(self, token: bytes) -> Access | None:
        """Return the access that a token gives; ``None`` for an unknown one."""
        digest, found = sha256(token).digest(), None
        for known, access in self._accesses:
            if compare_digest(known, digest):
                found = access
        return found


def _parse_entry(entry: str) -> tuple[str, Access]:
    """Return the token and the access of a line ``[read:]<token> [label] [prefix=<names>]``."""
    text, *rest = entry.split()
    permission = Permission.READ if text.startswith(READ_ONLY) else Permission.WRITE
    token = text.removeprefix(READ_ONLY)
    if not _TOKEN.fullmatch(token):
        raise ValueError("is not a token: expected printable ASCII without spaces")
    if len(token) < MIN_LENGTH:
        raise ValueError(
            f"is a token of fewer than {MIN_LENGTH} characters, which can be guessed: make "
            "one with: openssl rand -base64 32"
        )
    prefix = rest.pop().removeprefix(_PREFIX) if rest and rest[-1].startswith(_PREFIX) else None
    label = rest.pop() if rest else ""
    if rest or prefix == "" or (label and not _LABEL.fullmatch(label)):
        raise ValueError(
            "has more than a token, a label of letters, digits, '_', '.', '@' and '-', "
            f"and {_PREFIX}<beginning of names>"
        )
    return token, Access(permission=permission, label=label, prefix=prefix or "")
