"""The store: runs queries and operations, which are plain functions, in transactions.

Each call is one transaction. The functions are in :mod:`callme.store.tasks`,
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
    """Write transaction: its cursor and its changes.

    :ivar node: returns the name of this daemon, which is stored with attempts.
    :ivar on_failure: the URL for failures of tasks without ``on_failure``.
    """

    cursor: Cursor
    node: Callable[[], str]
    on_failure: str | None = None
    changes: Changes = field(factory=Changes)


@frozen(kw_only=True)
class Operation:
    """Call of an operation, deferred until it runs in a transaction."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def run(self, write: Write) -> Any:
        """Run the operation."""
        return self.function(write, *self.args, **self.kwargs)


@frozen
class Unfinished:
    """Result of an operation that needs further statements, which depend on its first results.

    :ivar operation: the operation that runs them, and returns the result of the whole.
    """

    operation: Any


class Store(ABC):
    """Durable store of tasks. All methods must be called in the reactor's thread.

    A Deferred fails with :class:`callme.store.interface.StoreUnavailable` if the database cannot be
    used; its transaction then has no effect. Cancelling a Deferred discards the result, but stops
    neither the transaction nor the publication of its changes.

    :ivar changes: publishes the changes of each commit, just before its results are returned.
    :ivar overrides: implementations that replace queries and operations for one database, and run
        outside the common transaction.
    :ivar on_failure: the URL for failures of tasks without ``on_failure``.
    """

    on_failure: str | None = None

    def __init__(self) -> None:
        self.changes = ChangeFeed()
        self.overrides: Overrides = {}

    def read(
        self, query: Callable[Concatenate[Cursor, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[T]:
        """Run a query on a consistent snapshot of the database, and return its result."""
        override = self.overrides.get(query)
        if override is not None:
            return override(*args, **kwargs)
        return self._read(lambda cursor: query(cursor, *args, **kwargs))

    def write(
        self, operation: Callable[Concatenate[Write, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[T]:
        """Run an operation, and return its result once it is committed and synced to disk.

        The operation may run several times until it is committed; earlier runs have no effect.
        """
        override = self.overrides.get(operation)
        if override is not None:
            return override(*args, **kwargs)
        return self._write(Operation(function=operation, args=args, kwargs=kwargs))

    @abstractmethod
    def _read(self, query: Callable[[Any], T]) -> Deferred[T]:
        """Run a query on a cursor with a consistent snapshot of the database."""

    @abstractmethod
    def _write(self, operation: Operation) -> Deferred[Any]:
        """Run an operation in a transaction that is committed and synced."""

    @property
    @abstractmethod
    def is_writable(self) -> bool:
        """``False`` after a write that failed because of the database, until a write succeeds."""

    @abstractmethod
    def close(self) -> Deferred[None]:
        """Complete the queued writes, and close the database."""
