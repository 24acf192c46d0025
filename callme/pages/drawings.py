"""Charts as they are sent: drawn once for all who look at them.

To draw and to write them takes three times as long as all else of a page. Who looks within a
second sees the same, however often is counted.
"""

from __future__ import annotations

from attrs import define, field
from twisted.web.template import Element, flattenString

from ..core.forecast import Forecast
from ..hindsight import Happened
from .drawn import AheadChart, PastCharts, Uncounted, in_words

KEPT_SECONDS = 1
"""How much older than the last count what is drawn may be: no page says less than that."""
# Only a template has comments: whatever else is in a page, markup in it is escaped.
_PLACE = b"<!--charts-->"


@define(eq=False)
class Drawings:
    """Keeps the last charts of each kind and length, and what they were drawn of."""

    _kept: dict[tuple[str, int], tuple[Happened | Forecast, bytes]] = field(
        factory=dict, init=False
    )

    async def past(self, hours: int, happened: Happened | None) -> bytes:
        """Return the charts of what happened; ``None`` is what was not counted yet."""
        if happened is None:
            title = f"The last {in_words(hours)}"
            return await flattenString(None, Uncounted("past", title, "What happened"))
        return await self._drawn("past", hours, happened, PastCharts(hours, happened))

    async def ahead(self, hours: int, forecast: Forecast | None) -> bytes:
        """Return the chart of what is ahead; ``None`` is what was not counted yet."""
        if forecast is None:
            title = f"The next {in_words(hours)}"
            return await flattenString(None, Uncounted("ahead", title, "What is ahead"))
        return await self._drawn("ahead", hours, forecast, AheadChart(hours, forecast))

    async def _drawn(
        self, kind: str, hours: int, source: Happened | Forecast, chart: Element
    ) -> bytes:
        last = self._kept.get((kind, hours))
        if last is not None:
            since, drawn = last
            new = source.counted_at - since.counted_at
            if 0 <= new < KEPT_SECONDS and source.begin == since.begin:
                return drawn
        drawn = await flattenString(None, chart)
        self._kept[kind, hours] = (source, drawn)
        return drawn


def insert(page: bytes, charts: bytes) -> bytes:
    """Return a page with its charts in their place."""
    before, _, after = page.partition(_PLACE)
    return b"<!DOCTYPE html>" + before + charts + after
