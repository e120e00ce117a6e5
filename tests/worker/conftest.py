"""Fixtures of the workers' tests: servers of both kinds, a function name for each test, workers that run in a thread."""

from __future__ import annotations

import itertools
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from postgear.worker.core import StopReason
from postgear.worker.runner import Worker
from tests.database import database
from tests.server.bytes import Packet, Peer, until
from tests.server.gearmand import PROGRAM, Gearmand
from tests.server_process import ServerProcess

WAIT_SECONDS = 10.0
ENDS = ("WORK_COMPLETE", "WORK_FAIL", "WORK_EXCEPTION")
_numbers = itertools.count(1)


class Running:
    """A worker that runs in a thread of the test."""

    def __init__(self, worker: Worker, **options: Any) -> None:
        self.worker = worker
        self.reason: StopReason | None = None
        self.error: BaseException | None = None
        self.is_ready = threading.Event()
        self._thread = threading.Thread(target=self._run, kwargs=options)
        self._thread.start()

    def _run(self, **options: Any) -> None:
        try:
            self.reason = self.worker.run(on_ready=self.is_ready.set, **options)
        except BaseException as error:
            self.error = error

    def wait(self) -> StopReason | None:
        """Wait for the end of ``run`` and return what it did."""
        self._thread.join(WAIT_SECONDS)
        assert not self._thread.is_alive()
        if self.error is not None:
            raise self.error
        return self.reason


@contextmanager
def running(worker: Worker, **options: Any) -> Iterator[Running]:
    """Run a worker, wait until it can take jobs, and stop it in the end."""
    run = Running(worker, **options)
    try:
        assert run.is_ready.wait(WAIT_SECONDS), run.error
        yield run
    finally:
        worker.stop()
        run.wait()


class Client(Peer):
    """A raw connection that submits jobs and reads to their end."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self.send("OPTION_REQ", b"exceptions")
        self.expect("OPTION_RES", b"exceptions")

    def start(self, function: str, workload: bytes = b"", unique: bytes = b"") -> bytes:
        """Submit a foreground job and return its handle."""
        return self.submit("SUBMIT_JOB", function.encode(), unique, workload)

    def end(self, handle: bytes) -> list[Packet]:
        """Read what is said of a job, to its end; packets have the handle removed."""
        said = []
        while True:
            name, body = self.packet()
            assert body.split(b"\0")[0] == handle, (name, body)
            said.append(Packet(name, body[len(handle) + 1 :]))
            if name in ENDS:
                return said

    def do(self, function: str, workload: bytes = b"") -> Packet:
        """Run a job and return how it ended."""
        return self.end(self.start(function, workload))[-1]


def restart(server: Any) -> Any:
    """Start a server that was killed once more, where it was."""
    if isinstance(server, ServerProcess):
        path = server._log_path.with_suffix(".again.log")
        return ServerProcess("--listen", server.address, dsn=server.dsn, log_path=path)
    server.process = subprocess.Popen(server.process.args)
    until(lambda: is_listening(server), True)
    return server


def is_listening(server: Any) -> bool:
    try:
        socket.create_connection((server.host, server.port)).close()
    except OSError:
        return False
    return True


def _start(kind: str, folder: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    if kind == "gearmand":
        if not Path(PROGRAM).exists():
            pytest.skip("gearmand is not installed")
        server = Gearmand(folder)
        yield server
        server.kill()
        return
    dsn, template = request.getfixturevalue("postgres_dsn"), request.getfixturevalue("template")
    with database(dsn, f"worker_{next(_numbers)}", template) as own:
        process = ServerProcess(dsn=own, log_path=folder / "postgear.log")
        yield process
        process.kill()


@pytest.fixture(params=["postgear", "gearmand"], scope="module")
def shared_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A running server of each kind, for tests that leave it as it was."""
    yield from _start(request.param, tmp_path_factory.mktemp("server"), request)


@pytest.fixture(params=["postgear", "gearmand"])
def own_server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """A running server of each kind, for tests that stop or kill it."""
    yield from _start(request.param, tmp_path, request)


@pytest.fixture
def own_client(own_server: Any) -> Iterator[Client]:
    """A client of the test's own server."""
    with Client(own_server.host, own_server.port) as connection:
        yield connection


@pytest.fixture
def client(shared_server: Any) -> Iterator[Client]:
    """A client of the shared server."""
    with Client(shared_server.host, shared_server.port) as connection:
        yield connection


@pytest.fixture
def name() -> str:
    """A function name that no other test uses."""
    return f"f{next(_numbers)}"


@pytest.fixture
def make_worker(shared_server: Any) -> Callable[..., Worker]:
    """Make workers of the shared server."""
    return lambda **options: Worker(shared_server.address, **options)
