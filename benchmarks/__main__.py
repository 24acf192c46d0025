"""All benchmarks: ``python -m benchmarks [--quick] [--only WORD] [--directory DIR]``.

Each figure and its reference are measured in turn in one run. callme and the programs that it is
compared with run on processor 0, and the endpoint or the client on processor 1. The table is
written to the terminal and to ``benchmarks/results/latest.md``.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shutil
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata, util
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

RESULTS = Path(__file__).parent / "results"
CALLS = 5_000
CONCURRENCY = 64


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def pinned(processor: int | None, command: list[str]) -> list[str]:
    if processor is None or shutil.which("taskset") is None or (os.cpu_count() or 1) < 2:
        return command
    return ["taskset", "-c", str(processor), *command]


def run(module: str, *arguments: object, processor: int = 0, seconds: float = 300) -> str:
    """Run a module of the benchmarks to its end; return the last line of its output."""
    command = [sys.executable, "-W", "ignore", "-m", f"benchmarks.{module}", *map(str, arguments)]
    done = subprocess.run(
        pinned(processor, command), capture_output=True, text=True, timeout=seconds, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


@contextmanager
def background(
    processor: int | None, command: list[str], port: int
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server; the block begins when it listens on a port, and ends it."""
    process = subprocess.Popen(
        pinned(processor, command), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        end = time.monotonic() + 30
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, command
            assert time.monotonic() < end, command
            time.sleep(0.005)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


@contextmanager
def sink(
    delay: float = 0, every_address: bool = False, certificate: Path | None = None
) -> Iterator[int]:
    port = free_port()
    host = "0.0.0.0" if every_address else "127.0.0.1"
    command = [sys.executable, "-m", "benchmarks.sink", str(port), str(delay), host]
    command += [] if certificate is None else [str(certificate)]
    with background(1, command, port):
        yield port


def twistd(database: Path, port: int) -> list[str]:
    program = str(Path(sys.executable).with_name("twistd"))
    return [program, "-n", "--pidfile=", "callme", f"--port={port}", f"--database={database}"]


def rss_mb(process: subprocess.Popen[bytes]) -> float:
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def cpu_seconds(process: subprocess.Popen[bytes]) -> float:
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Bench:
    """Runner of the benchmarks, with the measured rows of the table."""

    def __init__(self, directory: Path, quick: bool, ten_million: bool) -> None:
        self.directory = directory
        self.rounds = 1 if quick else 3
        self.quick = quick
        self.ten_million = ten_million
        self.rows: list[tuple[str, str, str]] = []

    def row(self, figure: str, measured: str, target: str = "") -> None:
        self.rows.append((figure, measured, target))
        print(f"{figure:<78} {measured:>22} {target:>12}", flush=True)

    def ratio(self, figure: str, ours: list[float], theirs: list[float], target: str) -> None:
        """Add a row with the median of the ratios of pairs that were measured in turn."""
        each = [a / b for a, b in zip(ours, theirs, strict=True)]
        shown = f"{statistics.median(each):.2f} ({min(each):.2f}-{max(each):.2f})"
        self.row(figure, shown, target)

    def burst(self) -> None:
        """Measure a burst, in comparison with bare clients and other tools."""
        with sink() as port:
            url = f"http://127.0.0.1:{port}/x"
            ours, treq, agent, peaks = [], [], [], []
            for _ in range(self.rounds):
                found = self.burst_of(url, CALLS)
                ours.append(found["calls_per_second"])
                peaks.append(found["peak_rss_mb"])
                treq.append(float(run("clients", "treq", url, CALLS, CONCURRENCY)))
                agent.append(float(run("clients", "agent", url, CALLS, CONCURRENCY)))
            self.row("burst of 5,000: calls/s", f"{statistics.median(ours):,.0f}")
            self.ratio("burst of 5,000 / bare treq", ours, treq, ">= 1.6")
            self.ratio("burst of 5,000 / bare Agent", ours, agent, ">= 0.9")
            self.row("RSS at the peak of the burst", f"{max(peaks):.0f} MB", "<= 120 MB")
            for peer, target in (("huey", ">= 4"), ("apscheduler", ">= 7"), ("arq", ">= 2")):
                if util.find_spec(peer) is None:
                    self.row(f"burst / {peer}", "not installed", target)
                    continue
                try:
                    pairs = [self.pair(peer, url) for _ in range(self.rounds)]
                except (AssertionError, subprocess.TimeoutExpired) as error:
                    (*_, reason) = str(error).strip().splitlines() or ["it gave no reason"]
                    self.row(f"burst / {peer}: {reason}", "did not run", target)
                    continue
                rate = statistics.median(theirs for _, theirs in pairs)
                name = f"burst / {peer} {metadata.version(peer)} ({rate:,.0f}/s)"
                self.ratio(name, [own for own, _ in pairs], [their for _, their in pairs], target)
            sizes = (1_000, 5_000) if self.quick else (1_000, 5_000, 20_000, 50_000)
            for tasks in sizes:
                found = self.burst_of(url, tasks)
                cost = 1e6 / found["calls_per_second"]
                memory = f"{found['peak_rss_mb']:.0f} MB"
                self.row(f"burst of {tasks:,}: time per call, memory", f"{cost:.0f} us, {memory}")

    def calls(self) -> None:
        """Measure calls over TLS, calls to many hosts, and the memory of calls in flight."""
        certificate = self.directory / "certificate.pem"
        write_certificate(certificate)
        options = ["--payload", 200, "--ca-file", certificate]
        with sink(certificate=certificate) as port:
            self.against(
                "burst of 5,000 POSTs of 200 bytes over TLS / treq likewise",
                "treq",
                f"https://localhost:{port}/x",
                options,
                ">= 1.4",
            )
        with sink(every_address=True) as port:
            self.against(
                "5,000 calls to 5,000 hosts / bare Agent likewise",
                "agent",
                f"http://{{}}:{port}/x",
                [],
                ">= 1.0",
            )
        with sink(2) as port:
            more = ["--directory", self.directory]
            url = f"http://127.0.0.1:{port}/x"
            found = json.loads(run("burst", url, 1_000, 1_000, *more))
        self.row("memory that 1,000 calls in flight add", f"{found['added_mb']:.1f} MB")

    def against(self, figure: str, client: str, url: str, options: list[Any], target: str) -> None:
        """Add a row with the ratio of a burst to the same calls of a bare client."""
        ours, theirs = [], []
        for _ in range(self.rounds):
            more = ["--directory", self.directory, *options]
            found = json.loads(run("burst", url, CALLS, CONCURRENCY, *more))
            ours.append(found["calls_per_second"])
            theirs.append(float(run("clients", client, url, CALLS, CONCURRENCY, *options)))
        self.ratio(figure, ours, theirs, target)

    def pair(self, peer: str, url: str) -> tuple[float, float]:
        """Return the calls per second of callme, and of a peer that was measured just before."""
        theirs = float(run("peers", peer, url, CALLS, seconds=120))
        return self.burst_of(url, CALLS)["calls_per_second"], theirs

    def burst_of(self, url: str, tasks: int) -> dict[str, float]:
        more = ["--directory", str(self.directory)]
        found: dict[str, float] = json.loads(run("burst", url, tasks, CONCURRENCY, *more))
        return found

    def turn(self) -> None:
        """Measure the turn of the minute: the first request, the tail, and hosts that hang."""
        more = ["--directory", self.directory]
        with sink() as port, sink(3600, every_address=True) as hanging:
            alone = [
                json.loads(run("turn", port, 1000, *more, "--all"))
                for _ in range(1 if self.quick else 5)
            ]
            crowd = [
                json.loads(run("turn", port, 1000, "--hanging", hanging, *more))
                for _ in range(self.rounds)
            ]
        first = statistics.median(one["first"] for one in alone)
        p99 = statistics.median(one["p99"] for one in alone)
        self.row("first request after the turn, 1,000 due", f"{first:.0f} ms", "<= 30 ms")
        self.row("... p50, p99, max of all", f"{alone[0]['p50']}, {p99:.0f}, {alone[0]['max']} ms")
        self.row("... p99", f"{p99:.0f} ms", "<= 150 ms")
        early = sum(one["early"] for one in [*alone, *crowd])
        self.row("requests before their minute", str(early), "0")
        overloaded = statistics.median(one["p99"] for one in crowd)
        self.row(
            f"p99 beside 1,000 tasks to 10 hosts that hang ({overloaded:.0f} ms) / without",
            f"{overloaded / p99:.2f}",
            "<= 1.2",
        )
        histogram([ms for one in alone for ms in one["lateness"]], RESULTS / "lateness.svg")

    def put(self) -> None:
        """Measure PUTs, acknowledged after a synced commit, against a handler without a store."""
        bare_port, port = free_port(), free_port()
        bare = [sys.executable, "-m", "benchmarks.bare_klein", str(bare_port)]
        database = self.directory / "put.sqlite"
        with background(0, bare, bare_port), background(0, twistd(database, port), port):
            ours, theirs, batches = [], [], []
            for turn in range(self.rounds):
                ours.append(self.puts(port, f"r{turn}-"))
                theirs.append(self.puts(bare_port, f"r{turn}-"))
                batches.append(float(run("batches", port, 3, f"b{turn}-", processor=1)))
            self.row("PUT, 64 connections: tasks/s", f"{statistics.median(ours):,.0f}")
            self.ratio("PUT / bare klein that parses the same JSON", ours, theirs, ">= 0.8")
            self.row("POST /batch of 10,000: tasks/s", f"{statistics.median(batches):,.0f}")
            self.ratio("POST /batch / PUT", batches, ours, ">= 10")

    def puts(self, port: int, prefix: str) -> float:
        return float(run("puts", port, 6000, 64, "--prefix", prefix, processor=1))

    def store(self) -> None:
        """Measure a daemon whose store has many scheduled tasks."""
        rates: dict[int, float] = {}
        sizes = [0, 10_000] if self.quick else [0, 10_000, 100_000, 1_000_000]
        for tasks in [*sizes, 10_000_000] if self.ten_million else sizes:
            database = self.directory / f"store{tasks}.sqlite"
            run("fill", database, tasks, seconds=1800)
            tick = float(run("tick", database))
            many = f"{tasks:,} scheduled"
            self.row(f"{many}: tick with nothing due", f"{tick:.2f} ms", "<= 5 ms")
            port = free_port()
            began = time.perf_counter()
            with background(0, twistd(database, port), port) as process:
                started = time.perf_counter() - began
                self.row(f"{many}: time to start", f"{started:.2f} s", "<= 1 s")
                time.sleep(2)
                self.row(f"{many}: RSS after start", f"{rss_mb(process):.0f} MB", "<= 80 MB")
                seconds = 5 if self.quick else 30
                before = cpu_seconds(process)
                time.sleep(seconds)
                idle = (cpu_seconds(process) - before) / seconds * 100
                self.row(f"{many}: CPU while idle", f"{idle:.2f} %", "<= 0.2 %")
                page = json.loads(run("pages", port, 3, processor=1))
                figures = f"{page['p50']:.1f}, p99 {page['p99']:.1f} ms"
                self.row(f"{many}: page of 100, anywhere", figures, "<= 10 ms")
                with sink() as endpoint:
                    url = f"http://127.0.0.1:{endpoint}/x"
                    page = json.loads(run("pages", port, 1, "--burst", url, processor=1))
                assert page["to_call"], "the burst was over too soon"
                figures = f"{page['p50']:.1f}, p99 {page['p99']:.1f} ms"
                self.row(f"{many}: ... while 5,000 are called", figures, "<= 50 ms")
                rates[tasks] = statistics.median(
                    self.puts(port, f"p{turn}-") for turn in range(self.rounds)
                )
            if tasks:
                figure = f"{many}: PUT rate / that of an empty store"
                self.row(figure, f"{rates[tasks] / rates[0]:.2f}", ">= 0.9")
            for file in self.directory.glob(f"{database.name}*"):
                file.unlink()

    def table(self) -> str:
        machine = f"{platform.machine()}, {os.cpu_count()} processors, {platform.system()}"
        versions = ", ".join(
            f"{name} {metadata.version(name)}" for name in ("twisted", "treq", "klein")
        )
        lines = [
            f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {versions}; "
            f"{machine}; {time.strftime('%Y-%m-%d', time.gmtime())}.",
            "",
            "| figure | measured | goal |",
            "|---|---|---|",
            *(f"| {figure} | {measured} | {target} |" for figure, measured, target in self.rows),
            "",
        ]
        return "\n".join(lines)


def write_certificate(path: Path) -> None:
    """Write a self-signed certificate for ``localhost``, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + private)


def histogram(values: list[float], path: Path) -> None:
    """Draw a histogram of the lateness of requests, in buckets of ten milliseconds."""
    width, height, bins = 640, 240, 40
    top = max(values) or 1
    counts = [0] * bins
    for value in values:
        counts[min(bins - 1, int(value / top * bins))] += 1
    bars = "".join(
        f'<rect x="{40 + n * 14}" y="{200 - c / max(counts) * 180:.1f}" width="12" '
        f'height="{c / max(counts) * 180:.1f}"/>'
        for n, c in enumerate(counts)
    )
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'font-family="sans-serif" font-size="12">'
        f"<title>Lateness of {len(values):,} requests after the minute turned</title>"
        f'<g fill="#4a78b5">{bars}</g><line x1="40" x2="{width - 40}" y1="200" y2="200" '
        f'stroke="#888"/><g fill="#888"><text x="40" y="220">0 ms</text>'
        f'<text x="{width - 40}" y="220" text-anchor="end">{top:.0f} ms</text>'
        f'<text x="{width / 2}" y="235" text-anchor="middle">lateness</text></g></svg>\n'
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="measure less, in two minutes")
    parser.add_argument("--ten-million", action="store_true", help="measure that many tasks, too")
    parser.add_argument("--only", help="burst, calls, turn, put or store")
    parser.add_argument("--directory", help="the directory of databases: on a disk, not on a tmpfs")
    asked = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=asked.directory) as directory:
        bench = Bench(Path(directory), asked.quick, asked.ten_million)
        parts: list[Callable[[], None]] = [
            bench.burst,
            bench.calls,
            bench.turn,
            bench.put,
            bench.store,
        ]
        chosen: list[Any] = [p for p in parts if asked.only in (None, p.__name__)]
        for part in chosen:
            part()
    if asked.only is None:
        (RESULTS / "latest.md").write_text(bench.table())


if __name__ == "__main__":
    main()
