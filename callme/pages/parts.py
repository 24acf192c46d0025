"""What pages are put together from: templates, tables, states, notices."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.resources import files

from twisted.web.template import Flattenable, Tag, XMLString, tags

from ..core.task import Reason, State
from .text import visible

Shown = Flattenable
"""What may stand in a cell, or in a sentence: a text, a tag, a list of them."""

_SIGNS = {
    State.SCHEDULED: "\u25cb",
    State.RUNNING: "\u25d0",
    State.SUCCEEDED: "\u2713",
    State.FAILED: "\u2715",
}


def template(name: str) -> XMLString:
    """Return one of the templates beside this module."""
    assert __package__ is not None
    text = (files(__package__) / "templates" / f"{name}.xml").read_text(encoding="utf-8")
    return XMLString(text)


def state(of: State) -> Tag:
    """Return a state: a word, a sign and a colour."""
    sign = tags.span(_SIGNS[of], class_="sign")
    sign.attributes["aria-hidden"] = "true"
    return tags.strong(sign, of.value, class_=f"state {of.value}")


def why(reason: Reason | None, detail: str) -> Shown:
    """Return why a task or an attempt failed; nothing where it did not."""
    if reason is None:
        return ""
    return tags.span(tags.code(reason.value), " ", visible(detail), class_="why")


def table(
    caption: str, columns: Sequence[str], rows: Iterable[Sequence[Shown]], kind: str = ""
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


def facts(pairs: Iterable[tuple[str, Shown]]) -> list[Tag]:
    """Return what stands in a list of terms and what they are."""
    return [tags.div(tags.dt(term), tags.dd(said)) for term, said in pairs]


def notice(sentence: Shown, kind: str = "done") -> Tag:
    """Return a sentence that must be seen."""
    return tags.p(sentence, class_=f"notice {kind}", role="alert" if kind == "wrong" else "status")
