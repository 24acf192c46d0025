"""Hypothesis strategies that several test modules draw from."""

from __future__ import annotations

from hypothesis import strategies as st

TASK_NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="@/", exclude_categories=["Cc", "Cs"]),
    min_size=1,
    max_size=255,
)
