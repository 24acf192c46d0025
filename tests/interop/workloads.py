"""The workloads: tasks for one server, called by a callme daemon, and what came of them."""

from __future__ import annotations

import http.client
import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import datetime
from typing import Any

from attrs import define, evolve, field, frozen

from ..helpers.processes import Daemon, wait_for
from .servers import RunningServer, Server

SETTLE_SECONDS = 40
"""How long the tasks of one burst may take; a call times out before."""
CALL_TIMEOUT_SECONDS = 30
BODY = json.dumps({"event": "invoice.paid", "data": "x" * 151})
"""A body of 190 bytes."""
LARGE_BODY = json.dumps("x" * 199_998)
"""A body of 200,000 bytes."""
LONGEST_PAUSE = 5
PAUSE_OFFSETS = (-0.03, 0, 0.03)
"""Seconds by which the pauses between waves differ from the keep-alive time."""


@frozen(kw_only=True)
class Workload:
    """What to call a server with.

    :ivar name: what the names of its tasks contain, in lower-case letters.
    :ivar waves: how many times the tasks are put.
    :ivar reload: whether the server replaces its workers during the workload.
    """

    name: str
    tasks: int
    method: str = "POST"
    path: str = "/post"
    payload: str = ""
    retry: int = 0
    waves: int = 1
    reload: bool = False


POSTS = Workload(name="post", tasks=1000, payload=BODY)
GETS = Workload(name="get", tasks=1000, method="GET", path="/get")
RETRIED = Workload(name="retried", tasks=1000, payload=BODY, retry=1)
WAVES = Workload(name="waves", tasks=20, payload=BODY, retry=1, waves=6)
UNREAD = Workload(name="unread", tasks=60, path="/unread", payload=LARGE_BODY)
RELOAD = Workload(name="reload", tasks=1000, payload=BODY, retry=1, reload=True)


def workloads_for(server: Server, tasks: int) -> list[Workload]:
    """Return the workloads of a server, with a maximum number of tasks in a burst."""
    workloads = [POSTS, GETS, RETRIED, WAVES, UNREAD]
    if server.reload is not None:
        workloads.append(RELOAD)
    return [evolve(workload, tasks=min(workload.tasks, tasks)) for workload in workloads]


@define(kw_only=True)
class Result:
    """What came of one workload.

    :ivar attempts: attempts on record, by the task's key.
    :ivar succeeded: the keys of the tasks that succeeded.
    :ivar failed: the keys of the tasks that failed.
    :ivar late: tasks whose next attempt waits for the next minute.
    :ivar failed_served: tasks that failed although the server served them.
    :ivar doubles: tasks that the server served more than once.
    :ivar wrong: keys of tasks about which the server's record contradicts callme's.
    :ivar seconds: the time from the tasks' creation to the last one's end, waves added up.
    :ivar details: why attempts failed.
    """

    workload: Workload
    attempts: Counter[str] = field(factory=Counter)
    succeeded: set[str] = field(factory=set)
    failed: set[str] = field(factory=set)
    late: int = 0
    failed_served: int = 0
    doubles: int = 0
    wrong: list[str] = field(factory=list)
    seconds: float = 0
    details: Counter[str] = field(factory=Counter)

    @property
    def repeated(self) -> int:
        """Attempts after the first of each task."""
        # On an overloaded machine, some tasks may have had no attempt.
        return sum(max(0, made - 1) for made in self.attempts.values())

    def compare(self, served: Counter[str]) -> None:
        """Compare callme's record of the tasks with the server's."""
        for key, attempts in self.attempts.items():
            self.doubles += served[key] > 1
            self.failed_served += key in self.failed and served[key] > 0
            if served[key] > attempts or (key in self.succeeded and not served[key]):
                self.wrong.append(key)


