"""Settings of the command: which source counts, and mistakes in the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from callme.cli.settings import Settings, SettingsError, read_settings

FILE = 'url = "http://stored:1"\ntoken = "stored"\n'


def environ(directory: Path, text: str | None = None, **more: str) -> dict[str, str]:
    if text is not None:
        (directory / "callme.toml").write_text(text)
    return {"XDG_CONFIG_HOME": str(directory), **more}


def test_default_is_the_local_machine(tmp_path: Path) -> None:
    assert read_settings(None, environ(tmp_path)) == Settings("http://localhost:6777", None)


def test_file_gives_address_and_token(tmp_path: Path) -> None:
    assert read_settings(None, environ(tmp_path, FILE)) == Settings("http://stored:1", "stored")


def test_environment_counts_before_the_file(tmp_path: Path) -> None:
    given = environ(tmp_path, FILE, CALLME_URL="http://e:2", CALLME_TOKEN="e")
    assert read_settings(None, given) == Settings("http://e:2", "e")


def test_option_counts_before_the_environment(tmp_path: Path) -> None:
    given = environ(tmp_path, FILE, CALLME_URL="http://e:2", CALLME_TOKEN="e")
    assert read_settings("http://o:3", given) == Settings("http://o:3", "e")


def test_stored_token_is_not_sent_to_another_address(tmp_path: Path) -> None:
    assert read_settings("http://o:3", environ(tmp_path, FILE)).token is None


@pytest.mark.parametrize("text", ['uri = "http://e"', "url = 1", "url ="])
def test_mistake_in_the_file_names_it(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsError, match=r"callme\.toml"):
        read_settings(None, environ(tmp_path, text))


def test_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "callme.toml").mkdir()
    with pytest.raises(SettingsError, match="cannot be read"):
        read_settings(None, environ(tmp_path))
