"""The client and the console that the commands of one run share."""

from __future__ import annotations

from contextlib import ExitStack
from functools import cached_property

import click
from rich.console import Console
from rich.text import Text

from ..client import Client
from .exits import exit_codes
from .settings import read_settings


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

    def display(self, text: Text) -> None:
        """Print a text: coloured on a terminal, never wrapped."""
        Console(highlight=False).print(text, soft_wrap=True)

    def warn(self, text: str) -> None:
        """Print a line to the standard error."""
        click.echo(text, err=True)


needs_session = click.make_pass_decorator(Session)
