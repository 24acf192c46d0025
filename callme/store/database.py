"""The access to the store: it runs queries and operations, each a plain function.

A call is one transaction. The functions are in :mod:`callme.store.tasks`,
:mod:`callme.store.queue` and :mod:`callme.store.stats`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Concatenate, ParamSpec, TypeVar

from attrs import define, field, frozen
from twisted.internet.defer import Deferred

from .changes import ChangeFeed, Changes
from .interface import Cursor

P = ParamSpec("P")
T = TypeVar("T")
Overrides = dict[Callable[..., Any], Callable[..., Deferred[Any]]]


@define(kw_only=True)
class Write:
    """A transaction that writes: its cursor and what it changes.

    :ivar node: returns the name of this daemon, which attempts carry.
    :ivar on_failure: the URL to notify of the failure of each task that names none.
    """

    cursor: Cursor
    node: Callable[[], str]
    on_failure: str | None = None
    changes: Changes = field(factory=Changes)


@frozen(kw_only=True)
class Operation:
    """A call of an operation, to be made within a transaction."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def run(self, write: Write) -> Any:
        """Make the call."""
        return self.function(write, *self.args, **self.kwargs)


@frozen
class Unfinished:
    """The result of an operation that needs statements which depend on what the first returned.

    :ivar operation: the rest, whose result is that of the operation.
    """

    operation: Any


class Store(ABC):
    """Tasks on disk. All methods must be called in the reactor's thread.

    A Deferred fails with :class:`callme.store.interface.StoreUnavailable` while the database
    cannot be used; nothing is half done then. Cancelling a Deferred drops the result, but neither
    the transaction nor the publication of its changes.

    :ivar changes: publishes the changes of each commit, just before its results are returned.
    :ivar overrides: replacements of queries and operations that a database runs in a way of its
        own, outside the common transaction.
    :ivar on_failure: the URL to notify of the failure of each task that names none.
    """

    on_failure: str | None = None

    def __init__(self) -> None:
        self.changes = ChangeFeed()
        self.overrides: Overrides = {}

    def read(
        self, query: Callable[Concatenate[Cursor, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[T]:
        """Run a query on one state of the database, and return its result."""
        override = self.overrides.get(query)
        if override is not None:
            return override(*args, **kwargs)
        return self._read(lambda cursor: query(cursor, *args, **kwargs))

    def write(
        self, operation: Callable[Concatenate[Write, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[T]:
        """Run an operation, and return its result once it is committed and synced to disk.

        The operation may run several times, each time from the same state, until it is committed.
        """
        override = self.overrides.get(operation)
        if override is not None:
            return override(*args, **kwargs)
        return self._write(Operation(function=operation, args=args, kwargs=kwargs))

    @abstractmethod
    def _read(self, query: Callable[[Any], T]) -> Deferred[T]:
        """Run a query on a cursor that sees one state of the database."""

    @abstractmethod
    def _write(self, operation: Operation) -> Deferred[Any]:
        """Run an operation in a transaction that is committed and synced."""

    @property
    @abstractmethod
    def is_writable(self) -> bool:
        """False from a write that found the database unusable until a later one succeeds."""

    @abstractmethod
    def close(self) -> Deferred[None]:
        """Finish the writes in progress and release the database."""
