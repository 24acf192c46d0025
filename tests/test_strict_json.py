from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callme.core.errors import InvalidValue
from callme.core.strict_json import decode


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"{'a': 1}", "not JSON"),
        (b'{"a": 1} x', "not JSON"),
        (b'"\x01"', "not JSON"),
        (b'"\xff"', "not UTF-8: byte 1 is 0xff"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b"NaN", "NaN is not JSON"),
        (b'{"a": [-Infinity]}', "-Infinity is not JSON"),
        (b"1e400", "too large"),
        (b"9" * 5000, "too many digits"),
        (b"[" * 100_000, "too deep"),
        (b"[" * 51 + b"]" * 51, "too deep"),
        (b'{"a": [' + b"[" * 950 + b"]" * 950 + b"]}", "too deep"),
        (b'{"a":' * 100_000, "too deep"),
        (b'{"a": 1, "a": 1}', '"a" stands twice'),
        (b'{"b": {"a": 1, "b": 2, "a": 1}}', '"a" stands twice'),
        (b'"\\ud800"', "lone surrogate"),
        (b'{"\\udc00": 1}', "lone surrogate"),
        (b'[{"a": "\\ud800"}]', "lone surrogate"),
    ],
)
def test_refused(data: bytes, said: str) -> None:
    with pytest.raises(InvalidValue, match=said) as refused:
        decode(data)
    assert len(str(refused.value)) < 300


def test_a_surrogate_pair_is_a_character() -> None:
    assert decode(b'"\\ud83d\\ude00"') == "\U0001f600"


def test_deep_but_sane_is_accepted() -> None:
    assert decode(b'{"\\u0061":' + b"[" * 48 + b"]" * 48 + b"}")
    assert decode(b"[" + b"{}," * 1000 + b"1]")


TEXT = st.text(st.characters(codec="utf-8"))
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
LEAF = st.none() | st.booleans() | NUMBERS | TEXT
VALUES: st.SearchStrategy[object] = st.deferred(
    lambda: LEAF | st.lists(VALUES, max_size=4) | st.dictionaries(TEXT, VALUES, max_size=4)
)


@given(VALUES, st.booleans())
def test_what_is_json_is_read(value: object, escaped: bool) -> None:
    assert value == decode(json.dumps(value, ensure_ascii=escaped).encode())


@given(st.binary())
def test_whatever_comes_is_read_or_refused(data: bytes) -> None:
    try:
        decode(data)
    except InvalidValue:
        return
