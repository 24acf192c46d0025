"""Time zones by name, from the ``tzdata`` package.

The system's own database, which :mod:`zoneinfo` prefers, differs between machines: the same task
would be called at different times.
"""

from __future__ import annotations

from datetime import datetime, timedelta, tzinfo
from functools import lru_cache
from importlib.resources import files
from zoneinfo import ZoneInfo

from ...errors import InvalidValue, quoted
from .nearest import Nearest


@lru_cache(maxsize=1)
def zone_names() -> frozenset[str]:
    """Return the names of all zones."""
    return frozenset(files("tzdata").joinpath("zones").read_text("ascii").split())


@lru_cache(maxsize=1)
def _nearest() -> Nearest:
    return Nearest(zone_names())


@lru_cache(maxsize=1024)
def zone(name: str) -> tzinfo:
    """Return the zone with a name.

    :raises InvalidValue: when there is none; the text suggests the nearest name.
    """
    # The name becomes a path, so it must be a known one.
    if name not in zone_names():
        nearest = _nearest().find(name)
        advice = f": did you mean {nearest}?" if nearest else ": expected one such as Europe/Berlin"
        raise InvalidValue(f"there is no time zone {quoted(name)}{advice}")
    with files("tzdata").joinpath("zoneinfo", *name.split("/")).open("rb") as file:
        return ZoneInfo.from_file(file, name)


def local_to_utc(local: datetime, name: str) -> tuple[int, str]:
    """Convert a local time in a zone to UTC.

    A time that the zone skips moves forward by the length of the gap. Of a time that occurs twice,
    the first occurrence is used.

    :param local: the local time, without a zone.
    :returns: seconds since 1970, and a warning, which is empty for a time that occurs once.
    """
    first = local.replace(tzinfo=zone(name))
    second = first.replace(fold=1)
    before, after = _offset(first), _offset(second)
    # In a gap, fold=0 uses the offset before the gap, which yields a time after it (PEP 495).
    timestamp = round((local - _EPOCH - before) / _SECOND)
    if before == after:
        return timestamp, ""
    written = f"{local:%Y-%m-%dT%H:%M}[{name}]"
    if before < after:
        moved = local + (after - before)
        return timestamp, f"{written} is skipped by the zone: it becomes {moved:%H:%M}"
    return timestamp, f"{written} occurs twice: the first one is used"


def offset_at(timestamp: int, name: str) -> int:
    """Return the offset of a zone at a time, in seconds east of UTC."""
    utc = (_EPOCH + timestamp * _SECOND).replace(tzinfo=zone(name))
    return round(_offset(zone(name).fromutc(utc)) / _SECOND)


def _offset(local: datetime) -> timedelta:
    offset = local.utcoffset()
    assert offset is not None
    return offset


_EPOCH = datetime(1970, 1, 1)
_SECOND = timedelta(seconds=1)
