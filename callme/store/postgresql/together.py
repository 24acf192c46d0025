"""The writes of one transaction: those of a kind in one statement, sent before any is answered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

from .claims import Claiming
from .cursor import Cursor
from .puts import PutTask, send_puts
from .records import Record, send_records


def run_all(cursor: Cursor, operations: Sequence[Any]) -> list[Any]:
    """Run operations in order, those of one kind that follow each other in one statement.

    What can be is sent without waiting for the answers, which are looked at in the end.
    """
    results: list[Any] = []
    sent: list[Callable[[], Sequence[Any]]] = []
    for kind, group in groupby(operations, key=type):
        if kind is Record:
            sent.append(send_records(cursor, list(group)))
        elif kind is PutTask:
            sent.append(send_puts(cursor, list(group)))
        elif kind is Claiming:
            sent += [operation.send(cursor) for operation in group]
        else:
            results += _received(sent)
            results += [operation(cursor) for operation in group]
    return results + _received(sent)


def _received(sent: list[Callable[[], Sequence[Any]]]) -> list[Any]:
    received = [result for receive in sent for result in receive()]
    sent.clear()
    return received
