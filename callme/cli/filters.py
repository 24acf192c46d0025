"""Commands on all tasks that match filters, and the options for these."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any, TypeVar, cast

import click

from ..client.documents import TaskFilters
from .exits import exit_codes
from .session import Session, needs_session

F = TypeVar("F", bound=Callable[..., Any])
# No key of a label contains either separator.
_LABEL = re.compile(r"([^:=]+)[:=](.*)", re.DOTALL)
STATES = click.Choice(["scheduled", "running", "succeeded", "failed"])
_STATE = click.option("--state", type=STATES, help="Only tasks in this state.")


def label_of(text: str) -> tuple[str, str]:
    """Return the key and the value of a label, written ``KEY:VALUE`` or ``KEY=VALUE``."""
    match = _LABEL.fullmatch(text)
    if match is None:
        raise click.BadParameter(f"{text!r} is not accepted: expected KEY:VALUE")
    return match[1], match[2]


_FILTERS = (
    click.option("--reason", help="Only tasks that failed for this reason, such as timeout."),
    click.option("--host", metavar="HOST:PORT", help="Only tasks that call this host."),
    click.option("--prefix", help="Only tasks whose name begins with this."),
    click.option(
        "--label",
        metavar="KEY:VALUE",
        type=label_of,
        multiple=True,
        help="Only tasks with this label. You can repeat the option.",
    ),
    click.option("--due-from", metavar="WHEN", help="Only tasks due at this time or later."),
    click.option("--due-before", metavar="WHEN", help="Only tasks due before this time."),
)
spread_option = click.option(
    "--spread",
    type=click.IntRange(1),
    metavar="MINUTES",
    help="Distribute the calls over this time.",
)
yes_option = click.option("--yes", is_flag=True, help="Do not ask for confirmation.")


def filter_options(command: F) -> F:
    """Add the options that filter tasks by anything but their state."""
    for option in reversed(_FILTERS):
        command = option(command)
    return command


def state_and_filter_options(command: F) -> F:
    """Add the options that filter tasks."""
    return _STATE(filter_options(command))


def filters_of(options: dict[str, Any]) -> dict[str, Any]:
    """Return the filters, among them those of lists only, that options give."""
    chosen = {name: value for name, value in options.items() if value}
    if "label" in chosen:
        chosen["label"] = [f"{key}:{value}" for key, value in chosen["label"]]
    return chosen


def move_all(session: Session, at: str | None, *, yes: bool, **options: Any) -> None:
    """Move the tasks that match filters, after a question on a terminal; report each."""
    with exit_codes():
        if _asks(yes):
            preview = session.client.reschedule_all(at, dry_run=True, **options)
            _confirm("Move", len(preview["rescheduled"]))
        result = session.client.reschedule_all(at, **options)
    session.report_moved(result)


def delete_all(session: Session, filters: dict[str, Any], *, yes: bool) -> None:
    """Delete the tasks that match filters, after a question on a terminal; report how many."""
    chosen = cast("TaskFilters", filters)
    with exit_codes():
        if _asks(yes):
            _confirm("Delete", session.client.delete_all(dry_run=True, **chosen)["deleted"])
        result = session.client.delete_all(**chosen)
    session.report_deleted(result)


def _asks(yes: bool) -> bool:
    return not yes and sys.stdin.isatty()


def _confirm(verb: str, count: int) -> None:
    tasks = "1 task" if count == 1 else f"{count:,} tasks"
    click.confirm(f"{verb} {tasks}?", abort=True, err=True)


@click.command()
@click.argument("when", required=False)
@click.option("--failed", is_flag=True, help="Select all failed tasks; filters narrow this.")
@filter_options
@spread_option
@yes_option
@needs_session
def retry(
    session: Session,
    /,
    when: str | None,
    failed: bool,
    spread: int | None,
    yes: bool,
    **options: Any,
) -> None:
    """Call failed tasks again: all, or those that match filters.

    \b
    callme retry --failed --host api.example.com:443 --spread 30
    callme retry --label customer:42 +1h

    The default of WHEN is the next minute. On a terminal, the command first says how many tasks
    there are, and asks for confirmation. Prints the old and the new KEY of each task.
    """
    filters = filters_of(options)
    if not failed and not filters:
        raise click.UsageError("expected --failed, or a filter such as --host")
    move_all(session, when, yes=yes, spread=spread, **{"state": "failed", **filters})
