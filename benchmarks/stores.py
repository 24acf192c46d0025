"""Stores of other tools: servers that run for one measurement, and sync to disk."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.helpers.postgres import Cluster
from tests.helpers.processes import free_port, listens

# The script of the same name in Debian's PATH changes to another user.
_RABBITMQ = "/usr/lib/rabbitmq/bin"


def _program(name: str, package: str, path: str | None = None) -> str:
    """Return the path of a program; if it is missing, exit with the name of its Debian package."""
    found = shutil.which(name, path=path)
    if found is None:
        raise SystemExit(f"{name} is missing: apt-get install {package}")
    return found


@contextmanager
def _server(
    command: Sequence[str], port: int, environment: Mapping[str, str] | None = None
) -> Iterator[int]:
    """Run a server; the block begins when it listens on a port, and ends it."""
    process = subprocess.Popen(
        command,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + 60
        while not listens(port):
            if process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"{command[0]} did not start")
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait()


@contextmanager
def redis(directory: str) -> Iterator[int]:
    """Run a Redis server that syncs each write, and return its port."""
    port = free_port()
    options = ["--save", "", "--appendonly", "yes", "--appendfsync", "always"]
    address = ["--bind", "127.0.0.1", "--port", str(port), "--dir", directory]
    with _server([_program("redis-server", "redis-server"), *address, *options], port):
        yield port


@contextmanager
def beanstalkd(directory: str) -> Iterator[int]:
    """Run beanstalkd with a log that it syncs at each write, and return its port."""
    port = free_port()
    options = ["-l", "127.0.0.1", "-p", str(port), "-b", directory, "-f", "0"]
    with _server([_program("beanstalkd", "beanstalkd"), *options], port):
        yield port


@contextmanager
def rabbitmq(directory: str) -> Iterator[int]:
    """Run a RabbitMQ broker without plugins, and return its port."""
    port = free_port()
    plugins = Path(directory, "enabled_plugins")
    plugins.write_text("[].\n", encoding="utf-8")
    environment = {
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "ERL_EPMD_PORT": str(free_port()),
        "HOME": directory,
        "RABBITMQ_BASE": directory,
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(plugins),
        "RABBITMQ_LOG_BASE": directory,
        "RABBITMQ_MNESIA_BASE": directory,
        "RABBITMQ_NODENAME": "peers@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
    }
    program = _program("rabbitmq-server", "rabbitmq-server", _RABBITMQ)
    try:
        with _server([program], port, environment):
            yield port
    finally:
        # The broker has started epmd, which maps the names of nodes to ports.
        command = ["epmd", "-kill"]
        full = {**os.environ, **environment}
        subprocess.run(command, env=full, check=False, stdout=subprocess.DEVNULL)


@contextmanager
def postgresql() -> Iterator[int]:
    """Run a PostgreSQL server, and return its port. The user is callme, the database postgres."""
    cluster = Cluster(durable=True)
    try:
        yield cluster.port
    finally:
        cluster.close()
