"""schemathesis against a daemon process and its OpenAPI document, with every check on."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.processes import Daemon, environment

HERE = Path(__file__).parent

pytestmark = [
    pytest.mark.daemon,
    pytest.mark.skipif(sys.version_info < (3, 11), reason="schemathesis needs Python 3.11"),
]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path)
    yield daemon
    daemon.kill()


def test_schemathesis_finds_no_failure(daemon: Daemon, tmp_path: Path) -> None:
    daemon.start()
    done = subprocess.run(
        [
            Path(sys.executable).with_name("st"),
            f"--config-file={HERE / 'schemathesis.toml'}",
            "run",
            f"http://127.0.0.1:{daemon.port}/openapi.json",
        ],
        cwd=tmp_path,
        env=environment()
        | {
            "SCHEMATHESIS_HOOKS": "tests.fuzz.schemathesis_hooks",
            "PYTHONPATH": str(HERE.parents[1]),
        },
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    cases = re.search(r"([0-9]+) generated, \1 passed", done.stdout)
    assert cases is not None, done.stdout
    assert int(cases[1]) > 2000
    print(f"{cases[1]} cases")
    assert daemon.curl("GET", "/healthz")[0] == 200
    assert "Traceback" not in daemon.log()
