"""The lateness of the first request and of all requests after the turn of a minute.

``python -m benchmarks.turn SINK_PORT TASKS [--hanging PORT --hosts N]`` prints JSON, in
milliseconds. The daemon's clock is set so that its minute turns a second after its start.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import treq
from twisted.internet import task
from twisted.internet.defer import Deferred

from callme.config import Settings
from callme.core.parameters import parse_definition
from callme.service import Daemon
from callme.store import tasks
from callme.store.sqlite.file import open_database
from callme.worker.dispatcher import Phase

from .burst import Ends

AHEAD = 1.0
"""Seconds from the daemon's start to the turn."""


async def turn(react: Any, asked: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(dir=asked.directory) as directory:
        database = open_database(Path(directory, "callme.sqlite"))
        minute = 1_800_014_400
        settings = Settings(port="tcp:0:interface=127.0.0.1", database=str(database.path))
        offset = [minute - 3600 - time.time()]
        daemon = Daemon(settings, database, react, now=lambda: time.time() + offset[0])
        good = f"http://127.0.0.1:{asked.port}/x"
        made = [
            parse_definition(
                {"callback": good}, minute, task_name=f"good{n}", trigger_at=str(minute)
            )
            for n in range(asked.tasks)
        ]
        if asked.hanging:
            # Each address of this machine counts as a host.
            made += [
                parse_definition(
                    {"callback": f"http://127.0.0.{2 + n % asked.hosts}:{asked.hanging}/x"},
                    minute,
                    task_name=f"hangs{n}",
                    trigger_at=str(minute),
                )
                for n in range(asked.tasks)
            ]
        await daemon.parts.store.write(tasks.put_many, made, minute - 3600)
        offset[0] = minute - AHEAD - time.time()
        turns_at = time.time() + AHEAD
        ends = Ends(asked.tasks)
        daemon.parts.store.changes.subscribe(ends.on_changes)
        daemon.startService()
        await ends.all
        lateness = []
        for one in made[: asked.tasks]:
            whole = await daemon.parts.store.read(tasks.get, one.key)
            assert whole is not None
            assert whole.attempts is not None
            lateness.append(whole.attempts[0].lateness_ms)
        lateness.sort()
        times = await (await treq.get(f"http://127.0.0.1:{asked.port}/times")).json()
        daemon.parts.scheduler._dispatcher._phase = Phase.CUTTING_OFF
        for calling in list(daemon.parts.scheduler._dispatcher._calls.values()):
            calling.cancel()
        await daemon.stopService()
    print(
        json.dumps(
            {
                "first": lateness[0],
                "p50": lateness[len(lateness) // 2],
                "p99": lateness[len(lateness) * 99 // 100],
                "max": lateness[-1],
                "early": sum(at < turns_at * 1000 for at in times),
                "lateness": lateness if asked.all else None,
            }
        )
    )


def main(react: Any) -> Deferred[None]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("tasks", type=int)
    parser.add_argument("--hanging", type=int)
    parser.add_argument("--hosts", type=int, default=10)
    parser.add_argument("--directory")
    parser.add_argument("--all", action="store_true")
    return Deferred.fromCoroutine(turn(react, parser.parse_args()))


if __name__ == "__main__":
    task.react(main)
