"""Secret files: required modes, and reloads."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from zope.interface import implementer

from callme.security.secret_file import MAX_SIZE, UnusableFile
from callme.tap import load_keys
from tests.helpers.credentials import webhook_secret


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o660])
def test_file_of_owner_and_group_is_read(tmp_path: Path, mode: int) -> None:
    assert len(load_keys(write(tmp_path / "keys", webhook_secret("a"), mode)).value) == 1


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o602, 0o601, 0o666])
def test_file_open_to_every_user_is_refused(tmp_path: Path, mode: int) -> None:
    path = write(tmp_path / "keys", webhook_secret("a"), mode)
    with pytest.raises(
        UnusableFile,
        match=rf"keys\": its mode {mode:03o} gives access to every user: expected .* 600",
    ):
        load_keys(path)


def test_unusable_file_is_a_one_line_error(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "latin").write_bytes(b"\xe9")
    (tmp_path / "latin").chmod(0o600)
    write(tmp_path / "large", "#" * (MAX_SIZE + 1))
    write(tmp_path / "other", "hunter2")
    for name, message in [
        ("none", "No such file"),
        (".", "it is not a regular file"),
        ("pipe", "it is not a regular file"),
        ("latin", "it is not UTF-8"),
        ("large", "it is larger than"),
        ("other", "line 1 is not a key"),
    ]:
        with pytest.raises(UnusableFile) as raised:
            load_keys(tmp_path / name)
        assert message in str(raised.value)
        assert str(raised.value).startswith('the signing key file "')
        assert "\n" not in str(raised.value)
        assert "hunter2" not in str(raised.value)


def test_failed_reload_keeps_the_old_keys(tmp_path: Path) -> None:
    lines: list[str] = []

    @implementer(ILogObserver)
    def observe(event: LogEvent) -> None:
        lines.append(formatEvent(event))

    file = load_keys(write(tmp_path / "keys", webhook_secret("a")))
    first = file.value
    globalLogPublisher.addObserver(observe)
    try:
        write(tmp_path / "keys", f"{webhook_secret('b')}\n{webhook_secret('a')}")
        file.reload()
        second = file.value
        write(tmp_path / "keys", "hunter2")
        file.reload()
    finally:
        globalLogPublisher.removeObserver(observe)
    assert (len(first), len(second)) == (1, 2)
    assert file.value is second
    assert lines[0] == "signing keys reloaded: 2"
    assert lines[1].startswith(
        "signing keys not reloaded, the previous ones stay in use: the signing key file"
    )
    assert "hunter2" not in lines[1]
