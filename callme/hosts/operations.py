"""Operations and queries on the settings of hosts, and on the tasks that call each host."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from attrs import asdict, frozen

from ..store.codec import Columns
from ..store.database import Write
from ..store.interface import Cursor
from .settings import ALL_HOSTS, HostSettings, is_host

MAX_SETTINGS = 1_000
"""Maximum number of hosts with settings of their own."""

_COLUMNS = Columns(("host", "max_concurrent", "max_per_minute", "paused_at", "paused_until"))
_ALL = f"SELECT {_COLUMNS} FROM host_setting ORDER BY host"
_ONE = f"SELECT {_COLUMNS} FROM host_setting WHERE host = ? /* FOR UPDATE */"
_SETTINGS = "SELECT count(*) FROM host_setting"
_PUT = f"""
    INSERT INTO host_setting ({_COLUMNS}) VALUES ({_COLUMNS.placeholders()})
    ON CONFLICT (host) DO UPDATE SET
        max_concurrent = excluded.max_concurrent, max_per_minute = excluded.max_per_minute,
        paused_at = excluded.paused_at, paused_until = excluded.paused_until
"""
# The query steps from host to host along the index, so its cost does not depend on the number of
# tasks.
_EACH_HOST = """
    WITH RECURSIVE each_host (host) AS (
        SELECT min(host) FROM task WHERE state = 'scheduled' AND host >= ?
        UNION ALL
        SELECT (SELECT min(host) FROM task WHERE state = 'scheduled' AND task.host > each_host.host)
        FROM each_host WHERE each_host.host IS NOT NULL
    )
"""
_SCHEDULED_HOSTS = f"{_EACH_HOST} SELECT host FROM each_host WHERE host IS NOT NULL LIMIT ?"
_DUE_HOSTS = f"""
    {_EACH_HOST} SELECT host FROM each_host WHERE host IS NOT NULL AND EXISTS (
        SELECT 1 FROM task
        WHERE state = 'scheduled' AND task.host = each_host.host AND due_at <= ?
    )
