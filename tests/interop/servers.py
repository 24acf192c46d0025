"""The real servers: their commands and their properties."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from attrs import frozen

from ..helpers.processes import free_port, listens, wait_for
from .packages import HERE, Packages

APPS = HERE / "apps"
START_SECONDS = 30
STOP_SECONDS = 5
TASK_KEY = re.compile(r"interop-[\w-]+@\d+")
"""Regular expression of the key of a task of these workloads, anywhere in a line of a record."""
JAVA = "/usr/share/java"
GUNICORN = ("{python}", "-m", "gunicorn", "--chdir={apps}", "--bind=127.0.0.1:{port}")
UVICORN = ("{python}", "-m", "uvicorn", "--app-dir={apps}", "--port={port}", "endpoint:asgi")
GRANIAN = ("{bin}/granian", "--working-dir={apps}", "--port={port}", "--no-access-log")


@frozen(kw_only=True)
class Server:
    """A server with an application that responds ``200`` to everything.

    :ivar command: its command line; ``{port}``, ``{apps}``, ``{config}``, ``{work}``, ``{python}``,
        ``{bin}`` and ``{packages}`` are filled in.
    :ivar package: what it comes from, as :meth:`Packages.version` takes it.
    :ivar keep_alive: seconds that it keeps an idle connection; ``None`` where it keeps none.
    :ivar config: the file in ``config/`` that ``{config}`` stands for.
    :ivar reload: the signal that makes it replace its workers.
    """

    name: str
    command: tuple[str, ...]
    package: str
    keep_alive: float | None = None
    config: str | None = None
    reload: signal.Signals | None = None


def python_server(name: str, kind: str, package: str, keep_alive: float | None = None) -> Server:
    """Return a server that ``apps/endpoint.py`` starts."""
    command = ("{python}", str(APPS / "endpoint.py"), kind, "{port}")
    return Server(name=name, command=command, package=package, keep_alive=keep_alive)


def java_server(name: str, kind: str, package: str, keep_alive: float, *jars: str) -> Server:
    """Return a server that a Java program of ``apps/`` embeds."""
    classpath = ":".join(f"{JAVA}/{jar}.jar" for jar in jars)
    command = (
        "java",
        "-cp",
        classpath or ".",
        str(APPS / f"{kind}Endpoint.java"),
        "{port}",
        "{work}",
    )
    return Server(name=name, command=command, package=package, keep_alive=keep_alive)


SERVERS = (
    Server(
        name="gunicorn sync",
        command=(*GUNICORN, "--workers=2", "endpoint:wsgi"),
        package="pypi:gunicorn",
        reload=signal.SIGHUP,
    ),
    Server(
        name="gunicorn gthread",
        command=(*GUNICORN, "--threads=8", "endpoint:wsgi"),
        package="pypi:gunicorn",
        keep_alive=2,
        reload=signal.SIGHUP,
    ),
    Server(
        name="uvicorn",
        command=(*UVICORN, "--log-level=warning"),
        package="pypi:uvicorn",
        keep_alive=5,
    ),
    Server(
        name="uvicorn, 100 requests a worker",
        command=(*UVICORN, "--log-level=warning", "--workers=2", "--limit-max-requests=100"),
        package="pypi:uvicorn",
        keep_alive=5,
        reload=signal.SIGHUP,
    ),
    Server(
        name="hypercorn",
        command=(
            *("{python}", "-m", "hypercorn", "--bind=127.0.0.1:{port}"),
            *("--access-logfile=/dev/null", "endpoint:asgi"),
        ),
        package="pypi:hypercorn",
        keep_alive=5,
    ),
    Server(
        name="granian asgi",
        command=(*GRANIAN, "--interface=asgi", "endpoint:asgi"),
        package="pypi:granian",
        keep_alive=30,
        reload=signal.SIGHUP,
    ),
    Server(
        name="granian wsgi",
        command=(*GRANIAN, "--interface=wsgi", "endpoint:wsgi"),
        package="pypi:granian",
        keep_alive=30,
        reload=signal.SIGHUP,
    ),
    Server(
        name="waitress",
        command=("{python}", "-m", "waitress", "--listen=127.0.0.1:{port}", "endpoint:wsgi"),
        package="pypi:waitress",
        keep_alive=120,
    ),
    python_server("cheroot", "cheroot", "pypi:cheroot", 10),
    python_server("Werkzeug", "werkzeug", "pypi:werkzeug"),
    python_server("Django runserver", "django", "pypi:django"),
    python_server("aiohttp", "aiohttp", "pypi:aiohttp", 75),
    python_server("tornado", "tornado", "pypi:tornado", 3600),
    python_server("twisted.web", "twisted", "pypi:twisted", 60),
    python_server("http.server", "http_server", "command:python3"),
    python_server("wsgiref", "wsgiref", "command:python3"),
    Server(
        name="node http",
        command=("node", "{apps}/node_http.mjs", "{port}"),
        package="command:node",
        keep_alive=5,
    ),
    Server(
        name="express",
        command=("node", "{apps}/express.mjs", "{packages}", "{port}"),
        package="npm:express",
        keep_alive=5,
    ),
    Server(
        name="fastify",
        command=("node", "{apps}/fastify.mjs", "{packages}", "{port}"),
        package="npm:fastify",
        keep_alive=72,
    ),
    Server(
        name="php -S",
        command=("php", "-S", "127.0.0.1:{port}", "{apps}/endpoint.php"),
        package="command:php",
    ),
    Server(
        name="nginx",
        command=("/usr/sbin/nginx", "-e", "{work}/error.log", "-c", "{config}"),
        package="debian:nginx-light",
        keep_alive=75,
        config="nginx.conf",
        reload=signal.SIGHUP,
    ),
    Server(
        name="Apache event",
        command=("/usr/sbin/apache2", "-D", "FOREGROUND", "-f", "{config}"),
        package="debian:apache2",
        keep_alive=5,
        config="apache.conf",
        reload=signal.SIGUSR1,
    ),
    Server(
        name="lighttpd",
        command=("/usr/sbin/lighttpd", "-D", "-f", "{config}"),
        package="debian:lighttpd",
        keep_alive=5,
        config="lighttpd.conf",
        reload=signal.SIGUSR1,
    ),
    Server(
        name="Caddy",
        command=("caddy", "run", "--adapter=caddyfile", "--config={config}"),
        package="debian:caddy",
        keep_alive=300,
        config="Caddyfile",
    ),
    Server(
        name="Puma",
        command=("puma", "--quiet", "--bind=tcp://127.0.0.1:{port}", "{apps}/config.ru"),
        package="debian:puma",
        keep_alive=20,
    ),
    Server(
        name="Puma, 2 workers",
        command=("puma", "--workers=2", "--bind=tcp://127.0.0.1:{port}", "{apps}/config.ru"),
        package="debian:puma",
        keep_alive=20,
        reload=signal.SIGUSR1,
    ),
    Server(
        name="WEBrick",
        command=("ruby", "{apps}/webrick.rb", "{port}"),
        package="debian:ruby-webrick",
        keep_alive=30,
    ),
    Server(
        name="Starman",
        command=("starman", "--listen=127.0.0.1:{port}", "--disable-proctitle", "{apps}/app.psgi"),
        package="debian:starman",
        keep_alive=1,
        reload=signal.SIGHUP,
    ),
    Server(
        name="plackup",
        command=(
            "plackup",
            "--host=127.0.0.1",
            "--port={port}",
            "--env=deployment",
            "{apps}/app.psgi",
        ),
        package="debian:libplack-perl",
    ),
    java_server("JDK HttpServer", "Jdk", "command:java", 30),
    java_server(
        *("Tomcat", "Tomcat", "debian:libtomcat10-embed-java", 60),
        *("tomcat10-embed-core", "tomcat10-annotations-api"),
    ),
    java_server(
        *("Jetty", "Jetty", "debian:libjetty9-java", 30),
        *("jetty9-server", "jetty9-http", "jetty9-io", "jetty9-util", "servlet-api"),
    ),
)


@frozen
class RunningServer:
    """A started server.

    :ivar record: the file to which it appends the ``Idempotency-Key`` of each request it serves.
    """

    server: Server
    process: subprocess.Popen[bytes]
    port: int
    record: Path

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def reload(self) -> None:
        assert self.server.reload is not None
        self.process.send_signal(self.server.reload)

    def served(self) -> Counter[str]:
        """Return how often the server served each task, by key."""
        return Counter(TASK_KEY.findall(self.record.read_text(errors="replace")))


@contextmanager
def running(server: Server, packages: Packages, work: Path) -> Iterator[RunningServer]:
    """Start a server on loopback; stop all its processes at the end.

    :param work: an empty folder for its files.
    """
    # Servers that drop root privileges must still be able to read their files.
    work.chmod(0o755)
    (work / "root").mkdir()
    for name in ("post", "get", "unread"):
        (work / "root" / name).write_text("ok")
    record = work / "record"
    record.touch()
    record.chmod(0o666)
    port = free_port()
    config = work / (server.config or "none")
    places = {
        "port": str(port),
        "apps": str(APPS),
        "config": str(config),
        "work": str(work),
        "python": packages.python,
        "bin": str(Path(packages.python).parent),
        "packages": str(packages.folder),
    }
    if server.config is not None:
        write_config(HERE / "config" / server.config, config, PORT=port, WORK=work, RECORD=record)
    command = [part.format(**places) for part in server.command]
    # gunicorn keeps a control socket in one of the two folders.
    homes = {"HOME": str(work), "XDG_RUNTIME_DIR": str(work)}
    environment = {"INTEROP_RECORD": str(record), "PYTHONPATH": str(APPS), **homes}
    with process(command, work, environment) as started:
        wait_for(lambda: ready(started, port, work), START_SECONDS)
        yield RunningServer(server, started, port, record)


def write_config(source: Path, target: Path, **places: object) -> None:
    """Copy a configuration file, with each ``@NAME@`` replaced."""
    text = source.read_text()
    for name, value in places.items():
        text = text.replace(f"@{name}@", str(value))
    target.write_text(text)


@contextmanager
def process(
    command: list[str], work: Path, environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process in a separate group, which ends with this context and with this program."""
    with (work / "log").open("ab") as log:
        started = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", *command],
            cwd=work,
            env=os.environ | environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield started
    finally:
        _end(started)


def _end(started: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(started.pid, number)
        with suppress(subprocess.TimeoutExpired):
            started.wait(STOP_SECONDS)


def ready(started: subprocess.Popen[bytes], port: int, work: Path) -> bool:
    """Return whether a process listens.

    :raises AssertionError: it has ended; the message is the end of its log.
    """
    assert started.poll() is None, (work / "log").read_text(errors="replace")[-500:]
    return listens(port)
