"""The badges of README, from the repository's own figures; run it to draw them again.

No badge comes from a service on the network, which could be down or could track a reader.
"""

from __future__ import annotations

import re
from pathlib import Path
from xml.sax.saxutils import escape

from callme import __version__

ROOT = Path(__file__).parents[2]
DIRECTORY = ROOT / "docs" / "badges"
_BLUE, _GREEN = "#0969da", "#1a7f37"
_CHARACTER = 6.6
"""Width of a character in pixels, which the text is stretched or compressed to."""
_PADDING = 10
"""Space on both sides of a text together, in pixels."""


def badges() -> dict[str, str]:
    """Return each badge as SVG, by the name of its file."""
    return {
        "version.svg": _badge("version", __version__, _BLUE),
        "python.svg": _badge("python", _python_versions(), _BLUE),
        "license.svg": _badge("license", _license(), _BLUE),
        "types.svg": _badge("types", _types(), _GREEN),
        "worlds.svg": _badge("tasks lost in simulated worlds", _lost(), _GREEN),
    }


def _python_versions() -> str:
    """Return the first and the last version that the package names."""
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    minors = [int(minor) for minor in re.findall(r"Python :: 3\.(\d+)", setup)]
    return f"3.{min(minors)} to 3.{max(minors)}"


def _license() -> str:
    return (ROOT / "LICENSE").read_text(encoding="utf-8").split()[0]


def _types() -> str:
    """Return what mypy checks, if the package says that it has types."""
    settings = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    strict = "[tool.mypy]\nstrict = true" in settings
    return "mypy strict" if strict and (ROOT / "callme/py.typed").exists() else "none"


def _lost() -> str:
    """Return the figure of README's table: the promise broken, of the tasks of the simulation."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"\(docs/security\.md#[^|]*\| (\d+ of [\d,]+) \|", readme)
    assert found is not None, "README has no figure of the simulation"
    return found[1]


def _badge(label: str, value: str, colour: str) -> str:
    left, right = (round(len(text) * _CHARACTER) + _PADDING for text in (label, value))
    title = escape(f"{label}: {value}")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + right}" height="20" role="img">\n'
        f"<title>{title}</title>\n"
        f'<clipPath id="r"><rect width="{left + right}" height="20" rx="3"/></clipPath>\n'
        f'<g clip-path="url(#r)"><rect width="{left}" height="20" fill="#424a53"/>'
        f'<rect x="{left}" width="{right}" height="20" fill="{colour}"/></g>\n'
        '<g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11">\n'
        f"{_text(label, 0, left)}{_text(value, left, right)}</g>\n</svg>\n"
    )


def _text(text: str, begin: int, width: int) -> str:
    return (
        f'<text x="{begin + _PADDING // 2}" y="14" textLength="{width - _PADDING}">'
        f"{escape(text)}</text>\n"
    )


if __name__ == "__main__":
    DIRECTORY.mkdir(exist_ok=True)
    for name, svg in badges().items():
        (DIRECTORY / name).write_text(svg, encoding="utf-8")
