from __future__ import annotations

import pytest

from callme.core.columns import (
    BASE64,
    JSON_LIST,
    JSON_LIST_OR_EMPTY,
    JSON_OBJECT,
    METHOD,
    MINUTE,
    NAME,
    OPTIONAL_URL,
    URL,
    Column,
    integer_column,
    integer_list_column,
)


@pytest.mark.parametrize(
    ("column", "text"),
    [
        (JSON_LIST, "{}"),
        (JSON_LIST, "[]"),
        (JSON_OBJECT, "[]"),
        (JSON_LIST, "["),
        (JSON_LIST, "[[1]]"),
        (JSON_LIST, "[" * 100_000),
        (JSON_LIST_OR_EMPTY, "[null]"),
        (integer_list_column(0, 9), '["2xx"]'),
        (integer_list_column(0, 9), "[1, 10]"),
        (NAME, ""),
        (NAME, "a@b"),
        (NAME, "a" * 256),
        (METHOD, "G T"),
        (URL, ""),
        (URL, "nonsense"),
        (OPTIONAL_URL, "file:///a"),
        (JSON_OBJECT, '{"a": 1}'),
        (BASE64, "a"),
        (BASE64, "=?=="),
        (BASE64, "\u00e4\u00e4\u00e4\u00e4"),
    ],
)
def test_corrupt_text_of_a_column_is_not_decoded(column: Column, text: str) -> None:
    assert column.decode is not None
    with pytest.raises(
        ValueError, match=r"expected|Expecting|nested|base64|padding|characters|multiple of 4"
    ):
        column.decode(text)


def test_value_out_of_the_bounds_of_a_column_is_not_decoded() -> None:
    for column, value in (
        (integer_column(0, 9), -1),
        (integer_column(0, 9), 10),
        (MINUTE, -60),
        (MINUTE, 61),
        (MINUTE, 10**18),
    ):
        assert column.decode is not None
        with pytest.raises(ValueError, match=r"expected|is not a minute"):
            column.decode(value)
