from __future__ import annotations

import re
import sys

import pytest

from callme import __version__
from callme.config import Options, Settings

DEFAULTS = Settings(
    port="tcp:6777:interface=127.0.0.1",
    database="callme.sqlite",
    concurrency=256,
    per_host=64,
    retention=30,
)


def parse(*arguments: str, **environ: str) -> Settings:
    options = Options(environ)
    options.parseOptions(arguments)
    assert options.settings is not None
    return options.settings


def test_no_options_give_the_defaults() -> None:
    assert parse() == DEFAULTS == Settings()
    assert parse(CALLME_DENY_NETWORK="") == DEFAULTS


def test_option_overrides_the_environment() -> None:
    given = ["--database=a", "--concurrency=1", "--per-host=2", "--retention=0", "-p", "80"]
    given += ["--token-file=t", "--max-connections=7", "--node=n"]
    expected = Settings(
        port="tcp:80:interface=127.0.0.1",
        database="a",
        concurrency=1,
        per_host=2,
        retention=0,
        token_file="t",
        max_connections=7,
        node="n",
    )
    environ = {
        "CALLME_PORT": "80",
        "CALLME_DATABASE": "a",
        "CALLME_CONCURRENCY": "1",
        "CALLME_PER_HOST": "2",
        "CALLME_RETENTION": "0",
        "CALLME_TOKEN_FILE": "t",
        "CALLME_MAX_CONNECTIONS": "7",
        "CALLME_NODE": "n",
    }
    assert parse(*given) == expected
    assert parse(**environ) == expected
    assert parse("--database=b", **environ).database == "b"


def test_database_is_a_file_or_postgresql() -> None:
    for database in ("some file", "postgresql://me@host/db", "postgres:///db"):
        assert parse(f"--database={database}").database == database


@pytest.mark.parametrize(
    ("value", "meant"),
    [("1", True), ("true", True), ("YES", True), ("0", False), ("no", False), ("", False)],
)
def test_flag_in_the_environment_is_parsed(value: str, meant: bool) -> None:
    assert parse(CALLME_NO_AUTH=value).no_auth is meant
    assert parse("--no-auth", CALLME_NO_AUTH=value).no_auth is True


def test_no_auth_contradicts_a_token_file() -> None:
    with pytest.raises(SystemExit, match="--no-auth and CALLME_TOKEN_FILE contradict each other"):
        parse("--no-auth", CALLME_TOKEN_FILE="t")
    with pytest.raises(SystemExit, match="CALLME_NO_AUTH and --token-file contradict each other"):
        parse("--token-file=t", CALLME_NO_AUTH="1")
    with pytest.raises(SystemExit, match="CALLME_NO_AUTH is 'perhaps': expected 1 or 0"):
        parse(CALLME_NO_AUTH="perhaps")


@pytest.mark.parametrize(
    "port",
    ["tcp:8080", "tcp:0:interface=\\:\\:1", "unix:/run/callme.sock"],
)
def test_port_is_a_number_or_an_endpoint(port: str) -> None:
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
        (["--token-file="], "--token-file is '': expected the path of a file"),
        (["--token-file=a\0b"], "--token-file is"),
        (["--max-connections=0"], "--max-connections is '0': expected an integer from 1"),
        (["--no-auth=yes"], "no-auth"),
        (["--origin=callme.example.com"], "--origin is 'callme.example.com': expected an origin"),
        (["--idle-timeout=4"], "--idle-timeout is '4': expected an integer from 5 to 3,600"),
        (["--idle-timeout=3601"], "--idle-timeout is '3601'"),
        (["--signing-key-file="], "--signing-key-file is '': expected the path of a file"),
        (["--deny-network=10.0.0.1/8"], "--deny-network is '10.0.0.1/8': expected a network"),
        (["--allow-network="], "--allow-network is ''"),
        (["--public-only=yes"], "public-only"),
        (["argument"], "'argument' is not an option"),
        (["--unknown"], "unknown"),
    ],
)
def test_invalid_option_is_a_one_line_error(arguments: list[str], said: str) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(*arguments)
    message = str(ended.value)
    assert message.startswith("callme: ")
    assert said in message
    assert "\n" not in message
    assert "hunter2" not in message


def test_error_names_the_source_of_the_value() -> None:
    with pytest.raises(SystemExit, match="CALLME_CONCURRENCY is 'many'"):
        parse(CALLME_CONCURRENCY="many")
    with pytest.raises(SystemExit, match="--concurrency is 'none'"):
        parse("--concurrency=none", CALLME_CONCURRENCY="many")
    with pytest.raises(SystemExit, match="CALLME_DENY_NETWORK is 'fd00::/x'"):
        parse(CALLME_DENY_NETWORK="10.0.0.0/8 fd00::/x")
    with pytest.raises(SystemExit, match="CALLME_PUBLIC_ONLY is 'maybe'"):
        parse(CALLME_PUBLIC_ONLY="maybe")
    with pytest.raises(SystemExit, match="CALLME_SIGNING_KEY_FILE is ''"):
        parse(CALLME_SIGNING_KEY_FILE="")


