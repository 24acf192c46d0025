from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callme.core.text.nearest import Nearest

WORDS = ("callback", "retry", "retry_delay", "max_delay", "timeout", "on_failure")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("retries", "retry"),
        ("Retry", "retry"),
        ("retryDelay", "retry_delay"),
        ("retry_dealy", "retry_delay"),
        ("calback", "callback"),
        ("delay", "max_delay"),
        ("maxdelay", "max_delay"),
        ("maxDelay", "max_delay"),
        ("retrys", "retry"),
        ("callback_url", "callback"),
        ("on-failures", "on_failure"),
        ("xyz", None),
        ("", None),
        ("ca", None),
    ],
)
def test_nearest_word_shares_a_beginning_or_an_end(text: str, expected: str | None) -> None:
    assert Nearest(WORDS).find(text) == expected


@given(st.text())
def test_any_text_has_a_nearest_word_or_none(text: str) -> None:
    assert Nearest(WORDS).find(text) in (*WORDS, None)


@given(st.sampled_from(WORDS))
def test_word_is_its_own_nearest(word: str) -> None:
    assert Nearest(WORDS).find(word) == word
