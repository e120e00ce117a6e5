"""What the failover tests ask of servers: to acknowledge, to acknowledge nothing, to run everything."""

from __future__ import annotations

import time

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
