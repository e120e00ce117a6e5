"""Servers that die, hang, talk nonsense or are not there, and several of them."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from postgear.worker.job import Job
from postgear.worker.runner import Worker
from tests.server.bytes import Packet, request, until
from tests.worker.conftest import WAIT_SECONDS, Client, Running, restart, running

KEEPALIVE_SECONDS = 0.1
"""Short, for the tests wait until a server is given up."""


def wait(event: threading.Event) -> None:
    assert event.wait(WAIT_SECONDS)


class FakeServer:
    """A server that answers each connection with bytes of the test's own, and keeps what it was sent."""

    host = "127.0.0.1"

    def __init__(self, *answers: bytes | None) -> None:
        self._answers = answers
        self._listener = socket.create_server((self.host, 0))
        self.port = self._listener.getsockname()[1]
        self.address = f"{self.host}:{self.port}"
        self.received: list[bytes] = []
        self.count = 0
        self._is_closed = False
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            if self._is_closed:
                connection.close()
                return
            with connection:
                self.count += 1
                for answer in self._answers:
                    self.received.append(connection.recv(65536))
                    if answer is None:
                        break
                    connection.sendall(answer)

    def close(self) -> None:
        self._is_closed = True
        socket.create_connection((self.host, self.port)).close()
        self._thread.join(WAIT_SECONDS)
        self._listener.close()


READY = b"\0RES" + request("ECHO_RES", b"postgear")[4:]


@pytest.fixture
def fake(request: pytest.FixtureRequest) -> Iterator[FakeServer]:
    server = FakeServer(*request.param)
    yield server
    server.close()


@pytest.mark.parametrize(
    "fake",
    [
        [None],
        [b"HTTP/1.1 400 Bad Request\r\n"],
        [b"\0FOO" + bytes(8)],
        [bytes(4096)],
        [READY, b"\0RES" + request("JOB_CREATED", b"H:1")[4:]],
        [READY, b"\0RES" + request("JOB_ASSIGN_UNIQ", b"H:1", b"not offered", b"", b"")[4:]],
        [READY, b"\0RES" + request("JOB_ASSIGN_UNIQ", b"H:1")[4:]],
        [READY, b"\0RES" + request("ERROR", b"INVALID_COMMAND", b"Command not expected")[4:]],
        [READY, None],
    ],
    indirect=True,
    ids=["closes", "http", "magic", "zeros", "not for workers", "not offered", "too short", "error", "closes later"],
)
def test_a_server_that_talks_nonsense_is_left_and_tried_again(
    fake: FakeServer, shared_server: Any, client: Client, name: str
) -> None:
    worker = Worker([fake.address, shared_server.address])
    worker.function(name)(lambda payload: payload)
    with running(worker):
        until(lambda: fake.count > 2, True)
        assert client.do(name, b"x") == Packet("WORK_COMPLETE", b"x")


def test_a_server_may_come_later(own_server: Any, name: str, caplog: pytest.LogCaptureFixture) -> None:
    own_server.kill()
    worker = Worker(own_server.address)
    worker.function(name)(lambda payload: payload)
    run = Running(worker)
    try:
        until(lambda: "server cannot be reached" in caplog.text, True)
        assert not run.is_ready.is_set()
        server = restart(own_server)
        wait(run.is_ready)
        with Client(server.host, server.port) as client:
            assert client.do(name, b"x") == Packet("WORK_COMPLETE", b"x")
    finally:
        worker.stop()
        run.wait()
        server.kill()
    assert caplog.text.count("server cannot be reached") == 1


def test_one_server_that_is_down_does_not_keep_jobs_of_another(shared_server: Any, client: Client, name: str) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # nobody listens here
        worker = Worker([f"127.0.0.1:{bound.getsockname()[1]}", shared_server.address])
        worker.function(name)(lambda payload: payload)
        with running(worker):
            for _ in range(3):
                assert client.do(name, b"x") == Packet("WORK_COMPLETE", b"x")


