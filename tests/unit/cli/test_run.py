"""The console script: its help, its completion, and the script without its packages."""

from __future__ import annotations

import re
import sys

import pytest
from click.testing import CliRunner

from callme import cli
from callme.cli.main import cli as program


def test_missing_package_is_an_error_that_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("callme.cli.main", "click"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SystemExit, match=r"callme-daemon\[cli\]"):
        cli.run()


@pytest.mark.parametrize("name", sorted(program.commands))
def test_help_describes_each_command_in_a_whole_sentence(name: str) -> None:
    """On a terminal of 80 columns, nothing is cut off."""
    page = CliRunner().invoke(program, ["--help"], terminal_width=80).output
    (line,) = [one for one in page.splitlines() if one.startswith(f"  {name} ")]
    assert line.endswith(".")
    assert not line.endswith("...")


@pytest.mark.parametrize(
    ("words", "incomplete", "found"),
    [
        (["callme"], "to", {"top"}),
        (["callme", "ls"], "--st", {"--state"}),
        (["callme", "ls", "--state"], "s", {"scheduled", "succeeded"}),
        (["callme", "completion"], "", {"bash", "zsh", "fish"}),
    ],
)
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shell_completes_commands_options_and_values(
    shell: str, words: list[str], incomplete: str, found: set[str]
) -> None:
    line = " ".join([*words, incomplete])
    position = incomplete if shell == "fish" else str(len(words))
    environ = {
        "_CALLME_COMPLETE": f"{shell}_complete",
        "COMP_WORDS": line,
        "COMP_CWORD": position,
    }
    output = CliRunner(env=environ).invoke(program, prog_name="callme").output
    completed = set(re.findall(r"[\w-]+", output)) if shell == "zsh" else set()
    if shell != "zsh":
        values = [entry.partition(",")[2] for entry in output.splitlines()]
        completed = {value.partition("\t")[0] for value in values}
    assert found <= completed
    assert not {"show", "put"} & completed
