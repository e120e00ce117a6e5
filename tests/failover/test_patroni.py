"""The recipe for Patroni: its files make a cluster, and a server follows the leader without losing an acknowledged job."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.failover.patroni_cluster import Cluster, why_not
from tests.server.load import Runner, Submitter, count, query, wait_for
from tests.server_process import ServerProcess

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(why_not() is not None, reason=f"no Patroni: {why_not()}"),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Three machines with Patroni and the queue's schema."""
    machines = Cluster()
    try:
        machines.start()
        yield machines
    finally:
        machines.stop()


@pytest.fixture(scope="module")
def queue_dsn(cluster: Cluster) -> str:
    """The DSN of the recipe's servers: three hosts."""
    return cluster.set_up()


class LongestPause(threading.Thread):
    """Watches a client for the longest time without an acknowledgement."""

    def __init__(self, submitter: Submitter) -> None:
        super().__init__()
        self._acked = submitter.acked
        self._stopping = threading.Event()
        self.seconds = 0.0

    def run(self) -> None:
        seen, since = len(self._acked), time.monotonic()
        while not self._stopping.wait(0.01):
            if len(self._acked) != seen:
                self.seconds = max(self.seconds, time.monotonic() - since)
                seen, since = len(self._acked), time.monotonic()

    def stop(self) -> None:
        self._stopping.set()
        self.join()


class Load:
    """A client and a worker at one server, from before a fault until the queue is empty after it."""

    def __init__(self, server: ServerProcess, dsn: str) -> None:
        self._dsn = dsn
        self._runner = Runner(server, b"f")
        self._submitter = Submitter(server, b"f", burst=5)
        self._pause = LongestPause(self._submitter)
        for thread in (self._runner, self._submitter, self._pause):
            thread.start()
        self.wait_for_acks()

    def wait_for_acks(self) -> None:
        """Wait until 50 more jobs were acknowledged and run."""
        acked, ran = len(self._submitter.acked) + 50, len(self._runner.ran) + 50
        wait_for(lambda: len(self._submitter.acked) > acked and len(self._runner.ran) > ran, "acknowledgements", 60)

    def settle(self, what: str) -> None:
        """End the load, wait until every job is done, and count."""
        self._submitter.stop()
        self._pause.stop()
        try:
            wait_for(lambda: count(self._dsn) == 0, "an empty queue", 60)
        finally:
            self._runner.stop()
        acked, ran = set(self._submitter.acked), self._runner.ran
        print(
            f"\n{what}: {len(acked)} acknowledged, {len(self._submitter.refused)} refused, {len(acked - set(ran))} lost,"
            f" {len(ran) - len(set(ran))} run twice; longest time without an acknowledgement {self._pause.seconds:.1f} s"
        )
        assert acked
        assert acked <= set(ran)


Start = Callable[..., ServerProcess]


def test_a_server_follows_the_leader(cluster: Cluster, queue_dsn: str, start_server: Start) -> None:
    leader = cluster.leader()
    assert leader is not None
    (candidate,) = [each for each in cluster.nodes if each.name in cluster.names("sync_standby")]
    server = start_server(dsn=queue_dsn)
    load = Load(server, cluster.owner_dsn)

    cluster.switch_over(leader, candidate)
    server.wait_for_log("database connection lost")
    load.wait_for_acks()
    assert query(queue_dsn, "select host(inet_server_addr())") == [(candidate.address,)]

    cluster.wait_for_standbys(2)
    load.settle("switchover")


def test_a_leader_s_machine_dies_and_comes_back(cluster: Cluster, queue_dsn: str, start_server: Start) -> None:
    cluster.wait_for_standbys(2)
    leader = cluster.leader()
    assert leader is not None
    server = start_server(dsn=queue_dsn)
    load = Load(server, cluster.owner_dsn)

    leader.kill_machine()
    server.wait_for_log("database connection lost")
    load.wait_for_acks()
    assert query(queue_dsn, "select host(inet_server_addr())") != [(leader.address,)]

    leader.start_etcd()
    leader.start_patroni()
    cluster.wait_for_standbys(2)
    load.settle("kill -9 of the leader's machine")
