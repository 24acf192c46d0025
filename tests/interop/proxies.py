"""The real proxies in front of callme, with the least and with the documented configuration."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote, urlencode

from attrs import evolve, frozen

from ..helpers.processes import wait_for
from .packages import HERE
from .servers import START_SECONDS, process, ready

CONFIGS = HERE / "config"
DOCUMENTED = HERE.parents[1] / "deploy" / "proxies"
CALLBACK = "http://127.0.0.1:9/"
HOST = "callme.example.com"
TOKEN = "token-of-the-interop-tests"
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}
LOCAL = {"Host": "localhost"}
"""The header that callme without tokens demands."""
WAIT_SECONDS = 60
FAR = 1_900_000_000 // 60 * 60
"""The minute of the tasks, in 2030: none of them is called."""
NAMES = ("a b", "a+b", "100%", "a%25b", "\u00e9\u4e16", "..a", '?#;&"|', "a=b,c")
"""Names that a proxy may spoil on the way."""


@frozen(kw_only=True)
class Proxy:
    """A proxy and its configuration.

    :ivar site: the file that describes the site, ``{work}/site`` for the proxy.
    :ivar main: the file around it, where the proxy needs one.
    :ivar tls: whether the site terminates TLS.
    :ivar base_path: the path of the site below which callme is.
    """

    name: str
    package: str
    command: tuple[str, ...]
    site: Path
    main: Path | None = None
    tls: bool = False
    base_path: str = ""

    @property
    def is_documented(self) -> bool:
        return self.site.parent == DOCUMENTED


def pair(
    name: str,
    package: str,
    file: str,
    *command: str,
    around: str | None = None,
    tls: bool = True,
    options: tuple[str, ...] = (),
    base_path: str = "",
) -> tuple[Proxy, Proxy]:
    """Return a proxy with the least configuration, and with the documented one.

    :param around: the name of the file around the site.
    :param tls: whether the documented site terminates TLS.
    :param options: further options of the documented command line.
    :param base_path: the path of the site below which callme is.
    """
    least = Proxy(
        name=f"{name}, least",
        package=package,
        command=command,
        site=CONFIGS / f"proxy-{file}",
        main=CONFIGS / around if around else None,
        base_path=base_path,
    )
    documented = evolve(
        least,
        name=f"{name}, documented",
        command=(*command, *options),
        site=DOCUMENTED / file,
        tls=tls,
    )
    return least, documented


PROXIES: tuple[Proxy, ...] = (
    *pair(
        *("nginx", "debian:nginx-light", "nginx.conf"),
        *("/usr/sbin/nginx", "-e", "{work}/error.log", "-c", "{work}/main"),
        around="proxy-nginx-main.conf",
    ),
    # One that removes the path from requests, and one that passes it on.
    *pair(
        *("nginx below a path", "debian:nginx-light", "nginx-path.conf"),
        *("/usr/sbin/nginx", "-e", "{work}/error.log", "-c", "{work}/main"),
        around="proxy-nginx-main.conf",
        base_path="/callme",
    ),
    *pair(
        *("Apache", "debian:apache2", "apache.conf"),
        *("/usr/sbin/apache2", "-D", "FOREGROUND", "-f", "{work}/main"),
        around="proxy-apache-main.conf",
    ),
    *pair(
        *("HAProxy", "debian:haproxy", "haproxy.cfg"),
        *("/usr/sbin/haproxy", "-db", "-f", "{work}/site"),
    ),
    *pair(
        *("Caddy", "debian:caddy", "Caddyfile"),
        *("caddy", "run", "--adapter=caddyfile", "--config={work}/main"),
        around="proxy-Caddyfile-main",
    ),
    *pair(
        *("Varnish", "debian:varnish", "varnish.vcl"),
        *("/usr/sbin/varnishd", "-F", "-n", "{work}/varnish", "-T", "none", "-s", "malloc,32m"),
        *("-a", "127.0.0.1:{port}", "-f", "{work}/site"),
        tls=False,
        options=("-p", "backend_idle_timeout=50"),
    ),
)
_LINK = re.compile(r'(?:(?<= href=")|(?<= src=")|(?<= action="))[^"#][^"]*')


@frozen
class Site:
    """A running proxy, as a client sees it."""

    proxy: Proxy
    port: int
    certificates: Path

    @property
    def origin(self) -> str:
        return f"{'https' if self.proxy.tls else 'http'}://{HOST}:{self.port}"

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> int:
        """Return the status of a request; unless ``headers`` are given, with the token."""
        target = self.proxy.base_path + quote(path, safe="/?&=@%")
        return self.send(method, target, body, headers)[0]

    def send(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, http.client.HTTPMessage, str]:
        """Return the status, the headers and the text of the response to a request."""
        given = {"Host": f"{HOST}:{self.port}", **(AUTHORIZED if headers is None else headers)}
        with closing(self._connect()) as connection:
            connection.request(method, target, body, given)
            response = connection.getresponse()
            return response.status, response.headers, response.read().decode()

    def _connect(self) -> http.client.HTTPConnection:
        address = ("127.0.0.1", self.port)
        connection = http.client.HTTPConnection(*address, timeout=WAIT_SECONDS + 30)
        if self.proxy.tls:
            # The name leads nowhere, but the proxy chooses its site by it.
            context = ssl.create_default_context(cafile=self.certificates / "cert.pem")
            plain = socket.create_connection(address, WAIT_SECONDS + 30)
            connection.sock = context.wrap_socket(plain, server_hostname=HOST)
        return connection


def make_certificate(folder: Path) -> None:
    """Make a certificate for the host, and its key."""
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")),
            *("-subj", f"/CN={HOST}", "-addext", f"subjectAltName=DNS:{HOST}"),
        ],
        check=True,
        capture_output=True,
    )
    # HAProxy looks for the key beside the certificate.
    shutil.copy(folder / "key.pem", folder / "cert.pem.key")


@contextmanager
def proxied(proxy: Proxy, port: int, callme: int, certificates: Path, work: Path) -> Iterator[Site]:
    """Start a proxy on loopback in front of callme, and stop it at the end.

    :param port: the port that the proxy listens on.
    :param callme: the port that callme listens on.
    :param work: an empty folder for the proxy's files.
    """
    # Proxies that drop root privileges must still be able to read their files.
    work.chmod(0o755)
    places = {
        "@WORK@": str(work),
        "@PORT@": str(port),
        "@CALLME@": str(callme),
        # The documented files have the addresses of a real site in their place.
        "/etc/ssl/callme": str(certificates),
        "127.0.0.1:6777": f"127.0.0.1:{callme}",
        '"6777"': f'"{callme}"',
        "listen 443": f"listen 127.0.0.1:{port}",
        "bind :443": f"bind 127.0.0.1:{port}",
        "*:443": f"*:{port}",
        f"{HOST} {{": f"{HOST}:{port} {{",
    }
    for source, name in ((proxy.site, "site"), (proxy.main, "main")):
        if source is not None:
            text = source.read_text()
            for old, new in places.items():
                text = text.replace(old, new)
            (work / name).write_text(text)
    command = [part.format(work=work, port=port) for part in proxy.command]
    with process(command, work, {"XDG_DATA_HOME": str(work)}) as started:
        wait_for(lambda: ready(started, port, work), START_SECONDS)
        yield Site(proxy, port, certificates)


def check(site: Site) -> dict[str, str]:
    """Return what each check finds at a proxy in front of a callme with tokens."""
    return {
        "API": _names(site),
        "links": _links(site),
        "form": _form(site),
        "batch of 2 MB": _batch(site),
        "current responses": _caching(site, AUTHORIZED),
        f"?wait={WAIT_SECONDS}": _wait(site),
        # The connections between callme and the proxy were idle during the whole wait.
        "after idle": _said(site.ask("PUT", f"/task/idle@{FAR}", _task()), 201),
    }


def check_open(site: Site) -> dict[str, str]:
    """Return what each check finds at a proxy in front of a callme without tokens."""
    found = {"without tokens": str(site.ask("GET", "/status/", headers={}))}
    if not site.proxy.is_documented:
        # The documented configurations are for a callme with tokens.
        found["current responses without tokens"] = _caching(site, LOCAL)
    return found


def _said(status: int, expected: int) -> str:
    return "right" if status == expected else f"{status} instead of {expected}"


def _task() -> bytes:
    return json.dumps({"callback": CALLBACK}).encode()


def _names(site: Site) -> str:
    """Put, read, move and delete tasks whose names have unusual characters."""
    for name in NAMES:
        key = f"{quote(name, safe='')}@{FAR}"
        for method, path, expected in (
            ("PUT", f"/task/{key}", 201),
            ("GET", f"/status/{key}", 200),
            ("HEAD", f"/status/{key}", 200),
            ("POST", f"/reschedule/{key}?all=true", 200),
            ("GET", f"/status/{quote(name, safe='')}?limit=1", 200),
            ("DELETE", f"/task/{quote(name, safe='')}", 200),
        ):
            body = _task() if method == "PUT" else _later() if method == "POST" else None
            status = site.ask(method, path, body)
            if status != expected:
                return f"{method} of {name!r}: {_said(status, expected)}"
    return "right"


def _later() -> bytes:
    return json.dumps({"trigger_at": FAR + 3600}).encode()


def _links(site: Site) -> str:
    """Follow the links of the web page, of a list, and to a new task."""
    base = site.proxy.base_path
    _, created, _ = site.send("PUT", f"{base}/task/link-1@{FAR}", _task())
    site.send("PUT", f"{base}/task/link-2@{FAR}", _task())
    _, listed, _ = site.send("GET", f"{base}/status/?prefix=link-&limit=1")
    browser = {"Accept": "text/html", **AUTHORIZED}
    *_, page = site.send("GET", f"{base}/", headers=browser)
    targets = [created["Location"], listed["Link"].partition(">")[0][1:], *_LINK.findall(page)]
    for target in targets:
        status = site.send("GET", target.replace("&amp;", "&"), headers=browser)[0]
        if status != 200:
            return f"{target}: {_said(status, 200)}"
    return "right"


def _form(site: Site) -> str:
    """Log in with the form of the web page, as a browser does."""
    fields = urlencode({"token": TOKEN}).encode()
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Origin": site.origin}
    return _said(site.ask("POST", "/page/login", fields, headers), 303)


def _batch(site: Site) -> str:
    task = {"task_name": "b", "trigger_at": FAR, "callback": CALLBACK, "payload": "x" * 20_000}
    headers = {"Content-Type": "application/x-ndjson", **AUTHORIZED}
    lines = "\n".join([json.dumps(task)] * 100).encode()
    return _said(site.ask("POST", "/batch", lines, headers), 200)


def _caching(site: Site, headers: Mapping[str, str]) -> str:
    """Ask for a task before it is put, after, and when it is deleted."""
    key = f"cached@{FAR}"
    steps = (("GET", 404), ("PUT", 201), ("GET", 200), ("DELETE", 204), ("GET", 404))
    for method, expected in steps:
        status = site.ask(method, f"/task/{key}", _task() if method == "PUT" else None, headers)
        if status != expected:
            return f"{method}: {_said(status, expected)}"
    return "right"


def _wait(site: Site) -> str:
    key = f"waited@{FAR}"
    site.ask("PUT", f"/task/{key}", _task())
    began = time.monotonic()
    status = site.ask("GET", f"/status/{key}?wait={WAIT_SECONDS}")
    if status == 200:
        return "right"
    return f"{status} after {time.monotonic() - began:.0f} s"
