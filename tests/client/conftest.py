"""Clients at running servers: both clients, each at postgear and at genuine gearmand, in one run."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from postgear import AsyncClient, AsyncTaskSet, Client, TaskSet
from tests.client.scripted import ScriptedPeer
from tests.database import database
from tests.extension.python_worker import PythonWorker
from tests.server.bytes import Peer
from tests.server.gearmand import gearmands
from tests.server_process import ServerProcess

_numbers = itertools.count(1)


@pytest.fixture(scope="package", params=["postgear", "gearmand"])
def any_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One running server of each kind for all these tests; each keeps to functions of its own, or waits for its jobs."""
    folder = tmp_path_factory.mktemp("client")
    if request.param == "gearmand":
        for start in gearmands(folder):
            yield start()  # type: ignore[operator]
        return
    postgres_dsn, template = request.getfixturevalue("postgres_dsn"), request.getfixturevalue("template")
    with database(postgres_dsn, f"client_{next(_numbers)}", template) as dsn:
        server = ServerProcess(dsn=dsn, log_path=folder / "postgear.log")
        yield server
        server.kill()


@pytest.fixture
def gearman_server(request: pytest.FixtureRequest, any_server: Any) -> Any:
    """A running server, postgear and then gearmand; tests marked ``difference`` are skipped at gearmand."""
    mark = request.node.get_closest_marker("difference")
    if mark is not None and not isinstance(any_server, ServerProcess):
        pytest.skip(f"gearmand: {mark.args[0]}")
    return any_server


@pytest.fixture
def worker(gearman_server: Any) -> Iterator[PythonWorker]:
    """A worker at the server."""
    with PythonWorker(gearman_server.host, gearman_server.port) as worker:
        yield worker


@pytest.fixture
def peer(gearman_server: Any) -> Iterator[Peer]:
    """A bare connection to the server."""
    with Peer(gearman_server.host, gearman_server.port) as peer:
        yield peer


@pytest.fixture
def function() -> str:
    """A function that no other test uses."""
    return f"f{next(_numbers)}"


@pytest.fixture
def start_gearmand(tmp_path: Path) -> Iterator[Any]:
    """Start gearmand servers of the test's own."""
    yield from gearmands(tmp_path)


@pytest.fixture(params=["Client", "AsyncClient", "AsyncClient on uvloop"])
def connect(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """Make clients of one kind, with the methods of Client; all are closed after the test."""
    made: list[Any] = []
    loop = None
    if request.param != "Client":
        loop = uvloop.new_event_loop() if "uvloop" in request.param else asyncio.new_event_loop()

    def make(*arguments: Any, **options: Any) -> Any:
        made.append(Client(*arguments, **options) if loop is None else Awaited(loop, *arguments, **options))
        return made[-1]

    yield make
    for client in made:
        client.close()
    if loop is not None:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(asyncio.sleep(0))  # transports that were aborted close in the next turn
        loop.close()


@pytest.fixture
def client(connect: Callable[..., Any], gearman_server: Any) -> Any:
    """A client of the server."""
    return connect(gearman_server.address)


class Awaited:
    """An AsyncClient with the methods of Client: each is awaited in an event loop of the test's own."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *arguments: Any, **options: Any) -> None:
        self.loop = loop
        self.client = AsyncClient(*arguments, **options)

    def map(self, *arguments: Any, **options: Any) -> Iterator[Any]:
        results = self.client.map(*arguments, **options)
        try:
            while True:
                try:
                    yield self.loop.run_until_complete(anext(results))
                except StopAsyncIteration:
                    return
        finally:
            self.loop.run_until_complete(results.aclose())  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.client, name)
        return lambda *arguments, **options: self.loop.run_until_complete(method(*arguments, **options))


class AwaitedTaskSet:
    """An AsyncTaskSet with the methods of TaskSet."""

    def __init__(self, client: Awaited, in_flight: int = 100) -> None:
        self.set = AsyncTaskSet(client.client, in_flight)
        self.add = self.set.add
        self._loop = client.loop

    def wait(self, timeout: float | None = None) -> bool:
        return self._loop.run_until_complete(self.set.wait(timeout))

    def close(self) -> None:
        self._loop.run_until_complete(self.set.close())


@pytest.fixture
def task_set() -> Iterator[Callable[..., Any]]:
    """Make the set of tasks for a client; all are closed after the test."""
    made: list[Any] = []

    def make(client: Any, in_flight: int = 100) -> Any:
        made.append(AwaitedTaskSet(client, in_flight) if isinstance(client, Awaited) else TaskSet(client, in_flight))
        return made[-1]

    yield make
    for tasks in made:
        tasks.close()


@pytest.fixture
def scripted() -> Iterator[Callable[..., ScriptedPeer]]:
    """Start servers that say what the test has them say; all are closed after the test."""
    peers: list[ScriptedPeer] = []

    def start(*answers: bytes | None, stay: bool = True) -> ScriptedPeer:
        peers.append(ScriptedPeer(*answers, stay=stay))
        return peers[-1]

    yield start
    for peer in peers:
        peer.close()
