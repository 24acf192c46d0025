"""Local times against :mod:`zoneinfo`, at every transition of forty years."""

from __future__ import annotations

import zoneinfo
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from importlib.resources import files

import pytest

from callme.core.text.zones import zone, zone_names
from callme.core.times import parse_trigger
from callme.errors import InvalidValue

_STEP = 5 * 86400
"""No zone changes its offset twice within five days."""


@pytest.fixture
def only_tzdata() -> Iterator[None]:
    """Let :mod:`zoneinfo` read the same zones as callme."""
    path = zoneinfo.TZPATH
    zoneinfo.reset_tzpath([])
    zoneinfo.ZoneInfo.clear_cache()
    yield
    zoneinfo.reset_tzpath(path)
    zoneinfo.ZoneInfo.clear_cache()


def offset_at(info: zoneinfo.ZoneInfo, second: int) -> int:
    offset = datetime.fromtimestamp(second, info).utcoffset()
    assert offset is not None
    return round(offset.total_seconds())


def transitions(info: zoneinfo.ZoneInfo, begin: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield the second of each change of a zone's offset, with the offsets before and after."""
    before = offset_at(info, begin)
    for second in range(begin + _STEP, end, _STEP):
        after = offset_at(info, second)
        if after != before:
            low, high = second - _STEP, second
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if offset_at(info, middle) == before else (low, middle)
            yield high, before, after
        before = after


def parsed(local_second: int, name: str) -> tuple[int, list[str]]:
    """Return the minute of a local time, given as if it were UTC, and its warnings."""
    local = datetime(1970, 1, 1) + timedelta(seconds=local_second)
    warnings: list[str] = []
    minute = parse_trigger(f"{local:%Y-%m-%dT%H:%M}[{name}]", 0.0, warnings.append)
    return minute, warnings


@pytest.mark.usefixtures("only_tzdata")
def test_every_gap_and_overlap_of_forty_years_is_resolved() -> None:
    now = int(datetime.now(timezone.utc).timestamp())
    begin, end = now - 20 * 31_557_600, now + 20 * 31_557_600
    found = 0
    for name in sorted(zone_names()):
        for at, before, after in transitions(zoneinfo.ZoneInfo(name), begin, end):
            found += 1
            first, last = at + min(before, after), at + max(before, after)
            assert parsed(first - 60, name) == (first - 60 - before, [])
            assert parsed(last, name) == (last - after, [])
            for local in (first, (first + last) // 120 * 60, last - 60):
                # Both in a gap and in an overlap, the offset of before counts.
                minute, warnings = parsed(local, name)
                assert minute == local - before
                (warning,) = warnings
                moved = datetime(1970, 1, 1) + timedelta(seconds=local + after - before)
                expected = (
                    f"is skipped by the zone: it becomes {moved:%H:%M}"
                    if after > before
                    else "occurs twice: the first one is used"
                )
                assert warning.endswith(expected)
    assert found > 5_000


def test_system_zones_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoneinfo, "TZPATH", ("/nonexistent",))
    assert str(zone("Europe/Berlin")) == "Europe/Berlin"
    with pytest.raises(InvalidValue):
        zone("../zones")


def test_every_zone_is_readable() -> None:
    for name in zone_names():
        assert files("tzdata").joinpath("zoneinfo", *name.split("/")).is_file()
        assert zone(name).utcoffset(datetime(2028, 11, 26)) is not None