def test_a_killed_server_cancels_its_async_jobs_and_drops_the_results_of_its_threads(
    own_server: Any, own_client: Client, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    worker = Worker(own_server.address, concurrency=2)
    begun = threading.Barrier(3)
    cancelled, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    @worker.function(f"{name}p")
    def plain(payload: bytes) -> bytes:
        if payload:
            begun.wait(WAIT_SECONDS)
            wait(go_on)
            ended.set()
        return b"plain"

    @worker.function(f"{name}a")
    async def in_loop(payload: bytes) -> bytes:
        if payload:
            try:
                await asyncio.to_thread(begun.wait, WAIT_SECONDS)
                await asyncio.sleep(3600)
            finally:
                cancelled.set()
        return b"async"

    with running(worker):
        own_client.start(f"{name}p", b"x")
        own_client.start(f"{name}a", b"x")
        begun.wait(WAIT_SECONDS)
        own_server.kill()
        wait(cancelled)
        server = restart(own_server)
        go_on.set()
        wait(ended)
        with Client(server.host, server.port) as client:
            assert client.do(f"{name}p") == Packet("WORK_COMPLETE", b"plain")
            assert client.do(f"{name}a") == Packet("WORK_COMPLETE", b"async")
        assert caplog.text.count("job lost") == 2
        assert worker.jobs_done == 2
    server.kill()


def test_a_background_job_of_a_killed_postgear_server_runs_again(
    start_server: Callable[..., Any], name: str, caplog: pytest.LogCaptureFixture
) -> None:
    server = start_server()
    worker = Worker(server.address)
    runs: list[str] = []
    begun = threading.Event()

    @worker.function(name)
    async def run(payload: bytes, job: Job) -> None:
        runs.append(job.handle)
        begun.set()
        if len(runs) == 1:
            await asyncio.sleep(3600)

    with Client(server.host, server.port) as client:
        handle = client.submit("SUBMIT_JOB_BG", name.encode(), b"", b"")
    with running(worker):
        wait(begun)
        server.kill()
        start_server("--listen", server.address)
        until(lambda: worker.jobs_done, 1)
    assert runs == [handle.decode()] * 2


def test_a_server_that_hangs_is_left_after_a_time_and_found_again(own_server: Any, own_client: Client, name: str) -> None:
    worker = Worker(own_server.address, keepalive_seconds=KEEPALIVE_SECONDS)
    begun, cancelled = threading.Event(), threading.Event()

    @worker.function(name)
    async def hang(payload: bytes) -> bytes:
        if cancelled.is_set():
            return b"second"
        begun.set()
        try:
            await asyncio.sleep(3600)
        finally:
            cancelled.set()
        return b""

    with running(worker):
        handle = own_client.start(name)
        wait(begun)
        os.kill(own_server.process.pid, signal.SIGSTOP)
        wait(cancelled)
        os.kill(own_server.process.pid, signal.SIGCONT)
        assert own_client.end(handle) == [("WORK_COMPLETE", b"second")]


def test_a_server_that_hangs_does_not_hold_up_another(own_server: Any, shared_server: Any, client: Client, name: str) -> None:
    worker = Worker([own_server.address, shared_server.address], concurrency=1, keepalive_seconds=KEEPALIVE_SECONDS)
    worker.function(name)(lambda payload: payload)
    with running(worker):
        os.kill(own_server.process.pid, signal.SIGSTOP)
        for _ in range(3):
            assert client.do(name, b"x") == Packet("WORK_COMPLETE", b"x")
        os.kill(own_server.process.pid, signal.SIGCONT)
        with Client(own_server.host, own_server.port) as other:
            assert other.do(name, b"y") == Packet("WORK_COMPLETE", b"y")


def test_a_quiet_server_that_answers_is_kept(own_server: Any, own_client: Client, name: str) -> None:
    worker = Worker(own_server.address, keepalive_seconds=0.02)
    connections = []

    @worker.function(name)
    async def slow(payload: bytes) -> bytes:
        connections.extend(own_client.command(b"workers"))
        await asyncio.sleep(0.3)  # fifteen keepalive periods
        connections.extend(own_client.command(b"workers"))
        return b"done"

    with Client(own_server.host, own_server.port) as client, running(worker):
        assert client.do(name) == Packet("WORK_COMPLETE", b"done")
    mine = {row for row in connections if row.rstrip().endswith(name.encode())}
    assert len(mine) == 1


def test_a_scheduled_job_runs_when_its_time_has_come(own_server: Any, own_client: Client, name: str) -> None:
    # gearmand 1.1.20 wakes nobody then, and before it wakes workers for nothing, again and again.
    worker = Worker(own_server.address, keepalive_seconds=KEEPALIVE_SECONDS)
    ran = threading.Event()

    @worker.function(name)
    def run(payload: bytes) -> None:
        assert time.time() >= int(payload)
        ran.set()

    with running(worker):
        epoch = b"%d" % (time.time() + 2)
        own_client.submit("SUBMIT_JOB_EPOCH", name.encode(), b"", epoch, epoch)
        wait(ran)


def test_slots_are_shared_between_busy_servers(own_server: Any, shared_server: Any, client: Client, name: str) -> None:
    worker = Worker([own_server.address, shared_server.address], concurrency=1)
    order: list[str] = []

    @worker.function(name)
    async def run(payload: bytes, job: Job) -> None:
        order.append(job.server)

    with Client(own_server.host, own_server.port) as other:
        for peer in (client, other):
            for _ in range(100):
                peer.submit("SUBMIT_JOB_BG", name.encode(), b"", b"")
        with running(worker, max_jobs=200) as run_of_worker:
            assert run_of_worker.wait() == "max_jobs"
    assert set(order) == {own_server.address, shared_server.address}
    half = order[:100]
    assert 25 <= half.count(own_server.address) <= 75, order


def test_a_drain_is_not_held_up_for_long_by_a_server_that_hangs(own_server: Any, name: str) -> None:
    worker = Worker(own_server.address, drain_seconds=0.2)
    worker.function(name)(lambda payload: payload)
    with running(worker) as run:
        os.kill(own_server.process.pid, signal.SIGSTOP)
        worker.stop()
        assert run.wait() == "stopped"
    os.kill(own_server.process.pid, signal.SIGCONT)


def test_results_that_a_server_is_slow_to_take_arrive(own_server: Any, own_client: Client, name: str) -> None:
    worker = Worker(own_server.address, concurrency=4)
    block = bytes(4 * 1024 * 1024)
    worker.function(name)(lambda payload: block)
    with running(worker):
        for _ in range(8):
            own_client.send("SUBMIT_JOB", name.encode(), b"", b"")
        until(lambda: worker.jobs_done > 0, True)
        os.kill(own_server.process.pid, signal.SIGSTOP)
        os.kill(own_server.process.pid, signal.SIGCONT)
        packets = [own_client.packet() for _ in range(16)]
    assert sum(len(body) > len(block) for kind, body in packets if kind == "WORK_COMPLETE") == 8
