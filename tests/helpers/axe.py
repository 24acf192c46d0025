"""The accessibility rules of axe-core, applied to a page in a browser."""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.helpers.browser import Browser

PACKAGE = "axe_playwright_python"
"""The package whose copy of axe-core is used; neither its code nor its dependencies are."""
# WCAG 2.0 to 2.2, levels A and AA, and the rules that axe-core adds.
_TAGS = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")
_RUN = """
const done = arguments[arguments.length - 1];
axe.run(document, { runOnly: arguments[0] }).then((found) => done([
  found.passes.map((one) => one.id),
  found.violations.map((one) => `${one.id}: ${one.nodes.map((node) => node.html).join(" ")}`),
]));
"""


def check_rules(browser: Browser) -> tuple[list[str], list[str]]:
    """Return the rules that the page in a browser passes, and those that it violates.

    :return: the names of the rules; each violated one with the markup that violates it.
    """
    browser.run(_script())
    passed, violated = browser.driver.execute_async_script(_RUN, _TAGS)
    return passed, violated


@cache
def _script() -> str:
    """Return axe-core; without it, the test is skipped, or fails in CI."""
    spec = find_spec(PACKAGE)
    folders = spec.submodule_search_locations if spec else None
    path = os.environ.get("AXE_CORE") or (f"{folders[0]}/axe.min.js" if folders else "")
    if not path:
        reason = "axe-core is not installed: pip install --no-deps axe-playwright-python"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return Path(path).read_text(encoding="utf-8")
