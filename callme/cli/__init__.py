"""The command ``callme``: registers, shows and changes tasks of a callme that runs elsewhere."""

import sys


def run() -> None:
    """Run the command, or say how to install what it needs."""
    try:
        from .main import main  # noqa: PLC0415  # an installation for the daemon has no click
    except ModuleNotFoundError as error:
        sys.exit(f"callme: {error}; run: pip install 'callme-daemon[cli]'")
    main()
