"""The allocator of the C library: one arena for all threads, whose free memory is returned."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from typing import Any

_ARENA_MAX = -8
"""The parameter ``M_ARENA_MAX`` of ``mallopt`` (``malloc.h`` of the GNU C library)."""
VARIABLE = "MALLOC_ARENA_MAX"
"""The environment variable of the C library with the same meaning, which takes precedence."""


def use_one_arena(library: Any = None, environment: Mapping[str, str] = os.environ) -> bool:
    """Let all threads allocate from one arena; call it before there are threads.

    By default, each thread gets an arena of its own, and the others cannot use what SQLite frees in
    it: the memory of a busy daemon grows. The interpreter's lock lets only one thread at a time run
    most of callme's code, so threads rarely wait for the arena.

    :param library: the C library; that of this process by default.
    :return: whether the allocator accepted it; not every C library has the setting.
    """
    if VARIABLE in environment:
        return False
    try:
        mallopt = (library or ctypes.CDLL(None)).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(_ARENA_MAX, 1))


def release_free_memory(library: Any = None) -> bool:
    """Return free memory between allocations to the system; return whether there was any.

    By default, the C library returns only what is free at the end of its heap, so one allocation
    there keeps all that SQLite has freed before it. It takes a millisecond.

    :param library: the C library; that of this process by default.
    """
    try:
        trim = (library or ctypes.CDLL(None)).malloc_trim
    except (AttributeError, OSError, TypeError):
        return False
    return bool(trim(0))
