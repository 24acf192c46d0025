"""One claim in, one outcome out: the HTTP call, made with treq."""

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
    """A connection was made when no request may start any more."""


class Expired(Exception):
    """A call has taken its whole time."""


def _always(*_: str) -> bool:
    return True


class HttpCaller:
    """Calls endpoints over HTTP/1.1 with treq.

    :param now: the wall clock: seconds since 1970.
    :param per_host: connections to keep for one host.
    :param networks: where callbacks may go.
    :param keys: returns the keys that callbacks are signed with.
    :param trust_root: whose certificates to trust: by default those that the system trusts.
    :param clock: sets the deadlines: the reactor, unless there is a monotonic clock.
    :param max_idle_connections: connections to keep for all hosts together.
    :param lookup: returns the addresses of a name: the system's lookup, except in tests.
    :param contexts: the contexts of TLS connections, in place of ``trust_root``.
    :param proxies: the proxies for hosts.
    """

    def __init__(  # noqa: PLR0913 - one for each thing that a test or a setting chooses
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

        It fails only with :class:`ClaimLost`, and then no request was sent.

        :param has_more: returns whether more calls to a host wait; where none does, the
            connection is not kept.
        :param keeps_claim: returns whether no other daemon can have taken the claim.
        """
        return Call(caller=self, claim=claim, has_more=has_more, keeps_claim=keeps_claim).make()

    def close(self) -> Deferred[None]:
        """Close the connections."""
        return self.agent.close()


@define(eq=False, kw_only=True)
class Call:
    """One call, from its claim to its outcome.

    :ivar started_at: the start of the request; before that, the creation of the call. Seconds
        since 1970.
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
            # An attempt that has no successor is not spent on a connection that may be closed.
            fresh=self.claim.attempts_used > definition.retry,
            has_more=self._host_has_more,
            start_headers=self.start,
        )
        self._deadline = self._caller.timers.set(definition.timeout, self._expire)

    def make(self) -> Deferred[Outcome]:
        """Make the call."""
        try:
            sending = self._send()
        except Exception:
            # It cannot be written as a request: it came into the database otherwise than by a PUT.
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
            # treq does not need it: without it, it would look for one each time.
            reactor=self._caller.reactor,
        )

    def _host_has_more(self) -> bool:
        return self._has_more(self.claim.host)

    def _expire(self) -> None:
        self._exchange.cut_off(Expired())

    def start(self) -> bytes:
        """Start the request, and return the headers that prove where it comes from.

        The time that is signed is the one when the connection is there: it must not be old.

        :raises TooLate: when connecting took so long that no request may start now.
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
        # It has arrived, as far as it is read: it is delivered at once.
        response.deliverBody(self)
        values = response.headers.getRawHeaders(b"retry-after")
        return self._outcome(
            status=response.code,
            body=self._body.decode("utf-8", "replace").replace("\0", "\ufffd"),
            retry_after=values
            and parse_retry_after(values[-1].decode("latin-1"), self._caller.now()),
        )

    def dataReceived(self, data: bytes) -> None:
        """Take the body of the response."""
        self._body = data

    def connectionLost(self, _: Failure) -> None:
        """Take the end of the body."""

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
        # They refer to this call: it is freed at once only without a cycle.
        del self._deadline, self._exchange

    def _outcome(self, **result: Any) -> Outcome:
        self._end()
        duration = self._caller.clock.seconds() - self._began
        return Outcome(
            started_at_ms=to_ms(self.started_at), duration_ms=round(duration * 1000), **result
        )
