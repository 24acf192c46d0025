"""The service in this process: over real sockets, with a real database."""

from __future__ import annotations

import errno
import os
import re
import select
import signal
import socket
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import pytest
import treq
from twisted.internet import reactor
from twisted.internet.endpoints import AdoptedStreamServerEndpoint
from twisted.internet.task import deferLater
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.web.client import Agent, HTTPConnectionPool

from callme import __version__, service, tap
from callme.caller import tls
from callme.core.transitions import PutCondition
from callme.server import listen
from callme.server.auth import Gate
from callme.server.listen import CannotListen, check_bindable
from callme.store import queue, tasks
from callme.store.database import Store
from callme.store.postgresql.engine import PostgresqlStore
from callme.store.postgresql.setup import open_server
from callme.store.sqlite.engine import SqliteStore
from callme.store.sqlite.file import open_database
from callme.tap import makeService
from tests.helpers.certificates import Trusting, write_certificate
from tests.helpers.credentials import write_token_file
from tests.helpers.postgres import Cluster
from tests.helpers.processes import listens
from tests.helpers.service import options, port_of
from tests.helpers.tasks import definition


@pytest.mark.parametrize("over", ["sqlite", "postgresql"])
async def test_task_is_put_called_and_recorded(
    tmp_path: Path, over: str, request: pytest.FixtureRequest
) -> None:
    arguments = []
    if over == "postgresql":
        cluster: Cluster = request.getfixturevalue("cluster")
        arguments = [f"--database={cluster.create('tap')}", "--node=me"]
    daemon = makeService(options(tmp_path, *arguments))
    daemon.privilegedStartService()
    daemon.startService()
    port = port_of(daemon)
    pool = HTTPConnectionPool(reactor, persistent=True)
    client = treq.client.HTTPClient(Agent(reactor, pool=pool))
    base = f"http://127.0.0.1:{port}"
    # The callback is the daemon's own URL, so that no other endpoint is needed.
    body = {"trigger_at": "+0m", "callback": f"{base}/healthz", "payload": "x"}
    response = await client.put(f"{base}/task/self", json=body)
    assert response.code == 201
    key = (await response.json())["task"]
    while True:
        response = await client.get(f"{base}/status/{key}")
        task = await response.json()
        if task["state"] == "succeeded":
            break
        await deferLater(reactor, 0.01)
    assert task["attempts"][0]["body"].startswith('{"status":"ok"')
    node = "me" if over == "postgresql" else f"{socket.gethostname()}:{os.getpid()}"
    assert task["attempts"][0]["node"] == node
    page = ""
    while "callme_tasks{" not in page:
        # The task count is computed in the background.
        page = await (await client.get(f"{base}/metrics")).text()
    assert 'callme_attempts_total{outcome="succeeded"} 1.0\n' in page
    assert f'node="{node}"' in page
    # Put, claim and record are one commit each.
    (commits,) = re.findall(r"(?m)^callme_commits_total (\d+)", page)
    assert int(commits) >= 3
    await daemon.stopService()
    await pool.closeCachedConnections()
    assert not listens(port)
    assert (tmp_path / "callme.sqlite").exists() is (over == "sqlite")
    assert not (tmp_path / "callme.sqlite-wal").exists()


async def test_denied_network_is_not_called(tmp_path: Path) -> None:
    daemon = makeService(
        options(tmp_path, "--deny-network=127.0.0.0/8", "--deny-network=::1", "--public-only")
    )
    daemon.startService()
    base = f"http://127.0.0.1:{port_of(daemon)}"
    pool = HTTPConnectionPool(reactor, persistent=False)
    client = treq.client.HTTPClient(Agent(reactor, pool=pool))
    body = {"trigger_at": "+0m", "callback": f"{base}/healthz", "retry": 5}
    response = await client.put(f"{base}/task/self", json=body)
    assert (response.code, (await response.json())["errors"][0]["pointer"]) == (422, "/callback")
    # A host name is resolved only when it is called.
    body["callback"] = f"http://localhost:{port_of(daemon)}/healthz"
    response = await client.put(f"{base}/task/self", json=body)
    key = (await response.json())["task"]
    while True:
        task = await (await client.get(f"{base}/status/{key}")).json()
        if task["state"] == "failed":
            break
        await deferLater(reactor, 0.01)
    assert (task["reason"], task["attempts_used"]) == ("forbidden_address", 1)
    assert task["attempts"][0]["detail"] == task["detail"]
    assert "--deny-network denies" in task["detail"]
    await daemon.stopService()


