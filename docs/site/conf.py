"""How Sphinx makes a site of the Markdown files: ``tox run -e docs``.

The files are plain Markdown, to be read as they are, too. What only a site needs is added
here: its contents, and the reference, which is made of the OpenAPI document.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.errors import SphinxError

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from reference import reference  # noqa: E402

from callme import __version__  # noqa: E402

project = "callme"
version = release = __version__
project_copyright = ""
html_show_copyright = html_show_sphinx = False
html_title = f"callme {__version__}"

# The checkout is what is read, so that links lead where they lead in it.
extensions = ["myst_parser"]
root_doc = "docs/index"
include_patterns = ["docs/*.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"]
exclude_patterns = [".*", "build", "dist", "*.egg-info"]
myst_heading_anchors = 3

# Nothing is fetched from elsewhere: this theme brings no fonts, and no script but its own.
html_theme = "furo"
html_copy_source = False
html_extra_path = ["extra"]

CONTENTS = {
    "Use callme": ["tour", "recipes", "migrating", "api", "reference", "glossary"],
    "Operate callme": ["operations", "exposing", "page", "monitoring", "scaling"],
    "Understand callme": ["inside", "performance", "security"],
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
"""What makes a browser fetch something from another place, by the kind of file."""


def _contents() -> str:
    lines = []
    for caption, pages in CONTENTS.items():
        lines += ["```{toctree}", ":hidden:", f":caption: {caption}", "", *pages, "```", ""]
    return "\n".join(lines)


def add_what_is_made(_: Sphinx, name: str, source: list[str]) -> None:
    """Add to a page, as it is read, what does not stand in its file."""
    if name == root_doc:
        source[0] += "\n" + _contents()
    elif name == "docs/reference":
        source[0] += "\n" + reference()


def refuse_what_comes_from_elsewhere(app: Sphinx, _: Exception | None) -> None:
    """Fail where a page that was made would fetch anything from another place.

    :raises SphinxError: that says which page, and what.
    """
    for kind, fetches in FETCHES.items():
        for made in app.outdir.rglob(f"*.{kind}"):
            found = fetches.search(made.read_text(encoding="utf-8"))
            if found is not None:
                raise SphinxError(f"{made}: it would fetch something: {found[0]}")


def setup(app: Sphinx) -> None:
    """Tell Sphinx what to do with each page."""
    app.connect("source-read", add_what_is_made)
    app.connect("build-finished", refuse_what_comes_from_elsewhere)
