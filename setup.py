"""Packaging; the settings of the tools are in pyproject.toml."""

from __future__ import annotations

import gzip
import os
import re
import tarfile
import time
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.sdist import sdist

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "callme" / "__init__.py").read_text())
assert VERSION is not None
# The modes of the files in a wheel must not depend on who builds it.
os.umask(0o022)
PSYCOPG = "psycopg[binary]>=3.2.2"
CLIENT = ["httpx>=0.27"]
CLI = [*CLIENT, "click>=8.2", "rich>=13.7", "tomli>=2.0.1; python_version < '3.11'"]


class ReproducibleSdist(sdist):  # type: ignore[misc]  # setuptools is untyped here
    """A source archive that depends on the content of the files and SOURCE_DATE_EPOCH only.

    setuptools stores the times, owners and modes of the files on the builder's disk.
    """

    def make_archive(
        self,
        base_name: str,
        format: str,  # noqa: A002
        root_dir: str | None = None,
        base_dir: str | None = None,
        **_: object,
    ) -> str:
        """Write the archive, and return its path."""
        assert base_dir is not None
        assert format == "gztar", "only the default format is reproducible"
        built_at = int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))

        def normalize(entry: tarfile.TarInfo) -> tarfile.TarInfo:
            entry.mtime = built_at
            entry.uid = entry.gid = 0
            entry.uname = entry.gname = ""
            entry.mode = 0o755 if entry.isdir() else 0o644
            return entry

        path = f"{base_name}.tar.gz"
        with (
            open(path, "wb") as file,
            gzip.GzipFile("", "wb", fileobj=file, mtime=built_at) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
        ):
            archive.add(base_dir, filter=normalize)  # it sorts the entries of directories
        return path


setup(
    cmdclass={"sdist": ReproducibleSdist},
    # On PyPI, the name callme belongs to another project.
    name="callme-daemon",
    version=VERSION[1],
    description="The daemon that calls you back: HTTP callbacks on the minute.",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    # twisted/ and twisted/plugins/ must not become packages of their own.
    packages=[*find_packages(include=["callme", "callme.*"]), "twisted.plugins"],
    # Without this line, an editable install hides the plugin from twistd.
    package_dir={"": "."},
    package_data={
        "callme": ["py.typed"],
        "callme.webui": ["static/*", "templates/*.xml"],
        "callme.store.postgresql": ["migrations/*.sql"],
        "callme.store.sqlite": ["migrations/*.sql"],
    },
    install_requires=[
        "attrs>=23.2",
        "cryptography>=45.0.7",
        "httptools>=0.6.4",
        "hyperlink>=21.0",
        "klein>=24.8",
        "prometheus-client>=0.21",
        "pyOpenSSL>=25.3",
        "service-identity>=24.2",
        "treq>=26.7",
        "twisted[tls]>=26.10",
        # Zones of local times: those of the system differ between machines.
        "tzdata>=2024.1",
        "werkzeug>=3.0",
        "zope.interface>=8.0",
    ],
    extras_require={
        # callme.client: httpx has types, and one interface for sync and async programs.
        "client": CLIENT,
        # The command: click parses and completes, and rich colours.
        "cli": CLI,
        # The binary package brings its own libpq, so that pip alone can install it. To use the
        # system's libpq, install psycopg[c] as well: psycopg prefers it.
        "postgresql": [PSYCOPG],
        "test": [
            "coverage[toml]>=7.6",
            "hypothesis>=6.100",
            "icalendar>=6.3",
            "jsonschema-rs>=0.37",
            "openapi-spec-validator>=0.7.1",
            PSYCOPG,
            "pytest>=8.2",
            "pytest-twisted>=1.14.3",
            "pyyaml>=6.0",
            "selenium>=4.25",
            "standardwebhooks>=1.1",
            # The client, and the frameworks that it has decorators for.
            *CLI,
            "django>=4.2.8",
            "fastapi>=0.115",
            "flask>=3.0",
            # The servers of tests/daemon/test_real_servers.py. Each bound is a release of 2024 that
            # the test was run with; all have wheels for every Python that callme runs on.
            "aiohttp>=3.10.11",
            "gunicorn>=23.0",
            "tornado>=6.4.2",
            "uvicorn>=0.30",
            "waitress>=3.0",
            # It needs a newer Python than callme does; it runs as a separate process.
            "schemathesis>=4.32,<5; python_version >= '3.11'",
        ],
        # They make a site from the Markdown files; the site loads nothing from other servers.
        "docs": ["furo>=2024.8.6", "myst-parser>=4.0", "sphinx>=8.1"],
        # Alternatives that the benchmarks compare with; some also need a server.
        "bench": [
            "aiohttp",
            "apscheduler<4",
            "arq",
            "asyncpg",
            "celery",
            "dramatiq[redis]",
            "greenstalk",
            "huey",
            "pgqueuer",
            "pika",
            "procrastinate",
            "requests",
            "rq",
            "sqlalchemy",
        ],
        "types": ["mypy>=1.15", "mypy-zope>=1.0.11", "types-PyYAML"],
    },
    entry_points={"console_scripts": ["callme = callme.cli:run"]},
    zip_safe=False,
    classifiers=[
        "Development Status :: 5 - Production/Stable",
        "Environment :: No Input/Output (Daemon)",
        "Framework :: Twisted",
        "Intended Audience :: Developers",
        "Intended Audience :: System Administrators",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Programming Language :: Python :: 3.14",
        "Topic :: Internet :: WWW/HTTP",
        "Typing :: Typed",
    ],
)
