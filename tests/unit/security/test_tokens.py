"""Tokens: permissions, and the format of the token file."""

from __future__ import annotations

import pickle

import pytest

from callme.security.tokens import Access, Permission, Tokens
from tests.helpers.credentials import READER, TOKENS, WRITER

A, B = "a-good-token-" + "a" * 3, "another-token-" + "b" * 2


@pytest.mark.parametrize(
    ("authorization", "right"),
    [
        (None, Permission.NONE),
        (b"", Permission.NONE),
        (b"Basic czNjcmV0", Permission.NONE),
        (b"s3cret-of-the-writer", Permission.NONE),
        (b"Bearer", Permission.UNKNOWN),
        (b"Bearer ", Permission.UNKNOWN),
        (b"Bearer s3cret-of-the-write", Permission.UNKNOWN),
        (b"Bearer s3cret-of-the-writer ", Permission.UNKNOWN),
        (b"Bearer s3cret-of-the-writer, x", Permission.UNKNOWN),
        (b"Bearer S3cret-of-the-writer", Permission.UNKNOWN),
        (b"Bearer read:s3cret-of-the-reader", Permission.UNKNOWN),
        (b"Bearer # who may do what", Permission.UNKNOWN),
        (b"Bearer \xff", Permission.UNKNOWN),
        (WRITER, Permission.WRITE),
        (b"BEARER  s3cret-of-the-writer", Permission.WRITE),
        (READER, Permission.READ),
    ],
)
def test_authorization_header_gives_a_permission(
    authorization: bytes | None, right: Permission
) -> None:
    tokens = Tokens.parse(TOKENS)
    assert len(tokens) == 2
    assert tokens.access_of(authorization).permission is right


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it contains no token"),
        ("# nothing\n\n  \n", "it contains no token"),
        (f"{A}\nn\u00f6t-good\n", "line 2 is not a token: expected printable ASCII without spaces"),
        (f"{A} two labels\n", "line 1 has more than a token, a label of letters, digits"),
        (f"{A} label prefix=x more\n", "line 1 has more than a token"),
        (f"{A} prefix=\n", "line 1 has more than a token"),
        (f"{A} l\u00e4bel\n", "line 1 has more than a token"),
        (f"{A} {'x' * 65}\n", "line 1 has more than a token"),
        (f"{A} ops\n{A}\n", "line 2 repeats a token with another permission, label or prefix"),
        ("read:\n", "line 1 is not a token"),
        ("p\u00e4ss\n", "line 1 is not a token"),
        ("\ufeffgood\n", "line 1 is not a token"),
        (f"{A}\n\nread:{A}\n", "line 3 repeats a token with another permission"),
        (f"{A}\n{A[:15]}\n", "line 2 is a token of fewer than 16 characters, which can be guessed"),
        (f"read:{A[:15]}\n", "line 1 .* make one with: openssl rand -base64 32"),
    ],
)
def test_invalid_token_file_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        Tokens.parse(text)
    assert "good" not in str(raised.value)
    assert A[:15] not in str(raised.value)


def test_tokens_are_not_stored_in_clear() -> None:
    """Neither its length nor a memory dump reveals a token."""
    tokens = Tokens.parse("hunter2-hunter2-")
    assert tokens.access_of(b"Bearer hunter2-hunter2-").permission is Permission.WRITE
    assert b"hunter2" not in pickle.dumps(tokens)


def test_permission_does_not_depend_on_earlier_requests() -> None:
    tokens = Tokens.parse(TOKENS)
    asked = [WRITER, WRITER, READER, READER, b"Bearer s3cret-of-the-reade", WRITER[:-1] + b"R"]
    rights = [
        Permission.WRITE,
        Permission.WRITE,
        Permission.READ,
        Permission.READ,
        Permission.UNKNOWN,
        Permission.UNKNOWN,
    ]
    assert [tokens.access_of(one).permission for one in asked] == rights


def test_repr_of_tokens_contains_no_token() -> None:
    tokens = Tokens.parse(TOKENS)
    tokens.access_of(WRITER)
    assert "s3cret" not in repr(tokens)


def test_repeated_token_counts_once() -> None:
    assert len(Tokens.parse(f"{A}\n{A}\nread:{B}\nread:{B}\n")) == 2


@pytest.mark.parametrize(
    ("line", "access"),
    [
        (A, Access()),
        (f"{A} ops@example.com", Access(label="ops@example.com")),
        (f"{A}  prefix=team-a.", Access(prefix="team-a.")),
        (
            f"read:{A} ops \t prefix=gr\u00fc\u00dfe=",
            Access(permission=Permission.READ, label="ops", prefix="gr\u00fc\u00dfe="),
        ),
    ],
)
def test_line_of_a_token_may_have_a_label_and_a_prefix(line: str, access: Access) -> None:
    assert Tokens.parse(line).access_of(f"Bearer {A}".encode()) == access
