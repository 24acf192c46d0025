"""Move all tasks from one store to another: ``python -m callme.move FROM TO``.

Each is a SQLite file's path or ``postgresql://user@host/database``. No daemon may use
either meanwhile. What was interrupted goes on where it stopped when it is run again.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TextIO

from attrs import define, field

from .store.codec import Row
from .store.interface import CannotOpen
from .store.postgresql.server import is_url
from .store.sqlite.transfer import SqliteEndpoint
from .store.transfer import Counts, TransferEndpoint

CHUNK = 10_000
"""How many tasks go in one transaction."""
STATES = ("scheduled", "running", "succeeded", "failed")
_WIDTH = 30


class CannotMove(Exception):
    """The move cannot be made; its text is one line that says why."""


def open_side(database: str, must_exist: bool) -> TransferEndpoint:
    """Open one side.

    :raises CannotOpen: when it cannot be used.
    """
    if not is_url(database):
        return SqliteEndpoint(Path(database), must_exist)
    try:
        # Only who asks for PostgreSQL needs psycopg.
        from .store.postgresql.transfer import PostgresqlEndpoint  # noqa: PLC0415
    except ImportError as error:
        raise CannotOpen(
            f"postgresql://... needs psycopg ({error}): pip install 'callme[postgresql]'"
        ) from error
    return PostgresqlEndpoint(database)


@define
class Progress:
    """A bar on a terminal; nothing anywhere else."""

    _whole: int
    _stream: TextIO
    _done: int = field(default=0, init=False)
    _shown: int = field(default=0, init=False)
    _began: float = field(factory=time.monotonic, init=False)

    def begin(self, done: int) -> None:
        """Say how many were done before."""
        self._done = self._shown = done

    def add(self, count: int) -> None:
        """Say that so many more are done."""
        self._done += count
        if not self._stream.isatty():
            return
        part = self._done / self._whole if self._whole else 1.0
        bar = "#" * int(part * _WIDTH)
        rate = (self._done - self._shown) / max(0.001, time.monotonic() - self._began)
        end = "\n" if self._done >= self._whole else ""
        said = f"{self._done:,} of {self._whole:,}, {rate:,.0f}/s"
        self._stream.write(f"\r[{bar:<{_WIDTH}}] {part:4.0%}  {said} {end}")
        self._stream.flush()


def move(
    source: TransferEndpoint, target: TransferEndpoint, stream: TextIO
) -> tuple[Counts, Counts]:
    """Copy what the target does not have yet; return what each side holds then.

    :raises CannotMove: when the target holds what the source does not.
    :raises CannotOpen: when a daemon came to life on one of them meanwhile.
    """
    counts = source.counts()
    done = _begun(source, target)
    progress = Progress(counts.tasks, stream)
    progress.begin(target.count_to(done))
    while (to := source.boundary(done, CHUNK)) is not None:
        target.write(source.tasks(done, to), source.attempts(done, to))
        progress.add(source.count_to(to) - source.count_to(done))
        done = to
    target.finish()
    # One that was frozen or cut off may be back.
    for side in (source, target):
        side.refuse_daemons()
    return counts, target.counts()


def _begun(source: TransferEndpoint, target: TransferEndpoint) -> int:
    """Return the number up to which an earlier run came; 0 where there was none."""
    last = target.last()
    tasks = source.tasks(0, last), target.tasks(0, last)
    attempts = source.attempts(0, last), target.attempts(0, last)
    # Each row, as a daemon may have used either side since.
    if last and not (_same(*tasks) and _same(*attempts)):
        raise CannotMove(
            f"{target.shown} holds other tasks than {source.shown}, or as they once were: "
            "it must be empty"
        )
    return last


def _same(ours: Iterator[Row], theirs: Iterator[Row]) -> bool:
    """Whether two sides hold the same rows, as far as both can."""
    pairs = zip_longest(ours, theirs, fillvalue=())
    return all(one == other or _kept(one) == _kept(other) for one, other in pairs)


def _kept(row: Row) -> Row:
    """Return a row as PostgreSQL keeps it: with no NUL in what it has as TEXT."""
    return tuple(
        value.replace("\0", "\N{REPLACEMENT CHARACTER}") if isinstance(value, str) else value
        for value in row
    )


def table(source: Counts, target: Counts) -> str:
    """Return what each side holds, for people."""
    lines = [f"{'':<12}{'from':>14}{'to':>14}"]
    for state in STATES:
        each = (source.states.get(state, 0), target.states.get(state, 0))
        lines.append(f"{state:<12}{each[0]:>14,}{each[1]:>14,}")
    lines.append(f"{'attempts':<12}{source.attempts:>14,}{target.attempts:>14,}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what the command line says; exit with status 1, and a line that says why, if it cannot."""
    parser = argparse.ArgumentParser(
        prog="python -m callme.move",
        description="Move all tasks from one store to another. Each is a SQLite file's path or "
        "postgresql://user@host/database; no daemon may use either meanwhile.",
    )
    parser.add_argument("source", metavar="FROM")
    parser.add_argument("target", metavar="TO")
    asked = parser.parse_args(arguments)
    if asked.source == asked.target:
        raise SystemExit("callme: FROM and TO are the same")
    try:
        source = open_side(asked.source, must_exist=True)
        try:
            target = open_side(asked.target, must_exist=False)
            try:
                counts = move(source, target, sys.stderr)
            finally:
                target.close()
        finally:
            source.close()
    except (CannotOpen, CannotMove) as error:
        raise SystemExit(f"callme: {error}") from None
    print(table(*counts))
    if counts[0] != counts[1]:
        raise SystemExit("callme: the two do not agree: TO is not to be used")


if __name__ == "__main__":
    main()
