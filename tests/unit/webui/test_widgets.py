"""Text on pages: escapes, durations and counts."""

from __future__ import annotations

import pytest

from callme.webui.widgets import duration, escape_invisible, pluralize, relative, truncate


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("n\u00e4me \U0001f600", "n\u00e4me \U0001f600"),
        ("a\u202eb", "a\u27e8U+202E\u27e9b"),
        ("a\nb", "a\u27e8U+000A\u27e9b"),
        ("\ud800", "\u27e8U+D800\u27e9"),
        ("\uffff", "\u27e8U+FFFF\u27e9"),
        ("\U000e0041", "\u27e8U+E0041\u27e9"),
        ("a\u200cb", "a\u200cb"),
    ],
)
def test_invisible_characters_are_escaped(text: str, shown: str) -> None:
    assert escape_invisible(text) == shown


@pytest.mark.parametrize(
    ("milliseconds", "message"),
    [
        (None, "\u2013"),
        (0, "0 ms"),
        (999, "999 ms"),
        (1_000, "1.0 s"),
        (61_000, "1 min 1 s"),
        (60_000, "1 min"),
        (3_661_000, "1 h 1 min"),
        (90_000_000, "1 d 1 h"),
    ],
)
def test_duration_is_formatted(milliseconds: int | None, message: str) -> None:
    assert duration(milliseconds) == message


def test_count_is_formatted() -> None:
    assert [pluralize(n, "task") for n in (0, 1, 2000)] == ["0 tasks", "1 task", "2,000 tasks"]
    assert truncate("abc", 2) == ("ab", 1)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "just now"),
        (-59, "just now"),
        (-60, "1 minute ago"),
        (-7200, "2 hours ago"),
        (1, "in less than a minute"),
        (60, "in 1 minute"),
        (3 * 86_400, "in 3 days"),
    ],
)
def test_time_from_now_is_in_words(seconds: float, text: str) -> None:
    assert relative(seconds) == text
