"""The methods of both clients, compared with the OpenAPI document and with each other."""

from __future__ import annotations

import inspect

from callme.client import AsyncClient, Client
from tests.helpers.openapi_checks import PATHS

METHODS = {
    "getTasks": "list",
    "getTasksOfName": "list",
    "getTask": "get",
    "getStatus": "list",
    "getStatusOfName": "list",
    "getStatusOfTask": "get",
    "putTask": "put",
    "putTaskOfName": "put",
    "putTaskOfKey": "put",
    "putBatch": "batch",
    "deleteTask": "delete",
    "deleteTasksOfName": "delete",
    "deleteTasks": "delete_all",
    "rescheduleTasks": "reschedule_all",
    "rescheduleTask": "reschedule",
    "rescheduleTasksOfName": "reschedule",
    "getHosts": "hosts",
    "putHost": "put_host",
    "deleteHost": "delete_host",
    "forecast": "forecast",
    "health": "health",
}
"""The method for each operation."""
FOR_OTHER_PROGRAMS = {"metrics", "openapi", "service"}
"""The operations for Prometheus, generators and monitors: they have no method."""


def public(client: type) -> dict[str, inspect.Signature]:
    return {
        name: inspect.signature(method)
        for name, method in inspect.getmembers(client, inspect.isfunction)
        if not name.startswith("_")
    }


def test_every_operation_has_a_method() -> None:
    operations = {
        operation["operationId"]
        for item in PATHS.values()
        for method, operation in item.items()
        if method in {"get", "put", "post", "delete"}
    }
    assert operations - FOR_OTHER_PROGRAMS == set(METHODS)
    assert set(METHODS.values()) <= set(public(Client))


def test_both_clients_have_the_same_methods_and_parameters() -> None:
    sync, asynchronous = public(Client), public(AsyncClient)
    assert {name: list(one.parameters.values()) for name, one in sync.items()} == {
        name: list(one.parameters.values()) for name, one in asynchronous.items()
    }
