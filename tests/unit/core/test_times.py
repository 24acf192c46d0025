from __future__ import annotations

from datetime import datetime, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from callme.core.times import (
    MAX_TIMESTAMP,
    Key,
    ceil_to_minute,
    floor_to_minute,
    next_minute,
    parse_absolute,
    parse_key,
    parse_task_name,
    parse_trigger,
    rfc3339,
)
from callme.errors import InvalidValue
from tests.helpers.strategies import TASK_NAMES

NOW = 1_800_014_437.25
MINUTE = 1_800_014_400


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1858809600", 1858809600),
        (1858809600, 1858809600),
        ("1858809637", 1858809600),
        ("0", 0),
        ("+0m", MINUTE),
        ("+5m", MINUTE + 6 * 60),
        ("+0h", MINUTE + 60),
        ("+6h", MINUTE + 6 * 3600 + 60),
        ("+1d", MINUTE + 86400 + 60),
        ("2028-11-26T00:00:00Z", 1858809600),
        ("2028-11-26t00:00:59.999z", 1858809600),
        ("2028-11-26T01:00:00+01:00", 1858809600),
        ("2028-11-25T18:30:00-05:30", 1858809600),
        ("2016-12-31T23:59:60Z", 1483228740),
        ("9999-12-31T23:59:00Z", MAX_TIMESTAMP - 59),
    ],
)
def test_valid_time_is_parsed(text: object, expected: int) -> None:
    assert expected == parse_trigger(text, NOW)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "tomorrow",
        "+5",
        "+5s",
        "+-5m",
        "+5M",
        "+5m ",
        " 5",
        "+٣m",
        "1858809600.0",
        "-60",
        "1e9",
        "0x10",
        "+999999999999d",
        "9" * 5000,
        "2028-11-26T00:00:00",
        "2028-11-26",
        "2028-13-26T00:00:00Z",
        "2028-02-30T00:00:00Z",
        "2028-11-26T24:00:00Z",
        "2028-11-26T00:00:61Z",
        "2028-11-26T00:00:00+24:00",
        "2028-11-26T00:00:00+00:60",
        "0000-01-01T00:00:00Z",
        "1969-12-31T23:59:59Z",
        MAX_TIMESTAMP + 1,
        -1,
        2**63,
        True,
        None,
        1.5,
        [],
        {},
    ],
)
def test_invalid_time_is_refused_with_the_expected_form(value: object) -> None:
    with pytest.raises(InvalidValue, match=r"expected a|is not a time|out of range") as refused:
        parse_trigger(value, NOW)
    assert len(str(refused.value)) < 400


@given(st.integers(0, 2 * 10**14), st.integers(0, 10_000), st.sampled_from("mhd"))
def test_relative_time_is_not_early(now_ms: int, count: int, unit: str) -> None:
    now = now_ms / 1000
    asked = now + count * {"m": 60, "h": 3600, "d": 86400}[unit]
    trigger_at = parse_trigger(f"+{count}{unit}", now)
    assert trigger_at % 60 == 0
    if (count, unit) == (0, "m"):
        assert trigger_at <= now < trigger_at + 60
    else:
        assert asked <= trigger_at < asked + 60


@given(st.integers(0, MAX_TIMESTAMP), st.sampled_from([0, 60, -330, 845]))
@example(MAX_TIMESTAMP, 0)
def test_equal_times_in_different_forms_are_parsed_alike(second: int, offset: int) -> None:
    expected = second - second % 60
    assert expected == parse_trigger(second, NOW)
    assert expected == parse_trigger(str(second), NOW)
    assert expected == parse_trigger(rfc3339(second * 1000), NOW)
    if 86400 <= second <= MAX_TIMESTAMP - 86400:
        local = datetime.fromtimestamp(second + offset * 60, timezone.utc)
        sign, ahead = "-" if offset < 0 else "+", abs(offset)
        text = f"{local:%Y-%m-%dT%H:%M:%S}{sign}{ahead // 60:02d}:{ahead % 60:02d}"
        assert expected == parse_trigger(text, NOW)


@given(st.text() | st.integers() | st.floats() | st.none() | st.booleans())
def test_any_other_text_is_refused(value: object) -> None:
    try:
        assert parse_trigger(value, NOW) % 60 == 0
    except InvalidValue as refused:
        assert str(refused).isascii()


def test_key_with_a_relative_time_is_refused() -> None:
    with pytest.raises(InvalidValue):
        parse_absolute("+5m")


@given(st.integers(0, 10**14).map(lambda ms: ms / 1000))
def test_minutes_are_rounded_down_and_up(seconds: float) -> None:
    assert floor_to_minute(seconds) <= seconds < next_minute(seconds)
    assert 0 <= ceil_to_minute(seconds) - seconds < 60


@given(TASK_NAMES, st.integers(0, MAX_TIMESTAMP))
def test_key_round_trips_through_text(name: str, second: int) -> None:
    key = Key(name, floor_to_minute(second))
    assert key == parse_key(str(key))
    assert key == parse_key(f"{name}@{second}")


@pytest.mark.parametrize(
    "name", ["", "x" * 256, "a@b", "a/b", "a\nb", "a\x7fb", "a\x85b", "\ud800", 5, None, True]
)
def test_invalid_name_is_refused(name: object) -> None:
    with pytest.raises(InvalidValue, match=r"name|surrogate"):
        parse_task_name(name)


@pytest.mark.parametrize("text", ["name", "name@", "@60", "a@b@60", "a@+5m", "a@1.5"])
def test_invalid_key_is_refused(text: str) -> None:
    with pytest.raises(InvalidValue):
        parse_key(text)


def test_time_is_formatted_with_milliseconds() -> None:
    assert rfc3339(1858809637005) == "2028-11-26T00:00:37.005Z"
