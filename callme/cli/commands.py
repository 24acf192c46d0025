"""The commands about single tasks and lists."""

from __future__ import annotations

import json
import sys
from itertools import islice
from typing import Any, cast

import click

from ..client.documents import Filters, Parameters
from .display import clean, forecast_text, json_of, line_of, story_of
from .exits import FAILED, exit_codes
from .filters import (
    delete_all,
    filters_of,
    label_of,
    move_all,
    retry,
    spread_option,
    state_and_filter_options,
    yes_option,
)
from .rows import json_error
from .session import Session, needs_session

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for other programs.")


def header_of(text: str) -> tuple[str, str]:
    """Return the name and the value of a header."""
    name, found, value = text.partition(":")
    if not found or not name:
        raise click.BadParameter(f"{text!r} is not accepted: expected NAME:VALUE")
    return name, value.strip()


def body_of(text: str) -> bytes:
    """Return the bytes of an option: its text, or the content of ``@FILE`` or ``@-``."""
    if not text.startswith("@"):
        return text.encode()
    if text == "@-":
        return sys.stdin.buffer.read()
    try:
        with open(text[1:], "rb") as file:
            return file.read()
    except OSError as error:
        raise ValueError(f"{text}: it cannot be read: {error.strerror}") from error


def status_of(text: str) -> int | str:
    """Return a status as a number; a class such as ``2xx`` is not changed."""
    return int(text) if text.isascii() and text.isdigit() else text


def payload_of(json_text: str | None, data: str | None) -> dict[str, Any]:
    """Return the payload of the options ``--json`` and ``--data``.

    :raises ValueError: if the JSON is not JSON, or both are given.
    """
    if json_text is not None and data is not None:
        raise ValueError("--json and --data exclude each other: expected one of them")
    if json_text is not None:
        return {"json": _json_of(body_of(json_text))}
    if data is None:
        return {}
    body = body_of(data)
    try:
        return {"data": body.decode()}
    except UnicodeDecodeError:
        return {"data": body}


