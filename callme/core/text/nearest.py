"""The nearest of a set of words, for the texts of errors: the end of a misspelling is short."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterable

_MIN_COMMON = 3
"""Characters that a word must share with a misspelling."""
_NEIGHBOURS = 3
"""Words before and after a misspelling that are compared: a word with which another one begins is
not the nearest in their order."""


class Nearest:
    """A set of words, and the one that shares the longest beginning or end with a text.

    A search takes logarithmic time, so that a large body full of misspellings stays cheap.
    Upper and lower case are the same, and underscores and hyphens make no difference.
    """

    def __init__(self, words: Iterable[str]) -> None:
        words = list(words)
        self._forward = sorted((_folded(word), word) for word in words)
        self._backward = sorted((_folded(word)[::-1], word) for word in words)

    def find(self, text: str) -> str | None:
        """Return the nearest word; ``None`` where none shares three characters and a half."""
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
    """Return the words beside a text: common length, the negative of the rest's, and the word."""
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
