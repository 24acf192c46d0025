"""Every page of the documentation is executed, with daemon processes and curl.

All pages run at once, as some wait for a minute to begin.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.helpers.documentation import (
    MORE,
    PAGES,
    ROOT,
    Command,
    File,
    Logged,
    Minutes,
    check,
    steps,
)
from tests.helpers.processes import environment, free_port, listens, wait_for

pytestmark = [
    pytest.mark.daemon,
    pytest.mark.skipif(
        shutil.which("curl") is None and not os.environ.get("CI"), reason="curl is not installed"
    ),
]

SECONDS = 90
"""Seconds in which a response must become the documented one: a minute may have to begin."""
PRESENT = re.compile(r'"(now|\+0m)"')
"""The time of a task that is due at once."""
MINUTE_ENDS = 50
"""From this second of a minute on, commands that put due tasks wait for the next minute."""
DAEMON = "6777"
PORTS = (DAEMON, "8000", "8001", "8002", "8003", "8004")
"""The ports of the daemon, and of the programs of the pages: no two programs share one."""
STATUS = "callme-status "
# curl also prints the status, unless the page itself requests it.
CURL = f"""#!/bin/sh
exec {shutil.which("curl")} -sS -w '%{{stderr}}{STATUS}%{{http_code}}\\n' "$@"
"""


class Reader:
    """Reader of a page, who runs its commands in an empty directory."""

    def __init__(self, page: Path, directory: Path) -> None:
        self._page = page
        self._directory = directory
        self._minutes = Minutes()
        self._ports = {port: str(free_port()) for port in PORTS}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        programs = directory / "bin"
        programs.mkdir(parents=True)
        (programs / "curl").write_text(CURL)
        (programs / "curl").chmod(0o755)
        # A link would be a Python outside of its environment, without the packages there.
        (programs / "python3").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        (programs / "python3").chmod(0o755)
        self._environ = environment() | {
            "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(directory),
            "PYTHONUNBUFFERED": "1",
        }

    def read(self) -> None:
        """Execute the whole page.

        :raises AssertionError: if the result differs from the page.
        """
        try:
            for step in steps(self._page.read_text()):
                if isinstance(step, File):
                    (self._directory / step.name).write_text(self._true(step.text))
                elif isinstance(step, (Command, Logged)):
                    try:
                        if isinstance(step, Command):
                            self._do(step)
                        else:
                            self._find(step)
                    except AssertionError as error:
                        at = f"{self._page.name}:{step.line}: {step.text}"
                        log = self._log()[-3000:]
                        raise AssertionError(f"{at}\n{error}\n{log}") from error
        finally:
            for process in self._running.values():
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def _find(self, step: Logged) -> None:
        """Search for lines in the log, which may come a moment after their event."""

        def found() -> bool:
            logged = self._shown(self._log()).splitlines()
            return all(
                any(self._minutes.matches(f"{MORE}{line}", one) for one in logged)
                for line in step.text.splitlines()
            )

        wait_for(found, SECONDS, 0.2)

    def _true(self, text: str) -> str:
        """Return a text with the real ports."""
        for port, true in self._ports.items():
            text = re.sub(rf"(?<!\d){port}(?!\d)", true, text)
        return self._minutes.said_in(text)

    def _shown(self, text: str) -> str:
        """Return output with the ports of the page."""
        for port, true in self._ports.items():
            text = re.sub(rf"(?<=:){true}(?!\d)", port, text)
        return text

    def _do(self, step: Command) -> None:
        if step.in_background:
            self._start(step.text)
            return
        asks = "curl " in step.text or "python3 " in step.text
        if asks and not listens(int(self._ports[DAEMON])):
            self._start("twistd -n --pidfile= callme --port=6777 &")
        if PRESENT.search(step.text) and time.time() % 60 > MINUTE_ENDS:
            # A state that ends with the minute must still be there when it is queried.
            time.sleep(60 - time.time() % 60)
        end = time.monotonic() + SECONDS
        while True:
            try:
                self._run(step)
                return
            except AssertionError:
                if not step.only_looks or time.monotonic() > end:
                    raise
            time.sleep(0.2)

    def _run(self, step: Command) -> None:
        minutes = self._minutes.copy()
        done = subprocess.run(
            ["bash", "-c", self._true(step.text)],
            cwd=self._directory,
            env=self._environ,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, f"exit status {done.returncode}: {done.stdout}{done.stderr}"
        shown = self._shown(done.stdout)
        check(step.answer, shown, minutes)
        for status in re.findall(rf"{STATUS}(\d+)", done.stderr):
            told = status[0] == "2" or f" {status} " in step.answer
            assert told or is_refusal(shown, int(status)), f"status {status}"
        self._minutes = minutes

    def _start(self, command: str) -> None:
        """Start a command in the background; a daemon replaces the one before it.

        The pages tell the reader to stop the daemon, and never to stop another program.
        """
        port = DAEMON if "twistd" in command else self._port_of(command)
        before = self._running.pop(port, None)
        if before is not None:
            assert port == DAEMON, f"port {port} belongs to a program that was started before"
            before.terminate()
            before.wait(SECONDS)
        with (self._directory / "log").open("ab") as log:
            process = subprocess.Popen(
                ["bash", "-c", "exec " + self._true(command).removesuffix("&")],
                cwd=self._directory,
                env=self._environ,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._running[port] = process

        def ready() -> bool:
            assert process.poll() is None, "it has ended"
            return listens(int(self._ports[port]))

        wait_for(ready, SECONDS)

    def _port_of(self, command: str) -> str:
        """Return the documented port that a Python program listens on."""
        text = "".join(
            (self._directory / name).read_text() for name in re.findall(r"\w+\.py", command)
        )
        starts = (r'Server\(\("127\.0\.0\.1", ', r"app\.run\(port=", r'"--noreload", "')
        listens_on = re.findall(rf'(?:{"|".join(starts)})(\d+)["\)]', text)
        assert len(listens_on) == 1, "it does not listen on exactly one port"
        return next(port for port, true in self._ports.items() if true == listens_on[0])

    def _log(self) -> str:
        log = self._directory / "log"
        return log.read_text() if log.exists() else ""


def is_refusal(text: str, status: int) -> bool:
    """Return whether a response is the problem (RFC 9457) of a status."""
    try:
        problem = json.loads(text)
    except ValueError:
        return False
    return isinstance(problem, dict) and "title" in problem and problem.get("status") == status


def has_commands(page: Path) -> bool:
    return any(isinstance(step, Command) for step in steps(page.read_text()))


RUN = [str(page.relative_to(ROOT)) for page in PAGES if has_commands(page)]


@pytest.fixture(scope="module")
def readings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[None]]]:
    """The result of each page; all of them run at the same time."""
    directory = tmp_path_factory.mktemp("docs")
    with ThreadPoolExecutor(len(RUN)) as threads:
        yield {
            name: threads.submit(Reader(ROOT / name, directory / name.replace("/", "-")).read)
            for name in RUN
        }


@pytest.mark.parametrize("name", RUN)
def test_commands_of_the_page_print_the_documented_output(
    name: str, readings: dict[str, Future[None]]
) -> None:
    readings[name].result()
