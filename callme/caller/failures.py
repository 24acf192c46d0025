"""Why a call got no answer, in words."""

from __future__ import annotations

from typing import Any

from OpenSSL.SSL import Error as TLSError
from service_identity import VerificationError
from twisted.internet import error
from twisted.internet.defer import CancelledError
from twisted.web.client import RequestTransmissionFailed, ResponseFailed, ResponseNeverReceived


class NotHTTP(Exception):
    """An answer that is no HTTP, though Twisted took it for some."""


def cut_short(failure: BaseException) -> bool:
    """Whether an answer ended too early, as opposed to not being one."""
    if isinstance(failure, (ResponseNeverReceived, ResponseFailed)):
        failure = _root(failure)
    return isinstance(failure, _CUT_SHORT)


_CUT_SHORT = (
    error.ConnectionDone,
    error.ConnectionLost,
    error.ConnectionAborted,
    CancelledError,
)


def explain(failure: BaseException, reused: bool = False) -> str:
    """Say in one human sentence why a call got no answer.

    :param reused: whether it went over a connection kept from an earlier call.
    """
    answered = isinstance(failure, (ResponseNeverReceived, ResponseFailed))
    if answered or isinstance(failure, RequestTransmissionFailed):
        failure = _root(failure)
    if reused and isinstance(failure, (error.ConnectionDone, error.ConnectionLost)):
        return "the endpoint closed a kept connection just as it was used again"
    for kind, sentence in _SENTENCES:
        if isinstance(failure, kind):
            return sentence
    if isinstance(failure, TLSError):
        told = [entry[2] for entry in (failure.args[0] if failure.args else []) if len(entry) > 2]
        return f"the TLS handshake failed: {', '.join(told) or 'no reason given'}"
    if isinstance(failure, ValueError) and "hostname" in str(failure):
        return "the name of the host is not one that can be looked up"
    # What Twisted's parser stumbles over: a ParseError that it does not export, a ValueError.
    if answered or isinstance(failure, NotHTTP):
        return "the endpoint's answer is not HTTP"
    return f"the call failed: {type(failure).__name__}"


def _root(failure: Any) -> BaseException:
    """Return the most telling of the reasons that Twisted gathered."""
    reasons: list[BaseException] = [reason.value for reason in failure.reasons]
    telling = [one for one in reasons if not isinstance(one, error.ConnectionDone)]
    return next(iter([*telling, *reasons]), failure)


_SENTENCES: list[tuple[type[BaseException], str]] = [
    (error.ConnectionRefusedError, "the connection was refused"),
    (error.DNSLookupError, "the name of the host was not found"),
    (error.NoRouteError, "there is no route to the host"),
    (error.TimeoutError, "the host did not accept a connection in time"),
    (error.ConnectError, "no connection could be made"),
    (VerificationError, "the certificate is not one for this host"),
    (error.ConnectionDone, "the endpoint closed the connection without an answer"),
    (error.ConnectionLost, "the connection broke before an answer came"),
    (error.ConnectionAborted, "the answer has no end to its headers"),
]
