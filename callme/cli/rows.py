"""Tasks in files: NDJSON and CSV, read row by row."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from attrs import frozen

MAX_BATCH_TASKS = 1000
MAX_BATCH_BYTES = 8 * 1024 * 1024
_JSON_COLUMNS = frozenset(
    {
        "retry",
        "retry_delay",
        "max_delay",
        "timeout",
        "expected_http_status",
        "no_retry_http_status",
        "headers",
        "labels",
    }
)


def json_error(error: ValueError) -> str:
    """Return the error of a text that is not JSON; its place counts from 1, as in editors."""
    if not isinstance(error, json.JSONDecodeError):
        return str(error)
    line = f"line {error.lineno}, " if "\n" in error.doc.strip() else ""
    return f"{error.msg} at {line}column {error.colno}"


@frozen(kw_only=True)
class Row:
    """Task in a file, or the error of an invalid row.

    :ivar size: the length of its text, for the size of a batch.
    """

    number: int
    size: int
    task: dict[str, Any] | None = None
    error: str = ""


def ndjson_rows(lines: Iterable[str]) -> Iterator[Row]:
    """Return the tasks of NDJSON: one object per line; empty lines are skipped."""
    for number, line in enumerate(lines, 1):
        text = line.removeprefix("\ufeff").strip() if number == 1 else line.strip()
        if not text:
            continue
        try:
            task = json.loads(line.removeprefix("\ufeff"))
        except ValueError as error:
            yield Row(number=number, size=0, error=f"it is not JSON: {json_error(error)}")
            continue
        if isinstance(task, dict):
            yield Row(number=number, size=len(text), task=task)
        else:
            yield Row(number=number, size=0, error="it is not an object")


def csv_rows(lines: Iterable[str]) -> Iterator[Row]:
    """Return the tasks of CSV, whose first row names the parameters; empty cells are omitted.

    Columns named ``header.NAME`` and ``label.NAME`` make up the headers and labels.

    :raises ValueError: if the file has no first row, or one without ``task_name``.
    """
    reader = csv.DictReader(lines)
    reader.fieldnames = _names_of(reader.fieldnames or ())
    for cells in reader:
        number = reader.line_num
        if None in cells:
            yield Row(number=number, size=0, error="it has more cells than the first row")
        else:
            size = sum(len(cell or "") for cell in cells.values())
            yield Row(number=number, size=size, task=_task_of(cells))


def _names_of(first_row: Sequence[str]) -> list[str]:
    names = [name.removeprefix("\ufeff").strip() for name in first_row]
    if "task_name" not in names:
        raise ValueError("the first row has no task_name: expected the names of the parameters")
    return names


def _task_of(cells: dict[str, str]) -> dict[str, Any]:
    task: dict[str, Any] = {}
    for name, cell in cells.items():
        if not cell:
            continue
        group, dot, rest = name.partition(".")
        if dot and group in ("header", "label"):
            task.setdefault(f"{group}s", {})[rest] = cell
        else:
            task[name] = _json_or_text(cell) if name in _JSON_COLUMNS else cell
    return task


def _json_or_text(cell: str) -> Any:
    try:
        return json.loads(cell)
    except ValueError:
        return cell


def batches(rows: Iterable[Row]) -> Iterator[Sequence[Row]]:
    """Return the rows in groups that fit one request each."""
    group: list[Row] = []
    size = 0
    for row in rows:
        if group and (len(group) == MAX_BATCH_TASKS or size + row.size > MAX_BATCH_BYTES):
            yield group
            group, size = [], 0
        group.append(row)
        size += row.size
    if group:
        yield group
