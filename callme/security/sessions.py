"""Sessions of the operator's page: what a browser keeps once somebody has shown a token.

A session names no token and holds none. It says until when it is valid, and is signed (HMAC,
RFC 2104) with the digest of the token that was shown: whoever has the same tokens accepts it,
another daemon too, and nobody once that token is gone. Nothing is kept of it.
"""

from __future__ import annotations

import hmac
import re
from hashlib import sha256

from attrs import field, frozen

from .tokens import Permission, Tokens

SESSION_SECONDS = 12 * 3600
"""How long a session is valid."""
# Until when, what makes it differ from every other, the signature.
_SESSION = re.compile(r"([0-9]{1,15})\.([A-Za-z0-9_-]{1,64})\.([0-9a-f]{64})")


@frozen
class Session:
    """Somebody who has shown a token.

    :ivar right: what that token gives.
    :ivar form: what every form of theirs must bring along: no other page can know it.
    """

    right: Permission
    form: str = field(repr=False)


def open_session(tokens: Tokens, token: bytes, now: float, nonce: str) -> str | None:
    """Return a new session for somebody who shows a token; ``None`` if it is none of ours.

    :param nonce: what no other session has, of letters and digits.
    """
    shown = sha256(token).digest()
    found = None
    for digest, _ in tokens:
        if hmac.compare_digest(digest, shown):
            found = digest
    if found is None:
        return None
    said = f"{int(now) + SESSION_SECONDS}.{nonce}"
    return f"{said}.{_signed(found, 'session', said)}"


def session_of(tokens: Tokens, text: str, now: float) -> Session | None:
    """Return whose session this is; ``None`` for what is none, or no longer.

    It takes the same time whichever token it is of.
    """
    match = _SESSION.fullmatch(text)
    if match is None or int(match[1]) <= now:
        return None
    said = f"{match[1]}.{match[2]}"
    found = None
    for digest, right in tokens:
        if hmac.compare_digest(_signed(digest, "session", said), match[3]):
            found = Session(right, _signed(digest, "form", said))
    return found


def verify_csrf(session: Session, value: str) -> bool:
    """Whether a form is one that was given out in this session."""
    return hmac.compare_digest(session.form.encode(), value.encode("utf-8", "replace"))


def _signed(digest: bytes, use: str, said: str) -> str:
    return hmac.new(digest, f"callme {use} {said}".encode(), sha256).hexdigest()
