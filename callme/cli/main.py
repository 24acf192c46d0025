"""The commands, and the program ``callme`` that contains them."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from .. import __version__
from . import commands, top, transfer
from .session import Session


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="callme")
@click.option("--url", metavar="URL", help="Address of callme; CALLME_URL sets it too.")
@click.pass_context
def cli(context: click.Context, url: str | None) -> None:
    """Register, show and change HTTP calls that callme makes later.

    \b
    callme put trial-end +6h https://example.com/run --json '{"user": 42}'
    callme show trial-end@1858809600
    callme ls --state failed
    callme wait trial-end@1858809600 && echo "it succeeded"
    callme top

    A KEY is NAME@MINUTE, as `put` and `ls` print it. A time is a duration (+6h, 1d12h), a time
    with a zone (2028-11-26T09:00Z, 2028-11-26T09:00[Europe/Berlin]) or a Unix timestamp.

    The address and the token come from --url, CALLME_URL and CALLME_TOKEN, or from the settings
    `url` and `token` in ~/.config/callme.toml. The default is http://localhost:6777.

    \b
    Exit codes:
      0  success
      1  the task failed, or callme rejected tasks of an import
      2  the command line or the settings are wrong
      3  there is no such task
      4  another task has the key, or the state forbids the change
      5  callme rejected a value
      6  the token is missing, is unknown, or does not permit the request
      7  callme cannot be reached, or is unavailable
      8  a wait timed out
    """
    context.obj = context.with_resource(Session(url))


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script for a shell.

    \b
    bash: eval "$(callme completion bash)"      in ~/.bashrc
    zsh:  eval "$(callme completion zsh)"       in ~/.zshrc
    fish: callme completion fish | source       in ~/.config/fish/config.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(cli, {}, "callme", "_CALLME_COMPLETE").source())


for command in (*commands.COMMANDS, *transfer.COMMANDS, *top.COMMANDS):
    cli.add_command(command)


def main() -> None:
    """Run the program."""
    cli(prog_name="callme")
