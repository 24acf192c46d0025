"""Settings of outgoing connections by host: proxies and client certificates."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from typing import Generic, TypeVar
from urllib.parse import unquote_to_bytes, urlsplit

from attrs import field, frozen

from ..errors import InvalidValue

T = TypeVar("T")
U = TypeVar("U")

_PATTERN = re.compile(r"\.?[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|[0-9a-f:.]+", re.IGNORECASE)
_PROXY_FORM = "expected http://proxy:3128, HOST=http://proxy:3128 or HOST=direct"


@frozen(kw_only=True)
class ForHost(Generic[T]):
    """Setting that applies to some hosts.

    :ivar pattern: a host, ``.example.com`` for all subdomains, or empty for every host.
    """

    pattern: str
    value: T

    def applies_to(self, host: str) -> bool:
        """Return whether the setting applies to a host, which must be in lower case."""
        if self.pattern.startswith("."):
            return host.endswith(self.pattern)
        return self.pattern in ("", host)

    def with_value(self, value: U) -> ForHost[U]:
        """Return the setting with another value."""
        return ForHost(pattern=self.pattern, value=value)


def find_for_host(settings: Sequence[ForHost[T]], host: str) -> T | None:
    """Return the value of the setting with the longest pattern that applies to a host."""
    host = host.lower().removesuffix(".")
    found = [setting for setting in settings if setting.applies_to(host)]
    return max(found, key=lambda setting: len(setting.pattern)).value if found else None


@frozen(kw_only=True)
class Proxy:
    """HTTP proxy.

    :ivar authorization: the value of ``Proxy-Authorization``; ``None`` without that header.
    """

    host: str
    port: int
    authorization: str | None = field(default=None, repr=False)


def parse_proxy(text: str) -> ForHost[Proxy | None]:
    """Return the proxy for some hosts, or ``None`` for direct connections to them.

    :raises InvalidValue: when the text is neither ``[HOST=]URL`` nor ``HOST=direct``.
    """
    before, equals, after = text.partition("=")
    if not equals or "://" in before:
        return ForHost(pattern="", value=_parse_proxy_url(text))
    proxy = None if after == "direct" else _parse_proxy_url(after)
    return ForHost(pattern=_parse_pattern(before), value=proxy)


def parse_client_certificate(text: str) -> ForHost[str]:
    """Return the path of the certificate file for some hosts.

    The setting must name hosts: a certificate identifies callme, so that other hosts must not
    receive it.

    :raises InvalidValue: when the text is not ``HOST=PATH``.
    """
    host, equals, path = text.partition("=")
    if not equals or not path or "\0" in path:
        raise InvalidValue("expected HOST=PATH, such as partner.example=client.pem")
    return ForHost(pattern=_parse_pattern(host), value=path)


def _parse_pattern(text: str) -> str:
    if not _PATTERN.fullmatch(text):
        raise InvalidValue("expected a host, or .example.com for all names below it, before the =")
    return text.lower()


def _parse_proxy_url(text: str) -> Proxy:
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        raise InvalidValue(_PROXY_FORM) from None
    if url.scheme != "http" or not url.hostname or not port or url.path.strip("/") or url.query:
        raise InvalidValue(_PROXY_FORM)
    if not url.hostname.isascii():
        raise InvalidValue("expected the host of the proxy in ASCII")
    authorization = None
    if url.username is not None:
        pair = b"%b:%b" % (unquote_to_bytes(url.username), unquote_to_bytes(url.password or ""))
        authorization = f"Basic {base64.b64encode(pair).decode('ascii')}"
    return Proxy(host=url.hostname, port=port, authorization=authorization)
