"""Texts that hold one thing a line."""

from __future__ import annotations

from collections.abc import Iterator


def entries(text: str) -> Iterator[tuple[int, str]]:
    """Yield each line that holds something, and its number, from 1.

    Those that are empty hold nothing, and those that begin with ``#`` are remarks.
    """
    for number, line in enumerate(text.split("\n"), start=1):
        entry = line.strip()
        if entry and not entry.startswith("#"):
            yield number, entry
