"""Pages of tasks, few at a time and each written bit by bit: long lists hold up nobody else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from attrs import define, field
from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from ..store.port import Page
from .encoding import encode_item
from .put import whoever_waits

AT_ONCE = 2
"""Pages that are read and written at once: that leaves one of the connections which read."""
TURN_BYTES = 16 * 1024
"""Bytes that are written before others have a turn: up to a millisecond of work."""


@define(eq=False)
class Lists:
    """Reads pages and writes their tasks.

    :param clock: what gives others a turn.
    """

    _clock: IReactorTime
    _room: DeferredSemaphore = field(factory=lambda: DeferredSemaphore(AT_ONCE), init=False)

    async def page(
        self, read: Callable[[], Deferred[Page | None]], pretty: bool
    ) -> tuple[Page, list[bytes]] | None:
        """Return a page and its tasks, encoded; ``None`` where there is no page.

        :param read: begins to read it.
        """
        # Who hangs up here is forgotten.
        await self._room.acquire()
        reading = read()
        try:
            page = await whoever_waits(reading)
            if page is None:
                return None
            return page, [item async for item in self._items(page, pretty)]
        finally:
            # Whoever has hung up, the database is busy until it has read the page.
            reading.addBoth(lambda _: self._room.release())

    async def _items(self, page: Page, pretty: bool) -> AsyncIterator[bytes]:
        written = 0
        for task in page.tasks:
            if written > TURN_BYTES:
                written = 0
                await deferLater(self._clock, 0)
            encoded = encode_item(task, pretty)
            written += len(encoded)
            yield encoded
