"""`postgear standby` when the primary is lost: it takes over if it may, and nothing acknowledged is missing."""

from __future__ import annotations

import time

from tests.failover.conftest import Pair
from tests.server.bytes import Peer
from tests.server.load import Runner, Submitter, wait_for


def connect(host: str, port: int, seconds: float = 20.0) -> Peer:
    """Connect as soon as somebody listens."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return Peer(host, port)
        except OSError:
            assert time.monotonic() < deadline, f"nobody listens at {host}:{port} after {seconds} s"
            time.sleep(0.02)


def test_a_dead_primary_is_replaced_and_every_acknowledged_job_is_there(pair: Pair) -> None:
    server = pair.serve()
    pair.start_synchronous("--auto-promote")
    submitters = [Submitter(server, b"f", burst=20) for _ in range(3)]
    for submitter in submitters:
        submitter.start()
    wait_for(lambda: sum(len(each.acked) for each in submitters) > 500, "load")

    died_at = time.monotonic()
    pair.a.kill()
    with connect(pair.b.host, pair.b.port) as client:
        client.socket.settimeout(20)
        client.submit("SUBMIT_JOB_BG", b"g", b"", b"first")
        acked_after = time.monotonic() - died_at
        client.can_do(b"g")
        client.grab()
        ran_after = time.monotonic() - died_at
    print(f"\nprimary killed: first ack after {acked_after:.2f} s, first job after {ran_after:.2f} s")
    server.kill()
    for submitter in submitters:
        submitter.stop()
    acked = {handle for each in submitters for handle in each.acked}
    runner = Runner(pair.b, b"f")
    runner.start()
    wait_for(lambda: acked <= set(runner.ran), "every acknowledged job has run", 30)
    runner.stop()
