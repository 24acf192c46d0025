"""The pictures of the documentation, made from a daemon that runs.

``python -m tests.docs.pictures`` writes them to docs/: the web page (light, dark, and on a phone)
with Chromium, and a terminal session as an animated SVG. The daemon makes real calls to an
endpoint on this machine. For the charts, their times are then spread over the last hours in its
database.
"""

from __future__ import annotations

import json
import random
import re
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from attrs import frozen

from tests.helpers.browser import Browser
from tests.helpers.documentation import ROOT
from tests.helpers.processes import Daemon, environment, wait_for

DOCS = ROOT / "docs"
NAMES = ("trial-end", "cart-reminder", "invoice", "password-reset", "report", "backup-check")
MINUTES = 180
"""The hours of the charts, in minutes."""
TURN_LATENESS_MS = (4, 40)
"""The lateness of most calls; those of the picture were due when their task was registered."""


@contextmanager
def endpoint(respond: Callable[[str, int], tuple[int, str]]) -> Iterator[int]:
    """Run an endpoint; yield its port.

    :param respond: returns the status and the body of a response to a path that was called before
        as often as the number says.
    """
    calls: dict[str, int] = {}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            number = calls[self.path] = calls.get(self.path, -1) + 1
            status, body = respond(self.path, number)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *args: Any) -> None:
            """Log nothing."""

    class Server(ThreadingHTTPServer):
        request_queue_size = 256

    server = Server(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


# The web page


def populate(daemon: Daemon, port: int) -> None:
    """Register tasks: many that are called now, and some for each of the next hours."""
    chance = random.Random(7)
    now = int(time.time()) // 60 * 60
    tasks: list[dict[str, Any]] = []
    for number in range(3000):
        name = chance.choice(NAMES)
        path = "down" if name == "report" and number % 9 == 0 else "ok"
        tasks.append(
            {"task_name": f"{name}.{1000 + number}", "trigger_at": now, "path": path, "retry": 0}
        )
    for minute in range(1, MINUTES):
        for number in range(chance.randrange(2, 14) + (90 if minute % 15 == 0 else 0)):
            name = f"{chance.choice(NAMES)}.{minute}{number:03}"
            tasks.append({"task_name": name, "trigger_at": now + 60 * minute, "path": "ok"})
    for task in tasks:
        task["callback"] = f"http://localhost:{port}/{task.pop('path')}"
        task["callback_method"] = "POST"
    (daemon.directory / "tasks.json").write_text(json.dumps(tasks))
    assert daemon.curl("POST", "/batch", "@tasks.json")[0] == 200
    wait_for(lambda: not _has_open_tasks(daemon, now), 120)


def _has_open_tasks(daemon: Daemon, until: int) -> bool:
    with sqlite3.connect(daemon.directory / "callme.sqlite") as database:
        rows = database.execute(
            "SELECT DISTINCT 1 FROM task "
            "WHERE trigger_at <= ? AND state IN ('scheduled', 'running')",
            (until,),
        )
        return rows.fetchone() is not None


def spread(path: Path) -> None:
    """Spread the calls that were made over the minutes of the last hours."""
    chance = random.Random(8)
    now = int(time.time()) // 60 * 60
    weights = [12 if minute % 15 == 0 else 1 for minute in range(MINUTES)]
    with sqlite3.connect(path) as database:
        rows = database.execute("SELECT task_id, state FROM task WHERE finished_at_ms IS NOT NULL")
        for task_id, state in rows.fetchall():
            back = chance.choices(range(1, MINUTES), weights[1:])[0]
            if state == "failed":
                back = chance.randrange(20, 40)
            minute = now - 60 * back
            lateness = int(min(chance.lognormvariate(2.2, 0.6), 400)) + TURN_LATENESS_MS[0]
            started = minute * 1000 + lateness
            database.execute(
                "UPDATE task SET trigger_at = ?, expires_at = ? + 60 * max_delay, "
                "created_at_ms = ?, finished_at_ms = ?, first_lateness_ms = ? WHERE task_id = ?",
                (minute, minute, started - 86_400_000, started + 5, lateness, task_id),
            )
            database.execute(
                "UPDATE attempt SET started_at_ms = ?, lateness_ms = ? WHERE task_id = ?",
                (started, lateness, task_id),
            )


def photograph(url: str) -> None:
    browser = Browser()
    try:
        for name, width, height, dark in (
            ("page", 1400, 1040, False),
            ("page-dark", 1400, 1040, True),
            ("page-phone", 400, 860, True),
        ):
            browser.set_screen(width, dark, height)
            browser.go(url)
            # The counts are made in the background.
            browser.until("return document.querySelectorAll('svg').length > 2")
            browser.driver.save_screenshot(str(DOCS / f"{name}.png"))
    finally:
        browser.close()


def take_page() -> None:
    """Make the pictures of the web page."""
    with (
        tempfile.TemporaryDirectory() as folder,
        endpoint(lambda path, _: (503, "busy") if path == "/down" else (200, "ok")) as port,
    ):
        daemon = Daemon(Path(folder)).start()
        populate(daemon, port)
        daemon.terminate()
        spread(Path(folder, "callme.sqlite"))
        daemon.start()
        photograph(f"http://localhost:{daemon.port}/")
        daemon.terminate()


# The terminal

COMMANDS = (
    """curl -X PUT --data '{
       "trigger_at": "now", "callback": "http://localhost:8000/welcome",
       "callback_method": "POST", "payload": {"to": "ada@example.com"}, "retry_delay": 0
    }' localhost:6777/task/welcome?pretty | grep -E '"(task|state|attempts_left)"'""",
    """curl 'localhost:6777/status/KEY?pretty' | \\
       grep -E '"(state|number|lateness_ms|status|reason|detail|body)"'""",
)
PAUSE_SECONDS = 1.5
LINE_HEIGHT, CHARACTER_WIDTH, MARGIN = 20, 8.4, 16


@frozen
class Line:
    """A line of the terminal.

    :ivar at: the second at which it appears.
    """

    text: str
    is_command: bool
    at: float


def record() -> list[Line]:
    """Return the lines of a session with a daemon and an endpoint that fails once."""
    lines: list[Line] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        endpoint(lambda _, number: (200, "sent") if number else (503, "busy")) as port,
    ):
        daemon = Daemon(Path(folder)).start()
        # The session has the ports of the documentation; those of the machine may be in use.
        ports = {"8000": str(port), "6777": str(daemon.port)}
        key, at = "", 0.5
        for template in COMMANDS:
            command = template.replace("KEY", key)
            typed = command.splitlines()
            typed[0] = f"$ {typed[0]}"
            lines += [Line(line, True, at + 0.4 * number) for number, line in enumerate(typed)]
            at += 0.4 * len(typed) + 0.4
            for shown, true in ports.items():
                command = command.replace(f":{shown}/", f":{true}/")
            output = subprocess.run(
                ["bash", "-c", command.replace("curl ", "curl -sS ")],
                env=environment(),
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            lines += [Line(line, False, at) for line in output.splitlines()]
            key = key or re.findall(r"welcome@\d+", output)[0]
            at += PAUSE_SECONDS
            daemon.until(key, "succeeded")
        daemon.terminate()
    return lines


def drawing(lines: list[Line]) -> str:
    """Return a session as an SVG whose lines appear one after the other."""
    width = int(2 * MARGIN + CHARACTER_WIDTH * max(len(line.text) for line in lines))
    height = 2 * MARGIN + LINE_HEIGHT * len(lines)
    rows = [
        f'<text class="{"c" if line.is_command else "o"}" x="{MARGIN}" '
        f'y="{MARGIN + LINE_HEIGHT * number + 14}" style="animation-delay:{line.at:.1f}s">'
        f"{escape(line.text, quote=False)}</text>"
        for number, line in enumerate(lines)
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" role="img" aria-labelledby="title">',
            '<title id="title">A terminal: a task is registered; its first call fails with 503, '
            "and the second one succeeds</title>",
            "<style>text{font:14px ui-monospace,Menlo,Consolas,monospace;white-space:pre;"
            "animation:a .1s both}.c{fill:#9fd8c0}.o{fill:#dde4ea}@keyframes a{from{opacity:0}}"
            "@media(prefers-reduced-motion:reduce){text{animation:none}}</style>",
            f'<rect width="{width}" height="{height}" rx="8" fill="#16212b"/>',
            *rows,
            "</svg>\n",
        ]
    )


if __name__ == "__main__":
    (DOCS / "session.svg").write_text(drawing(record()), encoding="utf-8")
    take_page()
