"""Settings of Sphinx, which builds the site of the documentation: ``tox run -e docs``.

The files are plain Markdown that can be read as they are. The site adds its contents.
"""

from __future__ import annotations

import re
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.errors import SphinxError

HERE = Path(__file__).parent
from callme import __version__  # noqa: E402

project = "callme"
version = release = __version__
project_copyright = ""
html_show_copyright = html_show_sphinx = False
html_title = f"callme {__version__}"

# Sphinx reads the whole checkout, so that relative links work as they do in the files.
extensions = ["myst_parser"]
root_doc = "docs/index"
include_patterns = ["docs/*.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"]
exclude_patterns = [".*", "build", "dist", "*.egg-info"]
myst_heading_anchors = 3

# This theme loads no fonts and no scripts from other servers.
html_theme = "furo"
html_copy_source = False
html_extra_path = ["extra"]

CONTENTS = {
    "Use callme": [
        "tour",
        "recipes",
        "migrating",
        "comparison",
        "faq",
        "api",
        "client",
        "command",
        "reference",
        "glossary",
    ],
    "Operate callme": ["operations", "exposing", "page", "monitoring", "scaling"],
    "Understand callme": ["inside", "performance", "interop", "security"],
    "Work on callme": [
        "../CONTRIBUTING",
        "development",
        "../CHANGELOG",
        "Report a vulnerability <../SECURITY>",
    ],
}
"""The pages, in the order in which the site lists them."""


ELSEWHERE = r"""["'\s(=](?:https?:)?//"""
FETCHES = {
    "html": re.compile(rf"<(?:link|script|img|iframe|source|form)\b[^>]*{ELSEWHERE}[^>]*>"),
    "css": re.compile(rf"(?:url|@import){ELSEWHERE}[^)]*"),
}
"""Patterns of HTML and CSS that make a browser send requests to other servers."""


def _contents() -> str:
    lines = []
    for caption, pages in CONTENTS.items():
        lines += ["```{toctree}", ":hidden:", f":caption: {caption}", "", *pages, "```", ""]
    return "\n".join(lines)


def add_contents(_: Sphinx, name: str, source: list[str]) -> None:
    """Add the contents to the first page when Sphinx reads it."""
    if name == root_doc:
        source[0] += "\n" + _contents()


def reject_external_resources(app: Sphinx, _: Exception | None) -> None:
    """Fail if a page of the site would load a resource from another server.

    :raises SphinxError: with the page and the resource.
    """
    for kind, fetches in FETCHES.items():
        for made in app.outdir.rglob(f"*.{kind}"):
            found = fetches.search(made.read_text(encoding="utf-8"))
            if found is not None:
                raise SphinxError(f"{made} would load an external resource: {found[0]}")


def setup(app: Sphinx) -> None:
    """Connect the functions above to the events of Sphinx."""
    app.connect("source-read", add_contents)
    app.connect("build-finished", reject_external_resources)
