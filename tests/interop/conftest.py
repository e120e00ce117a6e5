"""Stock clients and workers: how they are found, built and run. A language that is not installed is a reason to skip."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from tests.server import gearmand
from tests.server.bytes import Peer, until

PROGRAMS = Path(__file__).parent / "programs"
RUN_SECONDS = 20.0


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


class Programs:
    """Runs stock programs against one server, and kills what is left of them."""

    def __init__(self, server: Any, commands: dict[str, list[str]], environment: dict[str, str]) -> None:
        self.server = server
        self._commands = commands
        self._environment = {**os.environ, **environment}
        self._running: list[subprocess.Popen[bytes]] = []

    def command(self, name: str, *arguments: str) -> list[str]:
        """The command line of one of ``programs/``."""
        return [*self._commands[name], self.server.host, str(self.server.port), *arguments]

    def run(self, command: list[str], data: bytes = b"", seconds: float = RUN_SECONDS) -> bytes:
        """Run a program to its end, feed it *data*, and return what it prints."""
        run = subprocess.run(command, input=data, capture_output=True, timeout=seconds, env=self._environment, check=False)
        assert run.returncode == 0, (command, run.returncode, run.stdout[-2000:], run.stderr[-2000:])
        return run.stdout

    def client(self, name: str, *arguments: str, data: bytes = b"") -> bytes:
        """Run a client of ``programs/``."""
        return self.run(self.command(name, *arguments), data)

    def start(self, command: list[str], stdout: IO[bytes] | int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
        """Start a program that goes on, a worker."""
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stdout, env=self._environment)
        self._running.append(process)
        return process

    def worker(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a worker of ``programs/`` and wait until the server knows it."""
        process = self.start(self.command(name, *arguments))
        self.wait_for_workers(b"reverse", 1)
        return process

    def wait_for_workers(self, function: bytes, count: int) -> None:
        """Wait until so many workers can do a function."""
        with Peer(self.server.host, self.server.port) as admin:
            until(lambda: (admin.status(function) or (0, 0, 0))[2], count)

    def kill(self) -> None:
        for process in self._running:
            process.kill()
            process.wait()


@pytest.fixture(scope="session")
def commands(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Command lines by program name; C programs are built here."""
    found = {}
    python = [sys.executable, "-W", "ignore"]
    for name, interpreter in {"pl": ["perl"], "php": ["php"], "js": ["node", "--no-deprecation"]}.items():
        for kind in ("client", "worker"):
            found[f"{kind}.{name}"] = [*interpreter, str(PROGRAMS / f"{kind}.{name}")]
    for kind in ("client", "worker"):
        found[f"{kind}.py"] = [*python, str(PROGRAMS / f"{kind}_pygearman.py")]
    if shutil.which("gcc"):
        folder = tmp_path_factory.mktemp("c")
        for kind in ("client", "worker"):
            source, program = PROGRAMS / f"{kind}.c", folder / kind
            subprocess.run(["gcc", "-std=gnu99", "-Wall", "-o", program, source, "-lgearman"], check=True)
            found[f"{kind}.c"] = [str(program)]
    return found


@pytest.fixture(scope="session")
def node_modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with node-gearman, installed for this run."""
    if not shutil.which("npm"):
        pytest.skip("npm is not installed")
    folder = tmp_path_factory.mktemp("node")
    install = ["npm", "install", "--no-save", "--no-audit", "--no-fund", "--loglevel=error", "--prefix", str(folder)]
    run = subprocess.run([*install, "node-gearman@0.2.2"], capture_output=True, text=True, timeout=50, check=False)
    if run.returncode:
        pytest.skip(f"npm cannot install node-gearman: {run.stderr.strip()[-200:]}")
    return folder / "node_modules"


@pytest.fixture
def programs(request: pytest.FixtureRequest, server: Any, commands: dict[str, list[str]]) -> Iterator[Programs]:
    """Run stock programs against the server; what still runs is killed after the test."""
    runs = Programs(server, commands, {})
    yield runs
    runs.kill()


@pytest.fixture
def language(request: pytest.FixtureRequest, programs: Programs) -> str:
    """The language of a parametrized test, skipped with its reason where it is not to be had."""
    name: str = request.param
    if name == "c":
        if "client.c" not in programs._commands:
            pytest.skip("gcc is not installed")
    elif name == "py":
        pytest.importorskip("gearman", reason="pygearman is not installed")
    elif name == "js":
        programs._environment["NODE_PATH"] = str(request.getfixturevalue("node_modules"))
    elif name == "pl":
        _need(["perl", "-MGearman::Client", "-e1"], "Perl's Gearman::Client")
    elif name == "php":
        _need(["php", "-r", "exit(extension_loaded('gearman') ? 0 : 1);"], "PHP's gearman extension")
    return name


def _need(command: list[str], what: str) -> None:
    if not shutil.which(command[0]) or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip(f"{what} is not installed")


@pytest.fixture
def peer(server: Any) -> Iterator[Peer]:
    """A raw connection, to look at what the programs did."""
    with Peer(server.host, server.port) as connection:
        yield connection
