"""Settings of the command: options, the environment, and a file, in this order."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import frozen

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DEFAULT_URL = "http://localhost:6777"
KNOWN = frozenset({"url", "token"})


class SettingsError(Exception):
    """A settings file that cannot be used."""


@frozen
class Settings:
    """The address of callme, and the token."""

    url: str
    token: str | None


def path_of_settings(environ: Mapping[str, str]) -> Path:
    """Return the path of the settings file: ``~/.config/callme.toml``, or as XDG says."""
    directory = environ.get("XDG_CONFIG_HOME")
    return (Path(directory) if directory else Path.home() / ".config") / "callme.toml"


def read_settings(url: str | None, environ: Mapping[str, str] | None = None) -> Settings:
    """Return the settings.

    A token of the file belongs to the address of the file: it is not sent to another one.

    :param url: the address of the command line.
    :raises SettingsError: if the file cannot be read, or contains something unknown.
    """
    environ = os.environ if environ is None else environ
    stored = _read_file(path_of_settings(environ))
    chosen = url or environ.get("CALLME_URL") or stored.get("url") or DEFAULT_URL
    token = environ.get("CALLME_TOKEN")
    if not token and chosen == stored.get("url", DEFAULT_URL):
        token = stored.get("token")
    return Settings(chosen, token or None)


def _read_file(path: Path) -> dict[str, str]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: it cannot be read: {error}") from error
    try:
        found: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path}: it is not TOML: {error}") from error
    for name, value in found.items():
        if name not in KNOWN or not isinstance(value, str):
            raise SettingsError(f"{path}: {name} is not accepted: expected url and token, as text")
    return found
