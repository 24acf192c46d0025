"""A Prometheus scrape of ``/metrics``, parsed into samples."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from tests.helpers.openapi_checks import check_response
from tests.helpers.world import World

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(world: World, accept: str | None = None) -> tuple[str, str]:
    """Return the text of ``/metrics`` and its content type."""
    headers = {} if accept is None else {"Accept": accept}
    pending = world.http.request("GET", "http://callme:6777/metrics", headers=headers)
    world.http.flush()
    response = world.result(pending)
    text = world.result(response.text("utf-8"))
    received = {
        name.decode().lower(): values[0].decode()
        for name, values in response.headers.getAllRawHeaders()
    }
    check_response("GET", "/metrics", response.code, received, text)
    assert response.code == 200
    return text, received["content-type"]


def samples(world: World) -> Samples:
    found: Samples = {}
    for family in text_string_to_metric_families(scrape(world)[0]):
        for sample in family.samples:
            found[sample.name, frozenset(sample.labels.items())] = sample.value
    return found


def value(found: Samples, name: str, **labels: str) -> float | None:
    return found.get((name, frozenset(labels.items())))


def ticking(world: World) -> World:
    world.scheduler.start()
    return world
