"""The allocator of the C library: a single arena, whose free memory is returned."""

from __future__ import annotations

import ctypes
import os
import resource
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

_ARENA_MAX = -8
"""The parameter ``M_ARENA_MAX`` of ``mallopt`` (``malloc.h`` of the GNU C library)."""
MAX_RELEASING_BYTES = 192 * 1024 * 1024
"""Maximum resident memory of a process that returns free memory, in bytes."""
VARIABLE = "MALLOC_ARENA_MAX"
"""The environment variable of the C library with the same meaning, which takes precedence."""


def use_one_arena(library: Any = None, environment: Mapping[str, str] = os.environ) -> bool:
    """Make all threads allocate from one arena; call this before the first thread starts.

    By default, each thread has an arena of its own, and other threads cannot reuse the memory that
    SQLite frees in it, so that the memory of a busy daemon grows. Contention for the arena is rare,
    because the interpreter's lock (GIL) lets only one thread at a time run most of callme's code.

    :param library: the C library; that of this process by default.
    :return: whether the allocator accepted the setting, which not every C library has.
    """
    if VARIABLE in environment:
        return False
    try:
        mallopt = (library or ctypes.CDLL(None)).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(_ARENA_MAX, 1))


def resident_bytes() -> int:
    """Return the resident memory of this process in bytes.

    :raises OSError: on a system other than Linux.
    """
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * resource.getpagesize()


def release_free_memory(library: Any = None, resident: Callable[[], int] = resident_bytes) -> bool:
    """Return free memory between allocations to the system; return whether there was any.

    By default, the C library returns only what is free at the end of its heap, so one allocation
    there keeps all that SQLite has freed before it. This takes a few milliseconds, during which no
    thread can allocate memory, but too long in a process above :data:`MAX_RELEASING_BYTES`.

    :param library: the C library; that of this process by default.
    :param resident: returns the resident memory of this process in bytes.
    """
    try:
        trim = (library or ctypes.CDLL(None)).malloc_trim
        is_large = resident() > MAX_RELEASING_BYTES
    except (AttributeError, OSError, TypeError):
        return False
    return not is_large and bool(trim(0))