def test_key_file_comes_from_option_or_environment() -> None:
    assert parse("--signing-key-file=a").signing_key_file == "a"
    assert parse(CALLME_SIGNING_KEY_FILE="a").signing_key_file == "a"
    assert parse().signing_key_file is None


def test_default_notification_url_is_checked_as_a_callback() -> None:
    url = "http://10.0.0.1/failed?key=x"
    assert parse(f"--on-failure={url}").on_failure == url
    assert parse(CALLME_ON_FAILURE=url).on_failure == url
    for arguments, source, expected in (
        (["--on-failure=ftp://x/"], "--on-failure", "not an absolute http"),
        (["--on-failure=x"], "--on-failure", "not an absolute http"),
        ([], "CALLME_ON_FAILURE", "--deny-network"),
    ):
        with pytest.raises(SystemExit, match=f"^callme: {source} is .*: .*{expected}"):
            parse("--deny-network=10.0.0.0/8", *arguments, CALLME_ON_FAILURE=url)
    with pytest.raises(SystemExit, match=r"^callme: --on-failure is http://\.\.\.: "):
        parse("--on-failure=http://169.254.169.254/?key=secret")
    assert parse(f"--on-failure={url}", "--public-only", "--allow-network=10.0.0.1")


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse("--version")
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"callme {__version__}")


def test_networks_are_given_singly_or_as_a_list() -> None:
    given = parse("--allow-network=10.1.0.0/16", "--deny-network=10.0.0.0/8", "--deny-network=::1")
    listed = parse(
        CALLME_ALLOW_NETWORK="10.1.0.0/16", CALLME_DENY_NETWORK=" 10.0.0.0/8,::1/128,\n "
    )
    assert given == listed
    assert given.networks.reason_denied("10.1.2.3") is None
    assert given.networks.reason_denied("10.2.2.3")
    assert given.networks.reason_denied("::1")
    # An option replaces the list in its variable.
    both = parse("--deny-network=192.0.2.0/24", CALLME_DENY_NETWORK="10.0.0.0/8")
    assert both.networks.reason_denied("10.2.2.3") is None


@pytest.mark.parametrize("value", ["true", "1", "Yes"])
def test_flag_can_be_set_in_the_environment(value: str) -> None:
    assert parse("--public-only") == parse(CALLME_PUBLIC_ONLY=value)
    assert parse(CALLME_PUBLIC_ONLY=value).networks.public_only
    assert parse(CALLME_PUBLIC_ONLY="") == parse(CALLME_PUBLIC_ONLY="false") == DEFAULTS


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("CALLME_PER_HSOT", "did you mean CALLME_PER_HOST?"),
        ("CALLME_DATABSE", "did you mean CALLME_DATABASE?"),
        ("CALLME_COLOUR", "see twistd callme --help"),
        ("CALLME_", "see twistd callme --help"),
    ],
)
def test_unknown_variable_ends_the_start(name: str, expected: str) -> None:
    with pytest.raises(SystemExit, match=re.escape(expected)) as ended:
        parse(**{name: "3"})
    assert f"{name} in the environment is not an option" in str(ended.value)


def test_variables_of_clients_and_of_kubernetes_are_no_options() -> None:
    names = ("CALLME_URL", "CALLME_TOKEN", "CALLME_SERVICE_HOST", "CALLME_SERVICE_PORT_HTTP")
    others = ("CALLME_PORT_6777_TCP_ADDR", "CALLME_WEB_SERVICE_PORT", "MY_CALLME_X", "callme_x")
    assert parse(**dict.fromkeys(names + others, "x")) == DEFAULTS


def test_zsh_completion_covers_options_and_files(capsys: pytest.CaptureFixture[str]) -> None:
    options = Options({})
    options._shellCompFile = sys.stdout
    with pytest.raises(SystemExit) as ended:
        options.parseOptions(["--", "--_shell-completion", "zsh:1"])
    assert ended.value.code == 0
    completion = capsys.readouterr().out
    lines = completion.splitlines()
    with_files = {"database", "token-file", "signing-key-file"}
    for name in {"port", "public-only", "node"} | with_files:
        (line,) = (line for line in lines if f"--{name}[" in line or f"--{name}=[" in line)
        assert ("_files" in line) is (name in with_files)


def test_help_of_options_is_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("--help")
    text = " ".join(capsys.readouterr().out.split())
    assert "(needs the extra postgresql): see docs/scaling.md. [default:" in text
    assert "a Twisted endpoint description. [default: tcp:6777:interface=127.0.0.1]" in text
    assert "`" not in text
