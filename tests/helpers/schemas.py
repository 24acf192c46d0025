"""Databases of earlier schemas, made by the migrations of their time, and further migrations."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import psycopg
from attrs import evolve

from callme.store.migrations import Migrations
from callme.store.postgresql.dsn import SCHEMA
from callme.store.sqlite.file import APPLICATION_ID

SCHEMAS = Path(__file__).parents[1] / "store_contract" / "schemas"


def with_more(known: Migrations, *scripts: str) -> Migrations:
    """Return some migrations and further ones behind them."""
    more = {known.newest + place: script for place, script in enumerate(scripts, start=1)}
    return evolve(known, numbered={**known.numbered, **more})


def make_sqlite(path: Path, version: int) -> sqlite3.Connection:
    """Make a file of an earlier schema, and return a connection to it."""
    connection = sqlite3.connect(path)
    for script in sorted((SCHEMAS / "sqlite_5").glob("*.sql"))[:version]:
        connection.executescript(script.read_text(encoding="utf-8"))
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {version}")
    return connection


def make_postgresql(connection: psycopg.Connection, version: int) -> None:
    """Make an earlier schema in an empty database."""
    connection.execute(f"CREATE SCHEMA {SCHEMA}".encode())
    connection.execute(f"SET search_path = {SCHEMA}".encode())
    connection.execute(
        b"CREATE TABLE migration "
        b"(number INTEGER PRIMARY KEY, made_at TIMESTAMPTZ NOT NULL DEFAULT now())"
    )
    for number, script in enumerate(sorted((SCHEMAS / "postgresql_4").glob("*.sql"))[:version], 1):
        connection.execute(script.read_bytes())
        connection.execute("INSERT INTO migration (number) VALUES (%s)", (number,))
    connection.commit()
