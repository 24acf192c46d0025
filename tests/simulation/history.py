"""The history of a world: faults and clock changes that excuse the daemon."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone

from attrs import define, field

from .timeline import Timeline

FOREVER = float("inf")


@define(eq=False)
class History:
    """A record of the periods with faults, and of the clocks.

    :ivar retention: the retention of finished tasks in days.
    :ivar latest_wall: the latest reading of the wall clock.
    :ivar interruptions: the number of events that may interrupt a call.
    :ivar doubts: the number of commits that appeared to fail.
    :ivar in_the_way: periods (monotonic) in which a due task need not be called at once.
    :ivar lines: the log of a ``verbose`` run.
    """

    timeline: Timeline
    retention: int
    latest_wall: float = 0.0
    interruptions: int = 0
    doubts: int = 0
    in_the_way: list[tuple[float, float]] = field(factory=list)
    verbose: bool = False
    lines: list[str] = field(factory=list)
    _set: list[tuple[float, float]] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.clock_was_set()

    def clock_was_set(self) -> None:
        """Note the wall clock, before and after it is set."""
        self.latest_wall = max(self.latest_wall, self.timeline.wall())
        self._set.append((self.timeline.elapsed, self.timeline.ahead))

    def elapsed(self) -> float:
        return self.timeline.elapsed

    def stamp(self) -> str:
        """Return a time stamp with both clocks."""
        wall = datetime.fromtimestamp(self.timeline.wall(), timezone.utc)
        return f"{self.timeline.elapsed:9.3f} {wall:%d %H:%M:%S}.{wall.microsecond // 1000:03d}"

    def say(self, text: str) -> None:
        """Log an event."""
        if self.verbose:
            self.lines.append(f"{self.stamp()} {text}")

    @staticmethod
    def parse(time: str) -> float:
        """Return the seconds since 1970 of a time in a response."""
        return datetime.fromisoformat(time.replace("Z", "+00:00")).timestamp()

    def hinders(self, seconds: float, since: float | None = None) -> None:
        """Note a fault of some seconds that begins now, or at ``since``."""
        now = self.timeline.elapsed
        self.in_the_way.append((now if since is None else since, now + seconds))

    def elapsed_at(self, wall: float) -> float | None:
        """Return when the wall clock had this reading; ``None`` if it was ever set."""
        if len({ahead for _, ahead in self._set}) > 1:
            return None
        return wall - self.timeline.ahead

    def can_be_called_at(
        self,
        trigger_at: int,
        since: float,
        soon: float,
        restrictions: Sequence[tuple[float, float]] = (),
    ) -> float | None:
        """Return the first moment at which no fault prevents a call for some seconds.

        :param since: the start of the task's existence (monotonic, as is the result).
        :param restrictions: further periods in which it need not be called.
        :return: ``None`` if there is no such moment.
        """
        hindered = [*self.in_the_way, *restrictions]
        at: float | None = since
        while at is not None:
            at = self._says(trigger_at, at)
            if at is None or at + soon > self.timeline.elapsed:
                return None
            ends = [end for begin, end in hindered if begin <= at + soon and at < end]
            if not ends:
                return at
            at = max(ends)
        return None

    def _says(self, wall: float, since: float) -> float | None:
        """Return when the wall clock first has a reading this late, from a moment on."""
        for index, (begin, ahead) in enumerate(self._set):
            last = index + 1 == len(self._set)
            end = FOREVER if last else self._set[index + 1][0]
            at = max(begin, since, wall - ahead)
            if at < end:
                return at
        return None

    def latest_before(self, elapsed: float) -> float:
        """Return the latest reading of the wall clock up to a moment."""
        ends = [begin for begin, _ in self._set[1:]] + [FOREVER]
        said = zip(self._set, ends, strict=True)
        return max(min(end, elapsed) + ahead for (begin, ahead), end in said if begin <= elapsed)