async def test_service_restarts_on_its_database(tmp_path: Path) -> None:
    for _ in range(2):
        daemon = makeService(options(tmp_path))
        daemon.startService()
        await deferLater(reactor, 0)
        await daemon.stopService()


def test_relative_database_path_is_below_the_rundir(tmp_path: Path) -> None:
    daemon = makeService(options(tmp_path, "--database=own.sqlite"))
    assert (tmp_path / "own.sqlite").exists()
    daemon._database.release()


def test_database_file_is_owned_by_the_user_of_the_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []
    monkeypatch.setattr(os, "chown", lambda *arguments: given.append(arguments))
    monkeypatch.setattr(tap, "unwritable_path", lambda *_, **__: None)
    daemon = makeService(options(tmp_path, uid=123))
    daemon._database.release()
    assert given == [(tmp_path / "callme.sqlite", 123, -1)]


@pytest.mark.parametrize(
    ("option", "content", "mode", "said"),
    [
        (
            "--ca-file=pem",
            "x",
            0o644,
            "the certificate authority file .*no certificate",
        ),
        ("--ca-file=missing", "x", 0o644, "the certificate authority file .*: No such file"),
        ("--client-cert=a.example=pem", "x", 0o600, "the client certificate file .*no certificate"),
        ("--client-cert=a.example=pem", "x", 0o644, "the client certificate file .*its mode 644"),
    ],
)
def test_unusable_certificate_file_is_a_one_line_error(
    tmp_path: Path, option: str, content: str, mode: int, said: str
) -> None:
    (tmp_path / "pem").write_text(content)
    (tmp_path / "pem").chmod(mode)
    with pytest.raises(SystemExit, match=f"callme: {said}") as ended:
        makeService(options(tmp_path, option))
    assert "\n" not in str(ended.value)


