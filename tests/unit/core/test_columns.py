from __future__ import annotations

import pytest

from callme.core.columns import JSON_LIST, JSON_OBJECT, Column


@pytest.mark.parametrize(
    ("column", "text"),
    [(JSON_LIST, "{}"), (JSON_LIST, "[]"), (JSON_OBJECT, "[]"), (JSON_LIST, "[")],
)
def test_corrupt_text_of_a_column_is_not_decoded(column: Column, text: str) -> None:
    assert column.decode is not None
    with pytest.raises(ValueError, match=r"expected|Expecting"):
        column.decode(text)
