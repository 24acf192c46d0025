"""Sessions of the web UI: signed cookies that a browser gets in exchange for a token.

A session contains no token and is stored nowhere on the server. It states when it expires and
is signed (HMAC, RFC 2104) with the digest of the token that opened it. So every daemon with the
same token file accepts it, and none does once the token is removed from that file.
"""

from __future__ import annotations

import hmac
import re
from hashlib import sha256

from attrs import field, frozen

from .tokens import Access, Tokens

SESSION_SECONDS = 12 * 3600
"""Lifetime of a session, in seconds."""
# Expiry (seconds since 1970), nonce, signature.
_SESSION = re.compile(r"([0-9]{1,15})\.([A-Za-z0-9_-]{1,64})\.([0-9a-f]{64})")


@frozen
class Session:
    """A session that was verified.

    :ivar access: the access of the token that opened it.
    :ivar csrf_token: the value that every form of this session must contain. A page of
        another origin cannot know it.
    """

    access: Access
    csrf_token: str = field(repr=False)


def open_session(tokens: Tokens, token: bytes, now: float, nonce: str) -> str | None:
    """Return the text of a new session; ``None`` when the token is not one of ``tokens``.

    :param now: seconds since 1970.
    :param nonce: letters, digits, ``-`` and ``_``, different for each session.
    """
    if tokens.access_by(token) is None:
        return None
    claims = f"{int(now) + SESSION_SECONDS}.{nonce}"
    return f"{claims}.{_signature(sha256(token).digest(), 'session', claims)}"


def is_well_formed(text: str) -> bool:
    """Return whether a cookie's value could be a session."""
    return _SESSION.fullmatch(text) is not None


def session_of(tokens: Tokens, text: str, now: float) -> Session | None:
    """Return the session that a cookie's value stands for; ``None`` if invalid or expired.

    The time taken does not depend on which token signed it.

    :param now: seconds since 1970.
    """
    match = _SESSION.fullmatch(text)
    if match is None or int(match[1]) <= now:
        return None
    claims = f"{match[1]}.{match[2]}"
    found = None
    for digest, access in tokens:
        if hmac.compare_digest(_signature(digest, "session", claims), match[3]):
            found = Session(access, _signature(digest, "form", claims))
    return found


def verify_csrf(session: Session, value: str) -> bool:
    """Return whether a form's CSRF field has the value that belongs to the session."""
    return hmac.compare_digest(session.csrf_token.encode(), value.encode("utf-8", "replace"))


def _signature(digest: bytes, use: str, claims: str) -> str:
    return hmac.new(digest, f"callme {use} {claims}".encode(), sha256).hexdigest()
