"""Files of secrets: readable by nobody else, and read again when told so."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from .core.errors import shown

MAX_SIZE = 1024 * 1024
"""Bytes of such a file."""


class UnusableFile(Exception):
    """A file of secrets cannot be used; its text is one line that says why, and none of them."""

    def __init__(self, kind: str, path: Path, why: object) -> None:
        super().__init__(f"the {kind} file {shown(str(path), 300)}: {why}")


def read_secret(path: Path) -> str:
    """Read a file that only its owner, and perhaps a group, can use.

    :raises OSError: where it cannot be read.
    :raises ValueError: where it is no such file, or no text; the text says which.
    """
    # Not to wait for whoever writes to a pipe of that name.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise ValueError("it is no file")
        if mode & stat.S_IRWXO:
            mode = stat.S_IMODE(mode)
            raise ValueError(f"its mode is {mode:03o}: expected one that keeps others out: 600")
        data = os.read(descriptor, MAX_SIZE + 1)
    finally:
        os.close(descriptor)
    if len(data) > MAX_SIZE:
        raise ValueError(f"it is larger than {MAX_SIZE:,} bytes")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        # Not as Python tells it: that repeats a byte of the file.
        raise ValueError("it is not UTF-8") from None
