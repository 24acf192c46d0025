"""The command that backs up a SQLite file: ``python -m callme.backup FILE``.

A daemon may use the database during the copy. The copy is a consistent snapshot without free pages.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from attrs import define, field

from .store.interface import CannotOpen
from .store.postgresql.dsn import is_url
from .store.sqlite.copy import copy_database

_BAR_WIDTH = 30
_MEGABYTE = 1_000_000


@define
class Progress:
    """Progress bar, which is displayed only on a terminal."""

    _stream: TextIO
    _displayed_at: float = field(default=0.0, init=False)

    def display(self, done: int, total: int) -> None:
        """Display the bar, at most ten times a second.

        :param done: the number of bytes copied so far.
        :param total: the expected number of bytes.
        """
        is_done = done >= total
        if not self._stream.isatty():
            return
        if not is_done and time.monotonic() - self._displayed_at < 0.1:
            return
        self._displayed_at = time.monotonic()
        fraction = min(1.0, done / total) if total else 1.0
        bar = "#" * int(fraction * _BAR_WIDTH)
        sizes = f"{done / _MEGABYTE:,.1f} of {total / _MEGABYTE:,.1f} MB"
        self._stream.write(f"\r[{bar:<{_BAR_WIDTH}}] {fraction:4.0%}  {sizes} ")
        self._stream.flush()

    def end(self) -> None:
        """Begin a new line after the bar."""
        if self._displayed_at:
            self._stream.write("\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; on an error, print one line and exit with status 1."""
    parser = argparse.ArgumentParser(
        prog="python -m callme.backup",
        description="Copy callme's SQLite file into the new file FILE, which only its owner can "
        "read. A daemon may use the database at the same time. The copy is synced and verified.",
    )
    parser.add_argument(
        "--database",
        "-d",
        default=os.environ.get("CALLME_DATABASE", "callme.sqlite"),
        help="the SQLite file to back up [default: CALLME_DATABASE, else callme.sqlite]",
    )
    parser.add_argument("target", metavar="FILE")
    names = parser.parse_args(arguments)
    if is_url(names.database):
        raise SystemExit(
            "callme: only a SQLite file can be copied: back up PostgreSQL with pg_dump"
        )
    begun = time.monotonic()
    progress = Progress(sys.stderr)
    try:
        copied = copy_database(Path(names.database), Path(names.target), progress.display)
    except CannotOpen as error:
        raise SystemExit(f"callme: {error}") from None
    finally:
        progress.end()
    seconds = time.monotonic() - begun
    size = copied.size / _MEGABYTE
    print(f"{copied.path}: {copied.tasks:,} tasks, {size:,.1f} MB, verified, {seconds:.1f} s")


if __name__ == "__main__":
    main()
