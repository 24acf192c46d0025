"""The change of user at start (twistd's ``--uid`` and ``--gid``): what must be checked before it.

After the change, files of the former user may be out of reach.
"""

from __future__ import annotations

import codecs
import os
from collections.abc import Sequence
from pathlib import Path

from twisted.python.util import switchUID

_CODECS = ("idna",)
"""Codecs that Python or Twisted would otherwise load with the first request or call."""
_FAILED = 255


def load_codecs() -> None:
    """Load the codecs that are used later: their files may be out of reach by then."""
    for name in _CODECS:
        codecs.lookup(name)


def unwritable_path(
    paths: Sequence[Path], uid: int | None, gid: int | None, *, effective: bool
) -> Path | None:
    """Return the first path that a user may not write, or ``None`` if the user may write all.

    A child process becomes the user in the same way as twistd will, because only the system
    knows all rules: groups, access control lists, and directories on the way.

    :param paths: files and directories that exist.
    :param uid: the user; ``None`` for the current one.
    :param gid: the group; ``None`` for the current one.
    :param effective: whether only the effective ids change (twistd's ``--euid``).
    :raises OSError: when this process may not become the user.
    """
    child = os.fork()
    if child == 0:
        status = _FAILED
        try:
            switchUID(uid, gid, effective)
            unwritable = (number for number, path in enumerate(paths) if not _is_writable(path))
            status = next(unwritable, len(paths))
        finally:
            # Not sys.exit(): the parent's cleanup is not the child's.
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if not 0 <= status <= len(paths):
        raise PermissionError(f"this process may not become the user {uid} and the group {gid}")
    return paths[status] if status < len(paths) else None


def _is_writable(path: Path) -> bool:
    mode = os.W_OK | (os.X_OK if path.is_dir() else os.R_OK)
    return os.access(path, mode, effective_ids=True)
