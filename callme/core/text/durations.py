"""Durations: ``+90s``, ``2w``, ``1d12h``, and those of ISO 8601 such as ``PT5M``."""

from __future__ import annotations

import re

_SECONDS = (604_800, 86_400, 3_600, 60, 1)
"""Seconds in a week, a day, an hour, a minute and a second: the units in a duration's order."""
_COUNT = "[0-9]{1,12}"
# Each part is optional; the look-ahead requires at least one.
PATTERN = (
    rf"\+?(?:(?=[0-9])(?:({_COUNT})w)?(?:({_COUNT})d)?(?:({_COUNT})h)?(?:({_COUNT})m)?"
    rf"(?:({_COUNT})s)?"
    rf"|P(?=[0-9T])(?:({_COUNT})W)?(?:({_COUNT})D)?"
    rf"(?:T(?=[0-9])(?:({_COUNT})H)?(?:({_COUNT})M)?(?:({_COUNT}(?:\.[0-9]{{1,9}})?)S)?)?)"
)
"""Regular expression of a duration, in the dialect of JSON Schema too."""
_DURATION = re.compile(PATTERN)


def parse_duration(text: str) -> float | None:
    """Return the seconds of a duration; ``None`` if the text is not a duration."""
    match = _DURATION.fullmatch(text)
    if match is None:
        return None
    parts = match.groups()
    counts = parts[5:] if "P" in text else parts[:5]
    return sum(
        _count(count) * seconds for count, seconds in zip(counts, _SECONDS, strict=True) if count
    )


def rough_duration(seconds: float) -> str:
    """Return a duration as text in its largest fitting unit, such as ``3 days``."""
    for unit, length in (("year", 31_557_600), ("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= length:
            count = int(seconds / length)
            return f"{count:,} {unit}{'' if count == 1 else 's'}"
    return "less than a minute"


def _count(text: str) -> float:
    return float(text) if "." in text else int(text)
