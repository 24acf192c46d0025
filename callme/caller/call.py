"""One HTTP call, made with treq: from a claim to its outcome."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from attrs import define, field
from treq.client import HTTPClient
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from ..core.task import Claim, ClaimLost, Outcome, Reason
from ..core.times import to_ms
from ..security.address_policy import AddressPolicy
from ..security.outgoing import ForHost, Proxy
from ..security.signing import SigningKeys
from .agent import Agent, Exchange
from .egress import ForbiddenAddress, Outbound
from .failures import StaleConnection, describe_failure
from .pool import Pool
from .request import (
    BytesProducer,
    NullCookieJar,
    RequestHeaders,
    header_lines,
    idempotency_key,
    parse_retry_after,
    request_headers,
    verbatim_url,
)
from .resolver import Lookup, system_lookup
from .timer_wheel import Timer, TimerWheel
from .tls import TLSContexts

MAX_IDLE_CONNECTIONS = 256
_NO_COOKIES = NullCookieJar()
_DEFAULT_POLICY = AddressPolicy()


class TooLate(Exception):
    """The connection was ready only after ``max_delay``, when no request may start any more."""


class Expired(Exception):
    """A call exceeded its task's ``timeout``."""


def _always(*_: str) -> bool:
    return True


class HttpCaller:
    """HTTP/1.1 client that calls endpoints with treq.

    :param now: returns the wall-clock time: seconds since 1970.
    :param per_host: maximum reusable connections to one origin.
    :param trust_root: trusted certificate authorities; by default those of the system.
    :param clock: schedules the deadlines; by default the reactor.
    :param max_idle_connections: maximum idle connections to all hosts together.
    :param networks: decides which addresses callbacks may be sent to.
    :param keys: returns the keys that sign callbacks.
    :param lookup: returns the addresses of a host name; by default the system's resolver.
    :param contexts: contexts of TLS connections, in place of ``trust_root``.
    :param proxies: proxies by host.
    """

    def __init__(  # noqa: PLR0913 - each is chosen by a setting or by a test
        self,
        reactor: Any,
        now: Callable[[], float],
        per_host: int,
        trust_root: Any = None,
        clock: IReactorTime | None = None,
        *,
        max_idle_connections: int = MAX_IDLE_CONNECTIONS,
        networks: AddressPolicy = _DEFAULT_POLICY,
        keys: Callable[[], SigningKeys] = SigningKeys,
        lookup: Lookup = system_lookup,
        contexts: TLSContexts | None = None,
        proxies: Sequence[ForHost[Proxy | None]] = (),
    ) -> None:
        self.reactor = reactor
        self.clock: IReactorTime = clock or reactor
        self.timers = TimerWheel(self.clock)
        self.now = now
        self.keys = keys
        self.agent = Agent(
            Outbound(reactor, self.clock, networks, lookup, proxies=proxies),
            self.timers,
            Pool(per_host, max_idle_connections),
            contexts or TLSContexts(trust_root=trust_root),
        )

    def call(
        self,
        claim: Claim,
        has_more: Callable[[str], bool] = _always,
        keeps_claim: Callable[[], bool] = _always,
    ) -> Deferred[Outcome]:
        """Make one call within its task's ``timeout``.

        The Deferred fails only with :class:`ClaimLost`, and then no request was sent.

        :param has_more: returns whether more calls to a host are queued; if none are, the
            connection is closed after the response.
        :param keeps_claim: returns whether no other daemon can have taken the claim.
        """
        return Call(caller=self, claim=claim, has_more=has_more, keeps_claim=keeps_claim).make()

    def close(self) -> Deferred[None]:
        """Close all connections; the Deferred fires when they are closed."""
        return self.agent.close()


