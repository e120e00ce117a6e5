"""The pytest plugin: fixtures. All that they need is imported when the first of them is used."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .processes import Databases, RunningServer
    from .queue import MemoryQueue


def pytest_addoption(parser: pytest.Parser) -> None:
    """Part of pytest."""
    group = parser.getgroup("postgear")
    group.addoption(
        "--postgear-dsn",
        metavar="DSN",
        help="a PostgreSQL for postgear_database, as a role that may create databases (default: one of the tests' own)",
    )


@pytest.fixture
def postgear_queue() -> Iterator[MemoryQueue]:
    """A queue in memory: takes what the clients of postgear submit and what ``enqueue`` enqueues during the test."""
    from .memory import installed
    from .queue import MemoryQueue

    queue = MemoryQueue()
    with installed(queue):
        yield queue


@pytest.fixture(scope="session")
def _postgear_databases(request: pytest.FixtureRequest) -> Iterator[Databases]:
    from .processes import Databases, postgres

    given: str | None = request.config.getoption("--postgear-dsn")
    label = f"{os.getpid()}"
    if given is not None:
        databases = Databases(given, label)
        yield databases
        databases.close()
        return
    with postgres() as dsn:
        yield Databases(dsn, label)


@pytest.fixture
def postgear_database(_postgear_databases: Databases) -> Iterator[str]:
    """The DSN of a fresh database with postgear's schema; dropped after the test."""
    with _postgear_databases.database() as dsn:
        yield dsn


@pytest.fixture
def postgear_server(postgear_database: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[RunningServer]:
    """A running server on ``postgear_database`` and a free port; ``.address`` is for clients and workers."""
    from .processes import RunningServer

    server = RunningServer(postgear_database, tmp_path / "postgear.log")
    yield server
    server.stop()
    request.node.add_report_section("teardown", "postgear server", server.log())
