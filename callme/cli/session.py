"""The client and the output that the commands of one run share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import cached_property
from typing import TypeVar

import click
from rich.console import Console
from rich.text import Text

from ..client import Client
from ..client.documents import Deleted, FieldError, Rescheduled, Skipped
from .display import clean, json_of
from .exits import exit_codes
from .settings import read_settings

T = TypeVar("T")


class Session:
    """The client, which is made when a command needs it, and the output.

    :param url: the address of the command line.
    """

    def __init__(self, url: str | None) -> None:
        self._url = url
        self._open = ExitStack()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @cached_property
    def client(self) -> Client:
        """Return the client."""
        with exit_codes():
            settings = read_settings(self._url)
            return self._open.enter_context(Client(settings.url, settings.token))

    def output(self, value: T, to_text: Callable[[T], Text], as_json: bool) -> None:
        """Print a value as JSON or as a text: coloured on a terminal, never wrapped."""
        if as_json:
            click.echo(json_of(value))
        else:
            Console(highlight=False).print(to_text(value), soft_wrap=True)

    def warn(self, text: str) -> None:
        """Print a line to the standard error."""
        click.echo(text, err=True)

    def report_moved(self, result: Rescheduled) -> None:
        """Print the keys of moved tasks, and warnings."""
        self.report_warnings(result.get("warnings", ()))
        for moved in result["rescheduled"]:
            click.echo(f"{moved['from']} {moved['to']}")
        self._report_skipped(result["skipped"])

    def report_deleted(self, result: Deleted) -> None:
        """Print the number of deleted tasks, and warnings."""
        click.echo(result["deleted"])
        self._report_skipped(result["skipped"])

    def report_warnings(self, warnings: Iterable[FieldError]) -> None:
        """Print the warnings of a response."""
        for warning in warnings:
            self.warn(f"warning: {clean(warning['detail'])}")

    def _report_skipped(self, tasks: Iterable[Skipped]) -> None:
        for task in tasks:
            self.warn(f"skipped: {clean(task['task'])}: {clean(task['reason'])}")


needs_session = click.make_pass_decorator(Session)
