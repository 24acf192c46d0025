"""Tokens and signing secrets, and the files that contain them."""

from __future__ import annotations

import base64
from pathlib import Path

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


def webhook_secret(letter: str, size: int = 32) -> str:
    return "whsec_" + base64.b64encode(letter.encode() * size).decode()
