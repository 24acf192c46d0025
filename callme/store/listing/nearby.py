"""The existing task nearest to an unknown key or name, for suggestions in errors."""

from __future__ import annotations

from ...core.text.nearest import Nearest
from ...core.times import Key, is_key
from ..interface import Cursor
from .sources import KEYS

_TIMES = (
    f"SELECT trigger_at FROM {KEYS} WHERE task_name = ? AND trigger_at < ? "
    "ORDER BY trigger_at DESC LIMIT 1",
    f"SELECT trigger_at FROM {KEYS} WHERE task_name = ? AND trigger_at > ? "
    "ORDER BY trigger_at LIMIT 1",
)
_NAMES = (
    f"SELECT task_name FROM {KEYS} WHERE task_name < ? ORDER BY task_name DESC LIMIT 1",
    f"SELECT task_name FROM {KEYS} WHERE task_name > ? ORDER BY task_name LIMIT 1",
)
"""The neighbours of a name in the index, which make a wrong request cheap to answer."""


def nearest_task(cursor: Cursor, target: Key | str, prefix: str) -> Key | str | None:
    """Return the key with the same name and the nearest time, or else a similar name, if any.

    :param prefix: the beginning of the names that the client may see, including the target's.
    """
    name = target.task_name if isinstance(target, Key) else target
    if isinstance(target, Key):
        at = target.trigger_at
        rows = [cursor.execute(statement, (name, at)).fetchone() for statement in _TIMES]
        times: list[int] = [row[0] for row in rows if row is not None and is_key(name, row[0])]
        if times:
            return Key(name, min(times, key=lambda time: abs(time - at)))
    rows = [cursor.execute(statement, (name,)).fetchone() for statement in _NAMES]
    # A damaged name may not be a text, or not a valid name.
    found = [row[0] for row in rows if row is not None and is_key(row[0], 0)]
    names: list[str] = [name for name in found if name.startswith(prefix)]
    return Nearest(names).find(name) if names else None
