"""The same programs with pygearman and with its names over postgear, at the same server."""

from __future__ import annotations

import importlib
import itertools
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from postgear.compat import gearman as ours
from tests.database import database
from tests.server.bytes import until
from tests.server_process import ServerProcess

WAIT_SECONDS = 10.0
_numbers = itertools.count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "[pygearman" in item.name:
            # It does not close the sockets that it could not connect.
            for category in ("ResourceWarning", "pytest.PytestUnraisableExceptionWarning"):
                item.add_marker(pytest.mark.filterwarnings(f"ignore::{category}"))


@pytest.fixture(params=["pygearman", "postgear"])
def gearman(request: pytest.FixtureRequest) -> ModuleType:
    """The library."""
    if request.param == "postgear":
        return ours
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("gearman")


@pytest.fixture(scope="module")
def shared_server(postgres_dsn: str, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A running server, for tests that leave it as it was."""
    with database(postgres_dsn, f"compat_{next(_numbers)}", template) as dsn:
        server = ServerProcess(dsn=dsn, log_path=tmp_path_factory.mktemp("server") / "postgear.log")
        yield server
        server.kill()


@pytest.fixture
def task() -> str:
    """A function that no other test uses."""
    return f"f{next(_numbers)}"


@pytest.fixture
def client(gearman: ModuleType, shared_server: ServerProcess) -> Iterator[Any]:
    """A client of the library."""
    client = gearman.GearmanClient([shared_server.address])
    yield client
    client.shutdown()


@pytest.fixture
def admin(gearman: ModuleType, shared_server: ServerProcess) -> Iterator[Any]:
    """An admin client of the library."""
    admin = gearman.GearmanAdminClient([shared_server.address])
    yield admin
    admin.shutdown()


@pytest.fixture
def work(shared_server: ServerProcess) -> Iterator[Callable[[Any], Any]]:
    """Let a worker work in a thread, until the end of the test: ``work(worker)``. It looks about every 50 ms whether to end."""
    ended = threading.Event()
    threads: list[threading.Thread] = []

    def start(worker: Any) -> Any:
        worker.after_poll = lambda any_activity: not ended.is_set()
        threads.append(threading.Thread(target=worker.work, kwargs={"poll_timeout": 0.05}))
        threads[-1].start()
        return worker

    yield start
    ended.set()
    for thread in threads:
        thread.join(WAIT_SECONDS)
        assert not thread.is_alive()


@pytest.fixture
def serve(gearman: ModuleType, shared_server: ServerProcess, admin: Any, work: Callable[[Any], Any]) -> Callable[..., Any]:
    """Start a worker of the library: ``serve(task=callback)``; returns it when the server knows it."""

    def start(made: Any = None, **callbacks: Callable[[Any, Any], Any]) -> Any:
        worker = made or gearman.GearmanWorker([shared_server.address])
        for task, callback in callbacks.items():
            # pygearman knows the functions that a server names only as bytes.
            worker.register_task(task.encode(), callback)
        work(worker)
        for task in callbacks:
            until(lambda task=task: [row["workers"] for row in admin.get_status() if row["task"] == task], [1])
        return worker

    return start


@pytest.fixture
def own_server(postgres_dsn: str, template: str, tmp_path: Path) -> Iterator[ServerProcess]:
    """A running server, for tests that kill it."""
    with database(postgres_dsn, f"compat_{next(_numbers)}", template) as dsn:
        server = ServerProcess(dsn=dsn, log_path=tmp_path / "postgear.log")
        yield server
        server.kill()