"""
_RUNNING = "SELECT host, count(*) FROM task WHERE state = 'running' GROUP BY host"
_COUNT = "SELECT count(*) FROM task WHERE state = 'scheduled' AND host = ?"


@frozen(kw_only=True)
class SettingsSnapshot:
    """Settings of hosts, and the rank of a daemon in its fleet.

    :ivar daemons: the number of daemons that share the limits.
    :ivar rank: the rank of this daemon, from 0.
    """

    settings: Sequence[HostSettings] = ()
    daemons: int = 1
    rank: int = 0


@frozen(kw_only=True)
class HostTasks:
    """Numbers of tasks that call one host.

    :ivar due: the number of scheduled tasks that are due.
    """

    host: str
    scheduled: int
    due: int
    running: int
    settings: HostSettings


@frozen(kw_only=True)
class HostPage:
    """Page of hosts in the order of their names.

    :ivar all_hosts: the settings for all hosts.
    :ivar next: the first host of the next page; ``None`` on the last page.
    """

    all_hosts: HostSettings
    hosts: Sequence[HostTasks]
    next: str | None


def load_settings(cursor: Cursor, node: str) -> SettingsSnapshot:
    """Return all settings, and the rank of a daemon in its fleet.

    :param node: the daemon's name.
    """
    settings = list(_read_settings(cursor).values())
    daemons, rank = cursor.fleet_place(node)
    return SettingsSnapshot(settings=settings, daemons=daemons, rank=rank)


def _read_settings(cursor: Cursor) -> dict[str, HostSettings]:
    """Return all settings by host, without those whose host cannot be read."""
    rows = map(_COLUMNS.name, cursor.execute(_ALL).fetchall())
    return {row["host"]: HostSettings.stored(row) for row in rows if is_host(row["host"])}


def damaged_settings(cursor: Cursor) -> Sequence[str]:
    """Return the hosts with unreadable settings; empty text stands for an unreadable host."""
    hosts = [row[0] for row in cursor.execute(_ALL).fetchall()]
    unreadable = [""] * sum(not is_host(host) for host in hosts)
    return unreadable + [one.host for one in _read_settings(cursor).values() if one.damaged]


def get_settings(cursor: Cursor, host: str) -> HostSettings:
    """Return the settings of a host, or of all hosts."""
    row = cursor.execute(f"SELECT {_COLUMNS} FROM host_setting WHERE host = ?", (host,)).fetchone()
    return HostSettings(host=host) if row is None else HostSettings.stored(_COLUMNS.name(row))


def put_settings(
    write: Write, host: str, changes: Mapping[str, int | None], now: float
) -> HostSettings | None:
    """Change some settings of a host.

    :param changes: new values by attribute; ``None`` stands for the default.
    :return: all settings of the host; ``None`` if too many hosts have settings.
    """
    cursor = write.cursor
    row = cursor.execute(_ONE, (host,)).fetchone()
    if row is None and cursor.execute(_SETTINGS).fetchone()[0] >= MAX_SETTINGS:
        return None
    before = HostSettings(host=host) if row is None else HostSettings.stored(_COLUMNS.name(row))
    values = {**asdict(before), **changes, **_pause(before, changes, int(now)), "damaged": ()}
    cursor.execute(_PUT, tuple(values[name] for name in _COLUMNS))
    write.changes.changed_hosts.add(host)
    return HostSettings(**values)


def _pause(
    before: HostSettings, changes: Mapping[str, int | None], now: int
) -> dict[str, int | None]:
    """Return the start and the end of a pause; a pause that has ended stays on record."""
    if "paused_until" not in changes:
        return {}
    was_paused = before.is_paused(now)
    if (until := changes["paused_until"]) is not None:
        return {"paused_at": before.paused_at if was_paused else now, "paused_until": until}
    return {
        "paused_at": before.paused_at,
        "paused_until": now if was_paused else before.paused_until,
    }


def delete_settings(write: Write, host: str) -> None:
    """Reset a host to the defaults."""
    write.cursor.execute("DELETE FROM host_setting WHERE host = ?", (host,))
    write.changes.changed_hosts.add(host)


def each_due_host(cursor: Cursor, now: float) -> Sequence[str]:
    """Return all hosts with due tasks, at a cost that depends on the number of hosts only."""
    second = int(cursor.current_time(now))
    hosts = cursor.execute(_DUE_HOSTS, ("", second)).fetchall()
    return [host for (host,) in hosts if type(host) is str]


def _scheduled_hosts(cursor: Cursor, start_from: str, limit: int) -> list[str]:
    """Return the next hosts of scheduled tasks, without unreadable ones."""
    damaged = 0
    while True:
        number = limit + damaged
        rows = cursor.execute(_SCHEDULED_HOSTS, (start_from, number)).fetchall()
        found = [host for (host,) in rows if type(host) is str]
        if len(rows) < number or len(found) >= limit:
            return found[:limit]
        # Unreadable hosts have reduced the number of rows, so as many more are read.
        damaged = len(rows) - len(found)


def list_hosts(
    cursor: Cursor, *, start_from: str, limit: int, now: float, others: Iterable[str] = ()
) -> HostPage:
    """Return the hosts that scheduled or running tasks call, and those with settings.

    :param start_from: the first host of the page, inclusive.
    :param others: additional hosts to list.
    """
    second = int(cursor.current_time(now))
    settings = _read_settings(cursor)
    rows = cursor.execute(_RUNNING).fetchall()
    running: dict[str, int] = {host: count for host, count in rows if type(host) is str}
    scheduled = _scheduled_hosts(cursor, start_from, limit + 1)
    found = {*scheduled, *running, *settings, *others} - {ALL_HOSTS}
    names = sorted(host for host in found if host >= start_from)[: limit + 1]

    def count(statement: str, *values: Any) -> int:
        number: int = cursor.execute(statement, values).fetchone()[0]
        return number

    hosts = [
        HostTasks(
            host=host,
            scheduled=count(_COUNT, host),
            due=count(f"{_COUNT} AND due_at <= ?", host, second),
            running=running.get(host, 0),
            settings=settings.get(host, HostSettings(host=host)),
        )
        for host in names[:limit]
    ]
    return HostPage(
        all_hosts=settings.get(ALL_HOSTS, HostSettings(host=ALL_HOSTS)),
        hosts=hosts,
        next=names[limit] if len(names) > limit else None,
    )
