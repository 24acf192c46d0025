"""The command that moves all tasks to another store: ``python -m callme.move FROM TO``.

``FROM`` and ``TO`` are each the path of a SQLite file or ``postgresql://user@host/database``. No
daemon may use either during the move. An interrupted move resumes when the command runs again.
"""

from __future__ import annotations

import argparse
import sqlite3
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import zip_longest
from pathlib import Path
from typing import TextIO

from attrs import define, field

from .store.codec import Row
from .store.interface import CannotOpen
from .store.postgresql.dsn import is_url
from .store.sqlite.transfer import SqliteEndpoint
from .store.transfer import OTHER_TABLES, Counts, TransferEndpoint

CHUNK_LIMIT = 10_000
"""Maximum number of tasks copied in one transaction."""
_EXAMINED_AT_ONCE = 100
STATES = ("scheduled", "running", "succeeded", "failed")
_BAR_WIDTH = 30


class CannotMove(Exception):
    """The move is not possible; the text is the reason, in one line."""


def open_endpoint(database: str, *, must_exist: bool) -> TransferEndpoint:
    """Open the source or the target of a move.

    :raises CannotOpen: when it cannot be used.
    """
    if not is_url(database):
        return SqliteEndpoint(Path(database), must_exist)
    try:
        # psycopg is an optional dependency for PostgreSQL.
        from .store.postgresql.transfer import PostgresqlEndpoint  # noqa: PLC0415
    except ImportError as error:
        raise CannotOpen(
            f"postgresql://... needs psycopg ({error}): pip install 'callme-daemon[postgresql]'"
        ) from error
    return PostgresqlEndpoint(database)


@define
class Progress:
    """Progress bar, which is displayed only on a terminal."""

    _total: int
    _stream: TextIO
    _done: int = field(default=0, init=False)
    _resumed_at: int = field(default=0, init=False)
    _started: float = field(factory=time.monotonic, init=False)

    def resume(self, done: int) -> None:
        """Set the number of tasks that an earlier run copied."""
        self._done = self._resumed_at = done

    def add(self, count: int) -> None:
        """Add newly copied tasks, and display the bar."""
        self._done += count
        if not self._stream.isatty():
            return
        fraction = self._done / self._total if self._total else 1.0
        bar = "#" * int(fraction * _BAR_WIDTH)
        rate = (self._done - self._resumed_at) / max(0.001, time.monotonic() - self._started)
        end = "\n" if self._done >= self._total else ""
        counts = f"{self._done:,} of {self._total:,}, {rate:,.0f}/s"
        self._stream.write(f"\r[{bar:<{_BAR_WIDTH}}] {fraction:4.0%}  {counts} {end}")
        self._stream.flush()


def move(
    source: TransferEndpoint, target: TransferEndpoint, stream: TextIO
) -> tuple[Counts, Counts]:
    """Copy all tasks that the target does not have yet, and the rows of the other tables.

    :return: the final counts of the source and the target.

    :raises CannotMove: when the target contains tasks that the source does not.
    :raises CannotOpen: when a daemon has started to use one of them during the move.
    """
    counts = source.count_rows()
    done = _copied_before(source, target)
    progress = Progress(counts.tasks, stream)
    progress.resume(target.count_to(done))
    while (to := source.next_chunk_end(done, CHUNK_LIMIT)) is not None:
        try:
            target.write(source.tasks(done, to), source.attempts(done, to))
        except Exception as error:
            _explain(source, done, to, error)
            raise
        progress.add(source.count_to(to) - source.count_to(done))
        done = to
    for name, columns in OTHER_TABLES.items():
        try:
            target.replace(name, columns, source.rows_of(name, columns))
        except Exception as error:
            text = " ".join(str(error).split())
            raise CannotMove(f"the rows of {name} cannot be copied: {text}") from error
    target.finalize()
    # A daemon that was suspended, or disconnected from its database, may have resumed.
    for endpoint in (source, target):
        endpoint.ensure_no_daemon()
    return counts, target.count_rows()


def _explain(source: TransferEndpoint, after: int, to: int, error: Exception) -> None:
    """Explain an error by a damaged task, which the target may be unable to store.

    :param after: the task_id before the failed chunk.
    :param to: the last task_id of the chunk.
    :raises CannotMove: if the chunk contains a damaged task.
    """
    while after < to:
        examined = source.find_damaged(after, _EXAMINED_AT_ONCE)
        for task in examined.damaged:
            names = ", ".join(task.columns)
            reason = " ".join(str(error).split())
            raise CannotMove(
                f"the task {task.key} of {source.name} has damaged values ({names}) and cannot be "
                f"copied: {reason}. Start callme on {source.name}, and DELETE the task"
            ) from error
        if examined.last_row is None:
            return
        after = examined.last_row


def _copied_before(source: TransferEndpoint, target: TransferEndpoint) -> int:
    """Return the task_id of the last task that an earlier run copied; 0 without an earlier run."""
    last = target.last()
    tasks = source.tasks(0, last), target.tasks(0, last)
    attempts = source.attempts(0, last), target.attempts(0, last)
    # Every row is compared, because a daemon may have changed either database since.
    if last and not (_same(*tasks) and _same(*attempts)):
        raise CannotMove(
            f"{target.name} contains other tasks than {source.name}, or other versions of "
            "them: it must be empty"
        )
    return last


def _same(source: Iterator[Row], target: Iterator[Row]) -> bool:
    """Return whether two databases contain the same rows, except for NUL in text."""
    pairs = zip_longest(source, target, fillvalue=())
    return all(row == copy or _without_nul(row) == _without_nul(copy) for row, copy in pairs)


def _without_nul(row: Row) -> Row:
    """Return a row with NUL replaced, which PostgreSQL's TEXT cannot contain."""
    return tuple(
        value.replace("\0", "\N{REPLACEMENT CHARACTER}") if isinstance(value, str) else value
        for value in row
    )


def table(source: Counts, target: Counts) -> str:
    """Return the counts of both databases as a table for a terminal."""
    lines = [f"{'':<12}{'from':>14}{'to':>14}"]
    for state in STATES:
        lines.append(
            f"{state:<12}{source.states.get(state, 0):>14,}{target.states.get(state, 0):>14,}"
        )
    lines.append(f"{'attempts':<12}{source.attempts:>14,}{target.attempts:>14,}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; on an error, print one line and exit with status 1."""
    parser = argparse.ArgumentParser(
        prog="python -m callme.move",
        description="Move all tasks from one store to another. Each is the path of a SQLite "
        "file or postgresql://user@host/database. No daemon may run on either during the move.",
    )
    parser.add_argument("source", metavar="FROM")
    parser.add_argument("target", metavar="TO")
    names = parser.parse_args(arguments)
    if names.source == names.target:
        raise SystemExit("callme: FROM and TO are the same")
    try:
        with (
            closing(open_endpoint(names.source, must_exist=True)) as source,
            closing(open_endpoint(names.target, must_exist=False)) as target,
        ):
            counts = move(source, target, sys.stderr)
    except (CannotOpen, CannotMove, sqlite3.Error) as error:
        raise SystemExit(f"callme: {error}") from None
    print(table(*counts))
    if counts[0] != counts[1]:
        raise SystemExit("callme: FROM and TO contain different tasks: do not use TO")


if __name__ == "__main__":
    main()
