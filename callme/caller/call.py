"""The HTTP call itself, made with treq."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from treq.client import HTTPClient
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import Agent, BrowserLikePolicyForHTTPS
from twisted.web.iweb import IPolicyForHTTPS, IResponse

from .. import __version__
from ..core.task import Claim, Outcome, Reason
from ..core.times import to_ms
from ..security.address_policy import AddressPolicy
from ..security.signing import SigningKeys
from .egress import ConfinedReactor, ForbiddenAddress
from .failures import NotHTTP, cut_short, explain
from .pool import Endpoints, Link, Pool, TooLate
from .request import (
    Bytes,
    NoCookies,
    OneRequestsHeaders,
    PlainAgent,
    exact_url,
    parse_retry_after,
    request_headers,
    webhook_id,
)
from .resolver import Lookup, system_lookup
from .timer_wheel import Deadlines

USER_AGENT = f"callme/{__version__}"
MAX_BODY = 64 * 1024
"""Bytes of an answer's body that are read before its connection is closed."""
KEPT_BODY = 1024
"""Bytes of an answer's body that are kept on record."""
IDLE_SECONDS = 1.0
"""How long an unused connection is kept for the next call to the same host: enough for
a burst, and shorter than the keep-alive of common servers, which would close it just as
it is used again."""
_NO_COOKIES = NoCookies()
_DEFAULT_NETWORKS = AddressPolicy()


class HttpCaller:
    """Calls endpoints over HTTP/1.1 with treq.

    :param now: the wall clock: seconds since 1970.
    :param per_host: connections to keep for one host.
    :param networks: where callbacks may go.
    :param keys: returns what callbacks are signed with.
    :param tls_policy: which certificates to trust: by default those that the system does.
    :param clock: what sets the deadlines: the reactor, unless there is a steadier one.
    :param most_unused: connections to keep for all hosts together.
    :param lookup: returns the addresses of a name: the system, except in tests.
    """

    def __init__(  # noqa: PLR0913 - one for each thing that a test or a setting chooses
        self,
        reactor: Any,
        now: Callable[[], float],
        per_host: int,
        tls_policy: IPolicyForHTTPS | None = None,
        clock: IReactorTime | None = None,
        *,
        most_unused: int = 256,
        networks: AddressPolicy = _DEFAULT_NETWORKS,
        keys: Callable[[], SigningKeys] = SigningKeys,
        lookup: Lookup = system_lookup,
    ) -> None:
        self._reactor = reactor
        self._clock: IReactorTime = clock or reactor
        self._deadlines = Deadlines(self._clock)
        self._now = now
        self._keys = keys
        self._pool = Pool(self._clock, persistent=True)
        # Twisted would send a GET again, unasked, when a kept connection drops.
        self._pool.retryAutomatically = False
        self._pool.maxPersistentPerHost = per_host
        self._pool.cachedConnectionTimeout = IDLE_SECONDS  # type: ignore[assignment]  # not only int
        confined = ConfinedReactor(reactor, self._clock, networks, lookup)
        policy = tls_policy or BrowserLikePolicyForHTTPS()
        endpoints = Endpoints(confined, policy, most_unused)
        agent = Agent.usingEndpointFactory(reactor, endpoints, self._pool)
        self._client = HTTPClient(PlainAgent(agent), _NO_COOKIES, Bytes)

    def call(self, claim: Claim) -> Deferred[Outcome]:
        return Deferred.fromCoroutine(self._call(claim))

    def close(self) -> Deferred[None]:
        closed: Deferred[None] = self._pool.closeCachedConnections()
        return closed

    async def _call(self, claim: Claim) -> Outcome:
        timeout = claim.definition.timeout
        began = self._clock.seconds()
        link = Link(self._now, claim.definition.expires_at)
        sending: Deferred[Any] = Deferred()
        status = reason = retry_after = None
        detail = text = ""

        def expire() -> None:
            link.expired = True
            sending.cancel()
            link.abort()

        deadline = self._deadlines.set(timeout, expire)
        try:
            sending = self._send(claim, link)
            response = await sending
            link.head_is_over()
            if not (100 <= response.code <= 599 and response.version[:2] == (b"HTTP", 1)):
                link.abort()
                raise NotHTTP
            body = _Body(link)
            response.deliverBody(body)
            await body.done
            status, text = response.code, body.text
            retry_after = self._retry_after(response)
        except Exception as failure:
            status = link.status if cut_short(failure) else None
            if isinstance(failure, TooLate):
                reason, detail = Reason.TOO_LATE, "max_delay passed while the call connected"
            elif isinstance(failure, ForbiddenAddress):
                reason, detail = Reason.FORBIDDEN_ADDRESS, str(failure)
            elif status is None and link.expired:
                reason, detail = Reason.TIMEOUT, f"no answer within {timeout} s"
            elif status is None:
                reason, detail = Reason.CONNECTION_FAILED, explain(failure, link.reused)
        finally:
            self._deadlines.call_off(deadline)
            link.leave()
        duration_ms = round((self._clock.seconds() - began) * 1000)
        started_at = to_ms(link.started_at)
        return Outcome(
            started_at_ms=started_at,
            duration_ms=duration_ms,
            status=status,
            reason=reason,
            detail=detail,
            body=text,
            retry_after=retry_after,
        )

    def _send(self, claim: Claim, link: Link) -> Deferred[Any]:
        definition = claim.definition
        payload = definition.payload.encode("utf-8")
        headers = OneRequestsHeaders()
        for name, value in request_headers(claim, USER_AGENT):
            headers.addRawHeader(name.encode("ascii"), value.encode("utf-8"))

        identifier = webhook_id(definition.key)

        def sign(started_at: float) -> None:
            for name, value in keys.headers(identifier, started_at, payload):
                headers.setRawHeaders(name.encode("ascii"), [value.encode("ascii")])

        keys = self._keys()
        if keys:
            # Not before the connection is there: the time that is signed must not be an old one.
            link.starts = sign
        self._pool.link = link
        return self._client.request(
            definition.callback_method,
            exact_url(definition.callback),
            headers=headers,
            data=payload or None,
            cookies=_NO_COOKIES,
            allow_redirects=False,
            unbuffered=True,
            # Not that treq needs it: without it, it would look for one each time.
            reactor=self._reactor,
        )

    def _retry_after(self, response: IResponse) -> int | None:
        values = response.headers.getRawHeaders(b"retry-after")
        return parse_retry_after(values[-1].decode("latin-1"), self._now()) if values else None


class _Body(Protocol):
    """Reads an answer's body up to :data:`MAX_BODY` and keeps the first :data:`KEPT_BODY`.

    :ivar done: fires when there is no more to come, however it ended: the status
        line has arrived, and that is what counts.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._received = 0
        self._kept = b""
        self.done: Deferred[None] = Deferred(self._cut_off)

    def dataReceived(self, data: bytes) -> None:
        self._received += len(data)
        if len(self._kept) < KEPT_BODY:
            self._kept = (self._kept + data)[:KEPT_BODY]
        if self._received > MAX_BODY:
            self._link.abort()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.done.called:
            self.done.callback(None)

    def _cut_off(self, done: Deferred[None]) -> None:
        """Want no more: what has arrived counts."""
        self._link.abort()
        if not done.called:
            done.callback(None)

    @property
    def text(self) -> str:
        """What was kept, as text; what is not UTF-8 is shown as U+FFFD."""
        return self._kept.decode("utf-8", "replace").replace("\0", "\ufffd")
