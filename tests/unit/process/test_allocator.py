from __future__ import annotations

from types import SimpleNamespace

from callme.process.allocator import VARIABLE, use_one_arena


def test_c_library_is_limited_to_one_arena() -> None:
    calls: list[tuple[int, int]] = []

    def mallopt(parameter: int, value: int) -> int:
        calls.append((parameter, value))
        return 1

    assert use_one_arena(SimpleNamespace(mallopt=mallopt), {})
    assert calls == [(-8, 1)]
    assert not use_one_arena(SimpleNamespace(mallopt=mallopt), {VARIABLE: "4"})
    assert len(calls) == 1


def test_c_library_without_arenas_is_left_as_it_is() -> None:
    assert not use_one_arena(SimpleNamespace(), {})
