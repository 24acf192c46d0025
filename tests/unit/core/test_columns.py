from __future__ import annotations

import pytest

from callme.core.columns import (
    BASE64,
    JSON_INTEGERS,
    JSON_LIST,
    JSON_LIST_OR_EMPTY,
    JSON_OBJECT,
    Column,
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
        (JSON_INTEGERS, '["2xx"]'),
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
