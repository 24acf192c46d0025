from __future__ import annotations

import pytest

from callme.options import Options, Settings

DEFAULTS = Settings("tcp:6777:interface=127.0.0.1", "callme.sqlite", 256, 64, 30)


def parse(*arguments: str, **environ: str) -> Settings:
    options = Options(environ)
    options.parseOptions(arguments)
    assert options.settings is not None
    return options.settings


def test_defaults() -> None:
    assert parse() == DEFAULTS


def test_options_and_environment_mean_the_same_and_options_win() -> None:
    given = ["--database=a", "--concurrency=1", "--per-host=2", "--retention=0", "-p", "80"]
    given.append("--node=n")
    expected = Settings("tcp:80:interface=127.0.0.1", "a", 1, 2, 0, "n")
    environ = {
        "CALLME_PORT": "80",
        "CALLME_DATABASE": "a",
        "CALLME_CONCURRENCY": "1",
        "CALLME_PER_HOST": "2",
        "CALLME_RETENTION": "0",
        "CALLME_NODE": "n",
    }
    assert parse(*given) == expected
    assert parse(**environ) == expected
    assert parse("--database=b", **environ).database == "b"


def test_a_database_may_be_a_file_or_postgresql() -> None:
    for database in ("some file", "postgresql://me@host/db", "postgres:///db"):
        assert parse(f"--database={database}").database == database


@pytest.mark.parametrize(
    "port",
    ["tcp:8080", "tcp:0:interface=\\:\\:1", "unix:/run/callme.sock"],
)
def test_a_port_may_be_any_endpoint(port: str) -> None:
    assert parse(f"--port={port}").port == port


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--port=tcp"], "--port is 'tcp': expected a port number or a Twisted endpoint"),
        (["--port=tcp:x"], "--port is 'tcp:x'"),
        (["--port="], "--port is ''"),
        (["--port=65536"], "at most 65535"),
        (["--database=a\0b"], "--database is"),
        (["--database=mysql://me:hunter2@host/db"], "--database is mysql://..."),
        (["--node=" + "n" * 256], "expected at most 255 printable characters"),
        (["--node=a\nb"], "--node is 'a\\nb'"),
        (["--concurrency=10001"], "--concurrency is '10001': expected an integer from 1 to 10,000"),
        (["--concurrency=1.5"], "--concurrency is '1.5'"),
        (["--per-host=٣"], "--per-host is"),
        (["--retention=99999"], "--retention is '99999'"),
        (["--retention"], "retention"),
        (["argument"], "'argument' is not an option"),
        (["--unknown"], "unknown"),
    ],
)
def test_what_makes_no_sense_ends_in_one_line(arguments: list[str], said: str) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(*arguments)
    message = str(ended.value)
    assert message.startswith("callme: ")
    assert said in message
    assert "\n" not in message
    assert "hunter2" not in message


def test_the_source_of_a_bad_value_is_named() -> None:
    with pytest.raises(SystemExit, match="CALLME_CONCURRENCY is 'many'"):
        parse(CALLME_CONCURRENCY="many")
    with pytest.raises(SystemExit, match="--concurrency is 'none'"):
        parse("--concurrency=none", CALLME_CONCURRENCY="many")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse("--version")
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("callme 0.")
