"""What twistd knows callme by: its options, and the service that it is, certain to start."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .config import Options, Settings
from .security.secret_file import SecretFile, UnusableFile
from .security.signing import SigningKeys
from .security.tokens import Tokens
from .server.auth import Gate
from .server.listen import CannotListen, check_bindable
from .service import Daemon, startup_message
from .store.interface import CannotOpen
from .store.open import open_store_database, startup_counts
from .store.sqlite.database import DatabaseFile


def load_tokens(path: Path) -> SecretFile[Tokens]:
    """Return a file as that of the tokens that callers must show."""
    return SecretFile(path, "token", Tokens.parse)


def load_keys(path: Path) -> SecretFile[SigningKeys]:
    """Return a file as that of the keys that callbacks are signed with."""
    return SecretFile(path, "signing key", SigningKeys.parse)


__all__ = ["Options", "makeService"]


def makeService(options: Options) -> Daemon:
    """Return the daemon, once it is certain that it can start.

    Twistd calls this before it goes into the background: what is wrong is said
    in one line on the terminal, and the exit status is 1.
    """
    # Here, so that to import this module installs no reactor.
    from twisted.internet import reactor  # noqa: PLC0415

    settings = options.settings
    assert settings is not None, "options must have been parsed"
    twistd: Mapping[str, Any] = options.parent or {}
    if twistd.get("chroot"):
        # Files, the database's among them, would have other paths from then on, and libraries
        # load parts of themselves, and of the system, when they need them.
        raise SystemExit("callme: callme cannot run under twistd's --chroot: use a container")
    # twistd changes to its --rundir only after this.
    rundir = twistd.get("rundir", ".")
    try:
        exposed = check_bindable(settings.port)
        gate = _gate(settings, exposed, rundir)
        key_file = _key_file(settings, rundir)
        database = open_store_database(settings.database, settings.node, rundir)
        if isinstance(database, DatabaseFile):
            _give_to(options, database.path)
        standing = startup_counts(database)
    except (CannotOpen, CannotListen, UnusableFile) as error:
        raise SystemExit(f"callme: {error}") from None
    if options.parent and not options.parent.get("nodaemon", True):
        # twistd is about to leave the terminal, and to become another process: what it logs
        # does not show there, and the name that it will have is not known here.
        print(startup_message(settings.port, database, settings.node, standing))  # noqa: T201
    return Daemon(settings, database, reactor, gate=gate, key_file=key_file, standing=standing)


def _gate(settings: Settings, exposed: bool, rundir: str) -> Gate:
    """Return what decides who may ask.

    :param exposed: whether other machines may reach the port.
    """
    if settings.token_file is not None:
        return Gate(file=load_tokens(Path(rundir, settings.token_file).absolute()))
    if exposed and not settings.no_auth:
        raise CannotListen(
            f"{settings.port} may be reached from other machines: give a --token-file, or "
            "--no-auth if whoever reaches it may ask"
        )
    return Gate(any_host=exposed)


def _key_file(settings: Settings, rundir: str) -> SecretFile[SigningKeys] | None:
    if settings.signing_key_file is None:
        return None
    return load_keys(Path(rundir, settings.signing_key_file).absolute())


def _give_to(options: Options, path: Path) -> None:
    """Give the database to the user that twistd will run as, if it is told one."""
    uid, gid = (options.parent["uid"], options.parent["gid"]) if options.parent else (None, None)
    if uid is not None or gid is not None:
        try:
            os.chown(path, -1 if uid is None else uid, -1 if gid is None else gid)
        except OSError as error:
            raise CannotOpen(f"{path} cannot be given to another user: {error.strerror}") from error
