"""The hosts that tasks call: their table, and the form for the pause and the limits of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import quote

from attrs import field, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.web.template import Tag, tags

from ...core.times import rfc3339, to_ms
from ...hosts.operations import HostPage, HostTasks
from ...hosts.settings import (
    ALL_HOSTS,
    INDEFINITELY,
    MAX_CONCURRENT,
    MAX_PER_MINUTE,
    HostSettings,
)
from ...server.paths import HOST, HOSTS
from ...worker.host_memory import HostResults
from ..layout import Viewer
from ..widgets import (
    Renderable,
    escape_invisible,
    flash,
    in_slices,
    minute,
    pluralize,
    table,
    timestamp,
)
from .upcoming import host_link

MAX_ROWS = 100
"""Hosts on one page."""
PAUSE = "paused"
LIMITS = {"max_concurrent": "Calls at once", "max_per_minute": "Calls per minute"}
"""The label of each limit, by its field."""
RESUME, KEEP, UNTIL_RESUMED = "no", "keep", "yes"
"""Values of the field of the pause, besides the durations."""
_PAUSES = {
    "+15m": "for 15 minutes",
    "+30m": "for 30 minutes",
    "+1h": "for an hour",
    "+4h": "for 4 hours",
    "+1d": "for a day",
    UNTIL_RESUMED: "until it is resumed",
}
_FEW_FAILURES = 3
"""Number of consecutive failures above which a host is highlighted."""
_MAXIMA = {"max_concurrent": MAX_CONCURRENT, "max_per_minute": MAX_PER_MINUTE}


def host_path(host: str) -> str:
    """Return the path of the page of a host, percent-encoded."""
    return HOST + quote(host, safe="")


def name_of(host: str) -> str:
    """Return a host for people."""
    return "all hosts" if host == ALL_HOSTS else escape_invisible(host)


@frozen(kw_only=True)
class HostTable:
    """The content of the page of hosts.

    :ivar results: the results of the latest calls of this daemon, by host.
    :ivar now: seconds since 1970.
    :ivar flash: the message about an action that has just been completed, if any.
    """

    page: HostPage
    results: Mapping[str, HostResults]
    viewer: Viewer
    now: float
    flash: str = ""


def render_hosts(content: HostTable, clock: IReactorTime) -> list[Renderable]:
    """Return the main part of the page of hosts."""
    page = content.page
    columns = ["Host", "#Scheduled", "#Due", "#In flight", "Last success", "Last failure"]
    columns += ["Limits", "Calls"]
    columns += ["Actions"] if content.viewer.may_change else []
    rows = in_slices((_row(host, content) for host in page.hosts), clock)
    count = pluralize(len(page.hosts), "host")
    main: list[Renderable] = [
        flash(content.flash) if content.flash else "",
        tags.div(tags.h1("Hosts"), class_="head"),
        tags.p(tags.strong("All hosts"), ": ", _all_hosts(content), class_="all-hosts"),
        table(f"{count}, by name", columns, rows, "wide") if page.hosts else _no_hosts(),
    ]
    if page.next is not None:
        href = f"{HOSTS}?start_from={quote(page.next, safe='')}"
        main.append(tags.p(tags.a("Next page", href=href, rel="next"), class_="more"))
    return main


def _no_hosts() -> Tag:
    return tags.p("No tasks are scheduled, so no host is called.", class_="none")


def _all_hosts(content: HostTable) -> list[Renderable]:
    settings = content.page.all_hosts
    parts: list[Renderable] = [_limits(settings), ", ", _calls(settings, content.now), " "]
    return parts + (_actions(settings, content) if content.viewer.may_change else [])


def _row(host: HostTasks, content: HostTable) -> Sequence[Renderable]:
    results = content.results.get(host.host, HostResults())
    row: list[Renderable] = [
        host_link(host.host),
        f"{host.scheduled:,}",
        f"{host.due:,}",
        f"{host.running:,}",
        _time(results.last_success_at, content.now),
        [_time(results.last_failure_at, content.now), _failures(results.failures)],
        _limits(host.settings),
        _calls(host.settings, content.now),
    ]
    if content.viewer.may_change:
        row.append(tags.span(_actions(host.settings, content), class_="actions"))
    return row


def _time(at: float | None, now: float) -> Tag | str:
    return timestamp(None if at is None else to_ms(at), now)


def _failures(count: int) -> Renderable:
    if not count:
        return ""
    text = f", {count:,} in a row"
    return tags.strong(text, class_="state failed") if count >= _FEW_FAILURES else text


def _limits(settings: HostSettings) -> str:
    limits = [
        "" if settings.max_concurrent is None else f"{settings.max_concurrent:,} at once",
        "" if settings.max_per_minute is None else f"{settings.max_per_minute:,} per minute",
    ]
    return ", ".join(filter(None, limits)) or "default limits"


def _calls(settings: HostSettings, now: float) -> Renderable:
    if settings.damaged:
        names = ", ".join(settings.damaged)
        return tags.strong(f"\u26a0 damaged: {names} cannot be read", class_="state failed")
    if not settings.is_paused(now):
        return "not paused"
    return tags.strong("\u2016 paused", _until(settings, now), class_="paused")


def _until(settings: HostSettings, now: float) -> Renderable:
    until = settings.paused_until
    return "" if until is None or until >= INDEFINITELY else [" until ", minute(until, now)]


def _actions(settings: HostSettings, content: HostTable) -> list[Renderable]:
    host = settings.host
    link = tags.a("Pause or limit\u2026", href=host_path(host))
    link.attributes["aria-label"] = f"Pause or limit {name_of(host)}"
    if not settings.is_paused(content.now):
        return [link]
    button = tags.button("Resume")
    button.attributes["aria-label"] = f"Resume {name_of(host)}"
    form = tags.form(
        content.viewer.csrf_field(),
        tags.input(type="hidden", name=PAUSE, value=RESUME),
        button,
        action=host_path(host),
        method="post",
        class_="inline",
    )
    return [form, " ", link]


@frozen(kw_only=True)
class HostForm:
    """The form for the pause and the limits of a host.

    :ivar given: the fields of a submission that was rejected; empty before.
    :ivar errors: the error of each field that has one.
    :ivar now: seconds since 1970.
    """

    settings: HostSettings
    viewer: Viewer
    now: float
    given: Mapping[str, str] = field(factory=dict)
    errors: Mapping[str, str] = field(factory=dict)


def render_host_form(form: HostForm) -> list[Renderable]:
    """Return the main part of the page of a host."""
    settings = form.settings
    heading = tags.h1("Pause or limit ", tags.bdi(name_of(settings.host)))
    summary = tags.p(_calls(settings, form.now), ", ", _limits(settings), ".", class_="summary")
    errors = "; ".join(form.errors.values())
    return [
        tags.div(heading, summary, class_="head"),
        tags.form(
            flash(escape_invisible(errors), "wrong")(id="error") if errors else "",
            [_pause_field(form), *(_limit_field(form, name) for name in LIMITS), _hint()],
            form.viewer.csrf_field(),
            tags.p(
                tags.button("Save", class_="go"),
                " ",
                tags.a("Back to the hosts", href=HOSTS),
                class_="actions",
            ),
            action=host_path(settings.host),
            method="post",
            class_="confirm",
        ),
    ]


def _hint() -> Tag:
    return tags.p(
        "Tasks of a paused host stay scheduled. Their ",
        tags.code("max_delay"),
        " continues to run. A limit applies to all daemons together. An empty field means the "
        "default.",
        id="host-hint",
        class_="hint",
    )


def _pause_field(form: HostForm) -> Tag:
    settings, choices = form.settings, {RESUME: "not paused"}
    if settings.is_paused(form.now):
        until = settings.paused_until
        end = "" if until is None or until >= INDEFINITELY else rfc3339(until * 1000)[:16]
        kept = f"unchanged: until {end.replace('T', ' ')}" if end else "unchanged: until resumed"
        choices = {KEEP: kept, **choices}
    select = tags.select(id=PAUSE, name=PAUSE)
    for value, text in {**choices, **_PAUSES}.items():
        option = tags.option(text, value=value)
        if value == form.given.get(PAUSE):
            option.attributes["selected"] = "selected"
        select(option)
    return tags.p(tags.label("Pause")(for_=PAUSE), select)


def _limit_field(form: HostForm, name: str) -> Tag:
    value = getattr(form.settings, name)
    control = tags.input(
        id=name,
        name=name,
        type="number",
        min="1",
        max=str(_MAXIMA[name]),
        value=form.given.get(name, "" if value is None else str(value)),
    )
    wrong = name in form.errors
    control.attributes["aria-describedby"] = "error host-hint" if wrong else "host-hint"
    if wrong:
        control.attributes["aria-invalid"] = "true"
    return tags.p(tags.label(LIMITS[name])(for_=name), control)


def changes_of(fields: Mapping[str, str]) -> dict[str, object]:
    """Return the settings that a submitted form changes, in the form of an API request."""
    changes: dict[str, object] = {}
    for name in LIMITS.keys() & fields.keys():
        text = fields[name].strip()
        changes[name] = (int(text) if text.isdecimal() else text) if text else None
    pause = fields.get(PAUSE, KEEP)
    if pause != KEEP:
        changes["paused"] = {RESUME: False, UNTIL_RESUMED: True}.get(pause, pause)
    return changes
