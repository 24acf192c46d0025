"""The table of options in operations.md, as Markdown; run it to print the table."""

from __future__ import annotations

from callme.config import OPTIONS, Flag, Option


def options_table() -> str:
    """Return the table: one row for each option."""
    rows = [
        f"| {_name(option)} | {_default(option)} | {option.text} |" for option in OPTIONS.values()
    ]
    return "\n".join(["| option | default | meaning |", "|---|---|---|", *rows]) + "\n"


def _name(option: Option) -> str:
    short = f", `-{option.short}`" if option.short else ""
    return f"`--{option.name}`{short}"


def _default(option: Option) -> str:
    if option.default_help or not option.default:
        return option.default_help or ("off" if isinstance(option, Flag) else "none")
    return f"{int(option.default):,}" if option.default.isdigit() else f"`{option.default}`"


if __name__ == "__main__":
    print(options_table(), end="")
