"""Secret files: text files with one secret per line, readable by their owner and group only."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sized
from pathlib import Path
from typing import Generic, TypeVar

from attrs import define, field
from twisted.logger import Logger

from ..errors import quoted

log = Logger(namespace="callme")

S = TypeVar("S", bound=Sized)
T = TypeVar("T")

MAX_SIZE = 1024 * 1024
"""Maximum size of a secret file, in bytes."""


class UnusableFile(Exception):
    """The secret file cannot be used; the text is one line, and quotes no secret."""

    def __init__(self, kind: str, path: Path, reason: object) -> None:
        super().__init__(f"the {kind} file {quoted(str(path), 300)}: {reason}")


def iter_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield the number (from 1) and the stripped text of each line that is not empty.

    Lines that begin with ``#`` are comments, which are skipped.
    """
    for number, line in enumerate(text.split("\n"), start=1):
        entry = line.strip()
        if entry and not entry.startswith("#"):
            yield number, entry


def parse_lines(text: str, parse: Callable[[str], T]) -> list[T]:
    """Return the result of ``parse`` for each line of :func:`iter_lines`.

    :param parse: parses one line; its ``ValueError`` must not quote the line.
    :raises ValueError: when ``parse`` raises one; the text begins with the number of the line.
    """
    parsed = []
    for number, entry in iter_lines(text):
        try:
            parsed.append(parse(entry))
        except ValueError as error:
            raise ValueError(f"line {number} {error}") from None
    return parsed


def read_secret(path: Path) -> str:
    """Return the text of a file that only its owner, and possibly a group, can access.

    :raises OSError: when the file cannot be read.
    :raises ValueError: when it is not a regular file, is accessible to every user, is
        too large, or is not UTF-8.
    """
    # O_NONBLOCK prevents a wait for the writer of a named pipe.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise ValueError("it is not a regular file")
        if mode & stat.S_IRWXO:
            mode = stat.S_IMODE(mode)
            raise ValueError(
                f"its mode {mode:03o} gives access to every user: expected a mode such as 600"
            )
        data = os.read(descriptor, MAX_SIZE + 1)
    finally:
        os.close(descriptor)
    if len(data) > MAX_SIZE:
        raise ValueError(f"it is larger than {MAX_SIZE:,} bytes")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        # Python's message would quote a byte of the file.
        raise ValueError("it is not UTF-8") from None


@define(kw_only=True, eq=False)
class SecretFile(Generic[S]):
    """Secret file and its parsed content, which can be reloaded.

    :param kind: the singular noun for its secrets in log lines and errors.
    :param parse: parses the text of the file; its ``ValueError`` must not quote a secret.
    :ivar value: the parsed content of the last successful read.
    :raises UnusableFile: when the file cannot be read, is accessible to every user, or does
        not parse.
    """

    _path: Path
    _kind: str
    _parse: Callable[[str], S]
    value: S = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.value = self._read()

    def reload(self) -> None:
        """Read the file again; keep the current value if the file cannot be used."""
        try:
            self.value = self._read()
        except UnusableFile as error:
            log.error(
                "{kind}s not reloaded, the previous ones stay in use: {error}",
                kind=self._kind,
                error=str(error),
            )
        else:
            log.info("{kind}s reloaded: {count}", kind=self._kind, count=len(self.value))

    def _read(self) -> S:
        try:
            return self._parse(read_secret(self._path))
        except OSError as error:
            raise UnusableFile(self._kind, self._path, error.strerror) from None
        except ValueError as error:
            raise UnusableFile(self._kind, self._path, error) from None
