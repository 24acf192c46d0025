"""Time zones by name, from the ``tzdata`` package: the same on every machine.

The system's own database, which :mod:`zoneinfo` prefers, differs between machines, and so would
the minute of a task.
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
    """Return the name of every known zone."""
    return frozenset(files("tzdata").joinpath("zones").read_text("ascii").split())


@lru_cache(maxsize=1)
def _nearest() -> Nearest:
    return Nearest(zone_names())


@lru_cache(maxsize=1024)
def zone(name: str) -> tzinfo:
    """Return the zone of a name.

    :raises InvalidValue: when there is none; the text names the nearest one.
    """
    # Only a known name becomes a path.
    if name not in zone_names():
        nearest = _nearest().find(name)
        advice = f": did you mean {nearest}?" if nearest else ": expected one such as Europe/Berlin"
        raise InvalidValue(f"there is no time zone {quoted(name)}{advice}")
    with files("tzdata").joinpath("zoneinfo", *name.split("/")).open("rb") as file:
        return ZoneInfo.from_file(file, name)


def local_to_utc(local: datetime, name: str) -> tuple[int, str]:
    """Return the second of a local time in a zone, and a warning where the time is not plain.

    A time that the zone skips becomes the same distance after the gap. A time that occurs twice is
    the first one.

    :param local: the local time, without a zone.
    :returns: seconds since 1970, and a sentence, which is empty for a time that occurs once.
    """
    first = local.replace(tzinfo=zone(name))
    second = first.replace(fold=1)
    before, after = _offset(first), _offset(second)
    # PEP 495: in a gap, fold=0 takes the offset before it, which leads to a time after it.
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
