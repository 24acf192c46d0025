"""The real clients: what each makes of callme's API."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

from attrs import frozen

from ..helpers.processes import Daemon
from .packages import HERE, Packages

CLIENTS_FOLDER = HERE / "clients"
CALL_SECONDS = 60
FAR = 1_900_000_000 // 60 * 60
"""The minute of the tasks, in 2030: none of them is called."""
JSON = "application/json"
CALLBACK = "http://127.0.0.1:9/"


@frozen(kw_only=True)
class Client:
    """A program that makes one request and prints the status as its last word.

    :ivar command: its command line without a body; ``{method}`` and ``{url}`` are filled in.
    :ivar typed: what follows it where a body and its type are given, as ``{file}`` and ``{type}``.
    :ivar untyped: what follows it where the type is left to the program.
    """

    name: str
    package: str
    command: tuple[str, ...]
    typed: tuple[str, ...] = ("{type}", "{file}")
    untyped: tuple[str, ...] = ("", "{file}")


def script(name: str, package: str, *command: str) -> Client:
    """Return a client that takes METHOD URL [TYPE FILE]."""
    return Client(name=name, package=package, command=(*command, "{method}", "{url}"))


def python_client(library: str, package: str) -> Client:
    return script(library, package, "{python}", str(CLIENTS_FOLDER / "python.py"), library)


CLIENTS = (
    Client(
        name="curl",
        package="debian:curl",
        command=(
            "curl",
            "-sS",
            "-o",
            "/dev/null",
            "-w",
            "%{{http_code}}",
            "-X",
            "{method}",
            "{url}",
        ),
        typed=("-H", "Content-Type: {type}", "--data-binary", "@{file}"),
        untyped=("--data-binary", "@{file}"),
    ),
    Client(
        name="wget",
        package="debian:wget",
        command=("wget", "-q", "-S", "-O", "/dev/null", "--method={method}", "{url}"),
        typed=("--header=Content-Type: {type}", "--body-file={file}"),
        untyped=("--body-file={file}",),
    ),
    Client(
        name="HTTPie",
        package="pypi:httpie",
        command=("{bin}/http", "--ignore-stdin", "--print=h", "{method}", "{url}"),
        typed=("Content-Type: {type}", "@{file}"),
        untyped=("@{file}",),
    ),
    python_client("requests", "pypi:requests"),
    python_client("httpx", "pypi:httpx"),
    python_client("aiohttp", "pypi:aiohttp"),
    python_client("urllib", "command:python3"),
    script("node fetch", "command:node", "node", str(CLIENTS_FOLDER / "fetch.mjs")),
    script("axios", "npm:axios", "node", str(CLIENTS_FOLDER / "axios.mjs"), "{packages}"),
    script("Java HttpClient", "command:java", "java", str(CLIENTS_FOLDER / "Client.java")),
    script("PHP curl", "debian:php8.2-curl", "php", str(CLIENTS_FOLDER / "curl.php")),
    script("PHP streams", "command:php", "php", str(CLIENTS_FOLDER / "stream.php")),
    script("Ruby Net::HTTP", "command:ruby", "ruby", str(CLIENTS_FOLDER / "net_http.rb")),
    script("Perl LWP", "debian:libwww-perl", "perl", str(CLIENTS_FOLDER / "lwp.pl")),
    script("Perl HTTP::Tiny", "command:perl", "perl", str(CLIENTS_FOLDER / "tiny.pl")),
)


@frozen
class Step:
    """One request and the status that it must get.

    :ivar body: the body, as text; ``None`` for a request without one.
    """

    name: str
    method: str
    path: str
    expected: int
    body: str | None = None
    content_type: str = ""


def steps(name: str) -> tuple[Step, ...]:
    """Return the requests that every client makes, for a task of this name."""
    task = json.dumps({"callback": CALLBACK})
    batch = "\n".join(
        json.dumps({"task_name": f"{name}.{number}", "trigger_at": FAR, "callback": CALLBACK})
        for number in range(100)
    )
    key = f"{name}@{FAR}"
    to = json.dumps({"trigger_at": FAR + 3600})
    return (
        Step("PUT", "PUT", f"/task/{key}", 201, task, JSON),
        Step("PUT, no type", "PUT", f"/task/untyped-{key}", 201, task),
        Step("GET", "GET", f"/status/{key}", 200),
        Step("?wait=1", "GET", f"/status/{key}?wait=1", 200),
        Step("reschedule", "POST", f"/reschedule/{key}?all=true", 200, to, JSON),
        Step("reschedule, no body", "POST", f"/reschedule/{name}?all=true", 200),
        Step("batch", "POST", "/batch", 200, batch, "application/x-ndjson"),
        Step("DELETE", "DELETE", f"/task/{name}.0@{FAR}", 204),
        Step("404", "GET", f"/status/{name}.0@{FAR}", 404),
    )


def run_client(client: Client, packages: Packages, daemon: Daemon, work: Path) -> dict[str, int]:
    """Make every request with a client; return the status of each, 0 where it reports none."""
    name = f"client-{CLIENTS.index(client)}"
    return {
        step.name: _status(_command(client, step, packages, daemon, work)) for step in steps(name)
    }


def unexpected(statuses: dict[str, int]) -> dict[str, int]:
    """Return the differences from the expectation."""
    expected = {step.name: step.expected for step in steps("any")}
    return {name: status for name, status in statuses.items() if status != expected[name]}


def _command(
    client: Client, step: Step, packages: Packages, daemon: Daemon, work: Path
) -> list[str]:
    body = work / "body"
    body.write_text(step.body or "")
    places = {
        "method": step.method,
        "url": f"http://127.0.0.1:{daemon.port}{step.path}",
        "type": step.content_type,
        "file": str(body),
        "python": packages.python,
        "bin": str(Path(packages.python).parent),
        "packages": str(packages.folder),
    }
    more = client.typed if step.content_type else client.untyped
    parts = (*client.command, *more) if step.body is not None else client.command
    return [part.format(**places) for part in parts]


def _status(command: list[str]) -> int:
    """Return the status that a client prints: in a status line, or as its last word."""
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=CALL_SECONDS, check=False
    )
    output = done.stdout + done.stderr
    found = re.findall(r"HTTP/1\.\d (\d{3})", output) or re.findall(r"\b\d{3}\s*$", output)
    return int(found[-1]) if found else 0
