"""Fixtures of the tests of commands: workers' processes in a folder with an application."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.commands.worker_process import WorkerProcess
from tests.server.bytes import Peer
from tests.server_process import ServerProcess

_numbers = itertools.count(1)
APP = '''
import os, time
from pathlib import Path
from postgear import Worker

worker = Worker()

@worker.function("note")
def note(text: str) -> str:
    """Write down that it ran, and in which process."""
    with open("runs", "a") as file:
        file.write(f"{text} {os.getpid()}\\n")
    return str(os.getpid())

@worker.function("reverse")
def reverse(text: bytes) -> bytes:
    return text[::-1]

@worker.function("divide")
def divide(text: str) -> str:
    return str(100 // int(text))

@worker.function("gate")
def gate(text: str) -> str:
    """Run until a file of this name is there."""
    note(f"gate-{text}")
    while not Path(text).exists():
        time.sleep(0.01)
    return str(os.getpid())
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with an application: ``jobs.py``, its worker is ``worker``."""
    (tmp_path / "jobs.py").write_text(APP)
    return tmp_path


@pytest.fixture
def start_worker(request: pytest.FixtureRequest, folder: Path) -> Iterator[Callable[..., WorkerProcess]]:
    """Start ``postgear worker``, by default for the test's server; all are ended after the test."""
    started: list[WorkerProcess] = []

    def start(*arguments: str, is_ready: bool = True, **more: object) -> WorkerProcess:
        log_path = folder / f"worker-{next(_numbers)}.log"
        words = arguments
        if "--servers" not in arguments and "command" not in more:
            words = (*arguments, "--servers", request.getfixturevalue("server").address)
        worker = WorkerProcess(*words, folder=folder, log_path=log_path, **more)  # type: ignore[arg-type]
        started.append(worker)
        if is_ready:
            worker.wait_for_log(r" ready processes=")
        return worker

    yield start
    for worker in started:
        worker.clean_up()
        request.node.add_report_section("teardown", "worker", worker.log())


@pytest.fixture
def client(server: ServerProcess) -> Iterator[Peer]:
    """A connection to the test's server."""
    with Peer(server.host, server.port) as peer:
        peer.socket.settimeout(20)
        peer.send("OPTION_REQ", b"exceptions")
        peer.expect("OPTION_RES", b"exceptions")
        yield peer
