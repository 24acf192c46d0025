"""The migrations of a database: numbered files of SQL, in order."""

from __future__ import annotations

import re
from importlib import resources

_NAME = re.compile(r"(\d{4})_\w+\.sql")


def read_migrations(package: str) -> list[str]:
    """Return the SQL of each migration in a package, in order; the first one makes schema 1."""
    files = sorted(
        (
            entry
            for entry in (resources.files(package) / "migrations").iterdir()
            if _NAME.fullmatch(entry.name)
        ),
        key=lambda entry: entry.name,
    )
    return [entry.read_text(encoding="utf-8") for entry in files]
