"""A soak: a steady load on one daemon for an hour, and the growth of its memory.

Run ``python -m tests.daemon.soak [--minutes 60] [--rate 50]``. It stays on loopback. It exits with
status 1 if the memory grew by more than 1 MB in the last half, if a task that callme acknowledged
got no call, if a deleted task was called, or if a response had an unexpected status.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from attrs import define, field

from tests.helpers.processes import Daemon, Sink, wait_for

MAX_GROWTH_MB = 1.0
SAMPLE_SECONDS = 5
WINDOW_SECONDS = 120
"""Seconds before the middle and the end; the growth is that of the median of their samples."""

CALLBACKS = (*["/status/200"] * 5, "/once/500", "/once/500", "/status/500", "/sleep/0.3")
"""The endpoints of the tasks that are called, in turn: 1.3 calls each, notifications included."""
CALLS_PER_TASK = 12 / len(CALLBACKS)
READS = (
    "/",
    "/status/?limit=100",
    "/status/?limit=100&state=failed",
    "/page/failures",
    "/page/hosts",
    "/forecast",
    "/metrics",
    "/healthz",
)
"""The paths that a reader requests every five seconds, as a browser and as a program."""


class CountingSink(Sink):
    """An endpoint that counts the calls of each task, and stores nothing else of them."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def called(self, path: str, headers: dict[str, str]) -> int:
        status = super().called(path, headers)
        with self._lock:
            self.total += len(self.calls)
            self.calls.clear()
        return status

    def calls_of(self, key: str) -> int:
        return self._seen[key]


@define(kw_only=True)
class Sample:
    """The memory of the daemon at a time.

    :ivar seconds: the seconds since the start.
    :ivar rss_mb: the resident memory.
    :ivar anonymous_mb: the part of it that is not a mapped file.
    """

    seconds: float
    rss_mb: float
    anonymous_mb: float
    descriptors: int


@define
class Load:
    """The tasks that the clients created, and the unexpected responses.

    :ivar due: the keys of the tasks that must be called.
    :ivar deleted: the keys of the tasks that must not be called.
    """

    due: set[str] = field(factory=set)
    deleted: set[str] = field(factory=set)
    responses: Counter[str] = field(factory=Counter)
    unexpected: Counter[str] = field(factory=Counter)


class Client:
    """A client with a connection of its own, which repeats a request that got no response."""

    def __init__(self, port: int, load: Load) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=75)
        self.load = load

    def send(
        self, method: str, path: str, body: object = None, accept: str = "application/json"
    ) -> bytes:
        text = None if body is None else json.dumps(body)
        for last in (False, True):
            try:
                self.connection.request(method, path, text, {"Accept": accept})
                response = self.connection.getresponse()
                content = response.read()
            except (OSError, http.client.HTTPException):
                # The daemon closes idle connections.
                self.connection.close()
                if last:
                    raise
                continue
            kind = f"{method} /{path.split('/')[1].partition('?')[0]}"
            self.load.responses[kind] += 1
            if response.status not in {200, 201, 204}:
                self.load.unexpected[f"{kind}: {response.status}"] += 1
            return content
        raise AssertionError

    def put(self, name: str, url: str, trigger_at: str = "+0m", **more: object) -> str:
        """Register a task; return its key."""
        body = {"trigger_at": trigger_at, "callback": url, "payload": "p" * 200, **more}
        key: str = json.loads(self.send("PUT", f"/task/{name}", body))["task"]
        return key


