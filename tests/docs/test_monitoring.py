"""The deployed rules and dashboard: every metric that they name exists."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from tests.helpers.scraping import Samples, samples, ticking
from tests.helpers.world import World

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy/prometheus/callme.rules.yml"
DASHBOARD = ROOT / "deploy/grafana/callme.json"
PAGE = ROOT / "docs/monitoring.md"
# https://prometheus.io/docs/prometheus/latest/configuration/alerting_rules/
RULES_SCHEMA = {
    "type": "object",
    "required": ["groups"],
    "additionalProperties": False,
    "properties": {
        "groups": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["name", "rules"],
                "additionalProperties": False,
                "properties": {
                    "name": {"type": "string"},
                    "rules": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "required": ["alert", "expr", "labels", "annotations"],
                            "additionalProperties": False,
                            "properties": {
                                "alert": {"type": "string", "pattern": "^Callme[A-Za-z]+$"},
                                "expr": {"type": "string"},
                                "for": {"type": "string", "pattern": "^[0-9]+[smh]$"},
                                "labels": {
                                    "type": "object",
                                    "required": ["severity"],
                                    "properties": {"severity": {"enum": ["critical", "warning"]}},
                                },
                                "annotations": {
                                    "type": "object",
                                    "required": ["summary", "description"],
                                    "additionalProperties": {"type": "string"},
                                },
                            },
                        },
                    },
                },
            },
        }
    },
}


def rules() -> list[dict[str, Any]]:
    document = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    jsonschema_rs.validate(RULES_SCHEMA, document)
    return [rule for group in document["groups"] for rule in group["rules"]]


def dashboard() -> Any:
    return json.loads(DASHBOARD.read_text(encoding="utf-8"))


def expressions() -> Iterator[str]:
    for rule in rules():
        yield rule["expr"]
    for panel in dashboard()["panels"]:
        for target in panel["targets"]:
            yield target["expr"]
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            yield re.sub(r"label_values\((.*), \w+\)", r"\1", variable["definition"])


def names_in(expression: str) -> set[str]:
    """Return the metrics that an expression of PromQL names."""
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]|\b(by|without|on) ?\([^)]*\)", "", expression)
    return set(re.findall(r"\b[a-z_]\w*\b(?!\s*\()", bare)) - {"and", "or", "unless"}


def selectors_in(expression: str) -> Iterator[tuple[str, str, str]]:
    """Yield each metric with a label and the value that it is selected by."""
    for name, matchers in re.findall(r"(\w+)\{([^}]*)\}", expression):
        for label, wanted in re.findall(r'(\w+)!?="([^"]*)"', matchers):
            yield name, label, wanted


@pytest.fixture
def known(world: World) -> Samples:
    world.put()
    return samples(ticking(world))


def test_rules_and_dashboard_query_exported_metrics(known: Samples) -> None:
    names = {name for name, _ in known} | {"up"}
    asked = set()
    for expression in expressions():
        asked |= names_in(expression)
        assert names_in(expression) <= names, expression
        for name, label, wanted in selectors_in(expression):
            values = {
                value
                for one, labels in known
                if one == name
                for key, value in labels
                if key == label
            }
            assert label in ("job", "instance") or wanted in values, expression
    # Nearly every metric is used.
    assert {name for name in names if name.startswith("callme_")} - asked <= {
        "callme_attempt_duration_seconds_count",
        "callme_attempt_duration_seconds_sum",
        "callme_attempt_lateness_seconds_count",
        "callme_attempt_lateness_seconds_sum",
        "callme_commit_operations_bucket",
        "callme_tasks_counted_timestamp_seconds",
    } | {name for name in names if name.endswith("_created")}


def test_every_metric_and_alert_is_documented(known: Samples) -> None:
    page = PAGE.read_text(encoding="utf-8")
    for rule in rules():
        assert f"`{rule['alert']}`" in page
    for name, _ in known:
        if name.startswith("callme_") and not name.endswith("_created"):
            assert f"`{re.sub('_(bucket|sum|count)$', '', name)}" in page, name
    told = {re.sub("_(bucket|sum|count)$", "", name) for name, _ in known}
    for name in re.findall(r"`(callme_\w+)", page):
        assert name in told, name


def test_dashboard_matches_the_grafana_schema() -> None:
    board = dashboard()
    assert (board["title"], board["uid"]) == ("callme", "callme")
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        assert panel["type"] in ("stat", "timeseries")
        assert panel["title"]
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, f"{panel['title']} lies on another panel"
        taken |= cells


@pytest.mark.parametrize(
    "arguments", [["check", "rules", RULES], ["test", "rules", ROOT / "tests/docs/alerts.yml"]]
)
def test_promtool_accepts_the_rules(arguments: list[Any]) -> None:
    if shutil.which("promtool") is None:
        if os.environ.get("CI"):
            pytest.fail("promtool is missing: install Debian's package prometheus")
        pytest.skip("promtool is not installed")
    done = subprocess.run(
        ["promtool", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
