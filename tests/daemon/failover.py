"""A failover: two PostgreSQL servers, poolers, a locked table, a promotion, and what they cost.

Run ``python -m tests.daemon.failover [--seconds 20]``. It is bounded and stays on loopback. Three
daemons share a primary with a synchronous standby: two name both servers in their URL, one uses
PgBouncer. Under load the table is locked for 60 s; later the primary is killed and the standby
promoted. It exits with status 1 if a task was lost, called early or called more often than
allowed, if a PUT took longer than 30 s, or if a pooler of transactions was not refused.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

from attrs import define, field

from callme.store.postgresql.dsn import SCHEMA
from tests.daemon.crashloop import PATHS, Tally, settle
from tests.helpers.postgres import Cluster, PgBouncer, Standby
from tests.helpers.processes import Daemon, Sink, environment, wait_for

DATABASE = "failover"
LOCK_SECONDS = 60
MAX_PUT_SECONDS = 30
"""The limit that docs/scaling.md states."""


@define
class Phase:
    """The PUTs that ended in a part of the run.

    :ivar slowest: the duration of the slowest, in seconds.
    :ivar gap: the longest time without an acknowledgement, in seconds.
    """

    name: str
    began: float = field(factory=time.monotonic)
    acknowledged: int = 0
    refused: int = 0
    slowest: float = 0.0
    gap: float = 0.0

    def row(self) -> str:
        return (
            f"{self.name:<28}{self.acknowledged:>13}{self.refused:>6}"
            f"{self.slowest:>12.1f} s{self.gap:>12.1f} s"
        )


HEADINGS = f"{'phase':<28}{'acknowledged':>13}{'503':>6}{'slowest PUT':>14}{'longest gap':>14}"


class Failover:
    """Two servers, three daemons with a client each, and the tally of their tasks."""

    def __init__(self, directory: Path, seed: int, stack: ExitStack) -> None:
        self.random = random.Random(seed)
        self.directory = directory
        self.tally = Tally()
        self.lock = threading.Lock()
        self.ended = threading.Event()
        self.phases: list[Phase] = []
        self.last_acknowledged = time.monotonic()
        self.faults: list[str] = []
        self.sink = stack.enter_context(closing(Sink()))
        self.primary = stack.enter_context(closing(_Killable(durable=True)))
        self.primary.create(DATABASE)
        self.standby = stack.enter_context(closing(Standby(self.primary)))
        self.pooler = stack.enter_context(closing(PgBouncer(self.primary, "session")))
        both = f"127.0.0.1:{self.primary.port},127.0.0.1:{self.standby.port}"
        urls = [f"postgresql://callme@{both}/{DATABASE}"] * 2 + [self.pooler.url(DATABASE)]
        self.daemons = [self.daemon(url, f"n{number}") for number, url in enumerate(urls)]
        for daemon in self.daemons:
            stack.callback(daemon.kill)

    def daemon(self, url: str, node: str) -> Daemon:
        directory = self.directory / node
        directory.mkdir()
        return Daemon(directory, f"--database={url}", f"--node={node}")

    def run(self, seconds: float) -> int:
        """Run all phases; return the number of faults."""
        for daemon in self.daemons:
            daemon.start()
        clients = [
            threading.Thread(target=self.put_all, args=(daemon, number), daemon=True)
            for number, daemon in enumerate(self.daemons)
        ]
        steps: list[tuple[str, Callable[[], None]]] = [
            ("both servers", lambda: time.sleep(seconds)),
            (f"table locked for {LOCK_SECONDS} s", self.lock_table),
            ("after the lock", lambda: time.sleep(seconds)),
            ("pooler of transactions", self.try_transactions),
            ("primary killed, promotion", lambda: self.fail_over(seconds)),
            ("after the promotion", lambda: time.sleep(seconds)),
        ]
        print(HEADINGS, flush=True)
        for name, step in steps:
            with self.lock:
                self.phases.append(Phase(name))
            if name == steps[0][0]:
                self.last_acknowledged = time.monotonic()
                for client in clients:
                    client.start()
            step()
            print(self.phases[-1].row(), flush=True)
        self.ended.set()
        for client in clients:
            client.join()
        return self.report()

    def report(self) -> int:
        slowest = max(phase.slowest for phase in self.phases)
        if slowest > MAX_PUT_SECONDS:
            self.faults.append(f"a PUT took {slowest:.1f} s")
        faults = self.tally.report(self.sink, settle(self.daemons[0]))
        print(f"slowest PUT {slowest:.1f} s")
        print("\n".join(self.faults) or "no other faults")
        return faults + len(self.faults)

    def put_all(self, daemon: Daemon, number: int) -> None:
        """Put tasks, one after the other, until the end."""
        count = 0
        while not self.ended.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=60)
            with closing(connection):
                try:
                    while not self.ended.is_set():
                        count += 1
                        self.put(connection, f"n{number}-{count}")
                        time.sleep(0.02)
                except (OSError, http.client.HTTPException) as error:
                    self.faults.append(f"a PUT got no response: {error!r}")

    def put(self, connection: http.client.HTTPConnection, name: str) -> None:
        retry = self.random.choice([0, 0, 1, 3])
        body = {
            "trigger_at": self.random.choice(["+0m", "+0m", "+0m", "+1m"]),
            "callback": self.sink.url(self.random.choice(PATHS)),
            "retry": retry,
            "retry_delay": self.random.choice([0, 1]),
            "timeout": 5,
        }
        self.tally.allowed[name] = 1 + retry
        began = time.monotonic()
        connection.request("PUT", f"/task/{name}", json.dumps(body))
        response = connection.getresponse()
        task = json.loads(response.read())
        self.count(response.status, task, began)
        if response.status == 503:
            time.sleep(0.1)

    def count(self, status: int, task: dict[str, str], began: float) -> None:
        now = time.monotonic()
        with self.lock:
            phase = self.phases[-1]
            phase.slowest = max(phase.slowest, now - began)
            if status == 201:
                self.tally.acknowledged.add(task["task"])
                phase.acknowledged += 1
                phase.gap = max(phase.gap, now - self.last_acknowledged)
                self.last_acknowledged = now
            elif status == 503:
                phase.refused += 1
            else:
                self.faults.append(f"a PUT was answered {status}: {task}")

    def lock_table(self) -> None:
        """Lock the table of tasks, and ask for the health in the meantime."""
        with self.primary.connect(DATABASE) as session:
            session.execute("BEGIN")
            session.execute(f"LOCK TABLE {SCHEMA}.task".encode())
            time.sleep(LOCK_SECONDS / 2)
            for daemon in self.daemons:
                status, health = daemon.curl("GET", "/healthz")
                if status != 503 or health["writable"]:
                    self.faults.append(f"/healthz while the table is locked: {status} {health}")
            time.sleep(LOCK_SECONDS / 2)

    def try_transactions(self) -> None:
        """Start a daemon behind a pooler of transactions, which it must refuse in one line."""
        with closing(PgBouncer(self.primary, "transaction")) as pooler:
            refused = self.daemon(pooler.url(DATABASE), "refused")
            done = subprocess.run(
                refused.command(),
                cwd=refused.directory,
                env=environment(),
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
        text = done.stdout + done.stderr
        if not done.returncode or "pool_mode=session" not in text or "Traceback" in text:
            self.faults.append(f"a pooler of transactions: status {done.returncode}: {text}")

    def fail_over(self, seconds: float) -> None:
        """Kill the primary, promote the standby, and wait for an acknowledgement of each kind."""
        self.primary.stop("immediate")
        time.sleep(2)
        self.standby.promote()
        self.pooler.lead_to(self.standby)
        for daemon in self.daemons:
            wait_for(partial(is_well, daemon), 60, 0.2)
        time.sleep(seconds)


def is_well(daemon: Daemon) -> bool:
    status, _ = daemon.curl("GET", "/healthz")
    return status == 200


class _Killable(Cluster):
    """A server that may be stopped before it is closed."""

    stopped = False

    def stop(self, mode: str = "immediate") -> None:
        if not self.stopped:
            self.stopped = True
            super().stop(mode)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20, help="of the phases without a fault")
    parser.add_argument("--seed", type=int, default=None)
    arguments = parser.parse_args()
    seed = arguments.seed if arguments.seed is not None else random.randrange(2**32)
    print(f"seed {seed}")
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        return 1 if Failover(Path(directory), seed, stack).run(arguments.seconds) else 0


if __name__ == "__main__":
    sys.exit(main())
