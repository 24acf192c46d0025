"""One task in, one outcome out: the HTTP call itself."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from http.cookiejar import CookieJar
from typing import Any, Protocol

from attrs import define, evolve
from hyperlink import EncodedURL
from OpenSSL.SSL import Error as TLSError
from service_identity import VerificationError
from treq.client import HTTPClient
from treq.cookies import IndexableCookieJar
from treq.response import _Response
from twisted.internet import error
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IConsumer, IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.client import (
    URI,
    Agent,
    BrowserLikePolicyForHTTPS,
    HTTPConnectionPool,
    RequestTransmissionFailed,
    ResponseFailed,
    ResponseNeverReceived,
)
from twisted.web.http_headers import Headers
from twisted.web.iweb import (
    IAgent,
    IAgentEndpointFactory,
    IBodyProducer,
    IPolicyForHTTPS,
    IResponse,
)
from zope.interface import implementer

from . import __version__
from .core.definition import MAX_TIMEOUT
from .core.request import parse_retry_after, request_headers
from .core.task import Claim, Outcome, Reason

USER_AGENT = f"callme/{__version__}"
MAX_BODY = 64 * 1024
"""Bytes of an answer's body that are read before its connection is closed."""
KEPT_BODY = 1024
"""Bytes of an answer's body that are kept on record."""
IDLE_SECONDS = 1.0
"""How long an unused connection is kept for the next call to the same host: enough for
a burst, and shorter than the keep-alive of common servers, which would close it just as
it is used again."""


class Caller(Protocol):
    """What makes the calls."""

    def call(self, claim: Claim) -> Deferred[Outcome]:
        """Make one call within its task's ``timeout``; never fails.

        Cancelling it drops the connection; the outcome then means nothing.
        """

    def close(self) -> Deferred[None]:
        """Close the connections that are kept for further calls."""


class HttpCaller:
    """Calls endpoints over HTTP/1.1 with treq.

    :param now: the wall clock: seconds since 1970.
    :param per_host: connections to keep for one host.
    :param tls_policy: which certificates to trust: by default those that the system does.
    :param clock: what sets the deadlines: the reactor, except in tests.
    """

    def __init__(
        self,
        reactor: Any,
        now: Callable[[], float],
        per_host: int,
        tls_policy: IPolicyForHTTPS | None = None,
        clock: IReactorTime | None = None,
    ) -> None:
        self._clock: IReactorTime = clock or reactor
        self._now = now
        self._pool = _Pool(reactor, persistent=True)
        # Twisted would send a GET again, unasked, when a kept connection drops.
        self._pool.retryAutomatically = False
        self._pool.maxPersistentPerHost = per_host
        self._pool.cachedConnectionTimeout = IDLE_SECONDS  # type: ignore[assignment]  # not only int
        endpoints = _Endpoints(reactor, tls_policy or BrowserLikePolicyForHTTPS())
        agent = Agent.usingEndpointFactory(reactor, endpoints, self._pool)
        self._client = HTTPClient(_PlainAgent(agent), _NoCookies(), _Bytes)

    def call(self, claim: Claim) -> Deferred[Outcome]:
        return Deferred.fromCoroutine(self._call(claim))

    def close(self) -> Deferred[None]:
        closed: Deferred[None] = self._pool.closeCachedConnections()
        return closed

    async def _call(self, claim: Claim) -> Outcome:
        timeout = claim.definition.timeout
        outcome = Outcome(started_at=int(self._now() * 1000))
        began = self._clock.seconds()
        link = _Link()
        sending: Deferred[_Response] = Deferred()

        def expire() -> None:
            link.expired = True
            sending.cancel()
            link.abort()

        timer = self._clock.callLater(timeout, expire)
        try:
            sending = self._send(claim, link)
            response = await sending
            body = _Body(link)
            response.deliverBody(body)
            await body.done
            outcome = evolve(
                outcome,
                status=response.code,
                body=body.text,
                retry_after=self._retry_after(response),
            )
        except Exception as failure:
            if link.expired:
                reason, detail = Reason.TIMEOUT, f"no answer within {timeout} s"
            else:
                reason, detail = Reason.CONNECTION_FAILED, explain(failure, link.reused)
            outcome = evolve(outcome, reason=reason, detail=detail)
        finally:
            if timer.active():
                timer.cancel()
        return evolve(outcome, duration_ms=round((self._clock.seconds() - began) * 1000))

    def _send(self, claim: Claim, link: _Link) -> Deferred[_Response]:
        definition = claim.definition
        headers = Headers()
        for name, value in request_headers(claim, USER_AGENT):
            headers.addRawHeader(name.encode("ascii"), value.encode("utf-8"))
        self._pool.link = link
        return self._client.request(
            definition.callback_method,
            _exact_url(definition.callback),
            headers=headers,
            data=definition.payload.encode("utf-8") or None,
            cookies=_NO_COOKIES,
            allow_redirects=False,
            unbuffered=True,
        )

    def _retry_after(self, response: IResponse) -> int | None:
        values = response.headers.getRawHeaders("retry-after")
        return parse_retry_after(values[-1], self._now()) if values else None


