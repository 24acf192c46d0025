"""Failures of calls, and their descriptions for people."""

from __future__ import annotations

from OpenSSL.SSL import Error as TLSError
from twisted.internet import error

from .response import NotHTTP
from .tls import CertificateRefused


class StaleConnection(Exception):
    """The endpoint closed a reused connection before a byte of the response arrived."""


class ProxyFailure(Exception):
    """The proxy did not connect to the endpoint; the text is the reason."""


class UnaskedData(Exception):
    """An endpoint sent data before it was sent a request."""


def describe_failure(failure: BaseException) -> str:
    """Return the reason why a call got no response, as a sentence for people."""
    if isinstance(failure, (CertificateRefused, NotHTTP, ProxyFailure)):
        return str(failure)
    for kind, sentence in _SENTENCES:
        if isinstance(failure, kind):
            return sentence
    if isinstance(failure, TLSError):
        # The first argument of a SysCallError is an errno instead of the list of OpenSSL's errors.
        entries = failure.args[0] if failure.args and isinstance(failure.args[0], list) else []
        reasons = [entry[2] for entry in entries if len(entry) > 2]
        return f"the TLS handshake failed: {', '.join(reasons) or 'no reason given'}"
    return f"the call failed: {type(failure).__name__}"


_SENTENCES: list[tuple[type[BaseException], str]] = [
    (StaleConnection, "the endpoint closed a connection just as callme used it again"),
    (UnaskedData, "the endpoint sent data before it was sent a request"),
    (error.ConnectionRefusedError, "the connection was refused"),
    (error.DNSLookupError, "the name of the host was not found"),
    (error.NoRouteError, "there is no route to the host"),
    (error.TimeoutError, "the host did not accept a connection in time"),
    (error.ConnectError, "no connection could be made"),
    (error.ConnectionDone, "the endpoint closed the connection without a response"),
    (error.ConnectionLost, "the connection broke before a response came"),
    (error.ConnectionAborted, "callme closed the connection before a response came"),
]
