"""Run callme among real servers, clients and proxies, and print what came of it.

``python -m tests.interop --cache FOLDER [--part PART ...] [--only NAME ...] [--tasks N]
[--write FILE]``. Everything runs on loopback, one server at a time, and ends by itself. The exit
status is 1 where a server's record contradicts callme's.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from ..helpers.processes import Daemon, free_port
from .clients import CLIENTS, run_client, unexpected
from .packages import Packages
from .proxies import HOST, PROXIES, TOKEN, Proxy, check, check_open, make_certificate, proxied
from .report import Report, cell
from .servers import SERVERS, Server, running
from .workloads import Driver, Result, workloads_for

PROXIES_AT_ONCE = 5


@contextmanager
def folders(*names: str) -> Iterator[list[Path]]:
    """Make empty folders, which are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="callme-interop-") as top:
        # Servers that drop root privileges must still be able to read their files.
        Path(top).chmod(0o755)
        made = [Path(top, name) for name in names]
        for folder in made:
            folder.mkdir()
        yield made


@contextmanager
def daemon(home: Path, *options: str) -> Iterator[Daemon]:
    """Run a callme daemon."""
    started = Daemon(home, *options)
    try:
        yield started.start()
    finally:
        started.kill()


def run_server(server: Server, packages: Packages, tasks: int) -> list[Result]:
    """Run every workload against a server; return the results in order."""
    with folders("callme", "server") as (home, work), daemon(home) as callme:
        with running(server, packages, work) as started:
            driver = Driver(callme, started)
            results = [driver.run(workload) for workload in workloads_for(server, tasks)]
        # A server that has ended has written all of its record.
        served = started.served()
    for result in results:
        result.compare(served)
        print(f"  {result.workload.name}: {cell(result)}", flush=True)
    return results


def run_proxy(proxy: Proxy) -> dict[str, str]:
    """Run every check through a proxy."""
    with folders("tokens", "open", "certificates", "first", "second") as made:
        home, open_home, certificates, first, second = made
        make_certificate(certificates)
        tokens = home / "tokens"
        tokens.touch(mode=0o600)
        tokens.write_text(f"{TOKEN}\n")
        port = free_port()
        options = ["--token-file=tokens"]
        if proxy.tls:
            options.append(f"--origin=https://{HOST}:{port}")
        if proxy.base_path:
            options.append(f"--base-path={proxy.base_path}")
        with (
            daemon(home, *options) as callme,
            proxied(proxy, port, callme.port, certificates, first) as site,
        ):
            found = check(site)
        with (
            daemon(open_home, f"--base-path={proxy.base_path}") as callme,
            proxied(proxy, free_port(), callme.port, certificates, second) as site,
        ):
            return found | check_open(site)


def run_servers(report: Report, packages: Packages, only: list[str]) -> None:
    for server in SERVERS:
        version = packages.version(server.package)
        if only and server.name not in only:
            continue
        if version is None:
            report.missing.append(server.name)
            continue
        print(f"{server.name} {version}", flush=True)
        try:
            report.servers[server.name, version] = run_server(server, packages, report.tasks)
        except (AssertionError, OSError) as error:
            print(f"  {error}", flush=True)
            report.servers[server.name, version] = str(error).splitlines()[-1]


def run_clients(report: Report, packages: Packages, only: list[str]) -> None:
    with folders("callme", "work") as (home, work), daemon(home) as callme:
        for client in CLIENTS:
            version = packages.version(client.package)
            if only and client.name not in only:
                continue
            if version is None:
                report.missing.append(client.name)
                continue
            found = unexpected(run_client(client, packages, callme, work))
            print(f"{client.name} {version}: {found or 'right'}", flush=True)
            report.clients[client.name, version] = found


def run_proxies(report: Report, packages: Packages, only: list[str]) -> None:
    """Run the proxies, some at once: most of their time is one long wait."""
    chosen = [proxy for proxy in PROXIES if not only or proxy.name in only]
    versions = {proxy.package: packages.version(proxy.package) for proxy in chosen}
    there = [proxy for proxy in chosen if versions[proxy.package]]
    report.missing += [proxy.name for proxy in chosen if proxy not in there]
    with ThreadPoolExecutor(PROXIES_AT_ONCE) as pool:
        for proxy, found in zip(there, pool.map(run_proxy, there), strict=True):
            print(f"{proxy.name}: {found}", flush=True)
            report.proxies[proxy.name, versions[proxy.package] or ""] = found


PARTS = {"servers": run_servers, "clients": run_clients, "proxies": run_proxies}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.interop")
    parser.add_argument("--cache", type=Path, required=True, help="where packages are installed")
    parser.add_argument("--part", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME")
    parser.add_argument("--tasks", type=int, default=1000, help="tasks of one burst")
    parser.add_argument("--write", type=Path, help="the file that the report is written to")
    arguments = parser.parse_args()
    packages = Packages.cached_in(arguments.cache.resolve())
    packages.install()
    report = Report(arguments.tasks)
    for part in arguments.part:
        PARTS[part](report, packages, arguments.only)
    text = report.markdown()
    if arguments.write:
        arguments.write.write_text(text)
    print(text)
    print(f"contradictions: {report.contradictions or 'none'}")
    return 1 if report.contradictions else 0


if __name__ == "__main__":
    sys.exit(main())
