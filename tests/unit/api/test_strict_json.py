from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callme.api.strict_json import TooManyValues, decode, decode_array
from callme.errors import InvalidValue


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"{'a': 1}", "not JSON"),
        (b'{"a": 1} x', "not JSON"),
        (b'"\x01"', "not JSON"),
        (b'"\xff"', "not UTF-8: the byte at line 1, column 2 is 0xff"),
        (b'{\n"\xc3\xa9": "\xff"}', "not UTF-8: the byte at line 2, column 7 is 0xff"),
        (b"{\n\n  x}", "double quotes at line 3, column 3"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b"NaN", "NaN is not JSON"),
        (b'{"a": [-Infinity]}', "-Infinity is not JSON"),
        (b"1e400", "too large"),
        (b"9" * 5000, "too many digits"),
        (b"[" * 9_000 + b"]" * 9_000, "too deep"),
        (b"[" * 51 + b"]" * 51, "too deep"),
        (b'{"a": [' + b"[" * 950 + b"]" * 950 + b"]}", "too deep"),
        (b'{"a":' * 9_000 + b"1" + b"}" * 9_000, "too deep"),
        (b"[" * 10_001, "more than 10,000 values"),
        (b"[" + b"{}," * 10_000 + b"1]", "more than 10,000 values"),
        (b'{"a": [' + b'"[",' * 10_000 + b"1]}", "more than 10,000 values"),
        (b"[" + b"1," * 10_000 + b'"', "not JSON|more than"),
        (b'["' + b"[" * 10_000 + b"\x01", "not JSON"),
        (b"[1] " + b"[" * 10_000, "expected its end"),
        (b'{"a": 1, "a": 1}', '"a" occurs twice'),
        (b'{"b": {"a": 1, "b": 2, "a": 1}}', '"a" occurs twice'),
        (b'"\\ud800"', "lone surrogate"),
        (b'{"\\udc00": 1}', "lone surrogate"),
        (b'[{"a": "\\ud800"}]', "lone surrogate"),
    ],
)
def test_invalid_json_is_refused_with_its_position(data: bytes, message: str) -> None:
    with pytest.raises(InvalidValue, match=message) as refused:
        decode(data)
    assert len(str(refused.value)) < 300


def test_surrogate_pair_is_one_character() -> None:
    assert decode(b'"\\ud83d\\ude00"') == "\U0001f600"


def test_nesting_within_the_limit_is_accepted() -> None:
    assert decode(b'{"\\u0061":' + b"[" * 48 + b"]" * 48 + b"}")
    assert decode(b"[" + b"{}," * 1000 + b"1]")


@pytest.mark.parametrize("mark", ["[", "{", ",", "]", '"'])
def test_brackets_in_strings_are_not_counted_as_values(mark: str) -> None:
    value = [{"payload": mark * 20_000}]
    data = json.dumps(value).encode()
    assert decode(data) == value
    assert [item for item, _ in decode_array(b"[" + data + b"," + data + b"]")] == [value, value]


def test_text_with_the_maximum_of_values_is_read() -> None:
    most = list(range(9_999))
    assert decode(json.dumps(most).encode()) == most
    assert [item for item, _ in decode_array(json.dumps([most, 1, most]).encode())] == [
        most,
        1,
        most,
    ]


def test_item_with_too_many_values_is_not_decoded() -> None:
    items = decode_array(b'[{"a": 1}, [' + b"[]," * 100_000 + b"1], 2]")
    assert next(items)[0] == {"a": 1}
    with pytest.raises(TooManyValues, match="more than 10,000 values"):
        next(items)


TEXT = st.text(st.characters(codec="utf-8"))
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
LEAF = st.none() | st.booleans() | NUMBERS | TEXT
VALUES: st.SearchStrategy[object] = st.deferred(
    lambda: LEAF | st.lists(VALUES, max_size=4) | st.dictionaries(TEXT, VALUES, max_size=4)
)


@given(VALUES, st.booleans())
def test_any_json_value_round_trips(value: object, escaped: bool) -> None:
    assert value == decode(json.dumps(value, ensure_ascii=escaped).encode())


@given(st.binary())
def test_any_text_is_read_or_refused(data: bytes) -> None:
    try:
        decode(data)
    except InvalidValue:
        return


OBJECTS = st.lists(
    st.recursive(
        st.sampled_from([1, "},{", "\\", '"', "é", None]),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["a", "},"]), inner),
    )
)


@given(OBJECTS, st.integers(1, 400), st.sampled_from([(",", ":"), (" , ", ": ")]))
def test_items_of_an_array_do_not_depend_on_the_size_of_runs(
    items: list[object], repetitions: int, separators: tuple[str, str]
) -> None:
    """Some of these arrays are longer than the part that is decoded at once."""
    items = [*items, {"filling": "},{" * 100}] * repetitions
    data = json.dumps(items, separators=separators).encode()
    assert [item for item, _ in decode_array(data)] == items


@pytest.mark.parametrize("bad", ['{"a": 1, "a": 2}', "NaN", '"\\ud800"', "[" * 60 + "]" * 60])
def test_refused_item_does_not_affect_others_that_are_decoded_at_once(bad: str) -> None:
    good = [{"number": number, "filling": "x" * 100} for number in range(2000)]
    texts = [json.dumps(item) for item in good]
    texts.insert(1000, bad)
    items = [item for item, _ in decode_array(f"[{','.join(texts)}]".encode())]
    assert isinstance(items.pop(1000), InvalidValue)
    assert items == good


def test_length_of_an_array_is_the_sum_of_the_lengths_of_its_items() -> None:
    """A reader of the items can stop after a number of characters."""
    data = json.dumps([{"number": number} for number in range(10_000)]).encode()
    lengths = [length for _, length in decode_array(data)]
    assert 0.9 * len(data) < sum(lengths) <= len(data)
    assert max(lengths) <= 64 * 1024
