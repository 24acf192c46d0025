"""Certificates of a ``tls:`` endpoint, reloaded after a renewal."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import define, field
from OpenSSL.SSL import Connection
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.logger import Logger
from zope.interface import implementer

log = Logger(namespace="callme")

_SEPARATOR = re.compile(r"(?<!\\):")
_KEYWORD = re.compile(r"[a-z]+=")


def directory_of(description: str) -> Path:
    """Return the directory of certificates in the description of a ``tls:`` endpoint."""
    fields = _SEPARATOR.split(description)[1:]
    (path, *_) = [each for each in fields if not _KEYWORD.match(each)] or [""]
    path = next((each[len("path=") :] for each in fields if each.startswith("path=")), path)
    return Path(re.sub(r"\\(.)", r"\1", path))


@implementer(IOpenSSLServerConnectionCreator)
@define(kw_only=True)
class RenewedCertificates:
    """Creator of TLS connections that detects changes of the files in its directory.

    Twisted's creator reads the directory only once, and would present an expired certificate.
    Each state of the directory is loaded once. If no key matches a certificate, as in the middle of
    a renewal, the previous certificates remain in use.

    :ivar load: returns Twisted's creator for the current files.
    :raises ValueError: when the directory has no certificate with its key at the start.
    """

    directory: Path
    load: Callable[[], Any]
    _state: frozenset[tuple[str, int, int, int]] = frozenset()
    _creator: Any = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._state = self._read_state()
        self._creator = self._load()

    def serverConnectionForTLS(self, protocol: Any) -> Connection:
        state = self._read_state()
        if state != self._state:
            self._state = state
            try:
                self._creator = self._load()
            except Exception as error:
                log.warn("new certificates not loaded: {error}; the old ones remain", error=error)
            else:
                log.info("certificates of {directory} loaded", directory=self.directory)
        connection: Connection = self._creator.serverConnectionForTLS(protocol)
        return connection

    def _read_state(self) -> frozenset[tuple[str, int, int, int]]:
        # stat() follows symbolic links: certbot replaces the link, not the file.
        found = []
        for path in self.directory.rglob("*.pem"):
            try:
                status = path.stat()
            except OSError:
                continue
            found.append((str(path), status.st_ino, status.st_mtime_ns, status.st_size))
        return frozenset(found)

    def _load(self) -> Any:
        creator = self.load()
        try:
            # The check fails if the directory has no certificate with its key.
            creator.defaultContext.check_privatekey()
        except Exception as error:
            raise ValueError(
                f"{self.directory} has no .pem files of a certificate and its key"
            ) from error
        return creator
