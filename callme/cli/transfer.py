"""The commands that import tasks from a file and export them."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TextIO, cast, get_type_hints

import click
from rich.console import Console
from rich.progress import Progress

from ..client import Client
from ..client.documents import BatchResult, Filters, Parameters
from .display import clean, json_of
from .exits import FAILED, exit_codes
from .filters import STATES
from .rows import Row, batches, csv_rows, ndjson_rows
from .session import Session, needs_session

DEFINITION = ("task_name", "trigger_at", "callback", *get_type_hints(Parameters))
MAX_SHOWN_ERRORS = 10


@click.command("import")
@click.argument("file", type=click.File("r", encoding="utf-8"))
@click.option(
    "--format",
    "kind",
    type=click.Choice(["ndjson", "csv"]),
    help="Format of FILE; its suffix by default.",
)
@click.option("--errors", type=click.Path(path_type=Path), help="File for the refused tasks.")
@click.option("--dry-run", is_flag=True, help="Check all tasks, and create none.")
@needs_session
def import_(
    session: Session, file: TextIO, kind: str | None, errors: Path | None, dry_run: bool
) -> None:
    """Register all tasks of FILE: NDJSON or CSV.

    FILE may be - for the standard input. NDJSON has one object per line, with the parameters of
    the API. The first row of CSV names the parameters; columns such as header.Accept and
    label.customer are allowed.

    The exit code is 1 if callme refused a task. If the tasks have fixed times, you can repeat the
    import after an interruption: existing tasks stay as they are.

    \b
    callme import tasks.ndjson --errors refused.ndjson
    """
    is_csv = kind == "csv" or (kind is None and file.name.lower().endswith(".csv"))
    counts = {"created": 0, "unchanged": 0, "refused": 0}
    with exit_codes(), errors.open("w", encoding="utf-8") if errors else nullcontext() as output:
        rows = csv_rows(file) if is_csv else ndjson_rows(file)
        results = _tracked(_results(session.client, rows, dry_run), file)
        warned = 0
        for row, result in results:
            status, detail = result["status"], result.get("detail", "")
            outcome = {201: "created", 200: "unchanged"}.get(status, "refused")
            counts[outcome] += 1
            for warning in result.get("warnings", ()):
                warned += 1
                if warned <= MAX_SHOWN_ERRORS:
                    session.warn(f"line {row.number}: warning: {clean(warning['detail'])}")
            if outcome == "refused" and output:
                refused = {"line": row.number, "status": status, "detail": detail}
                output.write(json_of({**refused, "task": row.task}) + "\n")
            elif outcome == "refused" and counts[outcome] <= MAX_SHOWN_ERRORS:
                session.warn(f"line {row.number}: {clean(detail)}")
    click.echo(", ".join(f"{count} {name}" for name, count in counts.items()))
    if counts["refused"]:
        sys.exit(FAILED)


def _results(
    client: Client, rows: Iterable[Row], dry_run: bool
) -> Iterator[tuple[Row, BatchResult]]:
    """Return each row with the result of its own ``PUT``."""
    for group in batches(rows):
        tasks = [row.task for row in group if row.task is not None]
        results = iter(client.batch(tasks, dry_run=dry_run) if tasks else [])
        for row in group:
            if row.task is None:
                yield row, {"status": 400, "detail": row.error}
            else:
                yield row, next(results)


def _tracked(
    results: Iterator[tuple[Row, BatchResult]], file: TextIO
) -> Iterator[tuple[Row, BatchResult]]:
    """Return the results, with a progress bar on the standard error if it is a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield from results
        return
    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task(f"import {clean(file.name)}", total=None)
        for result in results:
            progress.advance(bar)
            yield result


@click.command()
@click.argument("name", required=False)
@click.option("--state", type=STATES, default="scheduled", show_default=True)
@needs_session
def export(session: Session, name: str | None, state: str) -> None:
    """Print the definitions of tasks as NDJSON.

    `callme import` reads this output. callme never discloses secret headers: their value is ***.
    Set these headers before you import the tasks. A line on the standard error names each task
    that has such a header.
    """
    filters = cast("Filters", {"state": state, "limit": 1000})
    with exit_codes():
        for listed in session.client.list(name, **filters):
            task = cast("dict[str, Any]", session.client.get(listed["task"]))
            if "***" in task["headers"].values():
                session.warn(f"warning: {clean(task['task'])}: a header is ***")
            click.echo(json_of({key: task[key] for key in DEFINITION if key in task}))


COMMANDS = (import_, export)
