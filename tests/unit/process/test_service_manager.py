"""The messages to the service manager, over a socket as systemd makes it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import define, field
from twisted.internet.task import Clock

from callme.process.service_manager import ServiceManager


@define
class Manager:
    """A service manager: the receiving end."""

    address: str
    socket: socket.socket = field(factory=lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))

    def __attrs_post_init__(self) -> None:
        self.socket.bind(self.address.replace("@", "\0"))
        self.socket.setblocking(False)

    def received(self) -> list[str]:
        messages = []
        while True:
            try:
                messages.append(self.socket.recv(4096).decode())
            except BlockingIOError:
                return messages


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    name = str(tmp_path / "notify") if request.param == "path" else f"@callme-test-{os.getpid()}"
    made = Manager(name)
    yield made
    made.socket.close()


def test_ready_stopping_and_watchdog_reach_the_manager(manager: Manager) -> None:
    clock = Clock()
    environment = {
        "NOTIFY_SOCKET": manager.address,
        "WATCHDOG_USEC": "30000000",
        "WATCHDOG_PID": str(os.getpid()),
    }
    service = ServiceManager(clock=clock, makes_progress=lambda: True, environment=environment)
    service.ready("listens on 127.0.0.1:6777")
    assert manager.received() == ["READY=1\nSTATUS=listens on 127.0.0.1:6777", "WATCHDOG=1"]
    clock.pump([14.9])
    assert manager.received() == []
    clock.pump([0.2, 15])
    assert manager.received() == ["WATCHDOG=1", "WATCHDOG=1"]
    service.stopping()
    clock.advance(15)
    assert manager.received() == ["STOPPING=1", "WATCHDOG=1"]
    service.close()
    clock.advance(15)
    assert manager.received() == []
    assert not clock.getDelayedCalls()


def test_hang_starves_the_watchdog_until_it_ends(manager: Manager) -> None:
    clock = Clock()
    works = True
    environment = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "2000000"}
    service = ServiceManager(clock=clock, makes_progress=lambda: works, environment=environment)
    service.ready("")
    manager.received()
    works = False
    clock.pump([1, 1, 1])
    assert manager.received() == []
    works = True
    clock.advance(1)
    assert manager.received() == ["WATCHDOG=1"]
    service.close()


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "x"},
        {"WATCHDOG_USEC": "9", "WATCHDOG_PID": "1"},
    ],
)
def test_watchdog_of_another_process_is_not_fed(
    manager: Manager, variables: dict[str, str]
) -> None:
    clock = Clock()
    environment = {"NOTIFY_SOCKET": manager.address, **variables}
    service = ServiceManager(clock=clock, makes_progress=lambda: True, environment=environment)
    service.ready("x")
    assert manager.received() == ["READY=1\nSTATUS=x"]
    assert not clock.getDelayedCalls()
    service.close()


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": "/nowhere/notify"}])
def test_missing_manager_is_no_error(environment: dict[str, str]) -> None:
    service = ServiceManager(clock=Clock(), makes_progress=lambda: True, environment=environment)
    service.ready("x")
    service.stopping()
    service.close()
