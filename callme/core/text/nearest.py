"""The nearest of a set of words to a misspelt word, for suggestions in errors."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterable

_MIN_COMMON = 3
"""Minimum length of the common beginning or end of a word and a misspelling."""
_NEIGHBOURS = 3
"""Number of words before and after a misspelling in alphabetical order that are compared: the
direct neighbour may be a longer word with the same beginning."""


class Nearest:
    """Set of words, searched for the word with the longest common beginning or end with a text.

    A search takes logarithmic time, so that a large body full of misspellings stays cheap. Case,
    underscores and hyphens are ignored.
    """

    def __init__(self, words: Iterable[str]) -> None:
        words = list(words)
        self._forward = sorted((_folded(word), word) for word in words)
        self._backward = sorted((_folded(word)[::-1], word) for word in words)

    def find(self, text: str) -> str | None:
        """Return the nearest word; ``None`` if no word is near.

        A near word has at least three characters, and half of the shorter text, in common with it.
        """
        text = _folded(text)
        candidates = [
            *_neighbours(self._forward, text),
            *_neighbours(self._backward, text[::-1]),
        ]
        common, _, word = max(candidates)
        enough = common >= _MIN_COMMON and 2 * common >= min(len(_folded(word)), len(text))
        return word if enough else None


def _folded(word: str) -> str:
    return word.casefold().replace("_", "").replace("-", "")


def _neighbours(words: list[tuple[str, str]], text: str) -> list[tuple[int, int, str]]:
    """Return the neighbours of a text as ``(common length, minus the rest's length, word)``."""
    at = bisect(words, (text,))
    return [
        (common := _common_length(key, text), common - len(key), word)
        for key, word in words[max(0, at - _NEIGHBOURS) : at + _NEIGHBOURS]
    ]


def _common_length(one: str, other: str) -> int:
    length = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        length += 1
    return length
