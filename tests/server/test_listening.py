"""A server finds out whether notifications arrive: through a proxy that swallows them, and where LISTEN was lost."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterator

import pytest

from postgear import listening
from postgear.listening import Listening
from postgear.store.postgres import PostgresStore
from tests.failover.asking import get
from tests.server.bytes import Peer
from tests.server.load import query, wait_for
from tests.server.swallowing import SwallowingProxy
from tests.server_process import ServerProcess

SILENT = "WARNING listening notifications do not arrive"
AGAIN = "INFO listening notifications arrive again"

Start = Callable[..., ServerProcess]
ConnectTo = Callable[[ServerProcess], Peer]


@pytest.fixture
def proxy(dsn: str) -> Iterator[SwallowingProxy]:
    proxy = SwallowingProxy(dsn)
    yield proxy
    proxy.close()


def metric(server: ServerProcess) -> str:
    (line,) = [line for line in get(server, "/metrics")[1].splitlines() if line.startswith("postgear_notifications_arrive ")]
    return line.split()[1]


def test_swallowed_notifications_are_told_once_and_again_when_they_arrive(
    proxy: SwallowingProxy, dsn: str, start_server: Start, connect_to: ConnectTo
) -> None:
    server = start_server("--http", "127.0.0.1:0", dsn=proxy.dsn)
    server.wait_for_log(f"{SILENT} effect=.*up to a second late.* advice=.*pooler in transaction mode")
    assert proxy.swallowed == 2  # the second after LISTEN was sent again
    assert metric(server) == "0"
    assert get(server, "/ready") == (200, "ready\n")
    worker = connect_to(server)
    worker.can_do(b"f")
    query(dsn, "select gman_do_background('f', 'by the poll')")
    assert worker.grab()[2] == b"by the poll"

    proxy.break_connections()
    server.wait_for_log("database connected")
    wait_for(lambda: proxy.swallowed >= 4, "it has tried again")
    proxy.swallows = False
    proxy.break_connections()
    server.wait_for_log(AGAIN)
    assert metric(server) == "1"
    assert server.log().count(SILENT) == 1


def test_a_server_that_hears_says_nothing(start_server: Start) -> None:
    server = start_server("--http", "127.0.0.1:0")
    wait_for(lambda: "\npostgear_notifications_arrive 1\n" in get(server, "/metrics")[1], "it has tried")
    assert "notifications" not in server.log()


class Lease:
    """A lease whose LISTEN may be lost, and what is asked of it."""

    def __init__(self, dsn: str, *, lost: int = 0) -> None:
        self.up = asyncio.Event()
        self.sleeps = True
        self.asked = 0  # whether it sleeps
        self.heard: list[str] = []
        listens = self.listens = []

        class Store(PostgresStore):
            async def listen(self) -> None:
                listens.append(self.lease)
                if len(listens) > lost:
                    await super().listen()

        self.store = Store(dsn, "test", self._notified)
        self.listening = Listening(self.store, self.up, self._sleeps)

    def _notified(self, payload: str) -> None:
        self.heard.append(payload)
        self.listening.heard(payload)

    def _sleeps(self) -> bool:
        self.asked += 1
        return self.sleeps

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for it."""
        while not condition():
            await asyncio.sleep(0.01)


def during(test: Callable[[Lease], Awaitable[None]], dsn: str, *, lost: int = 0) -> None:
    """Run *test* while a lease listens."""

    async def run() -> None:
        lease = Lease(dsn, lost=lost)
        await lease.store.connect()
        await lease.store.register_server("test", "127.0.0.1:1", os.getpid(), "1", 600.0)
        lease.up.set()
        running = asyncio.create_task(lease.listening.run())
        try:
            await asyncio.wait_for(test(lease), 30)
        finally:
            running.cancel()
            lease.store.close()

    asyncio.run(run())


def test_a_listen_that_was_lost_is_sent_again(
    dsn: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(listening, "HEARD_SECONDS", 1.0)
    caplog.set_level(logging.INFO, "postgear")

    async def test(lease: Lease) -> None:
        await lease.until(lambda: lease.listening.hears is not None)
        assert lease.listening.hears
        assert len(lease.listens) == 2
        assert not caplog.messages

    during(test, dsn, lost=1)


def test_what_another_lease_sends_to_itself_is_not_taken_for_ones_own(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "HEARD_SECONDS", 0.5)

    async def test(lease: Lease) -> None:
        while lease.listening.hears is None:
            lease.listening.heard(f"probe {lease.store.lease + 1} 1")
            lease.listening.heard(f"probe {lease.store.lease} 0")
            await asyncio.sleep(0.01)
        assert lease.listening.hears is False

    during(test, dsn, lost=1000)


def test_it_is_tried_again_only_while_the_lease_sleeps(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "PROBE_SECONDS", 0.02)

    async def test(lease: Lease) -> None:
        lease.sleeps = False
        await lease.until(lambda: lease.asked > 5)
        number = lease.store.lease
        assert lease.heard == [f"probe {number} 1"]
        lease.sleeps = True
        await lease.until(lambda: lease.heard[:3] == [f"probe {number} {each}" for each in (1, 2, 3)])

    during(test, dsn)


def test_a_change_is_noticed_though_no_connection_breaks(
    proxy: SwallowingProxy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(listening, "HEARD_SECONDS", 0.5)
    monkeypatch.setattr(listening, "PROBE_SECONDS", 0.02)
    caplog.set_level(logging.INFO, "postgear")

    async def test(lease: Lease) -> None:
        await lease.until(lambda: proxy.swallowed >= 4)
        proxy.swallows = False
        await lease.until(lambda: lease.listening.hears is True)
        assert caplog.messages == ["notifications do not arrive", "notifications arrive again"]

    during(test, proxy.dsn)
