"""Files of secrets: readable by nobody else, and read again when told so."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sized
from pathlib import Path
from typing import Generic, TypeVar

from attrs import define, field
from twisted.logger import Logger

from ..errors import quoted

log = Logger(namespace="callme")

T = TypeVar("T", bound=Sized)

MAX_SIZE = 1024 * 1024
"""Bytes of such a file."""


class UnusableFile(Exception):
    """A file of secrets cannot be used; its text is one line that says why, and none of them."""

    def __init__(self, kind: str, path: Path, why: object) -> None:
        super().__init__(f"the {kind} file {quoted(str(path), 300)}: {why}")


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


@define(eq=False)
class SecretFile(Generic[T]):
    """A file of secrets, which may be read again.

    :param kind: what one of them is, for the log and for errors.
    :param parse: returns what a text holds; its ``ValueError`` must repeat none of it.
    :ivar content: what stood in the file when it last could be read.
    :raises UnusableFile: when it is made of a file that cannot be read, that others can
        use, or that holds something else.
    """

    _path: Path
    _kind: str
    _parse: Callable[[str], T]
    content: T = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.content = self._read()

    def reload(self) -> None:
        """Read the file again; where it cannot be used, the secrets stay as they are."""
        try:
            self.content = self._read()
        except UnusableFile as error:
            log.error("the {kind}s stay as they were: {error}", kind=self._kind, error=str(error))
        else:
            count = len(self.content)
            log.info("{count} {kind}s were read again", count=count, kind=self._kind)

    def _read(self) -> T:
        try:
            return self._parse(read_secret(self._path))
        except OSError as error:
            raise UnusableFile(self._kind, self._path, error.strerror) from None
        except ValueError as error:
            raise UnusableFile(self._kind, self._path, error) from None
