"""A browser in memory: it requests pages and reads their text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode
from xml.etree import ElementTree

from attrs import frozen

from tests.helpers.world import World

BASE = "http://localhost:6777"
HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
FORM = "application/x-www-form-urlencoded"


@frozen
class Page:
    """A page, which must be well-formed XML, so that no text can be mistaken for markup."""

    status: int
    headers: Any
    text: str

    def header(self, name: str) -> str | None:
        values = self.headers.getRawHeaders(name)
        return values[0] if values else None

    @property
    def tree(self) -> ElementTree.Element:
        doctype = "<!DOCTYPE html>"
        assert self.text.startswith(doctype)
        return ElementTree.fromstring(self.text[len(doctype) :])

    def all(self, path: str) -> list[ElementTree.Element]:
        """Return the elements at an XPath of ElementTree's subset."""
        return self.tree.findall(path)

    def texts(self, path: str) -> list[str]:
        """Return the text of each element at a path."""
        return [text_of(element) for element in self.all(path)]

    @property
    def title(self) -> str:
        return text_of(self.all("./head/title")[0])

    @property
    def h1(self) -> str:
        (heading,) = self.all(".//h1")
        return text_of(heading)

    @property
    def main(self) -> str:
        return text_of(self.all(".//main")[0])

    @property
    def facts(self) -> dict[str, str]:
        """Return the terms and values of description lists."""
        return {
            text_of(item.findall("dt")[0]): text_of(item.findall("dd")[0])
            for item in self.all(".//dl/div")
        }

    def rows(self, caption: str) -> list[list[str]]:
        """Return the cells of the table whose caption begins with a text."""
        for table in self.all(".//table"):
            if text_of(table.findall("caption")[0]).startswith(caption):
                return [[text_of(cell) for cell in row] for row in table.findall("tbody/tr")]
        return []

    @property
    def links(self) -> dict[str, str]:
        """Return the target of each link by its text."""
        return {text_of(one): one.get("href", "") for one in self.all(".//a")}

    def form(self, action: str) -> dict[str, str]:
        """Return the fields of a form with their initial values."""
        for form in self.all(".//form"):
            if form.get("action", "").startswith(action):
                fields = {one.get("name", ""): one.get("value", "") for one in form.iter("input")}
                # HTML drops a line feed that begins a text area.
                areas = {
                    one.get("name", ""): (one.text or "").removeprefix("\n")
                    for one in form.iter("textarea")
                }
                return fields | areas
        raise AssertionError(f"there is no form to {action}")


def text_of(element: ElementTree.Element) -> str:
    """Return the text of an element for a screen reader, without decorative symbols."""
    return " ".join("".join(_spoken(element)).split())


def _spoken(element: ElementTree.Element) -> Iterator[str]:
    if element.get("aria-hidden") != "true":
        yield element.text or ""
        for child in element:
            yield from _spoken(child)
            yield child.tail or ""


def visit(
    world: World,
    path: str,
    fields: Mapping[str, str | Sequence[str]] | None = None,
    headers: dict[str, str] | None = None,
    method: str | None = None,
) -> Page:
    """Request a page; with fields, submit a form."""
    data = None if fields is None else urlencode(fields, doseq=True).encode()
    given = {**HTML, **({} if data is None else {"Content-Type": FORM}), **(headers or {})}
    pending = world.http.request(
        method or ("GET" if data is None else "POST"),
        BASE + path,
        data=data,
        headers=given,
        allow_redirects=False,
    )
    world.http.flush()
    # A long page is rendered in slices.
    for _ in range(20):
        world.clock.advance(0)
        world.http.flush()
    response = world.result(pending)
    return Page(response.code, response.headers, world.result(response.text("utf-8")))