@define(eq=False, kw_only=True)
class Call:
    """One call, from its claim to its outcome.

    :ivar started_at: start of the request, or creation of the call while it has not started:
        seconds since 1970.
    """

    _caller: HttpCaller
    claim: Claim
    _has_more: Callable[[str], bool]
    _keeps_claim: Callable[[], bool]
    started_at: float = field(init=False)
    _began: float = field(init=False)
    _exchange: Exchange = field(init=False)
    _deadline: Timer = field(init=False)
    _identifier: str = field(init=False)
    _payload: bytes = field(default=b"", init=False)
    _body: bytes = field(default=b"", init=False)

    def __attrs_post_init__(self) -> None:
        definition = self.claim.definition
        self.started_at = self._caller.now()
        self._began = self._caller.clock.seconds()
        self._identifier = idempotency_key(definition.key, self.claim.created_at_ms)
        self._exchange = Exchange(
            agent=self._caller.agent,
            # The last attempt requires a new connection: the endpoint may just be closing an idle
            # one.
            fresh=self.claim.attempts_used > definition.retry,
            has_more=self._host_has_more,
            start_headers=self.start,
        )
        self._deadline = self._caller.timers.set(definition.timeout, self._expire)

    def make(self) -> Deferred[Outcome]:
        """Make the call; the Deferred never fails."""
        try:
            sending = self._send()
        except Exception:
            # The task does not form a valid HTTP request: it was written into the database by
            # another program, without the validation of a PUT.
            return succeed(self._failed(Failure()))
        return sending.addCallbacks(self._responded, self._not_responded)

    def _send(self) -> Deferred[Any]:
        definition = self.claim.definition
        self._payload = definition.body
        return HTTPClient(self._exchange, _NO_COOKIES, BytesProducer).request(
            definition.callback_method,
            verbatim_url(definition.callback),
            headers=RequestHeaders(header_lines(request_headers(self.claim, self._identifier))),
            data=self._payload or None,
            cookies=_NO_COOKIES,
            allow_redirects=False,
            unbuffered=True,
            # treq does not use it here, but imports the global reactor for each call without it.
            reactor=self._caller.reactor,
        )

    def _host_has_more(self) -> bool:
        return self._has_more(self.claim.host)

    def _expire(self) -> None:
        self._exchange.cut_off(Expired())

    def start(self) -> bytes:
        """Start the request, and return its signature headers, if callme has signing keys.

        The signed timestamp is taken once the connection is ready, because receivers reject old
        ones.

        :raises TooLate: when connecting took until after ``max_delay``.
        :raises ClaimLost: when the daemon was frozen while it connected.
        """
        if not self._keeps_claim():
            raise ClaimLost
        self.started_at = self._caller.now()
        if self.started_at >= self.claim.definition.expires_at:
            raise TooLate
        keys = self._caller.keys()
        if not keys:
            return b""
        return header_lines(keys.headers(self._identifier, self.started_at, self._payload))

    def _responded(self, response: Any) -> Outcome:
        # The response is complete or cut off by now, so the body is delivered synchronously.
        response.deliverBody(self)
        values = response.headers.getRawHeaders(b"retry-after")
        return self._outcome(
            status=response.code,
            body=self._body.decode("utf-8", "replace").replace("\0", "\ufffd"),
            retry_after=values
            and parse_retry_after(values[-1].decode("latin-1"), self._caller.now()),
        )

    def dataReceived(self, data: bytes) -> None:
        """Store the body of the response, which arrives in one piece."""
        self._body = data

    def connectionLost(self, _: Failure) -> None:
        """Do nothing: the body is complete."""

    def _not_responded(self, failure: Failure) -> Outcome | Failure:
        if failure.check(ClaimLost):
            self._end()
            return failure
        return self._failed(failure)

    def _failed(self, failure: Failure) -> Outcome:
        error: Any = failure.value
        if isinstance(error, TooLate):
            reason, detail = Reason.TOO_LATE, "max_delay passed while the call connected"
        elif isinstance(error, ForbiddenAddress):
            reason, detail = Reason.FORBIDDEN_ADDRESS, str(error)
        elif isinstance(error, Expired):
            timeout = self.claim.definition.timeout
            reason, detail = Reason.TIMEOUT, f"no response within {timeout} s"
        else:
            reason, detail = Reason.CONNECTION_FAILED, describe_failure(error)
        stale = isinstance(error, StaleConnection)
        return self._outcome(reason=reason, detail=detail, stale_connection=stale)

    def _end(self) -> None:
        self._caller.timers.cancel(self._deadline)
        # Both refer to this call; without the reference cycle it is freed at once.
        del self._deadline, self._exchange

    def _outcome(self, **result: Any) -> Outcome:
        self._end()
        duration = self._caller.clock.seconds() - self._began
        return Outcome(
            started_at_ms=to_ms(self.started_at), duration_ms=round(duration * 1000), **result
        )
