"""The load programs of bench/load: compile them, run them against a server, read the line of JSON they print."""

from __future__ import annotations

import contextlib
import json
import selectors
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Final

from .contestants import Server
from .process import BenchError, child, tail, wait_until

_SOURCES: Final = Path(__file__).resolve().parent / "load"
_BUILD: Final = _SOURCES / "build"
_NAMES: Final = ("pipelined", "clients", "workers", "starts", "tasks")
_FLAGS: Final = ("-O2", "-std=c99", "-Wall", "-Wextra", "-Werror")
_TIMEOUT_SECONDS: Final = 120  # of one load; the slowest that is asked for here takes about 10 s
_REGISTER_TIMEOUT_SECONDS: Final = 10.0

Figures = dict[str, float]
"""What one load program printed."""


def compile_programs() -> None:
    """Compile what is older than its source. Needs gcc and libgearman-dev."""
    _BUILD.mkdir(exist_ok=True)
    header = _SOURCES / "load.h"
    for name in _NAMES:
        source, program = _SOURCES / f"{name}.c", _BUILD / name
        newest = max(source.stat().st_mtime, header.stat().st_mtime)
        if program.exists() and program.stat().st_mtime > newest:
            continue
        command = ["gcc", *_FLAGS, str(source), "-o", str(program), "-lgearman"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        if done.returncode != 0:
            raise BenchError(f"gcc {name}.c: {done.stderr}")


class Load:
    """Load against one server; the programs' complaints go to a log in *folder*."""

    def __init__(self, server: Server, folder: Path) -> None:
        self._server = server
        self._log = folder / "load.log"

    def pipelined(self, jobs: int, unique: str = "sequential") -> Figures:
        """Submit background jobs on one connection without waiting for replies."""
        return self._run("pipelined", "-n", str(jobs), "-u", unique)

    def clients(self, jobs: int, clients: int, mode: str) -> Figures:
        """Submit jobs by synchronous clients; mode: background or foreground."""
        return self._run("clients", "-n", str(jobs), "-c", str(clients), "-m", mode)

    def tasks(self, jobs: int, in_flight: int) -> Figures:
        """Run foreground jobs by libgearman's tasks."""
        return self._run("tasks", "-n", str(jobs), "-f", str(in_flight))

    def mapped(self, library: str, jobs: int, in_flight: int) -> Figures:
        """Run foreground jobs by a client in Python; library: postgear or pygearman."""
        command = [
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "bench.load.map",
            library,
            str(self._server.port),
            str(jobs),
            str(in_flight),
        ]
        self._log.unlink(missing_ok=True)
        with child(command, self._log, pipes=True) as process:
            return self._read(process, library)

    @contextlib.contextmanager
    def python_worker(self) -> Iterator[None]:
        """Keep one of postgear's workers connected for the time of the block."""
        command = [sys.executable, "-m", "bench.load.noop_worker", str(self._server.port)]
        with child(command, self._log.with_name("worker.log")) as process:
            self._wait_for_workers(1, process)
            yield

    @contextlib.contextmanager
    def workers(self, workers: int) -> Iterator[None]:
        """Keep workers connected for the time of the block."""
        with self._start("workers", "-w", str(workers)) as process:
            self._wait_for_workers(workers, process)
            yield

    @contextlib.contextmanager
    def drained(self, jobs: int, workers: int) -> Iterator[Figures]:
        """Run *jobs* queued jobs; the workers stay connected, idle, for the time of the block."""
        with self._start("workers", "-w", str(workers), "-n", str(jobs)) as process:
            yield self._read(process, "workers")

    @contextlib.contextmanager
    def starts(self, jobs: int) -> Iterator[Callable[[], list[float]]]:
        """Keep one worker connected; give what waits for the jobs 0…jobs-1 and returns when each one started (monotonic)."""
        with self._start("starts", "-n", str(jobs)) as process:
            self._wait_for_workers(1, process)
            yield lambda: list(json.loads(self._line(process, "starts"))["starts"])

    def _wait_for_workers(self, workers: int, process: subprocess.Popen[bytes]) -> None:
        wait_until(
            lambda: self._server.counts()[2] == workers,
            f"registration of {workers} workers",
            timeout_seconds=_REGISTER_TIMEOUT_SECONDS,
            process=process,
        )

    def _run(self, name: str, *options: str) -> Figures:
        with self._start(name, *options) as process:
            return self._read(process, name)

    @contextlib.contextmanager
    def _start(self, name: str, *options: str) -> Iterator[subprocess.Popen[bytes]]:
        command = [str(_BUILD / name), "-p", str(self._server.port), "-t", str(_TIMEOUT_SECONDS), *options]
        self._log.unlink(missing_ok=True)
        with child(command, self._log, pipes=True) as process:
            yield process

    def _read(self, process: subprocess.Popen[bytes], name: str) -> Figures:
        figures: Figures = json.loads(self._line(process, name))
        return figures

    def _line(self, process: subprocess.Popen[bytes], name: str) -> bytes:
        """Return the line the program prints. The program ends itself in time; the wait here is for a stopped one."""
        assert process.stdout is not None
        line = _read_line(process.stdout, _TIMEOUT_SECONDS + 10.0)
        if not line:
            raise BenchError(f"{name}: {tail(self._log) or 'no output, no complaint'}")
        return line


def _read_line(stream: IO[bytes], timeout_seconds: float) -> bytes:
    """Read the one line that comes; empty at the end of file or after the timeout."""
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        return stream.readline() if selector.select(timeout_seconds) else b""
