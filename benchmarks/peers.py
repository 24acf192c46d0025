"""Other tools that process due jobs with calls to the same endpoint, each with its usual client.

``python -m benchmarks.peers TOOL URL JOBS`` prints calls per second, from the start of the worker
to the last call. ``python -m benchmarks.peers`` lists the tools. The Python packages are those of
the extra ``bench``. BullMQ, pg-boss and graphile-worker need Node and npm, which installs them.
The stores are those of Debian's packages redis-server, beanstalkd, rabbitmq-server and postgresql:
:mod:`benchmarks.stores` starts the one that a tool needs, and says which is missing. Every store
syncs to disk.
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
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import stores

WORKERS = 16
"""Number of threads of a tool with threaded workers."""
CONCURRENCY = 64
"""Maximum calls in flight of an asynchronous tool."""


class Countdown:
    """Thread-safe counter of completed calls."""

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

    async def run(settings: RedisSettings) -> float:
        redis = await create_pool(settings)
        for _ in range(tasks):
            await redis.enqueue_job("call", url)
        worker = Worker(
            functions=[func(call, name="call")],
            redis_settings=settings,
            on_startup=startup,
            on_shutdown=shutdown,
            burst=True,
            max_jobs=CONCURRENCY,
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

    with stores.redis(directory) as port:
        return asyncio.run(run(RedisSettings(port=port)))


def celery(url: str, tasks: int, directory: str) -> float:
    from celery import Celery
    from celery.contrib.testing.worker import start_worker

    # With Redis, Celery would need a newer redis-py than arq permits.
    with stores.rabbitmq(directory) as port:
        app = Celery("peers", broker=f"amqp://guest:guest@127.0.0.1:{port}//")
        app.conf.update(task_ignore_result=True, worker_hijack_root_logger=False)
        call = app.task(acks_late=True, max_retries=1)(get)
        for _ in range(tasks):
            call.delay(url)
        began = time.perf_counter()
        options = {"pool": "threads", "concurrency": WORKERS, "perform_ping_check": False}
        with start_worker(app, shutdown_timeout=60, **options):
            COUNTDOWN.done.wait()
            elapsed = time.perf_counter() - began
        return tasks / elapsed


def rq(url: str, tasks: int, directory: str) -> float:
    from redis import Redis
    from rq import Queue, Retry, Worker

    with stores.redis(directory) as port:
        queue = Queue(connection=Redis(port=port))
        for _ in range(tasks):
            queue.enqueue(get, url, retry=Retry(max=1))
        worker = Worker([queue], connection=queue.connection)
        began = time.perf_counter()
        # RQ forks a process for each job, so that this process cannot count the calls.
        worker.work(burst=True, logging_level="WARNING")
        elapsed = time.perf_counter() - began
        assert queue.finished_job_registry.count == tasks
        return tasks / elapsed


def dramatiq(url: str, tasks: int, directory: str) -> float:
    import dramatiq as library
    from dramatiq.brokers.redis import RedisBroker

    with stores.redis(directory) as port:
        broker = RedisBroker(url=f"redis://127.0.0.1:{port}/0")
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

    with stores.beanstalkd(directory) as port:
        with greenstalk.Client(("127.0.0.1", port)) as client:
            for _ in range(tasks):
                client.put(url)
        return _drained_by_threads(_serve_beanstalkd, port, tasks)


def _drained_by_threads(serve: Callable[[int], None], port: int, tasks: int) -> float:
    """Serve the jobs of a broker in threads; return the calls per second."""
    began = time.perf_counter()
    for _ in range(WORKERS):
        threading.Thread(target=serve, args=(port,), daemon=True).start()
    COUNTDOWN.done.wait()
    return tasks / (time.perf_counter() - began)


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


def rabbitmq(url: str, tasks: int, directory: str) -> float:
    import pika

    with stores.rabbitmq(directory) as port:
        parameters = pika.ConnectionParameters("127.0.0.1", port)
        with pika.BlockingConnection(parameters) as connection:
            channel = connection.channel()
            channel.queue_declare("calls", durable=True)
            channel.confirm_delivery()
            persistent = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent)
            for _ in range(tasks):
                channel.basic_publish("", "calls", url.encode(), persistent)
        return _drained_by_threads(_serve_rabbitmq, port, tasks)


def _serve_rabbitmq(port: int) -> None:
    import pika

    parameters = pika.ConnectionParameters("127.0.0.1", port)
    with (
        contextlib.suppress(pika.exceptions.AMQPError),
        pika.BlockingConnection(parameters) as connection,
    ):
        channel = connection.channel()
        channel.basic_qos(prefetch_count=4)
        for method, _, body in channel.consume("calls"):
            get(body.decode())
            channel.basic_ack(method.delivery_tag)


def procrastinate(url: str, tasks: int, directory: str) -> float:
    import aiohttp
    from procrastinate import App, PsycopgConnector

    async def run(port: int) -> float:
        app = App(connector=PsycopgConnector(conninfo=_dsn(port)))
        async with app.open_async(), aiohttp.ClientSession() as session:
            await app.schema_manager.apply_schema_async()

            @app.task(name="call", retry=1)
            async def call(url: str) -> None:
                async with session.get(url) as response:
                    await response.read()
                    assert response.status == 200
                COUNTDOWN.one()

            await call.batch_defer_async(*({"url": url} for _ in range(tasks)))
            began = time.perf_counter()
            await app.run_worker_async(wait=False, concurrency=CONCURRENCY)
            elapsed = time.perf_counter() - began
            assert COUNTDOWN.done.is_set()
            return tasks / elapsed

    with stores.postgresql() as port:
        return asyncio.run(run(port))


def _dsn(port: int) -> str:
    return f"postgresql://callme@127.0.0.1:{port}/postgres"


def pgqueuer(url: str, tasks: int, directory: str) -> float:
    import aiohttp
    import asyncpg
    from pgqueuer.db import AsyncpgDriver
    from pgqueuer.models import Job
    from pgqueuer.qm import QueueManager
    from pgqueuer.queries import Queries
    from pgqueuer.types import QueueExecutionMode

    async def run(port: int) -> float:
        connection = await asyncpg.connect(_dsn(port))
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
            await manager.run(
                batch_size=32, max_concurrent_tasks=CONCURRENCY, mode=QueueExecutionMode.drain
            )
            elapsed = time.perf_counter() - began
            assert COUNTDOWN.done.is_set()
        await connection.close()
        return tasks / elapsed

    with stores.postgresql() as port:
        return asyncio.run(run(port))


def bullmq(url: str, tasks: int, directory: str) -> float:
    with stores.redis(directory) as port:
        return _node("bullmq", ["bullmq", "ioredis"], url, tasks, str(port))


def pg_boss(url: str, tasks: int, directory: str) -> float:
    with stores.postgresql() as port:
        return _node("pg-boss", ["pg-boss@10"], url, tasks, _dsn(port))


def graphile_worker(url: str, tasks: int, directory: str) -> float:
    with stores.postgresql() as port:
        return _node("graphile-worker", ["graphile-worker"], url, tasks, _dsn(port))


def _node(tool: str, packages: list[str], url: str, tasks: int, store: str) -> float:
    """Run a tool of peers.mjs beside its packages; return the calls per second."""
    if shutil.which("npm") is None:
        raise SystemExit("npm is missing: apt-get install npm")
    with tempfile.TemporaryDirectory() as directory:
        script = shutil.copy(Path(__file__).with_name("peers.mjs"), directory)
        install = ["npm", "install", "--silent", "--no-audit", "--prefix", directory, *packages]
        subprocess.run(install, check=True)
        command = ["node", script, tool, url, str(tasks), store]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        return float(done.stdout.splitlines()[-1])


TOOLS = {
    tool.__name__: tool
    for tool in (
        huey,
        apscheduler,
        arq,
        celery,
        dramatiq,
        rq,
        beanstalkd,
        rabbitmq,
        pgqueuer,
        procrastinate,
        bullmq,
        pg_boss,
        graphile_worker,
    )
}

if __name__ == "__main__":
    if len(sys.argv) != 4:
        raise SystemExit(f"expected TOOL URL JOBS; the tools are {', '.join(TOOLS)}")
    which, endpoint, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
    COUNTDOWN = Countdown(number)
    # Jobs are stored with the name of their function, whose module must not be __main__.
    sys.modules["benchmarks.peers"] = sys.modules["__main__"]
    get.__module__ = "benchmarks.peers"
    with tempfile.TemporaryDirectory() as folder:
        rate = TOOLS[which]
        print(f"{rate(endpoint, number, folder):.1f}")