def test_unusable_key_file_is_a_one_line_error(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("hunter2")
    (tmp_path / "keys").chmod(0o600)
    with pytest.raises(SystemExit, match=r"callme: the signing key file .*line 1") as ended:
        makeService(options(tmp_path, "--signing-key-file=keys"))
    assert "hunter2" not in str(ended.value)
    # No claim is left.
    makeService(options(tmp_path))._database.release()


def test_unusable_database_is_a_one_line_error(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"callme: .*the directory .* does not exist"):
        makeService(options(tmp_path, "--database=nowhere/x.sqlite"))


@pytest.mark.parametrize("interface", ["127.0.0.1", "\\:\\:1"])
def test_port_in_use_is_a_one_line_error(tmp_path: Path, interface: str) -> None:
    family = socket.AF_INET if "." in interface else socket.AF_INET6
    with socket.socket(family) as other:
        try:
            other.bind((interface.replace("\\", ""), 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
        other.listen()
        taken = f"tcp:{other.getsockname()[1]}:interface={interface}"
        with pytest.raises(SystemExit, match=r"callme: cannot listen on tcp:.*already in use"):
            makeService(options(tmp_path, f"--port={taken}"))


def test_port_taken_after_the_check_is_an_error(tmp_path: Path) -> None:
    daemon = makeService(options(tmp_path))
    port = int(daemon._settings.port.split(":")[1])
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        with pytest.raises(Exception, match=r"[Aa]ddress already in use"):
            daemon.privilegedStartService()
    daemon._database.release()


def test_chroot_is_refused_before_files_are_created(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="callme: callme cannot run under twistd's --chroot"):
        makeService(options(tmp_path, chroot=str(tmp_path)))
    assert list(tmp_path.iterdir()) == []


def test_unix_socket_path_may_be_new_or_stale(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    for _ in range(2):
        makeService(options(tmp_path, f"--port=unix:{path}"))._database.release()
        with socket.socket(socket.AF_UNIX) as left_behind:
            path.unlink(missing_ok=True)
            left_behind.bind(str(path))


@pytest.mark.parametrize(
    ("port", "message"),
    [
        ("unix:{}/nowhere/socket", "No such file or directory"),
        ("unix:{}", "not a socket"),
        ("unix:{}/file", "not a socket"),
        ("unix:{}/used", "already in use"),
        ("unix:{}/" + "x" * 200, "too long"),
        ("tcp:99999", "0-65535"),
        ("tcp:-1", "0-65535"),
        ("stdio:", "not a port that clients can connect to"),
    ],
)
def test_unusable_port_is_a_one_line_error(tmp_path: Path, port: str, message: str) -> None:
    (tmp_path / "file").touch()
    with socket.socket(socket.AF_UNIX) as used:
        used.bind(str(tmp_path / "used"))
        used.listen()
        with pytest.raises(SystemExit, match="callme: cannot listen on") as ended:
            makeService(options(tmp_path, f"--port={port.format(tmp_path)}"))
    assert message in str(ended.value)
    assert "\n" not in str(ended.value)


# Start line


@pytest.mark.parametrize("over", ["sqlite", "postgresql"])
async def test_start_is_logged_in_one_line(
    tmp_path: Path, over: str, request: pytest.FixtureRequest
) -> None:
    database = str(tmp_path / "x.sqlite")
    store: Store
    if over == "sqlite":
        store = SqliteStore(open_database(tmp_path / "x.sqlite"), reactor, lambda: "before")
    else:
        database = request.getfixturevalue("cluster").create("start")
        store = PostgresqlStore(open_server(database), reactor, lambda: "before")
    now = int(time.time()) // 60 * 60
    await store.write(queue.take_orphans, now)
    for minutes in (-3, -2, -1, 60, 120):
        await store.write(tasks.put, definition("task", now + 60 * minutes), PutCondition.NONE, now)
    await store.write(queue.claim, {"sink.example:80": 1}, now)
    await store.close()
    lines: list[str] = []

    def look(event: LogEvent) -> None:
        lines.append(formatEvent(event))

    observer = cast(ILogObserver, look)
    globalLogPublisher.addObserver(observer)
    try:
        daemon = makeService(options(tmp_path, f"--database={database}", "--node=me"))
        daemon.startService()
        while daemon.parts.scheduler.health().last_tick is None:
            await deferLater(reactor, 0.01)
        await daemon.stopService()
    finally:
        globalLogPublisher.removeObserver(observer)
    (line,) = (line for line in lines if "listens on" in line)
    due, running = ("missed", "interrupted") if over == "sqlite" else ("due", "running")
    assert re.fullmatch(
        rf"callme {re.escape(__version__)} listens on 127\.0\.0\.1:\d+, database .+"
        rf" \((SQLite|PostgreSQL) [0-9.]+\), node me;"
        rf" tasks: 4 scheduled, 2 of them {due}, 1 {running}",
        line,
    )


@pytest.mark.parametrize("nodaemon", [True, False])
def test_start_line_is_printed_before_daemonizing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], nodaemon: bool
) -> None:
    makeService(options(tmp_path, nodaemon=nodaemon))._database.release()
    printed = capsys.readouterr().out.splitlines()
    if nodaemon:
        # The log has the line too, on the terminal in this case.
        assert printed == []
    else:
        assert len(printed) == 1
        assert "listens on tcp:" in printed[0]
        assert printed[0].endswith("; tasks: 0 scheduled, 0 of them missed, 0 interrupted")
        # The default node name would be that of this process.
        assert "node" not in printed[0]


def test_failed_change_of_owner_is_a_one_line_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "chown", refuse)
    with pytest.raises(SystemExit, match=r"callme: .*x\.sqlite cannot be changed: Operation"):
        makeService(options(tmp_path, "--database=x.sqlite", uid=123))
    # The database was released: it opens again in the same process.
    open_database(tmp_path / "x.sqlite").release()


def test_start_without_certificate_checks_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "verify_hostname", lambda *_: None)
    with pytest.raises(SystemExit, match=r"callme: certificates .* not compared .* other\.example"):
        makeService(options(tmp_path))


