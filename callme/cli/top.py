"""The command ``top``: a live view of due tasks, calls in flight and failures, per host."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

import click
from attrs import frozen
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ..client import Client
from ..client.documents import Health, Host
from ..client.errors import CallmeError
from .commands import as_json
from .display import UNREADABLE, clean, json_of
from .exits import exit_codes, message_of
from .session import Session, needs_session

FAILED_WITHIN = timedelta(hours=1)
"""The age of a failed task, from its minute, up to which the view counts it."""
MAX_FAILED = 500
"""Maximum number of failed tasks that the view reads."""
MAX_HOSTS = 1000
"""Maximum number of hosts that the view reads."""
DEFAULT_SECONDS = 2.0
"""Interval between two views."""
_PIPE_WIDTH = 10_000
_DEFAULT_PORTS = {"http": 80, "https": 443}
_COLUMNS = ("scheduled", "due", "in flight", "failed", "in a row", "last success", "last failure")


@frozen(kw_only=True)
class HostLine:
    """A host, and the tasks to it that failed in the last hour.

    :ivar reasons: the number of failed tasks, by reason.
    """

    host: Host
    reasons: Counter[str]

    @property
    def failed(self) -> int:
        """Return the number of tasks that failed."""
        return self.reasons.total()

    @property
    def order(self) -> tuple[int, int, int, int, str]:
        """Return the key by which hosts are sorted: those that fail first, then the busy ones."""
        host = self.host
        return (
            -self.failed,
            -host["failures_in_a_row"],
            -host["in_flight"],
            -host["due"],
            host["host"],
        )


@frozen(kw_only=True)
class View:
    """The state of callme at one time.

    :ivar more_failed: whether more tasks failed than were read.
    """

    at: datetime
    health: Health
    hosts: Sequence[HostLine]
    more_failed: bool

    def to_json(self) -> dict[str, Any]:
        """Return the view for other programs."""
        return {
            "health": self.health,
            "hosts": [
                {**line.host, "failed_last_hour": line.failed, "reasons": dict(line.reasons)}
                for line in self.hosts
            ],
            "complete": not self.more_failed,
        }


def read_view(client: Client, now: datetime) -> View:
    """Return the state of callme.

    :raises CallmeError: if callme does not respond, or refuses a request.
    """
    since = (now - FAILED_WITHIN).isoformat(timespec="seconds")
    listed = client.list(state="failed", due_from=since, order="due", limit=MAX_FAILED + 1)
    failed = list(islice(listed, MAX_FAILED + 1))
    reasons: dict[str, Counter[str]] = {}
    for task in failed[:MAX_FAILED]:
        host = host_of(task["callback"])
        reasons.setdefault(host, Counter())[task["reason"] or UNREADABLE] += 1
    hosts = {host["host"]: host for host in islice(client.hosts(limit=MAX_HOSTS), MAX_HOSTS)}
    for name in reasons.keys() - hosts.keys():
        hosts[name] = _host_without_tasks(name)
    lines = [
        HostLine(host=host, reasons=reasons.get(name, Counter())) for name, host in hosts.items()
    ]
    return View(
        at=now,
        health=client.health(),
        hosts=sorted(lines, key=lambda line: line.order),
        more_failed=len(failed) > MAX_FAILED,
    )


def host_of(callback: str | None) -> str:
    """Return the host and the port of a callback, as callme names a host."""
    if callback is None:
        return UNREADABLE
    parts = urlsplit(callback)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{host}:{parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)}"


def _host_without_tasks(name: str) -> Host:
    return {
        "host": name,
        "scheduled": 0,
        "due": 0,
        "in_flight": 0,
        "last_success_at": None,
        "last_failure_at": None,
        "failures_in_a_row": 0,
        "max_concurrent": None,
        "max_per_minute": None,
        "paused": False,
    }


def render(view: View, rows: int) -> Group:
    """Return a view for the terminal.

    :param rows: the maximum number of hosts.
    """
    parts: list[RenderableType] = [_headline(view)]
    if view.hosts:
        parts += ["", _table(view, rows)]
    if len(view.hosts) > rows:
        parts.append(Text(f"and {len(view.hosts) - rows:,} more hosts", "dim"))
    return Group(*parts)


def _headline(view: View) -> Text:
    health = view.health
    is_ok = health["status"] == "ok"
    text = Text.assemble(
        f"callme at {view.at:%Y-%m-%d %H:%M:%S} UTC: ",
        (health["status"], "bold green" if is_ok else "bold red"),
    )
    if "calls_in_flight" in health:
        backlog = health["backlog"]
        text.append(f", {'?' if backlog is None else f'{backlog:,}'} due")
        text.append(f", {health['calls_in_flight']:,} in flight")
    failed = sum(line.failed for line in view.hosts)
    more = "+" if view.more_failed else ""
    text.append(f", {failed:,}{more} failed in the last hour", "bold red" if failed else "")
    if health.get("all_paused"):
        text.append(", all hosts are paused", "yellow")
    return text


def _table(view: View, rows: int) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("host", no_wrap=True, overflow="ellipsis")
    for name in _COLUMNS:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True, overflow="ellipsis")
    for line in view.hosts[:rows]:
        host = line.host
        fails = bool(line.failed or host["failures_in_a_row"])
        table.add_row(
            Text(clean(host["host"]), "red" if fails else ""),
            *(f"{number:,}" for number in _numbers(line)),
            _time(host["last_success_at"], view.at),
            _time(host["last_failure_at"], view.at),
            Text(_notes(line)),
        )
    return table


def _numbers(line: HostLine) -> tuple[int, ...]:
    host = line.host
    counts = (host["scheduled"], host["due"], host["in_flight"])
    return (*counts, line.failed, host["failures_in_a_row"])


def _time(rfc3339: str | None, now: datetime) -> str:
    """Return the time of day, or the day if it is another one."""
    if rfc3339 is None:
        return "-"
    return rfc3339[11:19] if rfc3339[:10] == f"{now:%Y-%m-%d}" else rfc3339[:10]


def _notes(line: HostLine) -> str:
    """Return the reasons of failures and the settings of a host."""
    host = line.host
    notes = [f"{count:,} {reason}" for reason, count in line.reasons.most_common()]
    if host["paused"] is True:
        notes.append("paused")
    elif host["paused"]:
        notes.append(f"paused until {str(host['paused'])[:16].replace('T', ' ')}")
    for name, unit in (("max_concurrent", "at once"), ("max_per_minute", "a minute")):
        limit = host.get(name)
        if limit is not None:
            notes.append(f"{limit} {unit}")
    return clean(", ".join(notes))


@click.command()
@click.option("--once", is_flag=True, help="Print one view and end, as in a pipe.")
@click.option(
    "--interval",
    type=click.FloatRange(0.5, 3600),
    default=DEFAULT_SECONDS,
    show_default=True,
    help="Seconds between two views.",
)
@click.option(
    "--rows", type=click.IntRange(1), default=20, show_default=True, help="Hosts to show."
)
@as_json
@needs_session
def top(session: Session, once: bool, interval: float, rows: int, as_json: bool) -> None:
    """Watch due tasks, calls in flight and failures, per host.

    \b
    callme top
    callme top --once
    callme top --json | jq '.hosts[] | select(.failures_in_a_row > 9) | .host'

    callme refreshes the view until Ctrl-C, and lists failing hosts first. The column "failed"
    counts the tasks of the last hour, and "in a row" the failed attempts since the last success.
    In a pipe and with --json, callme prints the view once.
    """
    console = Console(highlight=False)
    with exit_codes():
        view = read_view(session.client, _now())
    if as_json:
        click.echo(json_of(view.to_json()))
    elif once or not (console.is_terminal and sys.stdout.isatty()):
        print_view(console, render(view, rows))
    else:
        watch(
            view,
            lambda: read_view(session.client, _now()),
            console,
            rows=rows,
            pause=lambda: time.sleep(interval),
        )


def print_view(console: Console, view: RenderableType) -> None:
    """Print a view; in a pipe it has all its columns, however wide, and no padding at the end."""
    if console.is_terminal:
        console.print(view)
        return
    console.width = _PIPE_WIDTH
    with console.capture() as capture:
        console.print(view)
    for line in capture.get().splitlines():
        console.out(line.rstrip(), highlight=False)


def watch(
    view: View,
    read: Callable[[], View],
    console: Console,
    *,
    rows: int,
    pause: Callable[[], None],
) -> None:
    """Display a view, and a new one after each pause, until the user interrupts it.

    While callme does not respond, the last view stays, below the reason.
    """
    with Live(render(view, rows), console=console, screen=True, auto_refresh=False) as live:
        try:
            while True:
                pause()
                shown: RenderableType
                try:
                    view = read()
                    shown = render(view, rows)
                except CallmeError as error:
                    reason = Text(f"no new view: {message_of(error)}", "bold red")
                    shown = Group(reason, render(view, rows))
                live.update(shown, refresh=True)
        except KeyboardInterrupt:
            return


def _now() -> datetime:
    return datetime.now(timezone.utc)


COMMANDS = (top,)
