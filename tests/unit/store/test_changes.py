"""A store that reports its changes, with every method of the interface."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import pytest
from attrs import define, field
from twisted.internet.defer import Deferred, succeed

from callme.core.times import Key
from callme.store.changes import WatchedStore
from callme.store.interface import Store
from tests.helpers.world import World

METHODS = [name for name in vars(Store) if not name.startswith("_")]


class Recorder:
    """A store whose methods return their arguments."""

    def __getattr__(self, name: str) -> Any:
        def method(*args: Any, **kwargs: Any) -> Deferred[Any]:
            given = inspect.signature(getattr(Store, name)).bind(self, *args, **kwargs)
            return succeed((name, {key: given.arguments[key] for key in list(given.arguments)[1:]}))

        return method


@define
class Nobody:
    """A watcher of nothing, which can be notified of a name."""

    watching: bool = False
    names: list[Any] = field(factory=list)

    def changed(self, keys: Iterable[Key]) -> None:
        raise AssertionError("nobody asked")

    def changed_name(self, task_name: str) -> None:
        self.names.append(task_name)


def test_store_interface_has_methods() -> None:
    assert {"put", "get", "figures", "close"} <= set(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_watched_store_passes_on_every_method(name: str) -> None:
    store: Any = WatchedStore(Recorder(), Nobody())
    _, *parameters = inspect.signature(getattr(Store, name)).parameters.values()
    given = {one.name: object() for one in parameters}
    by_name = [one.name for one in parameters if one.kind is one.KEYWORD_ONLY]
    positional = [value for key, value in given.items() if key not in by_name]
    passed = getattr(store, name)(*positional, **{key: given[key] for key in by_name})
    assert World.result(passed) == (name, given)
    ours = inspect.signature(getattr(WatchedStore, name)).parameters
    assert [(one.name, one.kind, one.default) for one in list(ours.values())[1:]] == [
        (one.name, one.kind, one.default) for one in parameters
    ]
