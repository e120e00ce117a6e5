"""What tests stand on: one PostgreSQL for the session, a database for each test, servers. See README.md."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# Helpers with assertions of their own; before anything imports them.
pytest.register_assert_rewrite("tests.server.bytes")

from postgear import schema  # noqa: E402
from postgear.testing.processes import postgres  # noqa: E402
from tests.database import database  # noqa: E402
from tests.folders import use_memory  # noqa: E402
from tests.server_process import ServerProcess  # noqa: E402

TEMPLATE = "postgear_template"
QUEUE = "test"
_numbers = itertools.count(1)


def pytest_configure() -> None:
    use_memory()
    # SIGTERM, as from timeout(1), ends a session like Ctrl-C: with everything stopped that it started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # A shell ignores SIGINT for what it runs in the background, nohup SIGHUP: the programs under test would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # The longest files first: with files side by side (./dev test) one of them would else be the last that all wait for.
    items.sort(key=lambda item: (item.path.name != "test_chaos.py", item.path.parent.name != "failover"))


@pytest.fixture(scope="session")
def postgres_dsn() -> Iterator[str]:
    """A real PostgreSQL for the whole session, durable as any; a DSN of its superuser. Tests want ``dsn``."""
    with postgres() as dsn:
        yield dsn


@pytest.fixture(scope="session")
def template(postgres_dsn: str) -> Iterator[str]:
    """The name of a database with the schema, from which the tests' databases are copied."""
    with database(postgres_dsn, TEMPLATE) as template_dsn:
        schema.upgrade(template_dsn, queue=QUEUE)
        yield TEMPLATE


@pytest.fixture
def dsn(postgres_dsn: str, template: str) -> Iterator[str]:
    """A fresh database with the schema, its queue named "test"; dropped after the test."""
    with database(postgres_dsn, f"test_{next(_numbers)}", template) as database_dsn:
        yield database_dsn


@pytest.fixture
def empty_dsn(postgres_dsn: str) -> Iterator[str]:
    """A fresh database without the schema; dropped after the test."""
    with database(postgres_dsn, f"test_{next(_numbers)}") as database_dsn:
        yield database_dsn


@pytest.fixture
def start_server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    """Start servers: ``start_server(*arguments, dsn=…)``, by default on the test's ``dsn``; all are stopped after the test."""
    servers: list[ServerProcess] = []

    def start(*arguments: str, dsn: str | None = None) -> ServerProcess:
        log_path = tmp_path / f"postgear-{next(_numbers)}.log"
        servers.append(ServerProcess(*arguments, dsn=dsn or request.getfixturevalue("dsn"), log_path=log_path))
        return servers[-1]

    # Before this fixture, so that the database outlives the servers.
    request.getfixturevalue("dsn")
    yield start
    for server in servers:
        server.kill()
        request.node.add_report_section("teardown", server.address, server.log())


@pytest.fixture
def server(start_server: Callable[..., ServerProcess]) -> ServerProcess:
    """A running server on a database of its own."""
    return start_server()
