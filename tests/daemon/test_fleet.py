"""Several daemon processes on one PostgreSQL, counted by the endpoint that they call."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from callme.store.postgresql.dsn import SCHEMA
from callme.store.postgresql.setup import migrations
from tests.helpers.postgres import Cluster, Silence
from tests.helpers.processes import Daemon, Sink, slowdown, wait_for

pytestmark = [
    pytest.mark.daemon,
    pytest.mark.skipif(
        shutil.which("curl") is None and not os.environ.get("CI"), reason="curl is not installed"
    ),
]
_numbers = count()


@pytest.fixture
def sink() -> Iterator[Sink]:
    sink = Sink()
    yield sink
    sink.close()


@pytest.fixture
def url(cluster: Cluster) -> str:
    return cluster.create(f"fleet{next(_numbers)}")


@pytest.fixture
def fleet(url: str, tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    """Start daemons on one database."""
    daemons: list[Daemon] = []

    def start(name: str, *options: str, at: str = url) -> Daemon:
        directory = tmp_path / name
        directory.mkdir(exist_ok=True)
        daemon = Daemon(directory, f"--database={at}", f"--node={name}", *options)
        daemons.append(daemon)
        return daemon.start()

    yield start
    for daemon in daemons:
        daemon.kill()


def put_many(daemon: Daemon, names: Iterable[str], callback: str, **more: Any) -> list[str]:
    """Put tasks that are due now, in one batch; return their keys."""
    return put_all(daemon, [{"task_name": name, "callback": callback, **more} for name in names])


def put_all(daemon: Daemon, tasks: list[dict[str, Any]]) -> list[str]:
    batch = [{"trigger_at": "+0m", "max_delay": 60, **task} for task in tasks]
    (daemon.directory / "batch").write_text(json.dumps(batch))
    status, responses = daemon.curl("POST", "/batch", "@batch")
    assert status == 200
    assert {response["status"] for response in responses} == {201}
    return [response["task"] for response in responses]


def left(daemon: Daemon) -> int:
    """Return the number of unfinished tasks, or of those on the first page."""
    pages = [
        daemon.curl("GET", f"/status/?limit=1000&state={state}")[1]
        for state in ("scheduled", "running")
    ]
    return sum(len(page["tasks"]) for page in pages)


def tasks_of(cluster: Cluster, url: str) -> dict[str, tuple[str, list[tuple[Any, ...]]]]:
    """Return the state of every task, and the number, reason and node of its attempts."""
    with cluster.connect(url.rpartition("/")[2]) as connection:
        found = connection.execute(
            f"SELECT task_name, state, number, a.reason, a.node FROM {SCHEMA}.task "
            f"LEFT JOIN {SCHEMA}.attempt AS a USING (task_id) ORDER BY task_id, number".encode()
        )
        tasks: dict[str, tuple[str, list[tuple[Any, ...]]]] = {}
        for name, state, *attempt in found:
            tasks.setdefault(name, (state, []))[1].append(tuple(attempt))
        return tasks


def calls_of(sink: Sink) -> Counter[str]:
    return Counter(key.partition("@")[0] for _, key, _ in sink.calls)


def test_three_daemons_call_each_task_once(
    fleet: Callable[..., Daemon], sink: Sink, cluster: Cluster, url: str
) -> None:
    daemons = [fleet(name) for name in ("a", "b", "c")]
    names = [f"n{number}" for number in range(10_000)]
    putting = threading.Thread(
        target=put_many, args=(daemons[0], names, sink.url("/status/200")), daemon=True
    )
    putting.start()
    all_began, slowest = time.monotonic(), 0.0
    while putting.is_alive() or left(daemons[1]):
        # Every daemon answers requests during that time.
        for daemon in daemons:
            began = time.monotonic()
            assert daemon.curl("GET", "/healthz")[0] == 200
            slowest = max(slowest, time.monotonic() - began)
        time.sleep(0.2)
    putting.join()
    # No request waits for a large part of the writes and calls.
    assert slowest < max(5.0, (time.monotonic() - all_began) / 4)
    assert calls_of(sink) == dict.fromkeys(names, 1)
    tasks = tasks_of(cluster, url)
    assert {state for state, _ in tasks.values()} == {"succeeded"}
    nodes = Counter(node for _, attempts in tasks.values() for _, _, node in attempts)
    assert nodes.total() == 10_000
    assert set(nodes) == {"a", "b", "c"}
    assert min(nodes.values()) > 1000
    responses = [daemon.curl("GET", "/status/?limit=7") for daemon in daemons]
    assert responses[0] == responses[1] == responses[2]
    for daemon in daemons:
        assert "Traceback" not in daemon.log()


def test_pause_put_on_one_daemon_is_honoured_by_the_other(
    fleet: Callable[..., Daemon], sink: Sink, cluster: Cluster, url: str
) -> None:
    first, second = (fleet(name) for name in ("a", "b"))
    host = sink.url("/").split("/")[2]
    status, settings = first.curl("PUT", f"/hosts/{host}", '{"paused": true}')
    assert (status, settings["paused"]) == (200, True)
    time.sleep(slowdown())
    keys = [f"n{number}" for number in range(20)]
    for daemon, names in ((first, keys[:10]), (second, keys[10:])):
        put_many(daemon, names, sink.url("/status/200"))
    time.sleep(2)
    assert calls_of(sink) == {}
    for daemon in (first, second):
        assert daemon.curl("GET", "/healthz")[1]["paused_hosts"] == 1
    assert second.curl("PUT", f"/hosts/{host}", '{"paused": false}')[0] == 200
    wait_for(lambda: not left(first), 10 * slowdown())
    assert calls_of(sink) == dict.fromkeys(keys, 1)
    nodes = {node for _, attempts in tasks_of(cluster, url).values() for *_, node in attempts}
    assert nodes <= {"a", "b"}


def test_failures_of_three_of_four_daemons_lose_and_repeat_nothing(
    fleet: Callable[..., Daemon], sink: Sink, cluster: Cluster, url: str
) -> None:
    """One is killed, one frozen for longer than the peer timeout, one disconnected.

    Takes up to two minutes.
    """
    proxy = Silence(cluster.port)
    killed, frozen, well = (
        fleet(name, "--concurrency=32") for name in ("killed", "frozen", "well")
    )
    cut_off = fleet("cut off", at=url.replace(str(cluster.port), str(proxy.port)))
    names = [f"n{number}" for number in range(600)]
    allowed = {name: 1 + int(name[1:]) % 2 for name in names}
    each = {"callback": sink.url("/sleep/0.5"), "timeout": 10}
    put_all(well, [{"task_name": n, "retry": allowed[n] - 1, **each} for n in names])
    wait_for(lambda: len(sink.calls) > 150)
    killed.kill()
    assert frozen.process is not None
    frozen.process.send_signal(signal.SIGSTOP)
    proxy.silent = True
    began = time.time()
    # The disconnected daemon reports the outage within 30 s.
    status, problem = cut_off.curl("PUT", "/task/x", {"trigger_at": "+1h", "callback": "http://x/"})
    assert (status, problem["status"]) == (503, 503)
    assert time.time() - began < 30
    status, _ = cut_off.curl("GET", "/healthz")
    assert status == 503
    time.sleep(max(0, began + 45 - time.time()))
    frozen.process.send_signal(signal.SIGCONT)
    proxy.silent = False
    wait_for(lambda: not left(well), began + 130 - time.time(), 0.5)
    time.sleep(1)
    tasks = tasks_of(cluster, url)
    assert set(tasks) == set(names)
    calls = calls_of(sink)
    assert {name: calls[name] for name in names if calls[name] > allowed[name]} == {}
    interrupted = 0
    for name, (state, attempts) in tasks.items():
        numbers = [number for number, _, _ in attempts]
        assert numbers == list(range(1, len(numbers) + 1))
        assert calls[name] <= len(numbers) <= allowed[name]
        assert state in ("succeeded", "failed")
        assert state == "succeeded" or attempts[-1][1] == "interrupted"
        interrupted += sum(reason == "interrupted" for _, reason, _ in attempts)
    assert interrupted > 20
    dead = {node for _, attempts in tasks.values() for _, why, node in attempts if why}
    assert {"killed", "frozen"} <= dead <= {"killed", "frozen", "cut off"}
    # Tasks with budget left are called again within two minutes.
    again = [at for at, key, headers in sink.calls if headers["Callme-Attempt"] == "2"]
    assert max(again) < began + 120
    assert "but its claim was lost: not stored" in frozen.log()
    assert cut_off.curl("GET", "/healthz")[1]["status"] == "ok"
    proxy.close()


def test_database_restart_loses_nothing(
    fleet: Callable[..., Daemon], sink: Sink, cluster: Cluster, url: str
) -> None:
    daemons = [fleet(name, "--concurrency=16") for name in ("a", "b")]
    names = [f"n{number}" for number in range(200)]
    put_many(daemons[0], names, sink.url("/sleep/0.3"), retry=0)
    wait_for(lambda: len(sink.calls) > 40)
    cluster.stop("immediate")
    later = {"trigger_at": "+1h", "callback": "http://x/"}
    status, headers = curl_head(daemons[0], later)
    assert status == 503
    assert "retry-after" in headers.lower()
    time.sleep(2)
    cluster.start()
    wait_for(lambda: daemons[0].curl("PUT", "/task/x", later)[0] == 201, 60, 0.2)
    wait_for(lambda: not [t for t in tasks_of(cluster, url).values() if unended(t)], 60, 0.5)
    tasks = tasks_of(cluster, url)
    assert set(names) < set(tasks)
    calls = calls_of(sink)
    # No daemon was declared dead: no call was interrupted or repeated.
    assert {calls[name] for name in names} == {1}
    assert {tasks[name][0] for name in names} == {"succeeded"}
    for daemon in daemons:
        assert daemon.curl("GET", "/healthz")[0] == 200
        assert "Traceback" not in daemon.log()


def unended(task: tuple[str, list[Any]]) -> bool:
    return task[0] == "running" or (task[0] == "scheduled" and task[1] != [(None, None, None)])


def curl_head(daemon: Daemon, body: object) -> tuple[int, str]:
    """PUT a task; return the status and the headers."""
    file = daemon.directory / "headers"
    status, _ = daemon.curl("PUT", "/task/x", body, "-D", str(file))
    return status, file.read_text()


def test_stop_of_one_daemon_under_load_loses_nothing(
    fleet: Callable[..., Daemon], sink: Sink, cluster: Cluster, url: str
) -> None:
    stopped, stays = fleet("stopped"), fleet("stays")
    asked: dict[str, float] = {}
    failures: list[Any] = []
    going_on = threading.Event()

    def load(daemon: Daemon, prefix: str) -> None:
        for number in count():
            if going_on.is_set():
                return
            name = f"{prefix}{number}"
            try:
                daemon.put(name, sink.url("/sleep/0.1"))
            except AssertionError as error:
                failures.append((prefix, error))
                return
            asked[name] = time.time()

    loading = [threading.Thread(target=load, args=one) for one in ((stopped, "a"), (stays, "b"))]
    for thread in loading:
        thread.start()
    time.sleep(2)
    put_many(stopped, [f"c{n}" for n in range(300)], sink.url("/sleep/0.1"))
    ended_at = time.time()
    assert stopped.terminate() == 0
    time.sleep(2)
    slower = slowdown()
    going_on.set()
    for thread in loading:
        thread.join()
    # Only the stopped daemon refuses, as it no longer listens.
    assert {prefix for prefix, _ in failures} <= {"a"}
    wait_for(lambda: not left(stays), 60, 0.2)
    calls = calls_of(sink)
    expected = {*asked, *(f"c{n}" for n in range(300))}
    assert set(calls) >= expected
    assert set(calls.values()) == {1}
    first = {key.partition("@")[0]: at for at, key, _ in sink.calls}
    late = {name: first[name] - at for name, at in asked.items() if first[name] - at > slower}
    assert late == {}
    # 300 calls of 0.1 s, 64 at once: half a second for one daemon.
    assert max(first[f"c{n}"] for n in range(300)) - ended_at < 2 * slower
    with cluster.connect(url.rpartition("/")[2]) as connection:
        names = connection.execute(f"SELECT name FROM {SCHEMA}.node".encode()).fetchall()
    assert names == [("stays",)]


def test_long_polls_at_both_daemons_get_responses(fleet: Callable[..., Daemon], sink: Sink) -> None:
    both = [fleet("a"), fleet("b")]
    key = both[0].put("slow", sink.url("/sleep/3"))
    both[1].until(key, "running")
    began = time.monotonic()
    with ThreadPoolExecutor(len(both)) as pool:
        path = f"/status/{key}?wait=59"
        responses = list(pool.map(lambda daemon: daemon.curl("GET", path), both))
    # The answer came before the end of the wait.
    assert time.monotonic() - began < 50
    assert [(status, task["state"]) for status, task in responses] == [(200, "succeeded")] * 2


def test_daemons_that_start_together_on_an_empty_database_both_run(
    url: str, cluster: Cluster, tmp_path: Path
) -> None:
    daemons = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        daemons.append(Daemon(tmp_path / name, f"--database={url}"))
    starting = [threading.Thread(target=daemon.start) for daemon in daemons]
    try:
        for thread in starting:
            thread.start()
        for thread in starting:
            thread.join()
        for daemon in daemons:
            assert daemon.curl("GET", "/status/") == (200, {"tasks": []})
        with cluster.connect(url.rpartition("/")[2]) as connection:
            made = connection.execute(f"SELECT count(*) FROM {SCHEMA}.migration".encode())
            assert made.fetchone() == (len(migrations().numbered),)
    finally:
        for daemon in daemons:
            daemon.kill()
