from __future__ import annotations

import pytest
from OpenSSL import SSL
from twisted.internet import error

from callme.caller.failures import (
    ProxyFailure,
    StaleConnection,
    UnaskedData,
    describe_failure,
)
from callme.caller.response import NotHTTP


@pytest.mark.parametrize(
    ("failure", "described"),
    [
        (SSL.Error([("lib", "function", "wrong version")]), "wrong version"),
        (SSL.Error([("lib", "function")]), "no reason given"),
        (SSL.Error(), "no reason given"),
        (SSL.SysCallError(104, "ECONNRESET"), "no reason given"),
    ],
)
def test_failure_of_tls_is_described(failure: SSL.Error, described: str) -> None:
    assert describe_failure(failure) == f"the TLS handshake failed: {described}"


@pytest.mark.parametrize(
    ("failure", "described"),
    [
        (StaleConnection(), "the endpoint closed a connection just as callme used it again"),
        (UnaskedData(), "the endpoint sent data before it was sent a request"),
        (error.ConnectionRefusedError(), "the connection was refused"),
        (error.DNSLookupError(), "the name of the host was not found"),
        (error.NoRouteError(), "there is no route to the host"),
        (error.TimeoutError(), "the host did not accept a connection in time"),
        (error.ConnectError(), "no connection could be made"),
        (error.ConnectionDone(), "the endpoint closed the connection without a response"),
        (error.ConnectionLost(), "the connection broke before a response came"),
        (NotHTTP(), "the endpoint's response is not HTTP"),
        (ProxyFailure("the proxy said no"), "the proxy said no"),
        (ZeroDivisionError(), "the call failed: ZeroDivisionError"),
    ],
)
def test_failure_is_described(failure: Exception, described: str) -> None:
    assert describe_failure(failure) == described
