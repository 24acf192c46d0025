"""A crash loop: kill daemons while tasks come in, then count lost and repeated calls.

Run ``python -m tests.daemon.crashloop [--seconds 60] [--seed N]``. It is bounded and stays on
loopback. It exits with status 1 if a task was lost or called more often than allowed.
``--database postgresql [--daemons 3]`` runs several daemons on one server, which is killed too.
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
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from attrs import define, field

from tests.helpers.postgres import Cluster
from tests.helpers.processes import Daemon, Sink

SETTLE_SECONDS = 420
"""Seconds in which the last daemon must finish every task."""
ENDS = ("succeeded", "failed")
PATHS = ("/status/200", "/status/500", "/once/500", "/sleep/0.3", "/sleep/2")


@define
class Tally:
    """The acknowledged tasks, and the calls that were made.

    :ivar allowed: the maximum number of calls by task name.
    :ivar acknowledged: the keys of the tasks that callme acknowledged.
    """

    allowed: dict[str, int] = field(factory=dict)
    acknowledged: set[str] = field(factory=set)
    kills: int = 0
    ends: int = 0
    restarts: int = 0

    def report(self, sink: Sink, tasks: dict[str, Any]) -> int:
        """Print lost tasks and extra calls; return the number of faults."""
        calls = Counter(key for _, key, _ in sink.calls)
        reasons = Counter(a["reason"] for task in tasks.values() for a in task["attempts"])
        print(
            f"targets {len(self.acknowledged)} (and {len(self.allowed) - len(self.acknowledged)} "
            f"never acknowledged), kills {self.kills}, terminations {self.ends}, "
            f"restarts of the database {self.restarts}, calls {calls.total()}, "
            f"interrupted {reasons['interrupted']}"
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
            for key in list(keys)[:5]:
                print(f"  {tasks.get(key)}")
        return sum(map(len, faults.values()))


class CrashLoop:
    """A client that puts tasks, and a loop that kills the daemons.

    :param cluster: the server that the daemons share, which is killed too; ``None`` for one
        daemon with a file.
    """

    def __init__(self, directories: Sequence[Path], seed: int, cluster: Cluster | None) -> None:
        self.random = random.Random(seed)
        self.sink = Sink()
        self.cluster = cluster
        shared = [] if cluster is None else [f"--database={cluster.create('crashloop')}"]
        self.daemons = [Daemon(directory, *shared) for directory in directories]
        self.tally = Tally()
        self.end = 0.0
        # A daemon needs its database to start.
        self.starting = threading.Lock()

    def run(self, seconds: float) -> int:
        """Crash for some seconds, let the remaining tasks finish, and report."""
        self.end = time.monotonic() + seconds
        crashing = [
            threading.Thread(target=self.crash, args=(daemon, number), daemon=True)
            for number, daemon in enumerate(self.daemons)
        ]
        if self.cluster is not None:
            restarting = threading.Thread(target=self.restart, args=(self.cluster,), daemon=True)
            crashing.append(restarting)
        try:
            for thread in crashing:
                thread.start()
            for thread in crashing:
                thread.join()
            for daemon in self.daemons:
                daemon.start()
            tasks = settle(self.daemons[0])
        finally:
            for daemon in self.daemons:
                daemon.kill()
            self.sink.close()
        return self.tally.report(self.sink, tasks)

    def crash(self, daemon: Daemon, number: int) -> None:
        """Start one daemon and kill it, repeatedly."""
        options = daemon.options
        lives = 0
        while time.monotonic() < self.end:
            lives += 1
            # With a fixed name it rescues its own orphans. Without one its peers do, once they
            # have run for long enough to declare it dead.
            named = self.cluster is not None and self.random.random() < 0.5
            daemon.options = (*options, f"--node={number}") if named else options
            with self.starting:
                daemon.start()
            long = self.cluster is not None and self.random.random() < 0.1
            life = self.random.uniform(30, 50) if long else self.random.uniform(0.05, 3)
            dying = threading.Timer(life, self.die, (daemon,))
            dying.start()
            self.live(daemon, f"n{number}-{lives}")
            dying.join()

    def restart(self, cluster: Cluster) -> None:
        """Kill and restart the database now and then."""
        while time.monotonic() < self.end:
            time.sleep(self.random.uniform(3, 12))
            with self.starting:
                cluster.stop("immediate")
                time.sleep(self.random.choice([0, 1]))
                cluster.start()
            self.tally.restarts += 1

    def die(self, daemon: Daemon) -> None:
        """Kill a daemon at any moment, or sometimes terminate it."""
        if self.random.random() < 0.8:
            daemon.kill()
            self.tally.kills += 1
        else:
            daemon.terminate()
            self.tally.ends += 1

    def live(self, daemon: Daemon, names: str) -> None:
        """Put tasks as fast as one client can, while the daemon runs."""
        connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=40)
        number = 0
        try:
            while True:
                number += 1
                self.put(connection, f"{names}-{number}")
        except (OSError, http.client.HTTPException):
            connection.close()

    def put(self, connection: http.client.HTTPConnection, name: str) -> None:
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
        if answer.status == 503 and self.cluster is not None:
            time.sleep(0.1)
            return
        assert answer.status == 201, task
        self.tally.acknowledged.add(task["task"])
        time.sleep(self.random.uniform(0, 0.02))


def settle(daemon: Daemon) -> dict[str, Any]:
    """Wait until every task has ended; return all tasks with their attempts."""
    end = time.monotonic() + SETTLE_SECONDS
    quiet = 0
    while time.monotonic() < end:
        waiting = [
            daemon.curl("GET", f"/status/?limit=1&state={state}")[1]["tasks"]
            for state in ("scheduled", "running")
        ]
        # Twice: between two queries a task may change from one of the states to the other.
        quiet = 0 if any(waiting) else quiet + 1
        if quiet == 2:
            break
        time.sleep(1)
    keys: list[str] = []
    following = ""
    while True:
        _, page = daemon.curl("GET", f"/status/?limit=1000{following}")
        keys += [task["task"] for task in page["tasks"]]
        if "next" not in page:
            break
        following = f"&start_from={page['next']}"
    connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=30)
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
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--daemons", type=int, default=3, help="on PostgreSQL")
    arguments = parser.parse_args()
    seed = arguments.seed if arguments.seed is not None else random.randrange(2**32)
    print(f"seed {seed}")
    with tempfile.TemporaryDirectory() as directory:
        if arguments.database == "sqlite":
            return 1 if CrashLoop([Path(directory)], seed, None).run(arguments.seconds) else 0
        directories = [Path(directory, str(number)) for number in range(arguments.daemons)]
        for each in directories:
            each.mkdir()
        with closing(Cluster(durable=True)) as cluster:
            return 1 if CrashLoop(directories, seed, cluster).run(arguments.seconds) else 0


if __name__ == "__main__":
    sys.exit(main())
