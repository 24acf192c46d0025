"""Sessions of the web UI: signed cookies that a browser receives in exchange for a token.

A session contains no token, and the server does not store it. It contains its expiry, and is signed
(HMAC, RFC 2104) with the digest of the token that opened it. Every daemon with the same token file
therefore accepts the session, until the token is removed from that file.
"""

from __future__ import annotations

import hmac
import re
from hashlib import sha256

from attrs import field, frozen

from .tokens import Access, Tokens

SESSION_SECONDS = 12 * 3600
"""Lifetime of a session, in seconds."""
# The parts are expiry (seconds since 1970), nonce and signature.
_SESSION = re.compile(r"([0-9]{1,15})\.([A-Za-z0-9_-]{1,64})\.([0-9a-f]{64})")


@frozen
class Session:
    """Verified session.

    :ivar access: the access of the token that opened the session.
    :ivar csrf_token: the value that every form of this session must contain. A page of
        another origin cannot know the value.
    """

    access: Access
    csrf_token: str = field(repr=False)


def open_session(tokens: Tokens, token: bytes, now: float, nonce: str) -> str | None:
    """Return the text of a new session; ``None`` if the token is not one of ``tokens``.

    :param now: seconds since 1970.
    :param nonce: letters, digits, ``-`` and ``_``, unique to each session.
    """
    if tokens.access_by(token) is None:
        return None
    claims = f"{int(now) + SESSION_SECONDS}.{nonce}"
    return f"{claims}.{_signature(sha256(token).digest(), 'session', claims)}"


def is_well_formed(text: str) -> bool:
    """Return whether a cookie's value could be a session."""
    return _SESSION.fullmatch(text) is not None


def session_of(tokens: Tokens, text: str, now: float) -> Session | None:
    """Return the session in the value of a cookie; ``None`` if it is invalid or expired.

    The duration does not depend on the token that signed the session.

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
    """Return whether the CSRF field of a form has the value of the session."""
    return hmac.compare_digest(session.csrf_token.encode(), value.encode("utf-8", "replace"))


def _signature(digest: bytes, use: str, claims: str) -> str:
    return hmac.new(digest, f"callme {use} {claims}".encode(), sha256).hexdigest()