async def test_tls_port_serves_https(tmp_path: Path) -> None:
    pem = write_certificate(tmp_path)
    files = f"privateKey={tmp_path}/key.pem:certKey={tmp_path}/cert.pem"
    daemon = makeService(options(tmp_path, f"--port=ssl:0:interface=127.0.0.1:{files}"))
    daemon.startService()
    agent = Agent(reactor, Trusting(pem))
    response = await treq.client.HTTPClient(agent).get(
        f"https://localhost:{port_of(daemon)}/status/"
    )
    assert await response.json() == {"tasks": []}
    await daemon.stopService()


async def test_tls_clients_without_room_are_disconnected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error in the log would fail the test too."""
    monkeypatch.setattr(service, "connection_limits_for", lambda *_: (1, 0))
    write_certificate(tmp_path)
    port = f"ssl:0:interface=127.0.0.1:privateKey={tmp_path}/key.pem:certKey={tmp_path}/cert.pem"
    daemon = makeService(options(tmp_path, f"--port={port}", "--max-connections=1"))
    daemon.startService()
    with ExitStack() as stack:
        clients = [stack.enter_context(socket.socket()) for _ in range(20)]
        for client in clients:
            client.connect(("127.0.0.1", port_of(daemon)))
        for _ in range(1000):
            await deferLater(reactor, 0.01)
            still_open = [client for client in clients if not select.select([client], [], [], 0)[0]]
            if len(still_open) <= 1:
                break
        assert len(still_open) <= 1
    await daemon.stopService()


@pytest.mark.parametrize(
    ("port", "let_in"),
    [
        ("0", True),
        ("tcp:0:interface=127.0.0.1", True),
        ("tcp:0:interface=127.0.0.1:backlog=5", False),
        ("tcp:0:127.0.0.1:5", False),
    ],
)
async def test_burst_of_clients_is_accepted(tmp_path: Path, port: str, let_in: bool) -> None:
    """A smaller backlog that the operator chose is respected."""
    daemon = makeService(options(tmp_path, f"--port={port}"))
    daemon.startService()
    address = ("127.0.0.1", port_of(daemon))
    with ExitStack() as stack:
        clients = [stack.enter_context(socket.socket()) for _ in range(200)]
        for client in clients:
            client.setblocking(False)
            client.connect_ex(address)
        connected = select.select([], clients, [], 0.1)[1]
    assert (len(connected) == 200) is let_in
    await daemon.stopService()


# Public ports

KEY = f"whsec_{'A' * 43}=\n"

BEYOND = ["tcp:0", "tcp:0:interface=0.0.0.0", "tcp6:0", "tcp:0:interface=\\:\\:", "haproxy:tcp:0"]
LOCAL = [
    "0",
    "tcp:0:interface=127.0.0.1",
    "tcp:0:interface=127.0.0.2",
    "tcp:0:interface=localhost",
    "tcp:0:interface=\\:\\:1",
    "tcp6:0:interface=\\:\\:1",
    "haproxy:tcp:0:interface=127.0.0.1",
    "unix:{}/socket",
]


@pytest.mark.parametrize("port", [*BEYOND, "ssl:0:{}"])
def test_public_port_requires_tokens(tmp_path: Path, port: str) -> None:
    write_certificate(tmp_path)
    files = f"privateKey={tmp_path}/key.pem:certKey={tmp_path}/cert.pem"
    port = f"--port={port.format(files)}"
    with pytest.raises(SystemExit, match="can be reached from other machines: give a --token-file"):
        makeService(options(tmp_path, port))
    assert not (tmp_path / "callme.sqlite").exists()
    daemon = makeService(options(tmp_path, port, "--no-auth"))
    assert daemon._gate == Gate(any_host=True)
    daemon._database.release()
    daemon = makeService(options(tmp_path, port, f"--token-file={write_token_file(tmp_path)}"))
    assert daemon._gate.file is not None
    daemon._database.release()


@pytest.mark.parametrize(
    ("family", "address", "exposed"),
    [
        (socket.AF_INET, ("127.0.0.1", 0), False),
        (socket.AF_INET, ("127.8.9.10", 0), False),
        (socket.AF_INET, ("0.0.0.0", 0), True),
        (socket.AF_INET6, ("::1", 0), False),
        (socket.AF_INET6, ("::", 0), True),
        (socket.AF_UNIX, "socket", False),
    ],
)
def test_adopted_socket_is_judged_by_its_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: int, address: Any, exposed: bool
) -> None:
    if family == socket.AF_INET6 and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    with socket.socket(family) as handed_over:
        handed_over.bind(str(tmp_path / address) if isinstance(address, str) else address)
        handed_over.listen()

        # "systemd:domain=INET:index=0" makes this in a process that systemd started.
        def made(reactor: Any, _: str) -> AdoptedStreamServerEndpoint:
            return AdoptedStreamServerEndpoint(reactor, handed_over.fileno(), family)

        monkeypatch.setattr(listen, "serverFromString", made)
        assert check_bindable("systemd:domain=INET:index=0") is exposed
        # The daemon listens on it later.
        assert handed_over.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1


def test_adopted_descriptor_that_is_no_socket_is_a_one_line_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with (tmp_path / "file").open("w") as file:
        made = AdoptedStreamServerEndpoint
        monkeypatch.setattr(
            listen, "serverFromString", lambda r, _: made(r, file.fileno(), socket.AF_INET)
        )
        with pytest.raises(CannotListen, match=r"not a socket|non-socket"):
            check_bindable("systemd:domain=INET:index=0")


@pytest.mark.parametrize("port", LOCAL)
def test_local_port_requires_no_tokens(tmp_path: Path, port: str) -> None:
    if "\\:" in port and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    for more in ([], ["--no-auth"]):
        daemon = makeService(options(tmp_path, f"--port={port.format(tmp_path)}", *more))
        # The Host header is checked nonetheless: other local programs can be made to connect.
        assert daemon._gate == Gate()
        daemon._database.release()


def test_relative_token_file_is_below_the_rundir_and_checked(tmp_path: Path) -> None:
    write_token_file(tmp_path).chmod(0o644)
    with pytest.raises(SystemExit, match=r"callme: the token file .*tokens\": its mode 644"):
        makeService(options(tmp_path, "--token-file=tokens"))
    assert not (tmp_path / "callme.sqlite").exists()
    write_token_file(tmp_path)
    makeService(options(tmp_path, "--token-file=tokens"))._database.release()


async def test_sighup_reloads_tokens_and_keys(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGHUP)
    keys = tmp_path / "keys"
    keys.touch(0o600)
    keys.write_text(KEY)
    files = [f"--token-file={write_token_file(tmp_path)}", f"--signing-key-file={keys}"]
    daemon = makeService(options(tmp_path, *files))
    daemon.startService()
    await deferLater(reactor, 0)
    assert daemon._gate.file is not None
    assert daemon.key_file is not None
    write_token_file(tmp_path).write_text("first-token-of-two\nsecond-token-of-two\n")
    keys.write_text(KEY + KEY.replace("A", "B"))
    os.kill(os.getpid(), signal.SIGHUP)
    while (len(daemon._gate.file.value), len(daemon.key_file.value)) != (2, 2):
        await deferLater(reactor, 0)
    await daemon.stopService()
    assert signal.getsignal(signal.SIGHUP) is before


async def test_sighup_during_shutdown_does_not_end_it_early(tmp_path: Path) -> None:
    died: list[int] = []
    before = signal.signal(signal.SIGHUP, lambda number, _: died.append(number))
    try:
        daemon = makeService(options(tmp_path, f"--token-file={write_token_file(tmp_path)}"))
        daemon.startService()
        await deferLater(reactor, 0)
        stopping = daemon.stopService()
        os.kill(os.getpid(), signal.SIGHUP)
        await stopping
        assert died == []
        os.kill(os.getpid(), signal.SIGHUP)
        assert died == [signal.SIGHUP]
    finally:
        signal.signal(signal.SIGHUP, before)


def has_ipv6() -> bool:
    with socket.socket(socket.AF_INET6) as trial:
        try:
            trial.bind(("::1", 0))
        except OSError:
            return False
    return True


def test_import_of_the_service_installs_no_reactor() -> None:
    assert not hasattr(tap, "reactor")
