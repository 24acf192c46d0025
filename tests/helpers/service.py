"""The daemon's service built in this process, from command-line options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.interfaces import IListeningPort
from twisted.python import usage

from callme.service import Daemon
from callme.tap import Options
from tests.helpers.processes import free_port


def options(directory: Path, *arguments: str, **parent: Any) -> Options:
    made = Options({})
    # The options of twistd that callme reads.
    made.parent = usage.Options()
    made.parent.update({"rundir": str(directory), "uid": None, "gid": None} | parent)
    made.parseOptions([f"--port={free_port()}", *arguments])
    return made


def port_of(daemon: Daemon) -> int:
    port: IListeningPort | None = daemon._port
    assert port is not None
    address: Any = port.getHost()
    number: int = address.port
    return number
