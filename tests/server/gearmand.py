"""Genuine gearmand in the place of postgear: what both must do is checked against it first.

``POSTGEAR_TEST_SERVER=gearmand pytest tests/server tests/interop`` runs the tests of shared behaviour against it;
tests marked ``difference`` describe what postgear does otherwise on purpose and are skipped.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ports import free_port

PROGRAM = "/usr/sbin/gearmand"
START_SECONDS = 5.0


def is_wanted() -> bool:
    return os.environ.get("POSTGEAR_TEST_SERVER") == "gearmand"


class Gearmand:
    """One gearmand with a queue in memory."""

    host = "127.0.0.1"

    def __init__(self, folder: Path, *arguments: str, port: int = 0) -> None:
        self.port = port or free_port()
        self.address = f"{self.host}:{self.port}"
        self._log = folder / f"gearmand-{self.port}.log"
        base = [PROGRAM, "--listen", self.host, "--port", str(self.port), "--log-file", str(self._log)]
        self.process = subprocess.Popen([*base, *arguments])
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                socket.create_connection((self.host, self.port)).close()
                return
            except ConnectionRefusedError:
                assert self.process.poll() is None, self.log()
                assert time.monotonic() < deadline, self.log()

    def log(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(10)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)


def gearmands(folder: Path) -> Iterator[object]:
    """Yield a function that starts servers, and stop them afterwards."""
    started: list[Gearmand] = []

    def start(*arguments: str, port: int = 0) -> Gearmand:
        started.append(Gearmand(folder, *arguments, port=port))
        return started[-1]

    yield start
    for server in started:
        server.kill()


def skip_differences(items: list[pytest.Item]) -> None:
    """Skip what gearmand does otherwise, with the reason written at the test."""
    for item in items:
        for mark in item.iter_markers("difference"):
            item.add_marker(pytest.mark.skip(reason=f"gearmand: {mark.args[0]}"))
