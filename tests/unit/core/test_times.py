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
    is_key,
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
        ("2028-11-26T23:59+23:59", 1858809600),
        ("2028-11-25T00:01-23:59", 1858809600),
        ("9999-12-31T23:59:00Z", MAX_TIMESTAMP - 59),
        ("1858809600.25", 1858809600),
        (1858809659.75, 1858809600),
        (1.5, 0),
        ("2028-11-26T00:00Z", 1858809600),
        ("2028-11-26 00:00:00Z", 1858809600),
        ("2028-11-26T01:00:00.123456+0100", 1858809600),
        ("now", MINUTE),
        ("0m", MINUTE),
        ("+0s", MINUTE + 60),
        ("+90s", MINUTE + 3 * 60),
        ("+5s", MINUTE + 60),
        ("+2w", MINUTE + 14 * 86400 + 60),
        ("1d12h", MINUTE + 36 * 3600 + 60),
        ("+1w2d3h4m5s", MINUTE + (9 * 24 + 3) * 3600 + 5 * 60),
        ("6h", MINUTE + 6 * 3600 + 60),
        ("PT5M", MINUTE + 6 * 60),
        ("P1DT12H", MINUTE + 36 * 3600 + 60),
        ("+P2W", MINUTE + 14 * 86400 + 60),
        ("PT22.75S", MINUTE + 60),
        ("PT22.5S", MINUTE + 60),
        ("PT23.5S", MINUTE + 120),
        ("2028-11-26T09:00[Europe/Berlin]", 1858838400),
        ("2028-11-26 09:00:30.5[Europe/Berlin]", 1858838400),
        ("2028-11-26T09:00+01:00[Europe/Berlin]", 1858838400),
        ("2028-11-26T08:00Z[!Europe/Berlin]", 1858838400),
        ("2028-10-29T02:30+0200[Europe/Berlin]", 1856392200),
        ("2028-10-29T02:30+01:00[Europe/Berlin]", 1856395800),
        ("2028-11-26T00:00[Etc/GMT+12]", 1858852800),
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
        "s",
        "5h1d",
        "+1m1m",
        "1.5h",
        "P",
        "PT",
        "P1DT",
        "PT5",
        "P1M",
        "+5m+5m",
        "9" * 22,
        "+" + "9" * 13 + "m",
        "1.",
        ".5",
        "2028-11-26T09:00[]",
        "2028-11-26T09:00[../../etc/passwd]",
        "2028-11-26T09:00[Europe/]",
        "2028-11-26T09:00Z[Europe/Berlin][u-ca=hebrew]",
        "2028-11-26T09:00[+01:00]",
        "9999-12-31T23:59[America/New_York]",
        "9999-12-31T23:59-05:00[America/New_York]",
        "0001-01-01T00:00[Asia/Tokyo]",
        "0001-01-01T00:00+09:00[Asia/Tokyo]",
        "+-5m",
        "+5M",
        "+5m ",
        " 5",
        "+٣m",
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
        -0.5,
        float("inf"),
        float("nan"),
        [],
        {},
    ],
)
def test_invalid_time_is_refused_with_the_expected_form(value: object) -> None:
    with pytest.raises(InvalidValue, match=r"expected a|is not a time|out of range") as refused:
        parse_trigger(value, NOW)
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1795818921000, "milliseconds, expected seconds since 1970: divide it by 1,000"),
        ("1795818921000", "milliseconds"),
        (1795818921000.5, "milliseconds"),
        (1795818921000123, "microseconds, expected seconds since 1970: divide it by 1,000,000"),
        ("1795818921000123456", "nanoseconds"),
        ("@daily", "no recurring tasks: docs/migrating.md"),
        ("@every 5m", "no recurring tasks"),
        ("0 3 * * *", "no recurring tasks"),
        ("*/5 0-3 1,2 JAN MON", "no recurring tasks"),
        ("2028-11-26T09:00", "an offset or a zone"),
        ("2028-11-26 09:00:00", "an offset or a zone"),
        ("2028-11-26", "a time of day"),
        ("+5", "a unit"),
        ("P1M", "no fixed length"),
        ("P1Y2D", "no fixed length"),
        ("2028-11-26T09:00[Europe/Berln]", "did you mean Europe/Berlin?"),
        ("2028-11-26T09:00[europe/berlin]", "did you mean Europe/Berlin?"),
        ("2028-11-26T09:00[Berlin]", "did you mean Europe/Berlin?"),
        ("2028-11-26T09:00[Mars]", "expected one such as Europe/Berlin"),
        ("2028-11-26T09:00+02:00[Europe/Berlin]", "the offset of Europe/Berlin is +01:00 then"),
        ("2028-03-26T02:30+01:00[Europe/Berlin]", "the offset of Europe/Berlin is +02:00 then"),
        ("2028-11-26T09:00+02:00[America/St_Johns]", "America/St_Johns is -03:30 then"),
    ],
)
def test_time_that_is_not_accepted_is_refused_with_the_way_out(
    value: object, expected: str
) -> None:
    with pytest.raises(InvalidValue) as refused:
        parse_trigger(value, NOW)
    assert expected in str(refused.value)


@pytest.mark.parametrize("text", ["bob@example.com", "bob@example.com@1858809600", "a@b"])
def test_name_with_an_at_sign_in_a_key_is_refused_with_the_way_out(text: str) -> None:
    with pytest.raises(InvalidValue, match="a name has no '@'"):
        parse_key(text)
    with pytest.raises(InvalidValue) as refused:
        parse_key("a@1x")
    assert "a name has no" not in str(refused.value)


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


@pytest.mark.parametrize("text", ["name", "name@", "@60x", "@", "@-1", "a@b@60", "a@+5m", "a@1.5x"])
def test_invalid_key_is_refused(text: str) -> None:
    with pytest.raises(InvalidValue):
        parse_key(text)


def test_number_of_a_row_is_a_key() -> None:
    key = parse_key("@12")
    assert key == Key.of_row(12)
    assert (key.row_number, str(key)) == (12, "@12")
    assert Key("a", 60).row_number is None


@pytest.mark.parametrize(
    ("name", "at", "expected"),
    [
        ("a", 60, True),
        ("", 60, False),
        ("a@b", 60, False),
        ("a" * 256, 60, False),
        (b"a", 60, False),
        ("a", 61, False),
        ("a", -60, False),
        ("a", 10**18, False),
        ("a", "60", False),
        ("a", None, False),
    ],
)
def test_stored_name_and_minute_are_a_key_or_none(name: object, at: object, expected: bool) -> None:
    assert is_key(name, at) is expected


def test_time_is_formatted_with_milliseconds() -> None:
    assert rfc3339(1858809637005) == "2028-11-26T00:00:37.005Z"


def test_time_after_the_last_year_is_formatted_as_its_end() -> None:
    """``max_delay`` of a task at the end of 9999 reaches beyond what RFC 3339 can say."""
    assert rfc3339((MAX_TIMESTAMP + 600) * 1000) == "9999-12-31T23:59:59.999Z"
