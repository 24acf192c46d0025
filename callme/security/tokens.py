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
"""Prefix, in the token file, of a token that permits only reading."""
MIN_LENGTH = 16
"""Minimum length of a token, in characters."""
MAX_LABEL_LENGTH = 64
"""Maximum length of the label of a token, in characters."""
# All printable ASCII except the space. The set of RFC 6750 is smaller, but few operators know it.
_TOKEN = re.compile(r"[!-~]+")
_LABEL = re.compile(rf"[A-Za-z0-9_.@-]{{1,{MAX_LABEL_LENGTH}}}")
_PREFIX = "prefix="
_BEARER = re.compile(rb"bearer +([!-~]+)", re.IGNORECASE)


class Permission(Enum):
    """Permission that the credentials of a request grant."""

    NONE = "no token was sent"
    UNKNOWN = "the token is not in the token file"
    READ = "read only"
    WRITE = "read and write"


@frozen(kw_only=True)
class Access:
    """Access that the credentials of a request grant.

    :ivar label: the name of the token's holder for the log, if any.
    :ivar prefix: the beginning of the names of the tasks that the token gives access to.
    """

    permission: Permission = Permission.WRITE
    label: str = ""
    prefix: str = ""

    @property
    def is_anonymous(self) -> bool:
        """Return whether the request has no valid token."""
        return self.permission in (Permission.NONE, Permission.UNKNOWN)


FULL_ACCESS = Access()
"""Access of every request if no token is required."""
_NO_TOKEN, _UNKNOWN = Access(permission=Permission.NONE), Access(permission=Permission.UNKNOWN)


@frozen(eq=False)
class Tokens:
    """Accepted tokens, stored as digests, so that comparisons take a constant time."""

    _accesses: tuple[tuple[bytes, Access], ...] = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Tokens:
        """Return the tokens of a token file, one per line: see :func:`.secret_file.iter_lines`.

        :raises ValueError: when a line is not a token, or when there is no token at all. The
            text names the number of the line, and does not quote the line.
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
        """Return the access that the value of an ``Authorization`` header grants.

        Any scheme except ``Bearer`` counts as no token (RFC 6750, section 3.1). The duration
        does not depend on how much of a token is correct.
        """
        if authorization is None:
            return _NO_TOKEN
        if authorization.partition(b" ")[0].lower() != b"bearer":
            return _NO_TOKEN
        match = _BEARER.fullmatch(authorization)
        return self.access_by(match[1] if match else b"") or _UNKNOWN

    def access_by(self, token: bytes) -> Access | None:
        """Return the access that a token grants; ``None`` for an unknown token."""
        digest, found = sha256(token).digest(), None
        for known, access in self._accesses:
            if compare_digest(known, digest):
                found = access
        return found


def _parse_entry(entry: str) -> tuple[str, Access]:
    """Return the token and the access in a line ``[read:]<token> [label] [prefix=<names>]``."""
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
