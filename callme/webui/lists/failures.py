"""Failures in groups: by host, and by the beginning of their names, with actions on each."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.web.template import Tag, tags

from ...core.task import Reason, State
from ...server.paths import DELETE_MANY, FAILURES, FIND, RESCHEDULE_MANY
from ...store.listing.activity import FailureGroup, FailureGroups
from ..layout import Viewer
from ..widgets import Renderable, bdi, escape_invisible, pluralize, table, timestamp
from .filters import NAME, Filters

MAX_GROUPS = 50
"""Maximum number of groups in one table."""
MAX_RECENT_GROUPS = 5
"""Maximum number of groups on the dashboard."""
RECENT = 1_000
"""Maximum number of failures that the dashboard groups."""
_REASONS = {reason.value for reason in Reason}


def render_recent_groups(groups: FailureGroups, viewer: Viewer, now: float) -> Renderable:
    """Return the largest groups by host, for the dashboard; nothing if no failures are alike.

    :param now: seconds since 1970.
    """
    alike = [group for group in groups.by_host if group.count > 1][:MAX_RECENT_GROUPS]
    if not alike:
        return ""
    caption = f"Failures that are alike{_extent(groups)}"
    link = tags.a("All failures in groups", href=FAILURES)
    return tags.div(_table(caption, alike, viewer, now), tags.p(link, class_="more"))


def render_groups(groups: FailureGroups, viewer: Viewer, now: float) -> list[Renderable]:
    """Return the main part of the page of groups.

    :param now: seconds since 1970.
    """
    main: list[Renderable] = [tags.div(tags.h1("Failures in groups"), class_="head")]
    if not groups.examined:
        return [*main, tags.p("No failed tasks.", class_="none")]
    for name, title, found in (
        ("by-host", "By host", groups.by_host),
        ("by-name", "By name", groups.by_prefix),
    ):
        more = len(found) - MAX_GROUPS
        caption = f"{pluralize(len(found), 'group')}{_extent(groups)}, the largest first"
        section = tags.section(
            tags.h2(title, id=name),
            _table(caption, found[:MAX_GROUPS], viewer, now),
            tags.p(f"{more:,} smaller groups are omitted.", class_="none") if more > 0 else "",
        )
        section.attributes["aria-labelledby"] = name
        main.append(section)
    return main


def _extent(groups: FailureGroups) -> str:
    return "" if groups.is_complete else f" of the last {groups.examined:,} failures"


def _table(caption: str, groups: Sequence[FailureGroup], viewer: Viewer, now: float) -> Tag:
    kind = "Host" if groups[0].host else "Names"
    columns = [kind, "Failure", "#Tasks", "Last"]
    if viewer.may_change:
        columns.append("Actions")
    return table(caption, columns, [_row(group, viewer, now) for group in groups], "wide")


def _row(group: FailureGroup, viewer: Viewer, now: float) -> Sequence[Renderable]:
    filters = filters_of(group)
    name = group.host or f"{group.prefix}*"
    row: list[Renderable] = [
        tags.a(bdi(name), href=FIND + filters.query()),
        failure_text(group),
        f"{group.count:,}",
        timestamp(group.last_at_ms, now),
    ]
    if viewer.may_change:
        retry = tags.a("Retry all\u2026", href=RESCHEDULE_MANY + filters.query())
        delete = tags.a("Delete all\u2026", href=DELETE_MANY + filters.query())
        for link, verb in ((retry, "Retry"), (delete, "Delete")):
            link.attributes["aria-label"] = f"{verb} all failures of {escape_invisible(name)}"
        row.append(tags.span(retry, " ", delete))
    return row


def filters_of(group: FailureGroup) -> Filters:
    """Return the filters that select the tasks of a group."""
    given = {"state": State.FAILED.value}
    if group.reason in _REASONS:
        given["reason"] = group.reason
    given |= {"host": group.host} if group.host else {NAME: group.prefix}
    return Filters(given=given)


def failure_text(group: FailureGroup) -> Renderable:
    """Return the reason of a group with the statuses of its responses."""
    ranked = sorted(group.statuses.items(), key=lambda pair: (-pair[1], pair[0]))
    if len(ranked) == 1:
        statuses = f" {ranked[0][0]}"
    else:
        statuses = ",".join(f" {status} ({count:,})" for status, count in ranked)
    reason = group.reason if group.reason in _REASONS else "damaged"
    return tags.span(tags.code(reason), statuses, class_="reason")
