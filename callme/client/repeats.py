"""Repetition of requests: the decision whether and when, without I/O."""

from __future__ import annotations

from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

from attrs import frozen

MAX_DELAY_SECONDS = 60.0
"""Maximum delay before a repetition in seconds, even if ``Retry-After`` is longer."""
_REFUSED = 429
_UNAVAILABLE = 503
_GATEWAY = frozenset({502, 504})


@frozen(kw_only=True)
class Repeats:
    """A limit of repetitions.

    :ivar limit: the maximum number of repetitions of a request.
    :ivar first_delay_seconds: the delay without a ``Retry-After``; it doubles each time.
    """

    limit: int = 4
    first_delay_seconds: float = 0.5

    def delay(
        self,
        made: int,
        *,
        status: int | None,
        is_repeatable: bool,
        retry_after: str | None = None,
    ) -> float | None:
        """Return the seconds until the next repetition, or ``None`` if there is none.

        callme rejects with 429 before it does anything, so any request can follow. After a 503
        or a lost connection the effect is unknown, so only a repeatable request can.

        :param made: the number of repetitions made.
        :param status: the status of the response; ``None`` if the connection failed.
        """
        unknown_effect = status in (None, _UNAVAILABLE) or status in _GATEWAY
        if made >= self.limit or not (status == _REFUSED or (unknown_effect and is_repeatable)):
            return None
        backoff: float = self.first_delay_seconds * 2**made
        return min(MAX_DELAY_SECONDS, max(backoff, seconds_of(retry_after)))


def seconds_of(retry_after: str | None, now: datetime | None = None) -> float:
    """Return the seconds that a ``Retry-After`` names (RFC 9110, 10.2.3); 0 if it names none."""
    text = (retry_after or "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return max(0.0, (moment - (now or datetime.now(timezone.utc))).total_seconds())