def _json_of(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError as error:
        raise ValueError(f"--json: it is not JSON: {json_error(error)}") from error


@click.command()
@click.argument("name")
@click.argument("when")
@click.argument("url")
@click.option("--json", "json_text", metavar="JSON", help="JSON to send; @FILE or @- reads it.")
@click.option("--data", metavar="TEXT", help="Text or bytes to send; @FILE or @- reads them.")
@click.option("--method", "callback_method", help="Default: POST with a payload, or else GET.")
@click.option(
    "--header",
    "headers",
    metavar="NAME:VALUE",
    type=header_of,
    multiple=True,
    help="Header of the call. You can repeat the option.",
)
@click.option(
    "--label",
    "labels",
    metavar="KEY:VALUE",
    type=label_of,
    multiple=True,
    help="Label of the task. You can repeat the option.",
)
@click.option(
    "--expect",
    "expected_http_status",
    multiple=True,
    help="Status that counts as success, such as 2xx.",
)
@click.option("--retry", type=int, help="Attempts after the first one.")
@click.option("--retry-delay", type=int, multiple=True, help="Minutes between attempts.")
@click.option("--max-delay", type=int, help="Minutes after WHEN at which attempts cease.")
@click.option("--timeout", type=int, help="Seconds for each attempt.")
@click.option("--on-failure", metavar="URL", help="URL to notify if the task fails.")
@click.option("--on-success", metavar="URL", help="URL to notify if the task succeeds.")
@click.option("--replace", is_flag=True, help="Replace a scheduled task with the same key.")
@click.option("--dry-run", is_flag=True, help="Print what would happen, as JSON; change nothing.")
@needs_session
def put(session: Session, /, name: str, when: str, url: str, **options: Any) -> None:
    """Register a call: NAME, WHEN and URL. Prints the KEY of the task.

    \b
    callme put trial-end +6h https://example.com/run
    callme put report 2028-11-26T09:00[Europe/Berlin] https://example.com/ --json @report.json
    callme put ping +5m https://example.com/ --expect 2xx --retry 3 --retry-delay 1

    You can repeat the command safely if WHEN is a fixed time: an equal task stays as it is.
    """
    replace, dry_run = options.pop("replace"), options.pop("dry_run")
    with exit_codes():
        parameters = parameters_of(options)
        if dry_run:
            click.echo(json_of(session.client.preview(name, when, url, **parameters)))
            return
        task = session.client.put(name, when, url, replace=replace, **parameters)
    session.report_warnings(task.get("warnings", ()))
    click.echo(task["task"])


def parameters_of(options: dict[str, Any]) -> Parameters:
    """Return the parameters of the API that the options of ``put`` give."""
    given = payload_of(options.pop("json_text"), options.pop("data"))
    given |= {name: value for name, value in options.items() if value not in (None, ())}
    for name in {"headers", "labels"} & given.keys():
        given[name] = dict(given[name])
    if "expected_http_status" in given:
        given["expected_http_status"] = [status_of(one) for one in given["expected_http_status"]]
    if "retry_delay" in given:
        given["retry_delay"] = list(given["retry_delay"])
    return cast("Parameters", given)


@click.command()
@click.argument("key")
@as_json
@needs_session
def show(session: Session, key: str, as_json: bool) -> None:
    """Show a task and all its attempts."""
    with exit_codes():
        task = session.client.get(key)
    session.output(task, story_of, as_json)


@click.command()
@click.argument("name", required=False)
@state_and_filter_options
@click.option("--order", type=click.Choice(["name", "due"]), help="Order by name or by time.")
@click.option("--future-only", is_flag=True, help="Only tasks whose minute has not begun.")
@click.option("--limit", type=click.IntRange(1), help="The maximum number of tasks.")
@as_json
@needs_session
def ls(
    session: Session, /, name: str | None, limit: int | None, as_json: bool, **given: Any
) -> None:
    """List the tasks of NAME, or all tasks. With --json, each line is one object."""
    filters = cast("Filters", filters_of(given))
    if limit is not None:
        filters["limit"] = min(limit, 1000)
    with exit_codes():
        for task in islice(session.client.list(name, **filters), limit):
            session.output(task, line_of, as_json)


@click.command()
@click.argument("key")
@click.option("--timeout", type=float, help="Seconds after which the wait ends, with exit code 8.")
@as_json
@needs_session
def wait(session: Session, key: str, timeout: float | None, as_json: bool) -> None:
    """Wait until a task has ended. The exit code is 0 if it succeeded, and 1 if it failed."""
    with exit_codes():
        task = session.client.wait(key, timeout)
    session.output(task, story_of, as_json)
    if task["state"] == "failed":
        sys.exit(FAILED)


@click.command()
@click.argument("target", metavar="[KEY|NAME]", required=False)
@click.argument("when", required=False)
@click.option("--all", "all_states", is_flag=True, help="Move scheduled and succeeded tasks too.")
@state_and_filter_options
@spread_option
@yes_option
@needs_session
def reschedule(
    session: Session,
    /,
    target: str | None,
    when: str | None,
    all_states: bool,
    spread: int | None,
    yes: bool,
    **given: Any,
) -> None:
    """Move a task, all of a name, or those that match filters.

    \b
    callme reschedule report@1858838400 +1h
    callme reschedule +1h --host api.example.com:443 --spread 30

    The default of WHEN is the next minute. Prints the old and the new KEY of each moved task.
    """
    filters = filters_of(given)
    if filters:
        if when is not None:
            raise click.UsageError("expected a KEY or NAME, or filters, and not both")
        move_all(session, target, yes=yes, all_states=all_states, spread=spread, **filters)
        return
    if target is None or spread is not None:
        raise click.UsageError("expected a KEY, a NAME or a filter; --spread needs a filter")
    with exit_codes():
        result = session.client.reschedule(target, when, all_states=all_states)
    session.report_moved(result)


@click.command()
@click.argument("target", metavar="[KEY|NAME]", required=False)
@state_and_filter_options
@yes_option
@needs_session
def delete(session: Session, /, target: str | None, yes: bool, **given: Any) -> None:
    """Delete a task, all of a name, or those that match filters.

    Prints the number of deleted tasks.
    """
    filters = filters_of(given)
    if (target is None) == (not filters):
        raise click.UsageError("expected a KEY or NAME, or filters, and not both")
    if target is None:
        delete_all(session, filters, yes=yes)
        return
    if "@" not in target and not yes and sys.stdin.isatty():
        click.confirm(f"Delete all tasks with the name {clean(target)}?", abort=True, err=True)
    with exit_codes():
        result = session.client.delete(target)
    session.report_deleted(result)


@click.command()
@click.option("--hours", type=int, help="Number of hours: 24 by default.")
@as_json
@needs_session
def forecast(session: Session, hours: int | None, as_json: bool) -> None:
    """Show the calls of the next hours, and overloaded hosts."""
    with exit_codes():
        found = session.client.forecast(hours)
    session.output(found, forecast_text, as_json)


@click.command()
@click.argument("host", metavar="HOST:PORT|*")
@click.argument("when", required=False)
@needs_session
def pause(session: Session, host: str, when: str | None) -> None:
    """Pause the calls to a host, or to all hosts ('*').

    The pause ends at WHEN, or with `callme resume`.
    """
    with exit_codes():
        session.client.put_host(host, paused=when or True)


@click.command()
@click.argument("host", metavar="HOST:PORT|*")
@needs_session
def resume(session: Session, host: str) -> None:
    """End the pause of a host, or of all hosts ('*')."""
    with exit_codes():
        session.client.put_host(host, paused=False)


COMMANDS = (put, show, ls, wait, reschedule, retry, delete, pause, resume, forecast)
