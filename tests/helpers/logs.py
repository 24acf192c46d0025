"""The failures that a test logs."""

from __future__ import annotations

from twisted.logger import ILogObserver, LogEvent
from twisted.python.failure import Failure
from zope.interface import implementer


@implementer(ILogObserver)
class LoggedFailures:
    """The failures logged during a test, unhandled ones included."""

    def __init__(self) -> None:
        self.failures: list[Failure] = []

    def __call__(self, event: LogEvent) -> None:
        if "log_failure" in event:
            self.failures.append(event["log_failure"])

    def flush(self, kind: type[BaseException]) -> int:
        """Forget the failures of a kind that the test provoked; return their number."""
        found = [failure for failure in self.failures if failure.check(kind)]
        self.failures = [failure for failure in self.failures if failure not in found]
        return len(found)
