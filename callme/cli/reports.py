"""Output of the commands that change tasks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import click

from ..client.documents import Deleted, FieldError, Rescheduled
from .display import clean
from .session import Session


def report_moved(session: Session, result: Rescheduled) -> None:
    """Print the keys of moved tasks, and warnings."""
    report_warnings(session, result.get("warnings", ()))
    for moved in result["rescheduled"]:
        click.echo(f"{moved['from']} {moved['to']}")
    _report_skipped(session, result["skipped"])


def report_deleted(session: Session, result: Deleted) -> None:
    """Print the number of deleted tasks, and warnings."""
    click.echo(result["deleted"])
    _report_skipped(session, result["skipped"])


def report_warnings(session: Session, warnings: Iterable[FieldError]) -> None:
    """Print the warnings of a response."""
    for warning in warnings:
        session.warn(f"warning: {clean(warning['detail'])}")


def _report_skipped(session: Session, skipped: Iterable[Any]) -> None:
    for one in skipped:
        session.warn(f"skipped: {clean(one['task'])}: {clean(one['reason'])}")
