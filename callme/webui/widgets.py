"""What pages are put together from: templates, tables, states, notices."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from importlib.resources import files
from urllib.parse import quote

from twisted.web.template import Flattenable, Tag, XMLString, tags

from ..core.task import Reason, State
from ..core.times import Key, rfc3339
from ..server.paths import TASK, url_for

MOST_SHOWN = 4_000
"""Characters that are shown of a text that may be long."""
# They join letters, and move none: Persian needs one, emoji the other.
_JOINERS = "\u200c\u200d"
_HIDDEN = ("Cc", "Cf", "Cs", "Cn", "Zl", "Zp")
_SECOND, _MINUTE, _HOUR, _DAY = 1_000, 60_000, 3_600_000, 86_400_000


def escape_invisible(text: str, kept: str = "") -> str:
    """Return a text in which nothing is hidden: what shows nothing, or moves others, is named.

    What endpoints answer and people call their tasks may hold anything: controls that HTML has
    no place for, marks that turn the direction of what follows.

    :param kept: controls that are left as they are.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_visible(c, kept) for c in text)


def _visible(character: str, kept: str) -> str:
    if character in kept or character in _JOINERS:
        return character
    if unicodedata.category(character) in _HIDDEN:
        return f"\u27e8U+{ord(character):04X}\u27e9"
    return character


def truncate(text: str, most: int = MOST_SHOWN) -> tuple[str, int]:
    """Return the beginning of a text, and how many characters were left out."""
    return text[:most], max(0, len(text) - most)


def bdi(text: str) -> Tag:
    """Return a name of somebody's, which turns nothing around it."""
    return tags.bdi(escape_invisible(text))


def task_link(key: Key) -> Tag:
    """Return a link to a task's page, which says its name."""
    return tags.a(bdi(key.task_name), href=url_for(TASK, key))


def timestamp(milliseconds: int | None) -> Tag | str:
    """Return a time as a person reads it, to the second; a dash for none."""
    if milliseconds is None:
        return "\u2013"
    exact = rfc3339(milliseconds)
    shown = f"{exact[:10]} {exact[11:19]}"
    return tags.time(shown, datetime=exact)


def minute(seconds: int) -> Tag:
    """Return a minute as a person reads it."""
    exact = rfc3339(seconds * 1000)
    return tags.time(f"{exact[:10]} {exact[11:16]}", datetime=exact)


def clock(seconds: int) -> Tag:
    """Return a minute of a day that is known."""
    return tags.time(clock_time(seconds), datetime=rfc3339(seconds * 1000))


def clock_time(seconds: int) -> str:
    """Return the time of the day, to the minute."""
    return rfc3339(seconds * 1000)[11:16]


def duration(milliseconds: int | None) -> str:
    """Return how long something took, in the two units that matter; a dash for unknown."""
    if milliseconds is None:
        return "\u2013"
    if milliseconds < _SECOND:
        return f"{milliseconds} ms"
    if milliseconds < _MINUTE:
        return f"{milliseconds / _SECOND:.1f} s"
    for unit, name_of, below, name_below in (
        (_DAY, "d", _HOUR, "h"),
        (_HOUR, "h", _MINUTE, "min"),
        (_MINUTE, "min", _SECOND, "s"),
    ):
        if milliseconds >= unit:
            whole, rest = divmod(milliseconds, unit)
            more = f" {rest // below} {name_below}" if rest >= below else ""
            return f"{whole:,} {name_of}{more}"
    raise AssertionError("every duration has a unit")


def pluralize(number: int, one: str, many: str = "") -> str:
    """Return a number and what it is of: ``1 task``, ``2 tasks``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def query(**values: object) -> str:
    """Return a query string."""
    return "?" + "&".join(f"{key}={quote(str(value), safe='')}" for key, value in values.items())


Renderable = Flattenable
"""What may stand in a cell, or in a sentence: a text, a tag, a list of them."""

_SIGNS = {
    State.SCHEDULED: "\u25cb",
    State.RUNNING: "\u25d0",
    State.SUCCEEDED: "\u2713",
    State.FAILED: "\u2715",
}


def template(bdi: str) -> XMLString:
    """Return one of the templates beside this module."""
    assert __package__ is not None
    text = (files(__package__) / "templates" / f"{bdi}.xml").read_text(encoding="utf-8")
    return XMLString(text)


def state(of: State) -> Tag:
    """Return a state: a word, a sign and a colour."""
    sign = tags.span(_SIGNS[of], class_="sign")
    sign.attributes["aria-hidden"] = "true"
    return tags.strong(sign, of.value, class_=f"state {of.value}")


def failure_reason(reason: Reason | None, detail: str) -> Renderable:
    """Return why a task or an attempt failed; nothing where it did not."""
    if reason is None:
        return ""
    return tags.span(tags.code(reason.value), " ", escape_invisible(detail), class_="why")


def table(
    caption: str, columns: Sequence[str], rows: Iterable[Sequence[Renderable]], kind: str = ""
) -> Tag:
    """Return a table; on a narrow screen each of its cells says what it is.

    :param columns: their headings; one that begins with ``#`` is of numbers.
    """
    # Laid out as blocks, a table is none any more to who listens, unless it says so itself.
    numbers = [one.startswith("#") for one in columns]
    names = [one.removeprefix("#") for one in columns]
    head = tags.tr(role="row")
    for one, number in zip(names, numbers, strict=True):
        head(_cell(tags.th(one, scope="col", role="columnheader"), number))
    body = tags.tbody(role="rowgroup")
    for row in rows:
        line = tags.tr(role="row")
        for one, number, cell in zip(names, numbers, row, strict=True):
            made = _cell(tags.td(cell, role="cell"), number)
            made.attributes["data-label"] = one
            line(made)
        body(line)
    return tags.table(
        tags.caption(caption),
        tags.thead(head, role="rowgroup"),
        body,
        role="table",
        class_=f"rows {kind}".strip(),
    )


def _cell(cell: Tag, number: bool) -> Tag:
    return cell(class_="number") if number else cell


def definition_list(pairs: Iterable[tuple[str, Renderable]]) -> list[Tag]:
    """Return what stands in a list of terms and what they are."""
    return [tags.div(tags.dt(term), tags.dd(said)) for term, said in pairs]


def flash(sentence: Renderable, kind: str = "done") -> Tag:
    """Return a sentence that must be seen."""
    return tags.p(sentence, class_=f"notice {kind}", role="alert" if kind == "wrong" else "status")
