from __future__ import annotations

from types import SimpleNamespace

from callme.process.allocator import (
    MAX_RELEASING_BYTES,
    VARIABLE,
    release_free_memory,
    use_one_arena,
)


def test_c_library_is_limited_to_one_arena() -> None:
    calls: list[tuple[int, int]] = []

    def mallopt(parameter: int, value: int) -> int:
        calls.append((parameter, value))
        return 1

    assert use_one_arena(SimpleNamespace(mallopt=mallopt), {})
    assert calls == [(-8, 1)]
    assert not use_one_arena(SimpleNamespace(mallopt=mallopt), {VARIABLE: "4"})
    assert len(calls) == 1


def test_c_library_without_arenas_is_not_changed() -> None:
    assert not use_one_arena(SimpleNamespace(), {})


def test_free_memory_is_returned_to_the_system() -> None:
    kept: list[int] = []

    def malloc_trim(pad: int) -> int:
        kept.append(pad)
        return 1

    library = SimpleNamespace(malloc_trim=malloc_trim)
    assert release_free_memory(library, lambda: MAX_RELEASING_BYTES)
    assert kept == [0]
    assert not release_free_memory(library, lambda: MAX_RELEASING_BYTES + 1)
    assert kept == [0]
    assert not release_free_memory(SimpleNamespace())
