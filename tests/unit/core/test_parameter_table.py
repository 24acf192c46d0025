"""The table of task parameters: the one place that lists them."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import callme
from callme.core.parameters import PARAMETERS
from callme.core.task import Definition
from callme.store.sqlite.file import migrate

PACKAGE = Path(callme.__file__).parent
ENTRY = """
    Parameter(
        name="colour",
        parse=_plain(_parse_method),
        schema=string(maxLength=MAX_METHOD_LENGTH),
        type_name="string",
        documentation="Colour of the task.",
        label="Colour",
    ),
)
\"\"\"Every parameter"""
USE = """
import json
from tests.helpers.tasks import NOON, SINK
from tests.helpers.world import World

world = World()

def ask(method, path, body=None, accept="application/json"):
    asking = world.http.request(
        method,
        "http://localhost:6777" + path,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Accept": accept},
    )
    world.http.flush()
    return world.result(world.result(asking).text())

body = {"trigger_at": NOON, "callback": SINK}
created = json.loads(ask("PUT", "/task/plain", body))
assert created["colour"] == "RED", created
refused = json.loads(ask("PUT", "/task/task", {**body, "colour": 1}))
assert [error["pointer"] for error in refused["errors"]] == ["/colour"], refused
ask("PUT", "/task/task", {**body, "colour": "blue"})
stored = json.loads(ask("GET", f"/status/task@{NOON}"))
assert stored["colour"] == "BLUE", stored
listed = json.loads(ask("GET", "/status/task"))["tasks"]
assert [task["colour"] for task in listed] == ["BLUE"], listed
page = ask("GET", f"/page/task/task@{NOON}", accept="text/html")
assert "<dt>Colour</dt><dd>BLUE</dd>" in page, page
schemas = json.loads(ask("GET", "/openapi.json"))["components"]["schemas"]
new = schemas["NewTask"]["properties"]["colour"]
assert new["description"] == "Colour of the task." and new["default"] == "RED", new
for name in ("Task", "ListedTask"):
    # A damaged value is null.
    colour = {"anyOf": [{"type": "string"}, {"type": "null"}]}
    assert schemas[name]["properties"]["colour"] == colour, name
"""


def test_new_parameter_is_one_entry_one_attribute_and_one_migration(tmp_path: Path) -> None:
    """The daemon of a copy of callme takes, stores, returns, documents and displays it."""
    copy = tmp_path / "callme"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    insert(copy / "core/parameters.py", '\n)\n"""Every parameter', ENTRY)
    last = "    on_success: str | None = None\n"
    insert(copy / "core/task.py", last, last + '    colour: str = "RED"\n')
    migrations = copy / "store/sqlite/migrations"
    number = 1 + max(int(file.name[:4]) for file in migrations.glob("[0-9]*.sql"))
    (migrations / f"{number:04}_colour.sql").write_text(
        "ALTER TABLE task ADD COLUMN colour TEXT NOT NULL DEFAULT 'RED';"
    )
    path = f"{tmp_path}{os.pathsep}{PACKAGE.parent}"
    used = subprocess.run(
        [sys.executable, "-c", USE],
        env={**os.environ, "PYTHONPATH": path},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert used.returncode == 0, used.stderr


def insert(module: Path, old: str, new: str) -> None:
    """Replace a text that a module contains once."""
    text = module.read_text(encoding="utf-8")
    assert text.count(old) == 1
    module.write_text(text.replace(old, new), encoding="utf-8")


def test_table_has_every_attribute_of_a_definition_in_order() -> None:
    names = [parameter.name for parameter in PARAMETERS]
    assert names == list(Definition._fields)


def test_table_has_the_types_of_the_columns_of_sqlite() -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    migrate(connection)
    columns = {row[1]: row[2] for row in connection.execute("PRAGMA table_info(task)")}
    connection.close()
    for parameter in PARAMETERS:
        assert columns[parameter.name] == parameter.column.sqlite_type
