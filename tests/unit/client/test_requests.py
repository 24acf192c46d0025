"""Requests of the client: definitions, times and paths."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any, get_type_hints

import pytest

from callme.client import Filters, Parameters, requests
from callme.core.parameters import PARAMETERS
from tests.helpers.openapi_checks import COMPONENTS, PATHS

NOW = datetime(2026, 11, 24, 10, 0, 1, tzinfo=timezone.utc)
URL = "http://example.com/"


def test_parameters_of_the_client_are_those_of_the_api() -> None:
    ours = set(get_type_hints(Parameters)) - {"json", "data"}
    assert ours == {one.name for one in PARAMETERS} - {"task_name", "trigger_at", "callback"}


def test_filters_of_the_client_are_those_of_the_api() -> None:
    listed = PATHS["/status"]["get"]["parameters"]
    names = {COMPONENTS["parameters"][one["$ref"].rpartition("/")[2]]["name"] for one in listed}
    assert set(get_type_hints(Filters)) == names - {"pretty"}


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        (datetime(2028, 11, 26, tzinfo=timezone.utc), 1858809600),
        (datetime(2028, 11, 26, 1, tzinfo=timezone(timedelta(hours=1))), 1858809600),
        (timedelta(0), 1795514401),
        (timedelta(seconds=1), 1795514460),
        (timedelta(minutes=5), 1795514760),
        (timedelta(seconds=59), 1795514460),
        ("+5m", "+5m"),
        (1858809637, 1858809637),
    ],
)
def test_time_is_converted_for_the_api(at: Any, expected: object) -> None:
    assert requests.time_of(at, lambda: NOW) == expected


@pytest.mark.parametrize("at", [datetime(2028, 11, 26), timedelta(seconds=-1)])
def test_time_without_meaning_is_refused(at: Any) -> None:
    with pytest.raises(ValueError, match="expected"):
        requests.time_of(at)


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        (1858809600, True),
        ("1858809600", True),
        ("2028-11-26T09:00[Europe/Berlin]", True),
        ("+6h", False),
        ("6h", False),
        ("PT5M", False),
        ("now", False),
        ("", False),
    ],
)
def test_absolute_time_is_recognized(at: object, expected: bool) -> None:
    assert requests.is_absolute(at) is expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"json": {"a": [1]}}, {"payload": {"a": [1]}, "callback_method": "POST"}),
        (
            {"json": "text"},
            {
                "payload": '"text"',
                "callback_method": "POST",
                "headers": {"Content-Type": "application/json"},
            },
        ),
        ({"data": "text"}, {"payload": "text", "callback_method": "POST"}),
        ({"data": b"\xff"}, {"payload_base64": "/w==", "callback_method": "POST"}),
        ({"data": "x", "callback_method": "PUT"}, {"payload": "x", "callback_method": "PUT"}),
        ({"payload": "x"}, {"payload": "x"}),
        ({"retry": 0}, {"retry": 0}),
    ],
)
def test_payload_becomes_the_parameters_of_the_api(given: Any, expected: dict[str, Any]) -> None:
    fixed = {"task_name": "a", "trigger_at": "now", "callback": URL}
    assert requests.definition("a", "now", URL, given) == fixed | expected


def test_two_payloads_are_refused() -> None:
    with pytest.raises(ValueError, match="json and payload exclude each other"):
        requests.definition("a", "now", URL, {"json": 1, "payload": "1"})


@pytest.mark.parametrize(
    ("target", "path"),
    [("a b", "a%20b"), ("ä@1858809600", "%C3%A4@1858809600"), ("..", "%2E%2E"), ("a?b", "a%3Fb")],
)
def test_target_is_encoded_for_a_path(target: str, path: str) -> None:
    assert requests.path_of(target) == path


def test_name_in_the_place_of_a_key_is_refused() -> None:
    with pytest.raises(ValueError, match="'a' is not accepted: expected NAME@MINUTE"):
        requests.get("a")


def test_empty_target_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        requests.delete("")


def test_flags_and_absent_parameters_are_encoded_for_the_api() -> None:
    request = requests.page(None, {"future_only": True, "limit": 0})
    assert request.parameters == [("future_only", "true"), ("limit", "0")]
    assert requests.reschedule("a", None, all_states=False).parameters == []


def test_filters_are_encoded_for_the_api() -> None:
    due = datetime(2028, 11, 26, tzinfo=timezone.utc)
    request = requests.page("a", {"label": ["a:1", "b:2"], "due_from": due, "due_before": "+6h"})
    assert request.parameters == [
        ("label", "a:1"),
        ("label", "b:2"),
        ("due_from", "1858809600"),
        ("due_before", "+6h"),
    ]


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (requests.put({"trigger_at": 60}, replace=False, create=False, dry_run=False), True),
        (requests.put({"trigger_at": "6h"}, replace=False, create=False, dry_run=False), False),
        (requests.put({"trigger_at": 60}, replace=True, create=False, dry_run=False), False),
        (requests.put({"trigger_at": 60}, replace=False, create=True, dry_run=False), False),
        (requests.batch([{"trigger_at": 60}], dry_run=False), True),
        (requests.batch([{"trigger_at": 60}, {"trigger_at": "6h"}], dry_run=False), False),
        (requests.delete("a"), True),
        (requests.reschedule("a", 60, all_states=True), False),
    ],
)
def test_request_is_repeatable_if_its_effect_is_the_same(
    request_: requests.Request[Any], expected: bool
) -> None:
    assert request_.is_repeatable is expected
