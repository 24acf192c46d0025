"""The mutants that no test can notice, each with the reason."""

from __future__ import annotations

import sys
from pathlib import Path

from attrs import frozen

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@frozen(kw_only=True)
class Equivalent:
    """A mutant that behaves like the original as far as anyone can observe.

    :ivar reason: why, in one sentence.
    """

    module: str
    function: str
    was: str
    becomes: str
    reason: str
    nth: int = 1

    @property
    def identity(self) -> tuple[str, str, str, str, int]:
        """The identity of the mutant."""
        return self.module, self.function, self.was, self.becomes, self.nth


_FILE = Path(__file__).with_name("equivalents.toml")
EQUIVALENTS = tuple(
    Equivalent(**entry)
    for entry in tomllib.loads(_FILE.read_text(encoding="utf-8")).get("equivalent", ())
)
