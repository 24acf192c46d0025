"""Building blocks of the pages: templates, times, tables, states, flash messages."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from functools import cache
from importlib.resources import files
from typing import Union
from urllib.parse import quote

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.web.server import Request
from twisted.web.template import Element, Flattenable, Tag, XMLString, renderer, tags

from ..core.task import Reason, State, Task
from ..core.text.durations import rough_duration
from ..core.times import MINUTE, Key, rfc3339
from ..server.paths import TASK, url_for

MAX_TEXT_LENGTH = 4_000
"""Characters of a long text that a page contains."""
# Joiners do not reorder text, and are necessary in Persian and in emoji.
_JOINERS = "\u200c\u200d"
_HIDDEN = ("Cc", "Cf", "Cs", "Cn", "Zl", "Zp")
UNFOLDED_ROWS = 5
"""Rows of a long table that are displayed at once: on a phone, each is several lines high."""
ROWS_PER_TURN = 8
"""Rows after which the reactor runs other work: up to a millisecond each."""
_SECOND, _MINUTE, _HOUR, _DAY = 1_000, 60_000, 3_600_000, 86_400_000


def escape_invisible(text: str, allowed: str = "") -> str:
    """Return a text with its invisible characters replaced by their code points.

    Task names and response bodies may contain any character: control characters that HTML does
    not allow, and marks that change the direction of the text after them.

    :param allowed: control characters that are not replaced.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_visible(c, allowed) for c in text)


def _visible(character: str, allowed: str) -> str:
    if character in allowed or character in _JOINERS:
        return character
    if unicodedata.category(character) in _HIDDEN:
        return f"\u27e8U+{ord(character):04X}\u27e9"
    return character


def truncate(text: str, length: int = MAX_TEXT_LENGTH) -> tuple[str, int]:
    """Return the beginning of a text, and the number of omitted characters."""
    return text[:length], max(0, len(text) - length)


def bdi(text: str) -> Tag:
    """Return a text whose writing direction does not affect its surroundings."""
    return tags.bdi(escape_invisible(text))


def task_link(key: Key) -> Tag:
    """Return a link to a task's page; its text is the task's name."""
    return tags.a(bdi(name_of(key)), href=url_for(TASK, key))


def name_of(key: Key) -> str:
    """Return the name of a task; the key of one whose name or minute cannot be read."""
    return key.task_name or str(key)


def minute_of(key: Key, now: float | None = None) -> Tag | str:
    """Return the minute of a task; a dash if it cannot be read.

    :param now: as of :func:`timestamp`.
    """
    return "\u2013" if key.row_number is not None else minute(key.trigger_at, now)


def timestamp(milliseconds: int | None, now: float | None = None) -> Tag | str:
    """Return a time (ms since 1970) with its date, to the second; a dash for ``None``.

    :param now: seconds since 1970; if given, the distance from then is displayed as well.
    """
    if milliseconds is None:
        return "\u2013"
    exact = rfc3339(milliseconds)
    absolute = tags.time(f"{exact[:10]} {exact[11:19]}", datetime=exact)
    return _beside(absolute, milliseconds / 1000, now)


def minute(seconds: int, now: float | None = None) -> Tag:
    """Return a minute (seconds since 1970) with its date.

    :param now: as of :func:`timestamp`.
    """
    exact = rfc3339(seconds * 1000)
    return _beside(tags.time(f"{exact[:10]} {exact[11:16]}", datetime=exact), seconds, now)


def _beside(absolute: Tag, seconds: float, now: float | None) -> Tag:
    if now is None:
        return absolute
    return tags.span(absolute, " ", tags.small(relative(seconds - now)), class_="when")


def relative(seconds: float) -> str:
    """Return a time from now on in words: ``in 5 minutes``, ``3 hours ago``, ``just now``."""
    if -MINUTE < seconds <= 0:
        return "just now"
    return f"in {rough_duration(seconds)}" if seconds > 0 else f"{rough_duration(-seconds)} ago"


def time_of_day(seconds: int) -> Tag:
    """Return a minute (seconds since 1970) without its date."""
    return tags.time(clock_time(seconds), datetime=rfc3339(seconds * 1000))


def clock_time(seconds: int) -> str:
    """Return the time of day, to the minute, as a text."""
    return rfc3339(seconds * 1000)[11:16]


def duration(milliseconds: int | None) -> str:
    """Return a duration in its two largest units; a dash for ``None``."""
    if milliseconds is None:
        return "\u2013"
    if milliseconds < _SECOND:
        return f"{milliseconds} ms"
    if milliseconds < _MINUTE:
        return f"{milliseconds / _SECOND:.1f} s"
    for unit, name, smaller, smaller_name in (
        (_DAY, "d", _HOUR, "h"),
        (_HOUR, "h", _MINUTE, "min"),
        (_MINUTE, "min", _SECOND, "s"),
    ):
        if milliseconds >= unit:
            whole, rest = divmod(milliseconds, unit)
            more = f" {rest // smaller} {smaller_name}" if rest >= smaller else ""
            return f"{whole:,} {name}{more}"
    raise AssertionError("every duration has a unit")


