"""The command ``callme`` with a real daemon: output, files and exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner, Result

from callme.cli import filters
from callme.cli.main import cli
from tests.helpers.processes import Daemon, Sink

pytestmark = pytest.mark.daemon
KEY = "a@1858809600"
URL = "http://example.com/"
Run = Callable[..., Result]


@pytest.fixture
def callme(daemon: Daemon, tmp_path: Path) -> Run:
    """Run the command; fail unless its exit code is the expected one."""
    daemon.start()
    environ = {"CALLME_URL": f"http://127.0.0.1:{daemon.port}", "XDG_CONFIG_HOME": str(tmp_path)}

    def run(*arguments: str, code: int = 0, text: str | None = None) -> Result:
        result = CliRunner(env=environ).invoke(cli, arguments, input=text)
        assert result.exit_code == code, result.output
        return result

    return run


def test_task_is_registered_displayed_moved_and_deleted(callme: Run) -> None:
    options = ("--header", "X-A: 1", "--label", "b=2", "--retry", "3", "--expect", "2xx")
    put = callme("put", "a", "1858809600", URL, "--json", '{"n": 1}', *options)
    assert put.stdout == f"{KEY}\n"
    task = json.loads(callme("show", KEY, "--json").stdout)
    assert task["payload"] == '{"n":1}'
    assert task["headers"] == {"X-A": "1"}
    assert (task["labels"], task["retry"]) == ({"b": "2"}, 3)
    assert callme("show", KEY).stdout.startswith(f"{KEY}  scheduled\n  call     POST {URL}\n")
    assert callme("ls", "--label", "b=2", "--state", "scheduled").stdout.startswith(KEY)
    assert callme("ls", "--label", "b:3").stdout == ""
    assert json.loads(callme("ls", "a", "--json", "--limit", "1").stdout)["task"] == KEY
    moved = callme("reschedule", KEY, "1858809660", "--all").stdout
    assert moved == f"{KEY} a@1858809660\n"
    assert callme("delete", "a").stdout == "1\n"
    assert callme("forecast").stdout.startswith("0 calls until ")
    assert json.loads(callme("forecast", "--json").stdout)["calls"] == 0


def test_tasks_that_match_filters_are_moved_retried_and_deleted(
    callme: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        callme("put", name, "1858809600", URL, "--label", "c:1")
    moved = callme("reschedule", "1858896000", "--label", "c:1", "--all", "--spread", "2").stdout
    assert moved == f"{KEY} a@1858896000\nb@1858809600 b@1858896060\n"
    assert callme("retry", "--failed", "--host", "example.com:80").stdout == ""
    assert callme("delete", "--prefix", "a").stdout == "1\n"
    assert callme("ls", "--json").stdout.count("\n") == 1
    for wrong in (("retry",), ("delete",), ("delete", "b", "--prefix", "b"), ("reschedule",)):
        callme(*wrong, code=2)
    callme("reschedule", "b", "--spread", "3", code=2)
    callme("reschedule", "b", "+1h", "--prefix", "b", code=2)
    # On a terminal, the command asks before.
    monkeypatch.setattr(filters, "_asks", lambda yes: not yes)
    refused = callme("delete", "--label", "c:1", code=1, text="n\n")
    assert "Delete 1 task?" in refused.output
    moving = ("reschedule", "--label", "c:1", "--all")
    assert "Move 1 task?" in callme(*moving, code=1, text="n\n").output
    assert callme("ls", "--json").stdout.count("b@1858896060") == 1
    assert callme("delete", "--label", "c=1", "--yes").stdout == "1\n"


def test_host_is_paused_and_resumed(callme: Run, daemon: Daemon) -> None:
    for command, is_paused in (("pause", True), ("resume", False)):
        callme(command, "*")
        assert daemon.curl("GET", "/healthz")[1]["all_paused"] is is_paused
    callme("pause", "*", "+30m")
    assert daemon.curl("GET", "/healthz")[1]["all_paused"] is True
    callme("pause", "not a host", code=5)


def test_dry_run_creates_nothing(callme: Run) -> None:
    preview = json.loads(callme("put", "a", "+6h", URL, "--dry-run").stdout)
    assert preview["would"] == "create"
    assert callme("ls").stdout == ""


def test_body_is_read_from_standard_input_and_files(callme: Run, tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(b"\xff")
    callme("put", "a", "1858809600", URL, "--data", f"@{tmp_path / 'body'}")
    assert json.loads(callme("show", KEY, "--json").stdout)["payload_base64"] == "/w=="
    callme("put", "a", "1858809600", URL, "--replace", "--data", "@-", text="text")
    assert json.loads(callme("show", KEY, "--json").stdout)["payload"] == "text"


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (("show", "b@60"), 3, "there is no task b@60"),
        (("show", "b"), 2, "key: 'b' is not accepted: expected NAME@MINUTE"),
        (("wait", "b"), 2, "key: 'b' is not accepted: expected NAME@MINUTE"),
        (("put", "a", "1858809600", "http://example.com/b"), 4, ""),
        (("put", "a", "+6h", URL, "--retry", "-1"), 5, "retry: -1 is not accepted"),
        (
            ("put", "a", "+6h", URL, "--json", "{"),
            2,
            "--json: it is not JSON: Expecting",
        ),
        (("put", "a", "+6h", URL, "--data", "@/none"), 2, "cannot be read"),
        (("put", "a", "+6h", URL, "--label", "b"), 2, "expected KEY:VALUE"),
        (("wait", KEY, "--timeout", "0"), 8, "scheduled"),
        (("--url", "localhost", "ls"), 2, "expected http://"),
        (("--url", "http://127.0.0.1:1", "reschedule", "a"), 7, "at 127.0.0.1:1: [Errno 111]"),
    ],
)
def test_exit_code_and_message_describe_the_error(
    callme: Run, arguments: tuple[str, ...], code: int, expected: str
) -> None:
    callme("put", "a", "1858809600", URL)
    assert expected in callme(*arguments, code=code).stderr


def test_wait_ends_with_the_result_of_the_task(callme: Run, sink: Sink) -> None:
    for status, code in ((200, 0), (500, 1)):
        url = sink.url(f"/status/{status}")
        key = callme("put", f"now.{status}", "now", url, "--retry", "0").stdout.strip()
        shown = callme("wait", key, "--timeout", "20", code=code).stdout
        assert f"ms  {status}" in shown


def test_top_shows_each_host_once(callme: Run, sink: Sink) -> None:
    callme("put", "later", "1858809600", "http://example.com/")
    key = callme("put", "bad", "now", sink.url("/status/500"), "--retry", "0").stdout.strip()
    callme("wait", key, "--timeout", "20", code=1)
    # In a pipe, one view is the default.
    lines = [" ".join(line.split()) for line in callme("top").stdout.splitlines()]
    assert lines[0].endswith("0 due, 0 in flight, 1 failed in the last hour")
    assert lines[3].startswith(f"{urlsplit(sink.url('/')).netloc} 0 0 0 1 1 - ")
    assert lines[3].endswith(" 1 unexpected_status")
    assert lines[4] == "example.com:80 1 0 0 0 0 - -"
    (host,) = [
        host
        for host in json.loads(callme("top", "--json").stdout)["hosts"]
        if host["failed_last_hour"]
    ]
    assert host["reasons"] == {"unexpected_status": 1}
    assert "refused" in callme("--url", "http://127.0.0.1:1", "top", "--once", code=7).stderr


def test_import_creates_tasks_and_writes_errors(callme: Run, tmp_path: Path) -> None:
    good = {"task_name": "a", "trigger_at": 1858809600, "callback": URL, "payload": "x"}
    bad = good | {"task_name": "b", "callback": "ftp://example.com/"}
    file, errors = tmp_path / "tasks.ndjson", tmp_path / "errors.ndjson"
    file.write_text(f"{json.dumps(good)}\n{json.dumps(bad)}\nwrong\n")
    done = callme("import", str(file), "--errors", str(errors), code=1)
    assert done.stdout == "1 created, 0 unchanged, 2 refused\n"
    refused = [json.loads(line) for line in errors.read_text().splitlines()]
    assert [(one["line"], one["status"], one["task"]) for one in refused] == [
        (2, 422, bad),
        (3, 400, None),
    ]
    again = callme("import", str(file), code=1)
    assert again.stdout == "0 created, 1 unchanged, 2 refused\n"
    assert "line 2: callback: " in again.stderr


def test_warnings_are_written_to_standard_error(callme: Run, tmp_path: Path) -> None:
    """A local time that a zone has twice is accepted, and perhaps not meant."""
    twice = "2028-10-29T02:30[Europe/Berlin]"
    put = callme("put", "a", twice, URL)
    assert put.stderr.startswith("warning: ")
    key = put.stdout.strip()
    file = tmp_path / "tasks.csv"
    file.write_text(f"task_name,trigger_at,callback\nb,{twice},{URL}\nc,1858809600,{URL}\n")
    imported = callme("import", str(file))
    assert imported.stderr == f"line 2: {put.stderr}"
    assert imported.stdout == "2 created, 0 unchanged, 0 refused\n"
    moved = callme("reschedule", "c@1858809600", twice, "--all")
    assert moved.stderr == put.stderr
    assert moved.stdout == f"c@1858809600 c@{key.partition('@')[2]}\n"
    assert json.loads(callme("put", "d", twice, URL, "--dry-run").stdout)["warnings"]


def test_export_can_be_imported(callme: Run, tmp_path: Path) -> None:
    file = tmp_path / "tasks.csv"
    file.write_text(f"task_name,trigger_at,callback,retry,label.a\na,1858809600,{URL},3,1\n")
    assert callme("import", str(file)).stdout == "1 created, 0 unchanged, 0 refused\n"
    exported = callme("export").stdout
    task = json.loads(exported)
    assert (task["retry"], task["labels"]) == (3, {"a": "1"})
    again = callme("import", "-", text=exported)
    assert again.stdout == "0 created, 1 unchanged, 0 refused\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script_names_the_command(shell: str) -> None:
    result = CliRunner().invoke(cli, ["completion", shell])
    assert "_CALLME_COMPLETE" in result.output
