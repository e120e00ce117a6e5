"""Fixtures of the tests that speak literal bytes: connections, and names that no other test uses."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.server import gearmand
from tests.server.bytes import Peer

_numbers = itertools.count(1)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "difference(reason): postgear does this otherwise than gearmand 1.1.20, on purpose")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if gearmand.is_wanted():
        gearmand.skip_differences(items)


if gearmand.is_wanted():

    @pytest.fixture
    def start_server(tmp_path: Path) -> Iterator[object]:
        """Start gearmand with the arguments given; all are stopped after the test."""
        yield from gearmand.gearmands(tmp_path)

    @pytest.fixture
    def server(start_server: Callable[..., Any]) -> Any:
        """A running gearmand."""
        return start_server()


@pytest.fixture
def connect_to() -> Iterator[Callable[[Any], Peer]]:
    """Open connections to a server of the test's own; all are closed after the test."""
    peers: list[Peer] = []

    def open_connection(server: Any) -> Peer:
        peers.append(Peer(server.host, server.port))
        return peers[-1]

    yield open_connection
    for peer in peers:
        peer.close()


@pytest.fixture(scope="module")
def shared_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One running server for the tests of a module; each keeps to functions of its own."""
    folder = tmp_path_factory.mktemp("shared")
    if gearmand.is_wanted():
        for start in gearmand.gearmands(folder):
            yield start()
        return
    from tests.database import database
    from tests.server_process import ServerProcess

    postgres_dsn, template = request.getfixturevalue("postgres_dsn"), request.getfixturevalue("template")
    with database(postgres_dsn, f"shared_{next(_numbers)}", template) as dsn:
        server = ServerProcess(dsn=dsn, log_path=folder / "postgear.log")
        yield server
        server.kill()


@pytest.fixture
def connect(shared_server: Any, connect_to: Callable[[Any], Peer]) -> Callable[[], Peer]:
    """Open connections to the module's server; all are closed after the test."""
    return lambda: connect_to(shared_server)


@pytest.fixture
def client(connect: Callable[[], Peer]) -> Peer:
    """A connection that submits jobs."""
    return connect()


@pytest.fixture
def worker(connect: Callable[[], Peer]) -> Peer:
    """A connection that runs jobs."""
    return connect()


@pytest.fixture
def admin(connect: Callable[[], Peer]) -> Peer:
    """A connection that asks."""
    return connect()


@pytest.fixture
def function() -> bytes:
    """A function name that no other test uses, so that tests may share a server."""
    return b"f%d" % next(_numbers)