def pluralize(number: int, noun: str) -> str:
    """Return a number with its noun: ``1 task``, ``2 tasks``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def query(**values: object) -> str:
    """Return a query string."""
    return "?" + "&".join(f"{key}={quote(str(value), safe='')}" for key, value in values.items())


Renderable = Flattenable
"""A text, a tag, or a list of them."""
Row = Union[Sequence[Renderable], "Deferred[str]"]
"""The cells of a row of a table; or a pause, which renders nothing."""

_SIGNS = {
    State.SCHEDULED: "\u25cb",
    State.RUNNING: "\u25d0",
    State.SUCCEEDED: "\u2713",
    State.FAILED: "\u2715",
}


@cache
def template(name: str) -> XMLString:
    """Return a template of this package, which is parsed once."""
    assert __package__ is not None
    text = (files(__package__) / "templates" / f"{name}.xml").read_text(encoding="utf-8")
    return XMLString(text)


class Filled(Element):
    """A template with its slots filled."""

    def __init__(self, name: str, /, **slots: Renderable) -> None:
        super().__init__(template(name))
        self._slots = slots

    @renderer
    def fill(self, request: Request, tag: Tag) -> Tag:
        return tag.fillSlots(**self._slots)


def state(of: State) -> Tag:
    """Return a state as a word with a sign and a colour."""
    sign = tags.span(_SIGNS[of], class_="sign")
    sign.attributes["aria-hidden"] = "true"
    return tags.strong(sign, of.value, class_=f"state {of.value}")


def task_state(task: Task) -> Tag:
    """Return the state of a task, and whether a part of the task is damaged."""
    if not task.damaged:
        return state(task.state)
    damaged = tags.strong("\u26a0 damaged", class_="state failed")
    return damaged if "state" in task.damaged else tags.span(state(task.state), " ", damaged)


def failure_reason(reason: Reason | None, detail: str) -> Renderable:
    """Return the reason of a failure with its detail; an empty text without a failure."""
    if reason is None:
        return ""
    return tags.span(tags.code(reason.value), " ", escape_invisible(detail), class_="reason")


def table(caption: str, columns: Sequence[str], rows: Iterable[Row], kind: str = "") -> Tag:
    """Return a table; on a narrow screen each of its cells has the label of its column.

    The table can be rendered only once, because rendering consumes its rows.

    :param columns: the headings; a leading ``#`` marks a column of numbers.
    """
    # The explicit roles are for screen readers: with display: block, which the style sheet sets
    # on a narrow screen, a table loses its implicit ones.
    numeric = [column.startswith("#") for column in columns]
    labels = [column.removeprefix("#") for column in columns]
    head = tags.tr(role="row")
    for label, is_numeric in zip(labels, numeric, strict=True):
        head(_cell(tags.th(label, scope="col", role="columnheader"), is_numeric))
    return tags.table(
        tags.caption(caption),
        tags.thead(head, role="rowgroup"),
        tags.tbody(_lines(labels, numeric, rows), role="rowgroup"),
        role="table",
        class_=f"rows {kind}".strip(),
    )


def folded(rows: Sequence[Row], to_table: Callable[[Sequence[Row], bool], Tag], name: str) -> Tag:
    """Return a table of the first rows, and one of the others that the viewer can unfold.

    :param to_table: returns the table of some rows, given whether they are the first ones.
    :param name: the id of the rest: a refresh leaves it unfolded.
    """
    first = to_table(rows[:UNFOLDED_ROWS], True)
    if len(rows) <= UNFOLDED_ROWS:
        return tags.div(first)
    rest = to_table(rows[UNFOLDED_ROWS:], False)
    more = tags.summary(f"{len(rows) - UNFOLDED_ROWS:,} more")
    return tags.div(first, tags.details(more, rest, id=name, class_="rest"))


def _lines(
    labels: Sequence[str], numeric: Sequence[bool], rows: Iterable[Row]
) -> Generator[Renderable, None, None]:
    """Yield the lines of a table as the page is rendered."""
    for row in rows:
        if isinstance(row, Deferred):
            yield row
            continue
        line = tags.tr(role="row")
        for label, is_numeric, content in zip(labels, numeric, row, strict=True):
            cell = _cell(tags.td(content, role="cell"), is_numeric)
            cell.attributes["data-label"] = label
            line(cell)
        yield line


def in_slices(rows: Iterable[Sequence[Renderable]], clock: IReactorTime) -> Iterator[Row]:
    """Yield the rows of a table, and let the reactor run other work between some of them.

    :param rows: preferably a generator, so that each row is created when it is rendered.
    """
    for number, row in enumerate(rows):
        if number and number % ROWS_PER_TURN == 0:
            yield deferLater(clock, 0, lambda: "")
        yield row


def _cell(cell: Tag, is_numeric: bool) -> Tag:
    return cell(class_="number") if is_numeric else cell


def definition_list(pairs: Iterable[tuple[str, Renderable]]) -> list[Tag]:
    """Return the content of a description list (``dl``)."""
    return [tags.div(tags.dt(term), tags.dd(details)) for term, details in pairs]


def flash(sentence: Renderable, kind: str = "done") -> Tag:
    """Return a message that is displayed, and read aloud, at once.

    :param kind: ``done``, or ``wrong`` for an error.
    """
    return tags.p(sentence, class_=f"flash {kind}", role="alert" if kind == "wrong" else "status")
