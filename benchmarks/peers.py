"""What people use today, draining tasks that are due into the same endpoint, each with its client.

``python -m benchmarks.peers {huey,apscheduler,arq} URL TASKS``: prints tasks per second. arq
needs a Redis server on port 6379 of this machine.
"""

from __future__ import annotations

import asyncio
import datetime
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


if __name__ == "__main__":
    which, endpoint, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
    COUNTDOWN = Countdown(number)
    # Jobs are stored by the name of what they call: not as __main__.
    sys.modules["benchmarks.peers"] = sys.modules["__main__"]
    get.__module__ = "benchmarks.peers"
    with tempfile.TemporaryDirectory() as folder:
        rate = {"huey": huey, "apscheduler": apscheduler, "arq": arq}[which]
        print(f"{rate(endpoint, number, folder):.1f}")
