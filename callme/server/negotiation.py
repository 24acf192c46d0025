"""Content negotiation by the ``Accept`` header (RFC 9110, section 12.5.1).

Wildcards such as ``*/*`` are ignored: only a client that names a media type receives another than
the default representation of a resource.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header

MAX_ACCEPT = 2048
"""Maximum length of an ``Accept`` header in bytes; a longer header is ignored.

Parsing takes time in proportion to the length, even for unauthenticated clients.
"""


def wants_calendar(accept: bytes | None) -> bool:
    """Return whether a client prefers ``text/calendar`` to JSON."""
    weights = _weights(accept)
    return weights.get("text/calendar", 0.0) > weights.get("application/json", 0.0)


def wants_html(accept: bytes | None) -> bool:
    """Return whether a client accepts HTML, as every browser does."""
    return _weights(accept).get("text/html", 0.0) > 0


def wants_openmetrics(accept: bytes | None) -> bool:
    """Return whether a client accepts OpenMetrics and does not prefer ``text/plain``."""
    weights = _weights(accept)
    weight = weights.get("application/openmetrics-text", 0.0)
    return weight > 0 and weight >= weights.get("text/plain", 0.0)


@lru_cache(maxsize=64)
def _weights(accept: bytes | None) -> Mapping[str, float]:
    """Return the weight of each media type in a header, in lower case.

    Parameters such as ``version=1.0.0`` are ignored; of a repeated type, the largest weight is
    used.
    """
    if accept is None or len(accept) > MAX_ACCEPT:
        return {}
    weights: dict[str, float] = {}
    for value, weight in parse_accept_header(accept.decode("latin-1"), MIMEAccept):
        media_type = value.partition(";")[0].strip().lower()
        weights[media_type] = max(weight, weights.get(media_type, 0.0))
    return weights
