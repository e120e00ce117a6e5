"""What the failover tests ask of servers: to acknowledge, to acknowledge nothing, to run everything; and their pages."""

from __future__ import annotations

import re
import time
import urllib.error
import urllib.request
from typing import Protocol

import pytest

from tests.server.bytes import Peer
from tests.server.load import Address, Runner, wait_for


def connect(server: Address, seconds: float = 20.0) -> Peer:
    """Connect as soon as somebody listens."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return Peer(server.host, server.port)
        except OSError:
            assert time.monotonic() < deadline, f"nobody listens at {server.host}:{server.port} after {seconds} s"
            time.sleep(0.02)


def submits(server: Address, workload: bytes = b"") -> bytes:
    """Queue a job; returns its handle."""
    with connect(server) as client:
        client.socket.settimeout(20)
        return client.submit("SUBMIT_JOB_BG", b"f", b"", workload)


def acks_nothing(server: Address, seconds: float) -> None:
    """Submit, and get no JOB_CREATED."""
    with Peer(server.host, server.port) as client:
        client.socket.settimeout(seconds)
        client.send("SUBMIT_JOB_BG", b"f", b"", b"unsafe")
        with pytest.raises(TimeoutError):
            client.created()


def run_all(server: Address, handles: set[bytes]) -> None:
    """Run jobs until all of *handles* have run."""
    runner = Runner(server, b"f")
    runner.start()
    try:
        wait_for(lambda: handles <= set(runner.ran), "every acknowledged job has run", 30)
    finally:
        runner.stop()


class Logging(Protocol):
    """A process whose log can be waited for."""

    def wait_for_log(self, pattern: str) -> re.Match[str]: ...


def get(program: Logging, path: str) -> tuple[int, str]:
    """Return status and text of a page of ``--http 127.0.0.1:0``."""
    port = program.wait_for_log(r"http listens address=127\.0\.0\.1:(\d+)")[1]
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