@define(eq=False)
class _Link:
    """The connection that a call goes over, once there is one.

    :ivar reused: whether it was kept from an earlier call.
    :ivar expired: whether the call's time is over.
    """

    protocol: Any = None
    reused: bool = False
    expired: bool = False

    def abort(self) -> None:
        """Drop the connection at once: a TLS peer could keep a polite goodbye waiting."""
        if self.protocol is not None and self.protocol.transport is not None:
            self.protocol.transport.abortConnection()


class _Pool(HTTPConnectionPool):
    """A connection pool that tells each call about its connection.

    :ivar link: filled in by the next call of :meth:`getConnection`, which the
        agent makes before its ``request`` returns.
    """

    link = _Link()

    def getConnection(self, key: Any, endpoint: Any) -> Deferred[Any]:
        link = self.link
        connecting: Deferred[Any] = super().getConnection(key, endpoint)
        link.reused = connecting.called

        def connected(protocol: Any) -> Any:
            link.protocol = protocol
            return protocol

        return connecting.addCallback(connected)


@implementer(IAgentEndpointFactory)
class _Endpoints:
    """Where to connect to for a URL; kept per host, as making one parses its name."""

    def __init__(self, reactor: Any, tls_policy: IPolicyForHTTPS) -> None:
        self._reactor = reactor
        self._tls_policy = tls_policy
        self._of = lru_cache(maxsize=1024)(self._make)

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        return self._of(uri.scheme, uri.host, uri.port)

    def _make(self, scheme: bytes, host: bytes, port: int) -> IStreamClientEndpoint:
        # The call's own deadline is the one that counts, and is never longer than this.
        host = host.strip(b"[]")
        endpoint: IStreamClientEndpoint
        endpoint = HostnameEndpoint(self._reactor, host, port, timeout=MAX_TIMEOUT)
        if scheme == b"https":
            endpoint = wrapClientTLS(self._tls_policy.creatorForNetloc(host, port), endpoint)
        return _Quiet(endpoint)


@implementer(IStreamClientEndpoint)
class _Quiet:
    """Connects without a line in the log for each connection."""

    def __init__(self, endpoint: IStreamClientEndpoint) -> None:
        self._endpoint = endpoint

    def connect(self, protocolFactory: Any) -> Deferred[Any]:
        protocolFactory.noisy = False
        return self._endpoint.connect(protocolFactory)


@implementer(IAgent)
class _PlainAgent:
    """Asks for bodies as they are, and takes them as they are.

    treq would ask for gzip, and would unpack whatever says that it is gzip,
    without a limit to what comes out.
    """

    def __init__(self, agent: IAgent) -> None:
        self._agent = agent

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        assert headers is not None
        headers.setRawHeaders(b"accept-encoding", [b"identity"])
        return self._agent.request(method, uri, headers, bodyProducer).addCallback(_not_encoded)


def _not_encoded(response: IResponse) -> IResponse:
    response.headers.removeHeader(b"content-encoding")
    return response


class _NoCookies(IndexableCookieJar):
    """A jar that neither keeps nor gives: what one task is sent is no other task's business."""

    def add_cookie_header(self, request: Any) -> None:
        """Give nothing."""

    def extract_cookies(self, response: Any, request: Any) -> None:
        """Keep nothing."""


_NO_COOKIES = CookieJar()


class _ExactURL(EncodedURL):
    """A URL that is sent just as the task has it.

    treq would parse, normalise and encode it again for each call.
    """

    exact: str

    def to_uri(self) -> _ExactURL:
        return self

    def to_text(self, with_password: bool = False) -> str:
        return self.exact


@lru_cache(maxsize=1024)
def _exact_url(callback: str) -> _ExactURL:
    url = _ExactURL()
    url.exact = callback
    return url


@implementer(IBodyProducer)
class _Bytes:
    """A request's body that is in memory already."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.length = len(data)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        consumer.write(self._data)
        return succeed(None)

    def pauseProducing(self) -> None:
        """Nothing to pause: all was written at once."""

    def resumeProducing(self) -> None:
        """Nothing to resume."""

    def stopProducing(self) -> None:
        """Nothing to stop."""


class _Body(TwistedProtocol):
    """Reads an answer's body up to :data:`MAX_BODY` and keeps the first :data:`KEPT_BODY`.

    :ivar done: fires when there is no more to come, however it ended: the status
        line has arrived, and that is what counts.
    """

    def __init__(self, link: _Link) -> None:
        self._link = link
        self._received = 0
        self._kept = b""
        self.done: Deferred[None] = Deferred(lambda _: link.abort())

    def dataReceived(self, data: bytes) -> None:
        self._received += len(data)
        if len(self._kept) < KEPT_BODY:
            self._kept = (self._kept + data)[:KEPT_BODY]
        if self._received > MAX_BODY:
            self._link.abort()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.done.called:
            self.done.callback(None)

    @property
    def text(self) -> str:
        """What was kept, as text; what is not UTF-8 is shown as U+FFFD."""
        return self._kept.decode("utf-8", "replace").replace("\0", "\ufffd")


def explain(failure: BaseException, reused: bool = False) -> str:
    """Say in one human sentence why a call got no answer.

    :param reused: whether it went over a connection kept from an earlier call.
    """
    if isinstance(failure, (ResponseNeverReceived, ResponseFailed, RequestTransmissionFailed)):
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
    # Twisted raises a ParseError that it does not export.
    if type(failure).__name__ == "ParseError":
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
]
