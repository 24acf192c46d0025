"""Kill a daemon again and again while tasks come in, then count: nothing lost, nothing extra.

``python -m tests.crashloop [--seconds 60] [--seed N]``: bounded, on loopback only. It
exits with status 1 when a target was lost or called more often than it may be.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from attrs import define, field

from .processes import Daemon, Sink

SETTLE_SECONDS = 240
"""How long the last daemon may take to bring every task to its end."""
ENDS = ("succeeded", "failed")
PATHS = ("/status/200", "/status/500", "/once/500", "/sleep/0.3", "/sleep/2")


@define
class Tally:
    """What was promised, and what came of it.

    :ivar allowed: how often each name that was ever sent may be called.
    :ivar acknowledged: the keys of the tasks that callme said it has.
    """

    allowed: dict[str, int] = field(factory=dict)
    acknowledged: set[str] = field(factory=set)
    kills: int = 0
    ends: int = 0

    def report(self, sink: Sink, tasks: dict[str, Any]) -> int:
        """Print what was lost and what was extra; return how many faults there are."""
        calls = Counter(key for _, key, _ in sink.calls)
        reasons = Counter(a["reason"] for task in tasks.values() for a in task["attempts"])
        print(
            f"targets {len(self.acknowledged)} (and {len(self.allowed) - len(self.acknowledged)} "
            f"never acknowledged), kills {self.kills}, terminations {self.ends}, "
            f"calls {calls.total()}, interrupted {reasons['interrupted']}"
        )
        faults = {
            "lost": self.acknowledged - set(tasks),
            "extra": [k for k, n in calls.items() if n > self.allowed[k.partition("@")[0]]],
            "early": [key for when, key, _ in sink.calls if when < int(key.partition("@")[2])],
            "not ended": [k for k, t in tasks.items() if t["state"] not in ENDS],
            "without reason": [
                k for k, t in tasks.items() if t["state"] == "failed" and not t["reason"]
            ],
            "not on record": [k for k, t in tasks.items() if len(t["attempts"]) < calls[k]],
        }
        for what, keys in faults.items():
            print(f"{what} {len(keys)}{': ' if keys else ''}{' '.join(list(keys)[:5])}")
        return sum(map(len, faults.values()))


class CrashLoop:
    """Puts tasks, and kills their daemon."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.sink = Sink()
        self.daemon = Daemon(directory)
        self.tally = Tally()

    def run(self, seconds: float) -> int:
        """Crash for some seconds, let the rest settle, and report."""
        end = time.monotonic() + seconds
        try:
            while time.monotonic() < end:
                self.daemon.start()
                dying = threading.Timer(self.random.uniform(0.05, 3), self.die)
                dying.start()
                self.live()
                dying.join()
            self.daemon.start()
            tasks = self.settle()
        finally:
            self.daemon.kill()
            self.sink.close()
        return self.tally.report(self.sink, tasks)

    def die(self) -> None:
        """Kill the daemon, whatever it does just now, or now and then ask it to end."""
        if self.random.random() < 0.8:
            self.daemon.kill()
            self.tally.kills += 1
        else:
            self.daemon.terminate()
            self.tally.ends += 1

    def live(self) -> None:
        """Put tasks as fast as one client can, for as long as the daemon lives."""
        connection = http.client.HTTPConnection("127.0.0.1", self.daemon.port, timeout=20)
        try:
            while True:
                self.put(connection)
        except (OSError, http.client.HTTPException):
            connection.close()

    def put(self, connection: http.client.HTTPConnection) -> None:
        name = f"n{len(self.tally.allowed)}"
        retry = self.random.choice([0, 0, 1, 1, 3])
        body = {
            "trigger_at": self.random.choice(["+0m", "+0m", "+0m", "+1m"]),
            "callback": self.sink.url(self.random.choice(PATHS)),
            "retry": retry,
            "retry_delay": self.random.choice([0, 1]),
            "max_delay": self.random.choice([2, 60]),
            "timeout": 5,
        }
        self.tally.allowed[name] = 1 + retry
        connection.request("PUT", f"/task/{name}", json.dumps(body))
        answer = connection.getresponse()
        task = json.loads(answer.read())
        assert answer.status == 201, task
        self.tally.acknowledged.add(task["task"])
        time.sleep(self.random.uniform(0, 0.02))

    def settle(self) -> dict[str, Any]:
        """Wait until every task has ended, and return them all, whole."""
        end = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < end:
            waiting = [
                self.daemon.curl("GET", f"/status/?limit=1&state={state}")[1]["tasks"]
                for state in ("scheduled", "running")
            ]
            if not any(waiting):
                break
            time.sleep(1)
        keys: list[str] = []
        following = ""
        while True:
            _, page = self.daemon.curl("GET", f"/status/?limit=1000{following}")
            keys += [task["task"] for task in page["tasks"]]
            if "next" not in page:
                break
            following = f"&start_from={page['next']}"
        connection = http.client.HTTPConnection("127.0.0.1", self.daemon.port, timeout=30)
        tasks = {}
        for key in keys:
            connection.request("GET", f"/status/{key}")
            tasks[key] = json.loads(connection.getresponse().read())
        connection.close()
        return tasks


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=None)
    arguments = parser.parse_args()
    seed = arguments.seed if arguments.seed is not None else random.randrange(2**32)
    print(f"seed {seed}")
    with tempfile.TemporaryDirectory() as directory:
        return 1 if CrashLoop(Path(directory), seed).run(arguments.seconds) else 0


if __name__ == "__main__":
    sys.exit(main())
