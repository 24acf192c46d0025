"""Tokens and signing secrets, and the files that contain them."""

from __future__ import annotations

import base64
from pathlib import Path

from callme.server.auth import Gate
from callme.tap import load_tokens

TOKENS = """
# who may do what
s3cret-of-the-writer
  read:s3cret-of-the-reader  \r
"""
WRITES, READS = b"s3cret-of-the-writer", b"s3cret-of-the-reader"
WRITER, READER = b"Bearer s3cret-of-the-writer", b"bearer s3cret-of-the-reader"


def write_token_file(directory: Path) -> Path:
    path = directory / "tokens"
    path.write_text("token-of-the-tests\n")
    path.chmod(0o600)
    return path


def gate_for(directory: Path, text: str) -> Gate:
    """Return the gate that a token file with some text makes."""
    path = directory / "tokens"
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)
    return Gate(file=load_tokens(path))


def webhook_secret(letter: str, size: int = 32) -> str:
    return "whsec_" + base64.b64encode(letter.encode() * size).decode()
