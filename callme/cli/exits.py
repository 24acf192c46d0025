"""Exit codes of the command, and the errors that cause them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click
from click.exceptions import Exit

from ..client.errors import (
    CallmeError,
    Conflict,
    InvalidRequest,
    NotFound,
    ProblemError,
    Unauthorized,
    WaitTimeout,
)
from .display import clean
from .settings import SettingsError

FAILED = 1
"""The task failed, or some tasks of an import were refused."""
USAGE = 2
NOT_FOUND, CONFLICT, INVALID, UNAUTHORIZED, UNAVAILABLE, TIMED_OUT = 3, 4, 5, 6, 7, 8
_CODES: dict[type[CallmeError], int] = {
    NotFound: NOT_FOUND,
    Conflict: CONFLICT,
    InvalidRequest: INVALID,
    Unauthorized: UNAUTHORIZED,
    WaitTimeout: TIMED_OUT,
}


@contextmanager
def exit_codes() -> Iterator[None]:
    """Turn the errors of the client into messages and exit codes."""
    try:
        yield
    except CallmeError as error:
        click.echo(f"callme: {message_of(error)}", err=True)
        raise Exit(_CODES.get(type(error), UNAVAILABLE)) from error
    except (SettingsError, ValueError) as error:
        click.echo(f"callme: {clean(str(error))}", err=True)
        raise Exit(USAGE) from error


def message_of(error: CallmeError) -> str:
    """Return the message for an error: the detail, and a line for each invalid value."""
    if not isinstance(error, ProblemError):
        return clean(str(error))
    lines = [f"{one['pointer'].removeprefix('/')}: {one['detail']}" for one in error.errors]
    text = "\n  ".join(map(clean, lines)) or clean(error.detail or error.title)
    return f"{error.status} {clean(error.title)}:\n  {text}" if len(lines) > 1 else text
