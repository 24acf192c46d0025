"""The file of the keys that callbacks are signed with."""

from __future__ import annotations

from pathlib import Path

from attrs import define, field
from twisted.logger import Logger

from .core.signing import SigningKeys
from .secret_file import UnusableFile, read_secret

log = Logger(namespace="callme")


@define(eq=False)
class KeyFile:
    """A file of signing keys, which may be read again.

    :ivar keys: what stood in it when it last could be read.
    :raises UnusableFile: when it is made of a file that cannot be read, that others can
        read, or that holds something else.
    """

    _path: Path
    keys: SigningKeys = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.keys = self._read()

    def reload(self) -> None:
        """Read the file again; where it cannot be used, the keys stay as they are."""
        try:
            self.keys = self._read()
        except UnusableFile as error:
            log.error("the signing keys stay as they were: {error}", error=str(error))
        else:
            log.info("{count} signing keys were read again", count=len(self.keys))

    def _read(self) -> SigningKeys:
        try:
            return SigningKeys.parse(read_secret(self._path))
        except OSError as error:
            raise UnusableFile("signing key", self._path, error.strerror) from None
        except ValueError as error:
            raise UnusableFile("signing key", self._path, error) from None
