"""The console script without the packages of its extra."""

from __future__ import annotations

import sys

import pytest

from callme import cli


def test_missing_package_is_an_error_that_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("callme.cli.main", "click"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SystemExit, match=r"callme-daemon\[cli\]"):
        cli.run()
