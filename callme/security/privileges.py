"""Preparation for the change of user at start (twistd's ``--uid`` and ``--gid``).

After the change, files of the former user may be inaccessible.
"""

from __future__ import annotations

import codecs
import os
from collections.abc import Sequence
from pathlib import Path

from twisted.python.util import switchUID

_CODECS = ("idna",)
"""Codecs that Python or Twisted otherwise load with the first request or call."""
_FAILED = 255


def load_codecs() -> None:
    """Load the codecs that are needed later, when their files may be inaccessible."""
    for name in _CODECS:
        codecs.lookup(name)


def unwritable_path(
    paths: Sequence[Path], uid: int | None, gid: int | None, *, effective: bool
) -> Path | None:
    """Return the first path that a user may not write; ``None`` if the user may write all.

    A child process becomes the user in the same way as twistd, because only the system can evaluate
    groups, access control lists, and parent directories.

    :param paths: existing files and directories.
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
            # sys.exit() would run the cleanup of the parent in the child.
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if not 0 <= status <= len(paths):
        raise PermissionError(f"this process may not become the user {uid} and the group {gid}")
    return paths[status] if status < len(paths) else None


def _is_writable(path: Path) -> bool:
    mode = os.W_OK | (os.X_OK if path.is_dir() else os.R_OK)
    return os.access(path, mode, effective_ids=True)
