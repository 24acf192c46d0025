"""The entry point of twistd: callme's options, and the service for them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .caller.tls import (
    ClientCertificate,
    TLSContexts,
    UncheckedNames,
    load_authorities,
    self_check,
)
from .config import Options, Settings
from .process.allocator import use_one_arena
from .security.privileges import load_codecs, unwritable_path
from .security.proxies import TrustedProxies
from .security.secret_file import SecretFile, UnusableFile
from .security.signing import SigningKeys
from .security.tokens import Tokens
from .server.auth import Gate
from .server.listen import CannotListen, check_bindable
from .service import Daemon, startup_message
from .store.interface import CannotOpen
from .store.open import open_store_database, release, startup_counts
from .store.sqlite.file import DatabaseFile

__all__ = ["Options", "makeService"]


def load_tokens(path: Path) -> SecretFile[Tokens]:
    """Return the token file at a path.

    :raises UnusableFile: when it cannot be used.
    """
    return SecretFile(path=path, kind="token", parse=Tokens.parse)


def load_keys(path: Path) -> SecretFile[SigningKeys]:
    """Return the file of signing keys at a path.

    :raises UnusableFile: when it cannot be used.
    """
    return SecretFile(path=path, kind="signing key", parse=SigningKeys.parse)


def makeService(options: Options) -> Daemon:
    """Return the daemon, after checking that it can start.

    twistd calls this before it goes into the background, so that an error is one line on the
    terminal, with exit status 1.
    """
    # The import is local because it installs the reactor.
    from twisted.internet import reactor  # noqa: PLC0415

    settings = options.settings
    assert settings is not None, "options must have been parsed"
    twistd: Mapping[str, Any] = options.parent or {}
    if twistd.get("chroot"):
        # Inside it, the paths of the database and other files would differ, and libraries could not
        # load files on demand.
        raise SystemExit("callme: callme cannot run under twistd's --chroot: use a container")
    # twistd changes to its --rundir only after this function.
    rundir = twistd.get("rundir", ".")
    load_codecs()
    use_one_arena()
    try:
        self_check()
        exposed = check_bindable(settings.port)
        gate = _gate(settings, exposed, rundir)
        key_file = _key_file(settings, rundir)
        contexts = _contexts(settings, rundir)
        database = open_store_database(
            settings.database,
            settings.node,
            rundir,
            backs_up=settings.backup_before_migration,
        )
        try:
            if isinstance(database, DatabaseFile):
                _change_owner(twistd, database.path)
            counts = startup_counts(database)
        except BaseException:
            release(database)
            raise
    except (CannotOpen, CannotListen, UnusableFile, UncheckedNames) as error:
        raise SystemExit(f"callme: {error}") from None
    if options.parent and not options.parent.get("nodaemon", True):
        # In the background, twistd logs to a file, so the message is printed here. The default
        # name of the daemon is omitted, because it contains the process id of the background.
        print(startup_message(settings.port, database, settings.node, counts))  # noqa: T201
    return Daemon(
        settings,
        database,
        reactor,
        gate=gate,
        key_file=key_file,
        contexts=contexts,
        startup_counts=counts,
    )


def _gate(settings: Settings, exposed: bool, rundir: str) -> Gate:
    """Return the gate that authorizes requests.

    :param exposed: whether other machines can reach the port.
    """
    origins = frozenset(settings.origin)
    proxies = TrustedProxies(networks=settings.trusted_proxy)
    if settings.token_file is not None:
        file = load_tokens(Path(rundir, settings.token_file).absolute())
        return Gate(file=file, origins=origins, proxies=proxies)
    if exposed and not settings.no_auth:
        raise CannotListen(
            f"{settings.port} can be reached from other machines: give a --token-file, or "
            "--no-auth to accept every request"
        )
    return Gate(any_host=exposed, origins=origins, proxies=proxies)


def _key_file(settings: Settings, rundir: str) -> SecretFile[SigningKeys] | None:
    if settings.signing_key_file is None:
        return None
    return load_keys(Path(rundir, settings.signing_key_file).absolute())


def _contexts(settings: Settings, rundir: str) -> TLSContexts:
    return TLSContexts(
        authorities=[
            authority
            for path in settings.ca_file
            for authority in load_authorities(Path(rundir, path).absolute())
        ],
        certificates=[
            setting.with_value(
                SecretFile(
                    path=Path(rundir, setting.value).absolute(),
                    kind="client certificate",
                    parse=ClientCertificate.parse,
                )
            )
            for setting in settings.client_cert
        ],
    )


def _change_owner(twistd: Mapping[str, Any], path: Path) -> None:
    """Make the user and group of twistd's --uid and --gid the owners of the database.

    :raises CannotOpen: when this is not permitted, or when they may not write to its directory,
        where SQLite creates further files.
    """
    # The runner `twist` does not have these options.
    uid, gid = twistd.get("uid"), twistd.get("gid")
    if uid is None and gid is None:
        return
    try:
        os.chown(path, -1 if uid is None else uid, -1 if gid is None else gid)
    except OSError as error:
        raise CannotOpen(f"the owner of {path} cannot be changed: {error.strerror}") from error
    try:
        effective = bool(twistd.get("euid"))
        unwritable = unwritable_path([path.parent, path], uid, gid, effective=effective)
    except OSError as error:
        raise CannotOpen(str(error)) from error
    if unwritable is not None:
        raise CannotOpen(
            f"{unwritable} is not writable by the user of --uid and --gid ({uid}:{gid}): change "
            "its owner, or put the database into a directory of that user"
        )
