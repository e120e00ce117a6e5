"""Connections that break at any byte: every job runs, and no slot is lost. Seeded."""

from __future__ import annotations

import asyncio
import random
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from postgear.worker.runner import Worker
from tests.server.bytes import until
from tests.worker.conftest import WAIT_SECONDS, Client, running

JOBS = 300
SLOTS = 5


class Scissors:
    """Forwards connections to a server, and cuts each after a random number of bytes while ``is_cutting``."""

    def __init__(self, server: Any, seed: int) -> None:
        self._server = server
        self._random = random.Random(seed)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.is_cutting = True
        self.cuts = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                worker_end, _ = self._listener.accept()
                threading.Thread(target=self._connect, args=(worker_end,), daemon=True).start()

    def _connect(self, worker_end: socket.socket) -> None:
        with worker_end, socket.create_connection((self._server.host, self._server.port)) as server_end:
            limits = [int(self._random.choice([50, 500, 5000]) * self._random.random()) for _ in range(2)]
            back = threading.Thread(target=self._forward, args=(server_end, worker_end, limits[0]))
            back.start()
            self._forward(worker_end, server_end, limits[1])
            back.join()

    def _forward(self, source: socket.socket, sink: socket.socket, limit: int) -> None:
        with suppress(OSError):
            left = limit
            while data := source.recv(4096):
                if self.is_cutting and len(data) > left:
                    sink.sendall(data[:left])
                    self.cuts += 1
                    break
                left -= len(data)
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def scissors(shared_server: Any, request: pytest.FixtureRequest) -> Iterator[Scissors]:
    cutter = Scissors(shared_server, request.param)
    yield cutter
    cutter.close()


@pytest.mark.parametrize("scissors", [1, 2, 3], indirect=True)
@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])
def test_every_job_runs_and_no_slot_is_lost(scissors: Scissors, is_async: bool, client: Client, name: str) -> None:
    worker = Worker(scissors.address, concurrency=SLOTS)
    runs: Counter[int] = Counter()
    meeting = threading.Barrier(SLOTS)

    def plain(payload: str) -> None:
        runs[int(payload)] += 1

    async def in_loop(payload: str) -> None:
        await asyncio.sleep(0.001)
        plain(payload)

    @worker.function(f"{name} meet")
    def meet(payload: bytes) -> None:
        meeting.wait(WAIT_SECONDS)

    worker.function(name)(in_loop if is_async else plain)
    for number in range(JOBS):
        client.submit("SUBMIT_JOB_BG", name.encode(), b"", b"%d" % number)
    with running(worker):
        until(lambda: scissors.cuts > 5 or len(runs) == JOBS, True)
        scissors.is_cutting = False
        until(lambda: (client.status(name.encode()) or (0,))[0], 0)
        assert set(runs) == set(range(JOBS)), f"{scissors.cuts} cuts"
        for _ in range(SLOTS):
            client.send("SUBMIT_JOB", f"{name} meet".encode(), b"", b"")
        ends = [client.packet().name for _ in range(2 * SLOTS)]
        assert ends.count("WORK_COMPLETE") == SLOTS
