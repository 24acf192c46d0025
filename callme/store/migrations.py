"""Migrations of a database: numbered SQL files, the first of which creates the whole schema."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources

from attrs import frozen

from .interface import CannotOpen

_NUMBERED = re.compile(r"(\d{4})_\w+\.sql")
_UPGRADE = re.compile(r"upgrade_(\d{4})\.sql")


@frozen(kw_only=True)
class Migrations:
    """Migrations to the newest schema.

    :ivar numbered: SQL by the schema version that it creates; the first one, the baseline, starts
        from an empty database.
    :ivar upgrades: SQL by the schema version that it upgrades to the version of the baseline.
    """

    numbered: Mapping[int, str]
    upgrades: Mapping[int, str]

    @property
    def newest(self) -> int:
        """The schema version of an up-to-date database."""
        return max(self.numbered)

    def pending(self, version: int, database: str) -> list[tuple[int, str]]:
        """Return the migrations that a database lacks: the version that each creates, and its SQL.

        :param version: the schema version of the database; 0 if it is empty.
        :param database: the name of the database, for errors.
        :raises CannotOpen: if the schema is from a newer callme, or too old to migrate.
        """
        baseline = min(self.numbered)
        if version > self.newest:
            raise CannotOpen(
                f"{database} has schema {version}, from a newer callme; "
                f"this one knows schemas up to {self.newest}"
            )
        if version in self.upgrades:
            rest = [(number, sql) for number, sql in self.numbered.items() if number > baseline]
            return [(baseline, self.upgrades[version]), *rest]
        if 0 < version < baseline:
            oldest = min(self.upgrades, default=baseline)
            raise CannotOpen(
                f"{database} has schema {version}, from an older callme; "
                f"this one migrates from schema {oldest} on"
            )
        return [(number, sql) for number, sql in self.numbered.items() if number > version]


def read_migrations(package: str) -> Migrations:
    """Return the migrations in the directory ``migrations`` of a package."""
    numbered, upgrades = dict[int, str](), dict[int, str]()
    files = (resources.files(package) / "migrations").iterdir()
    for file in sorted(files, key=lambda entry: entry.name):
        for pattern, found in ((_NUMBERED, numbered), (_UPGRADE, upgrades)):
            if match := pattern.fullmatch(file.name):
                found[int(match[1])] = file.read_text(encoding="utf-8")
    return Migrations(numbered=numbered, upgrades=upgrades)