@frozen
class Driver:
    """Has a callme daemon call a server."""

    daemon: Daemon
    server: RunningServer

    def run(self, workload: Workload) -> Result:
        """Put the tasks of a workload, wait until all have been called, and count."""
        result = Result(workload=workload)
        for wave in range(workload.waves):
            began = time.monotonic()
            self._put(workload, wave)
            if workload.reload:
                # The batch is acknowledged, so the calls have begun.
                self.server.reload()
            self._settle()
            if wave + 1 < workload.waves:
                time.sleep(max(0, began + self._pause(wave) - time.monotonic()))
        self._count(result)
        return result

    def _pause(self, wave: int) -> float:
        """Return the seconds between two waves: about the keep-alive time of the server."""
        keep_alive = self.server.server.keep_alive
        spacing = keep_alive if keep_alive and keep_alive <= LONGEST_PAUSE else 1.0
        return spacing + PAUSE_OFFSETS[wave % len(PAUSE_OFFSETS)]

    def _put(self, workload: Workload, wave: int) -> None:
        task = {
            "trigger_at": "+0m",
            "callback": self.server.url(workload.path),
            "callback_method": workload.method,
            "payload": workload.payload,
            "retry": workload.retry,
            "timeout": CALL_TIMEOUT_SECONDS,
        }
        first = wave * workload.tasks
        lines = [
            json.dumps({"task_name": f"{_prefix(workload)}{number}", **task})
            for number in range(first, first + workload.tasks)
        ]
        answers = self._request("POST", "/batch", "\n".join(lines).encode())
        statuses = Counter(json.loads(line)["status"] for line in answers.splitlines())
        assert statuses == {201: workload.tasks}, statuses

    def _settle(self) -> None:
        """Wait until every task has ended or waits for another minute."""
        with suppress(AssertionError):
            wait_for(self._is_settled, SETTLE_SECONDS, 0.05)

    def _is_settled(self) -> bool:
        health = self._get("/healthz")
        if health["backlog"] or health["calls_in_flight"]:
            return False
        unended = [
            task
            for state in ("running", "scheduled")
            for task in self._get(f"/status/?state={state}&limit=1000")["tasks"]
        ]
        return all(task["state"] == "scheduled" and task["attempts_used"] for task in unended)

    def _count(self, result: Result) -> None:
        starts: dict[int, list[float]] = {}
        ends: dict[int, list[float]] = {}
        for task in self._tasks(_prefix(result.workload)):
            result.attempts[task["task"]] = task["attempts_used"]
            if task["state"] != "succeeded" or task["attempts_used"] > 1:
                self._explain(task["task"], result.details)
            if task["state"] == "succeeded":
                result.succeeded.add(task["task"])
            elif task["state"] == "failed":
                result.failed.add(task["task"])
            else:
                result.late += 1
                self._request("DELETE", f"/task/{task['task']}")
            if task["finished_at"]:
                wave = int(task["task_name"].rpartition("-")[2]) // result.workload.tasks
                starts.setdefault(wave, []).append(_seconds(task["created_at"]))
                ends.setdefault(wave, []).append(_seconds(task["finished_at"]))
        result.seconds = sum(max(ends[wave]) - min(starts[wave]) for wave in starts)

    def _tasks(self, prefix: str) -> Iterator[Any]:
        key = f"{prefix}@0"
        while key:
            page = self._get(f"/status/?limit=1000&start_from={key}")
            for task in page["tasks"]:
                if not task["task"].startswith(prefix):
                    return
                yield task
            key = page.get("next")

    def _explain(self, key: str, details: Counter[str]) -> None:
        task = self._get(f"/status/{key}")
        for attempt in task["attempts"]:
            if attempt["reason"]:
                details[f"{attempt['reason']}: {attempt['detail']}"] += 1

    def _get(self, path: str) -> Any:
        return json.loads(self._request("GET", path))

    def _request(self, method: str, path: str, body: bytes | None = None) -> bytes:
        with closing(http.client.HTTPConnection("127.0.0.1", self.daemon.port, timeout=60)) as api:
            headers = {"Content-Type": "application/x-ndjson"} if body else {}
            api.request(method, path, body, headers)
            return api.getresponse().read()


def _prefix(workload: Workload) -> str:
    return f"interop-{workload.name}-"


def _seconds(moment: str) -> float:
    """Return a time of the API in seconds since 1970."""
    return datetime.fromisoformat(moment.replace("Z", "+00:00")).timestamp()
