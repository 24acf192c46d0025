"""Other tools that drain due jobs into the same endpoint, each with its usual client.

``python -m benchmarks.peers TOOL URL JOBS`` prints calls per second, from the start of the worker
to the last call. The tools are huey, apscheduler, arq, dramatiq, bullmq, beanstalkd and pgqueuer.
arq, dramatiq and bullmq need a Redis server on port 6379 of this machine, and bullmq also Node and
npm. beanstalkd and pgqueuer need the programs of Debian's packages beanstalkd and postgresql, which
are started here. Every store syncs to disk, except Redis by default: ``redis-server --appendonly
yes --appendfsync always``.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

WORKERS = 16


class Countdown:
    """Counts what is done, from any thread."""

    def __init__(self, count: int) -> None:
        self.left = count
        self.lock = threading.Lock()
        self.done = threading.Event()

    def one(self) -> None:
        with self.lock:
            self.left -= 1
            if not self.left:
                self.done.set()


COUNTDOWN: Countdown
SESSIONS = threading.local()


def get(url: str) -> None:
    import requests

    if not hasattr(SESSIONS, "session"):
        SESSIONS.session = requests.Session()
    response = SESSIONS.session.get(url, timeout=30)
    assert response.status_code == 200
    COUNTDOWN.one()


def huey(url: str, tasks: int, directory: str) -> float:
    from huey import SqliteHuey

    queue = SqliteHuey(filename=str(Path(directory, "huey.sqlite")), fsync=True)
    call = queue.task(retries=1)(get)
    for _ in range(tasks):
        call(url)
    consumer = queue.create_consumer(workers=WORKERS, worker_type="thread", periodic=False)
    began = time.perf_counter()
    consumer.start()
    COUNTDOWN.done.wait()
    elapsed = time.perf_counter() - began
    consumer.stop(graceful=True)
    return tasks / elapsed


def apscheduler(url: str, tasks: int, directory: str) -> float:
    from apscheduler.executors.pool import ThreadPoolExecutor
    from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
    from apscheduler.schedulers.background import BackgroundScheduler

    store = SQLAlchemyJobStore(url=f"sqlite:///{directory}/apscheduler.sqlite")
    scheduler = BackgroundScheduler(
        jobstores={"default": store},
        executors={"default": ThreadPoolExecutor(WORKERS)},
        job_defaults={"misfire_grace_time": None},
        timezone=datetime.timezone.utc,
    )
    scheduler.start(paused=True)
    due = datetime.datetime.now(datetime.timezone.utc)
    for _ in range(tasks):
        scheduler.add_job(get, "date", run_date=due, args=[url])
    began = time.perf_counter()
    scheduler.resume()
    COUNTDOWN.done.wait()
    elapsed = time.perf_counter() - began
    scheduler.shutdown()
    return tasks / elapsed


def arq(url: str, tasks: int, directory: str) -> float:
    import aiohttp
    from arq import create_pool
    from arq.connections import RedisSettings
    from arq.worker import Worker, func

    async def call(context: dict[str, Any], url: str) -> None:
        async with context["session"].get(url) as response:
            await response.read()
            assert response.status == 200

    async def startup(context: dict[str, Any]) -> None:
        context["session"] = aiohttp.ClientSession()

    async def shutdown(context: dict[str, Any]) -> None:
        await context["session"].close()

    async def run() -> float:
        redis = await create_pool(RedisSettings())
        await redis.flushdb()
        for _ in range(tasks):
            await redis.enqueue_job("call", url)
        worker = Worker(
            functions=[func(call, name="call")],
            on_startup=startup,
            on_shutdown=shutdown,
            burst=True,
            max_jobs=64,
            queue_read_limit=500,
            poll_delay=0.01,
            handle_signals=False,
        )
        began = time.perf_counter()
        await worker.main()
        elapsed = time.perf_counter() - began
        assert worker.jobs_complete == tasks
        await worker.close()
        return tasks / elapsed

    return asyncio.run(run())


def dramatiq(url: str, tasks: int, directory: str) -> float:
    import dramatiq as library
    from dramatiq.brokers.redis import RedisBroker

    broker = RedisBroker(url="redis://127.0.0.1:6379/0")
    broker.flush_all()
    library.set_broker(broker)
    call = library.actor(max_retries=1)(get)
    for _ in range(tasks):
        call.send(url)
    worker = library.Worker(broker, worker_threads=WORKERS)
    began = time.perf_counter()
    worker.start()
    COUNTDOWN.done.wait()
    elapsed = time.perf_counter() - began
    worker.stop()
    return tasks / elapsed


def beanstalkd(url: str, tasks: int, directory: str) -> float:
    import greenstalk

    from tests.helpers.processes import free_port, listens, wait_for

    port = free_port()
    command = ["beanstalkd", "-l", "127.0.0.1", "-p", str(port), "-b", directory, "-f", "0"]
    server = subprocess.Popen(command)
    try:
        wait_for(lambda: listens(port))
        with greenstalk.Client(("127.0.0.1", port)) as client:
            for _ in range(tasks):
                client.put(url)
        began = time.perf_counter()
        for _ in range(WORKERS):
            threading.Thread(target=_serve_beanstalkd, args=(port,), daemon=True).start()
        COUNTDOWN.done.wait()
        return tasks / (time.perf_counter() - began)
    finally:
        server.terminate()
        server.wait()


def _serve_beanstalkd(port: int) -> None:
    import greenstalk

    with (
        contextlib.suppress(greenstalk.Error, OSError),
        greenstalk.Client(("127.0.0.1", port)) as client,
    ):
        while True:
            job = client.reserve()
            get(str(job.body))
            client.delete(job)


def pgqueuer(url: str, tasks: int, directory: str) -> float:
    import aiohttp
    import asyncpg
    from pgqueuer.db import AsyncpgDriver
    from pgqueuer.models import Job
    from pgqueuer.qm import QueueManager
    from pgqueuer.queries import Queries
    from pgqueuer.types import QueueExecutionMode

    from tests.helpers.postgres import Cluster

    async def run(port: int) -> float:
        connection = await asyncpg.connect(
            host="127.0.0.1", port=port, user="callme", database="postgres"
        )
        driver = AsyncpgDriver(connection)
        queries = Queries(driver)
        await queries.install()
        await queries.enqueue(["call"] * tasks, [url.encode()] * tasks, [0] * tasks)
        manager = QueueManager(queries)
        async with aiohttp.ClientSession() as session:

            @manager.entrypoint("call")
            async def call(job: Job) -> None:
                async with session.get((job.payload or b"").decode()) as response:
                    await response.read()
                    assert response.status == 200
                COUNTDOWN.one()

            began = time.perf_counter()
            await manager.run(batch_size=32, max_concurrent_tasks=64, mode=QueueExecutionMode.drain)
            elapsed = time.perf_counter() - began
            assert COUNTDOWN.done.is_set()
        await connection.close()
        return tasks / elapsed

    cluster = Cluster(durable=True)
    try:
        return asyncio.run(run(cluster.port))
    finally:
        cluster.close()


def bullmq(url: str, tasks: int, directory: str) -> float:
    script = shutil.copy(Path(__file__).with_name("bullmq.mjs"), directory)
    subprocess.run(
        ["npm", "install", "--silent", "--no-audit", "--prefix", directory, "bullmq", "ioredis"],
        check=True,
    )
    done = subprocess.run(
        ["node", script, url, str(tasks)], check=True, capture_output=True, text=True
    )
    return float(done.stdout)


TOOLS = {
    tool.__name__: tool for tool in (huey, apscheduler, arq, dramatiq, beanstalkd, pgqueuer, bullmq)
}

if __name__ == "__main__":
    which, endpoint, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
    COUNTDOWN = Countdown(number)
    # Jobs are stored by the name of what they call: not as __main__.
    sys.modules["benchmarks.peers"] = sys.modules["__main__"]
    get.__module__ = "benchmarks.peers"
    with tempfile.TemporaryDirectory() as folder:
        rate = TOOLS[which]
        print(f"{rate(endpoint, number, folder):.1f}")
