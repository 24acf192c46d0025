"""The decision about a received call: whether it is genuine, and whether it was handled."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attrs import frozen

from ..webhooks import InvalidSignature, verify
from .store import OnceStore

_WITHOUT_CONTENT = frozenset({204, 205})


@frozen
class Refusal:
    """A response that is sent without running the handler."""

    status: int
    text: str


@frozen
class Gate:
    """The check of each call before its handler runs, and the record after it.

    :ivar keys: the signing keys; without any, signatures are not checked.
    """

    _store: OnceStore
    _keys: tuple[str, ...] = ()

    @classmethod
    def of(cls, store: OnceStore, keys: str | Iterable[str] | None) -> Gate:
        """Return a gate for one key, several, or none.

        :raises ValueError: if ``keys`` contains no key: nothing would be checked.
        """
        listed = (keys,) if isinstance(keys, str) else tuple(keys or ())
        if keys is not None and not any(listed):
            raise ValueError("keys: it contains no key: expected at least one, or None")
        return cls(store, listed)

    def enter(self, headers: Mapping[str, str], body: bytes) -> str | Refusal:
        """Return the idempotency key of a call that must be handled, or the refusal.

        With signing keys, the key is the signed ``webhook-id``: the header ``Idempotency-Key``
        is not part of the signature.
        """
        try:
            key = self._key_of(headers, body)
        except InvalidSignature as error:
            return Refusal(401, str(error))
        if not key:
            return Refusal(400, "Idempotency-Key: the header is missing")
        claim = self._store.claim(key)
        if claim == "new":
            return key
        if claim == "running":
            return Refusal(409, "an earlier attempt of this call is still in progress")
        text = "" if claim in _WITHOUT_CONTENT else "this call was handled before"
        return Refusal(int(claim), text)

    def _key_of(self, headers: Mapping[str, str], body: bytes) -> str:
        if self._keys:
            return verify(headers, body, self._keys)
        given = {name.lower(): value for name, value in headers.items()}
        return given.get("idempotency-key", "").strip().strip('"')

    def leave(self, key: str, status: int | None) -> None:
        """Record the end of a handler: only a success is not repeated.

        :param status: the status of its response; ``None`` after an exception.
        """
        if status is not None and 200 <= status < 300:
            self._store.finish(key, status)
        else:
            self._store.forget(key)
