from __future__ import annotations

import pytest
from OpenSSL import SSL

from callme.caller.failures import describe_failure


@pytest.mark.parametrize(
    ("failure", "described"),
    [
        (SSL.Error([("lib", "function", "wrong version")]), "wrong version"),
        (SSL.Error(), "no reason given"),
        (SSL.SysCallError(104, "ECONNRESET"), "no reason given"),
    ],
)
def test_failure_of_tls_is_described(failure: SSL.Error, described: str) -> None:
    assert describe_failure(failure) == f"the TLS handshake failed: {described}"