class Soak:
    """A daemon, its clients, and the samples of its memory."""

    def __init__(self, directory: Path, rate: float) -> None:
        self.sink = CountingSink()
        self.daemon = Daemon(directory)
        self.load = Load()
        self.rate = rate
        self.end = 0.0
        self.errors: list[BaseException] = []

    def run(self, seconds: float) -> list[Sample]:
        """Load the daemon for some seconds; return the samples of that time."""
        self.daemon.start()
        began = time.monotonic()
        self.end = began + seconds
        clients = [
            threading.Thread(target=self.guard, args=(client,), daemon=True)
            for client in (self.create, self.delete, self.wait, self.wait, self.read)
        ]
        for client in clients:
            client.start()
        samples = []
        for at in itertools.takewhile(lambda at: at < self.end, self.ticks(SAMPLE_SECONDS)):
            samples.append(self.sample(at - began))
            if len(samples) % (60 // SAMPLE_SECONDS) == 1:
                print(self.progress(samples[-1]), flush=True)
        for client in clients:
            client.join()
        return samples

    def guard(self, client: Callable[[], None]) -> None:
        try:
            client()
        except BaseException as error:
            self.errors.append(error)

    def ticks(self, seconds: float) -> Iterator[float]:
        """Yield a time every some seconds, until the end, without falling behind."""
        at = time.monotonic()
        while at < self.end and not self.errors:
            yield at
            at += seconds
            time.sleep(max(0.0, at - time.monotonic()))

    def create(self) -> None:
        """Create tasks that succeed, fail, are retried and notify, at a rate of calls."""
        client = Client(self.daemon.port, self.load)
        notice = self.sink.url("/status/204")
        for number, _ in enumerate(self.ticks(CALLS_PER_TASK / self.rate)):
            path = CALLBACKS[number % len(CALLBACKS)]
            more = {"on_failure": notice} if path == "/status/500" else {}
            retry = 1 if path.startswith("/once") else 0
            url = self.sink.url(path)
            key = client.put(f"load-{number}", url, retry=retry, retry_delay=0, **more)
            self.load.due.add(key)

    def delete(self) -> None:
        """Create tasks for the future and delete them, each second."""
        client = Client(self.daemon.port, self.load)
        for number, _ in enumerate(self.ticks(1)):
            key = client.put(f"deleted-{number}", self.sink.url("/status/200"), "+1m")
            client.send("DELETE", f"/task/{key}")
            self.load.deleted.add(key)

    def wait(self) -> None:
        """Create tasks and wait for their ends with long polls."""
        client = Client(self.daemon.port, self.load)
        names = f"waited-{threading.get_ident()}"
        for number, _ in enumerate(self.ticks(1)):
            key = client.put(f"{names}-{number}", self.sink.url("/sleep/0.3"))
            self.load.due.add(key)
            client.send("GET", f"/status/{key}?wait=20")

    def read(self) -> None:
        """Read lists, pages, a task's page, the forecast and the metrics."""
        client = Client(self.daemon.port, self.load)
        for _ in self.ticks(5):
            key = next(iter(self.load.due), None)
            tasks = [] if key is None else [f"/page/task/{key}", f"/status/{key}"]
            for path in (*READS, *tasks):
                client.send("GET", path, accept="text/html" if "page" in path else "*/*")
            client.send("GET", "/", accept="text/html")

    def sample(self, seconds: float) -> Sample:
        process = self.daemon.process
        assert process is not None
        directory = Path(f"/proc/{process.pid}")
        memory = dict(
            line.split(":", 1) for line in (directory / "status").read_text().splitlines()
        )
        rss, anonymous = (int(memory[name].split()[0]) / 1024 for name in ("VmRSS", "RssAnon"))
        return Sample(
            seconds=seconds,
            rss_mb=rss,
            anonymous_mb=anonymous,
            descriptors=len(list((directory / "fd").iterdir())),
        )

    def progress(self, sample: Sample) -> str:
        return (
            f"{sample.seconds / 60:3.0f} min: RSS {sample.rss_mb:.2f} MB, anonymous "
            f"{sample.anonymous_mb:.2f} MB, descriptors {sample.descriptors}, calls "
            f"{self.sink.total}, requests {self.load.responses.total()}"
        )

    def uncalled(self) -> list[str]:
        """Return the keys of the tasks that callme acknowledged and did not call."""
        return [key for key in self.load.due if not self.sink.calls_of(key)]

    def close(self) -> None:
        self.daemon.kill()
        self.sink.close()


def growth_mb(samples: list[Sample], seconds: float) -> float:
    """Return the growth of the resident memory from the middle to the end, in MB."""
    window = min(WINDOW_SECONDS, seconds / 10)
    middle, end = (
        statistics.median(s.rss_mb for s in samples if at - window <= s.seconds <= at)
        for at in (seconds / 2, seconds)
    )
    return end - middle


def report(soak: Soak, samples: list[Sample], seconds: float) -> int:
    """Print a summary; return the number of faults."""
    growth = growth_mb(samples, seconds)
    called = [key for key in soak.load.deleted if soak.sink.calls_of(key)]
    uncalled = soak.uncalled()
    print(f"tasks {len(soak.load.due)}, deleted {len(soak.load.deleted)}, calls {soak.sink.total}")
    print(f"calls/s {soak.sink.total / seconds:.1f}")
    print(f"requests {dict(soak.load.responses)}")
    print(f"descriptors at most {max(sample.descriptors for sample in samples)}")
    print(f"not called {len(uncalled)}: {' '.join(uncalled[:5])}")
    print(f"called after deletion {len(called)}: {' '.join(called[:5])}")
    print(f"unexpected responses {dict(soak.load.unexpected)}, errors {soak.errors}")
    print(f"growth of the last {seconds / 120:.0f} minutes: {growth:.2f} MB")
    faults = (growth > MAX_GROWTH_MB, uncalled, called, soak.load.unexpected, soak.errors)
    return sum(map(bool, faults))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--rate", type=float, default=50, help="calls per second")
    arguments = parser.parse_args()
    # The daemon ends with the soak.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    seconds = arguments.minutes * 60
    with tempfile.TemporaryDirectory() as directory:
        soak = Soak(Path(directory), arguments.rate)
        try:
            samples = soak.run(seconds)
            if not soak.errors:
                wait_for(lambda: not soak.uncalled(), 70, 1)
        finally:
            soak.close()
        return 1 if report(soak, samples, seconds) else 0


if __name__ == "__main__":
    sys.exit(main())
