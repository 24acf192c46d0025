"""The Python client, sync and async, with a real daemon."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta, timezone

import pytest

from callme.client import (
    AsyncClient,
    Client,
    Conflict,
    InvalidRequest,
    NotFound,
    ProblemError,
    Unauthorized,
    definition,
)
from tests.helpers.processes import Daemon, Sink, slowdown, wait_for

pytestmark = pytest.mark.daemon
AT = datetime(2028, 11, 26, tzinfo=timezone.utc)
URL = "http://example.com/"


def url(daemon: Daemon) -> str:
    return f"http://127.0.0.1:{daemon.port}"


def test_client_uses_every_operation(daemon: Daemon) -> None:
    daemon.start()
    with Client(url(daemon)) as client:
        task = client.put("ä b ..", AT, URL, json={"n": 1}, labels={"a": "b"})
        key = task["task"]
        assert task["callback_method"] == "POST"
        assert client.get(key)["payload"] == '{"n":1}'
        assert client.put("ä b ..", AT, URL, json={"n": 1}, labels={"a": "b"}) == client.get(key)
        with pytest.raises(Conflict) as conflict:
            client.put("ä b ..", AT, "http://example.com/other")
        assert conflict.value.task is not None
        assert client.put("ä b ..", AT, URL, replace=True, labels={"a": "b"})["payload"] == ""
        with pytest.raises(InvalidRequest, match="retry"):
            client.put("bad", AT, URL, retry=-1)
        assert client.preview("later", timedelta(hours=1), URL)["would"] == "create"
        results = client.batch(definition(f"b.{n}", AT, URL, {"retry": n}) for n in range(3))
        assert [result["status"] for result in results] == [201] * 3
        assert [one["task_name"] for one in client.list(limit=2)] == ["b.0", "b.1", "b.2", "ä b .."]
        assert [one["task"] for one in client.list("b.1", state="scheduled")] == ["b.1@1858809600"]
        assert [one["task"] for one in client.list(label="a:b", due_from=AT)] == [key]
        moved = client.reschedule("b.1", AT + timedelta(days=1), all_states=True)
        assert moved["rescheduled"] == [{"from": "b.1@1858809600", "to": "b.1@1858896000"}]
        joined = client.reschedule_all(AT, spread=2, all_states=True, prefix="b.", due_from=AT)
        assert [one["from"] for one in joined["rescheduled"]] == [
            "b.0@1858809600",
            "b.1@1858896000",
            "b.2@1858809600",
        ]
        assert client.reschedule_all(prefix="b.", state="failed")["rescheduled"] == []
        assert client.delete_all(prefix="b.0", dry_run=True) == {"deleted": 1, "skipped": []}
        assert client.delete_all(prefix="b.0", due_before=AT)["deleted"] == 0
        with pytest.raises(ProblemError, match="no filter"):
            client.delete_all()
        assert client.delete("b.1")["deleted"] == 1
        assert client.delete("b.2@1858809660")["deleted"] == 1
        with pytest.raises(NotFound):
            client.get("b.2@1858809660")
        assert client.put_host("example.com:80", paused=True)["paused"] is True
        assert client.put_host("*", paused=AT)["paused"] == "2028-11-26T00:00:00.000Z"
        found = [(one["host"], one["paused"]) for one in client.hosts(limit=1)]
        assert found == [("example.com:80", True)]
        client.delete_host("*")
        # A setting takes effect within a second.
        wait_for(lambda: not client.health()["all_paused"], 5 * slowdown())
        assert client.forecast(48)["complete"] is True
        assert client.health()["status"] == "ok"


def test_client_waits_for_a_call(daemon: Daemon, sink: Sink) -> None:
    daemon.start()
    with Client(url(daemon)) as client:
        key = client.put("now", timedelta(0), sink.url("/status/200"))["task"]
        assert client.wait(key, timeout=60)["state"] == "succeeded"
    assert sink.count(key) == 1


def test_async_client_waits_for_several_calls(daemon: Daemon, sink: Sink) -> None:
    daemon.start()

    async def main() -> list[str]:
        async with AsyncClient(url(daemon)) as client:
            tasks = [
                await client.put(f"now.{status}", "now", sink.url(f"/status/{status}"), retry=0)
                for status in (200, 500)
            ]
            ended = await asyncio.gather(*(client.wait(one["task"], 60) for one in tasks))
            assert [one["task"] async for one in client.list()] == [one["task"] for one in ended]
            return [one["state"] for one in ended]

    assert asyncio.run(main()) == ["succeeded", "failed"]


def test_client_sends_its_token(daemon: Daemon) -> None:
    token = "a-token-of-many-characters"
    tokens = daemon.directory / "tokens"
    tokens.write_text(token + "\n")
    tokens.chmod(0o600)
    daemon.options = (f"--token-file={tokens}",)
    daemon.start()
    with Client(url(daemon)) as client, pytest.raises(Unauthorized):
        client.get("a@60")
    with Client(url(daemon), token) as client:
        assert list(client.list()) == []
