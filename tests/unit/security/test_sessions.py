"""Sessions: permissions, expiry, signatures and CSRF tokens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callme.security.sessions import SESSION_SECONDS, Session, open_session, session_of, verify_csrf
from callme.security.tokens import Permission, Tokens
from tests.helpers.credentials import READS, TOKENS, WRITES
from tests.helpers.tasks import NOON

TOKEN_SET = Tokens.parse(TOKENS)


def opened(token: bytes = WRITES, now: float = NOON, nonce: str = "n") -> str:
    session = open_session(TOKEN_SET, token, now, nonce)
    assert session is not None
    return session


def test_session_has_the_permission_of_its_token() -> None:
    for token, right in ((WRITES, Permission.WRITE), (READS, Permission.READ)):
        session = session_of(TOKEN_SET, opened(token), NOON)
        assert session is not None
        assert session.access.permission is right
    for wrong in (b"", b"read:s3cret-of-the-reader", WRITES[:-1], b"\xff"):
        assert open_session(TOKEN_SET, wrong, NOON, "n") is None


def test_session_expires() -> None:
    text = opened()
    assert session_of(TOKEN_SET, text, NOON + SESSION_SECONDS - 1) is not None
    assert session_of(TOKEN_SET, text, NOON + SESSION_SECONDS) is None


def test_session_ends_with_its_token() -> None:
    """The session is valid on every daemon whose token file has the token."""
    text = opened()
    kept = Tokens.parse("another-token-of-theirs\ns3cret-of-the-writer")
    assert session_of(kept, text, NOON) is not None
    assert session_of(Tokens.parse("another-token-of-theirs"), text, NOON) is None
    lowered = session_of(Tokens.parse("read:s3cret-of-the-writer"), text, NOON)
    assert lowered is not None
    assert lowered.access.permission is Permission.READ


@given(st.integers(0), st.characters(codec="latin-1"))
def test_tampered_session_is_invalid(at: int, other: str) -> None:
    text = opened()
    at %= len(text)
    changed = text[:at] + other + text[at + 1 :]
    assert (session_of(TOKEN_SET, changed, NOON) is not None) is (changed == text)


@pytest.mark.parametrize("text", ["", "..", "1", f"{'9' * 20}.n.{'0' * 64}", f"-1.n.{'0' * 64}"])
def test_malformed_session_is_invalid(text: str) -> None:
    assert session_of(TOKEN_SET, text, NOON) is None


def test_session_contains_no_token() -> None:
    session = opened()
    assert "s3cret" not in session
    assert opened(nonce="m") != session
    found = session_of(TOKEN_SET, session, NOON)
    assert found is not None
    assert found.csrf_token not in session
    assert found.csrf_token not in repr(found)


def test_csrf_token_belongs_to_one_session() -> None:
    first, second = (session_of(TOKEN_SET, opened(nonce=n), NOON) for n in "ab")
    assert isinstance(first, Session)
    assert isinstance(second, Session)
    assert verify_csrf(first, first.csrf_token)
    for other in (second.csrf_token, "", first.csrf_token + "0", "\ud800"):
        assert not verify_csrf(first, other)
