"""Servers are restarted one by one under load: no job is lost, and stock workers that list both only reconnect."""

from __future__ import annotations

import itertools
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.failover import stock
from tests.server.bytes import Peer
from tests.server.load import count, query, wait_for
from tests.server_process import ServerProcess

LANGUAGES = [language for language in stock.LANGUAGES if stock.why_not(language) is None]
pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(not LANGUAGES, reason="no stock worker is installed"),
]


class Producer(threading.Thread):
    """A client with a list of addresses: it queues one job after another, and takes the next server when one is gone."""

    def __init__(self, *addresses: str) -> None:
        super().__init__()
        self._addresses = itertools.cycle(addresses)
        self._stopping = False
        self.acked: list[int] = []
        """The numbers of the jobs that were acknowledged."""

    def run(self) -> None:
        while not self._stopping:
            host, _, port = next(self._addresses).rpartition(":")
            try:
                with Peer(host, int(port)) as peer:
                    while not self._stopping:
                        peer.send("SUBMIT_JOB_BG", b"reverse", b"", b"abc")
                        packet = peer.packet()
                        if packet.name != "JOB_CREATED":
                            break
                        self.acked.append(int(packet.body.rpartition(b":")[2]))
            except OSError:
                continue

    def stop(self) -> None:
        self._stopping = True
        self.join(30)
        assert not self.is_alive()


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Callable[[str], list[subprocess.Popen[bytes]]]]:
    """Start one worker of each language with a list of servers."""
    started: list[subprocess.Popen[bytes]] = []

    def start(addresses: str) -> list[subprocess.Popen[bytes]]:
        for language in LANGUAGES:
            command = [*stock.command("worker", language, tmp_path), addresses]
            started.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL))
        return started

    yield start
    for worker in started:
        worker.kill()
        worker.wait()


def workers_at(server: ServerProcess) -> int:
    with Peer(server.host, server.port) as peer:
        return (peer.status(b"reverse") or (0, 0, 0))[2]


def test_servers_are_restarted_one_by_one(
    start_server: Callable[..., ServerProcess], workers: Callable[[str], list[subprocess.Popen[bytes]]], dsn: str
) -> None:
    query(dsn, "create table done (id bigint)")
    query(
        dsn,
        "create function note_done() returns trigger language plpgsql security definer as"
        " $$begin insert into public.done values (old.id); return null; end$$",
    )
    query(dsn, "create trigger done after delete on postgear.job for each row execute function public.note_done()")
    servers = {name: start_server("--name", name) for name in ("a", "b")}
    addresses = [server.address for server in servers.values()]
    processes = workers(",".join(addresses))
    for server in servers.values():
        wait_for(lambda server=server: workers_at(server) == len(LANGUAGES), "all workers", 30)  # type: ignore[misc]
    producer = Producer(*addresses)
    producer.start()
    try:
        for name, server in list(servers.items()):
            goes_on(producer, dsn)
            assert server.stop() == 0
            goes_on(producer, dsn)
            servers[name] = start_server("--name", name, "--listen", server.address)
            seconds = wait_for(lambda name=name: workers_at(servers[name]) == len(LANGUAGES), "all workers again", 40)  # type: ignore[misc]
            print(f"\n{name} restarted: all of {', '.join(LANGUAGES)} are back after {seconds:.1f} s")
    finally:
        producer.stop()

    wait_for(lambda: count(dsn) == 0, "an empty queue", 30)
    done = [row[0] for row in query(dsn, "select id from done")]
    print(f"{len(producer.acked)} acknowledged, {len(set(producer.acked) - set(done))} lost")
    assert set(producer.acked) <= set(done)
    assert len(done) == len(set(done))
    assert [process.poll() for process in processes] == [None] * len(processes)


def goes_on(producer: Producer, dsn: str) -> None:
    """Wait until 50 more jobs were acknowledged and 50 more done."""
    acked = len(producer.acked) + 50
    done = int(query(dsn, "select count(*) from done")[0][0]) + 50
    wait_for(lambda: len(producer.acked) > acked, "acknowledgements")
    wait_for(lambda: query(dsn, "select count(*) from done")[0][0] > done, "done jobs")
