"""How workers start and stop: drain, bounds, signals, embedding."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from postgear.errors import ConfigError
from postgear.worker.core import AsyncWorker
from postgear.worker.job import Job
from postgear.worker.runner import Worker
from tests.server.bytes import Packet, until
from tests.worker.conftest import WAIT_SECONDS, Client, Running, running

MakeWorker = Callable[..., Worker]


def wait(event: threading.Event) -> None:
    assert event.wait(WAIT_SECONDS)


def test_stop_lets_running_jobs_end_and_leaves_the_others_in_the_queue(
    make_worker: MakeWorker, client: Client, name: str
) -> None:
    worker = make_worker()
    begun, go_on = threading.Event(), threading.Event()

    @worker.function(name)
    def run(payload: bytes) -> bytes:
        begun.set()
        wait(go_on)
        return b"done"

    with running(worker) as run_of_worker:
        handle = client.start(name)
        wait(begun)
        client.submit("SUBMIT_JOB_BG", name.encode(), b"", b"left")
        worker.stop()
        go_on.set()
        assert run_of_worker.wait() == "stopped"
    assert client.end(handle) == [("WORK_COMPLETE", b"done")]
    until(lambda: client.status(name.encode()), (1, 0, 0))
    assert worker.jobs_done == 1


@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])
def test_a_job_that_takes_longer_than_the_drain_goes_back_to_the_queue(
    is_async: bool, make_worker: MakeWorker, client: Client, name: str
) -> None:
    worker = make_worker(drain_seconds=0.05)
    begun, never = threading.Event(), threading.Event()

    def plain(payload: bytes) -> bytes:
        begun.set()
        never.wait(WAIT_SECONDS)
        return b"too late"

    async def in_loop(payload: bytes) -> bytes:
        begun.set()
        await asyncio.sleep(3600)
        return b"too late"

    worker.function(name)(in_loop if is_async else plain)
    with running(worker):
        handle = client.start(name)
        wait(begun)
    until(lambda: client.status(name.encode()), (1, 0, 0))
    other = make_worker()
    other.function(name)(lambda payload: b"done")
    with running(other):
        assert client.end(handle) == [("WORK_COMPLETE", b"done")]
    never.set()


def test_a_second_stop_shortens_the_drain(make_worker: MakeWorker, client: Client, name: str) -> None:
    worker = make_worker()
    begun = threading.Event()

    @worker.function(name)
    async def hang(payload: bytes) -> None:
        begun.set()
        await asyncio.sleep(3600)

    with running(worker) as run:
        client.start(name)
        wait(begun)
        worker.stop(float("inf"))
        worker.stop(0)
        assert run.wait() == "stopped"


def test_a_handler_that_will_not_be_cancelled_does_not_keep_the_worker(
    make_worker: MakeWorker, client: Client, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    worker = make_worker(drain_seconds=0)
    begun = threading.Event()

    @worker.function(name)
    async def stubborn(payload: bytes) -> None:
        begun.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)
        await asyncio.sleep(3600)

    with running(worker) as run:
        client.start(name)
        wait(begun)
        worker.stop()
        assert run.wait() == "stopped"
    assert "handlers ignore that they are cancelled" in caplog.text


def test_a_job_that_waits_for_another_run_goes_back_when_the_worker_stops(
    make_worker: MakeWorker, client: Client, name: str
) -> None:
    worker = make_worker()
    failed = threading.Event()

    @worker.function(name, retries=10)
    def fail(payload: bytes) -> None:
        failed.set()
        raise ValueError

    with running(worker):
        handle = client.start(name)
        wait(failed)
    other = make_worker()
    other.function(name)(lambda payload: b"done")
    with running(other):
        assert client.end(handle) == [("WORK_COMPLETE", b"done")]


@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])
def test_an_interrupted_job_goes_back_and_the_worker_stops(
    is_async: bool, make_worker: MakeWorker, client: Client, name: str
) -> None:
    worker = make_worker()

    def plain(payload: bytes) -> bytes:
        raise KeyboardInterrupt

    async def in_loop(payload: bytes) -> bytes:
        raise KeyboardInterrupt

    worker.function(name)(in_loop if is_async else plain)
    with running(worker) as run:
        handle = client.start(name)
        assert run.wait() == "stopped"
    other = make_worker()
    other.function(name)(lambda payload: b"done")
    with running(other):
        assert client.end(handle) == [("WORK_COMPLETE", b"done")]


def test_stop_before_run_makes_it_return_at_once(make_worker: MakeWorker) -> None:
    worker = make_worker()
    worker.stop()
    assert worker.run() == "stopped"


def test_a_worker_runs_again_after_it_has_stopped(make_worker: MakeWorker, client: Client, name: str) -> None:
    worker = make_worker()
    worker.function(name)(lambda payload: payload)
    for _ in range(2):
        with running(worker):
            assert client.do(name, b"x") == Packet("WORK_COMPLETE", b"x")
    assert worker.jobs_done == 2


def test_a_worker_runs_once_at_a_time(make_worker: MakeWorker) -> None:
    worker = make_worker()
    with running(worker), pytest.raises(ConfigError, match="runs already"):
        worker.run()


def test_max_jobs_are_taken_and_no_more(make_worker: MakeWorker, client: Client, name: str) -> None:
    worker = make_worker(concurrency=10)
    worker.function(name)(lambda payload: payload)
    for _ in range(20):
        client.submit("SUBMIT_JOB_BG", name.encode(), b"", b"")

    with running(worker, max_jobs=7) as run:
        assert run.wait() == "max_jobs"

    assert worker.jobs_done == 7
    until(lambda: client.status(name.encode()), (13, 0, 0))


def test_a_worker_that_needs_too_much_memory_stops(make_worker: MakeWorker) -> None:
    with running(make_worker(), max_memory_bytes=1) as run:
        assert run.wait() == "max_memory"


def test_servers_are_told_the_client_id(make_worker: MakeWorker, client: Client, name: str) -> None:
    worker = make_worker(client_id=f"id-{name}")
    worker.function(name)(lambda payload: payload)
    with running(worker):
        assert any(row.rstrip().endswith(f" id-{name} : {name}".encode()) for row in client.command(b"workers"))


def test_the_default_client_id_names_the_process(make_worker: MakeWorker, client: Client, name: str) -> None:
    worker = make_worker()
    worker.function(name)(lambda payload: payload)
    with running(worker):
        assert any(row.rstrip().endswith(f"-{os.getpid()} : {name}".encode()) for row in client.command(b"workers"))


def test_an_async_worker_runs_in_the_loop_of_another_program(shared_server: Any, name: str) -> None:
    async def story() -> list[bytes]:
        loop = asyncio.get_running_loop()
        seen = []
        async with AsyncWorker(shared_server.address, concurrency=2) as worker:

            @worker.function(name)
            async def run(payload: bytes) -> bytes:
                assert asyncio.get_running_loop() is loop
                return payload

            seen.append((await asyncio.to_thread(one_job, shared_server, name)).body)
        assert worker.jobs_done == 1
        return seen

    assert asyncio.run(story()) == [b"x"]


def one_job(server: Any, name: str) -> Packet:
    with Client(server.host, server.port) as client:
        return client.do(name, b"x")


def test_a_cancelled_worker_ends_at_once_and_its_jobs_go_back(shared_server: Any, client: Client, name: str) -> None:
    ends = []

    async def story() -> None:
        worker = AsyncWorker(shared_server.address)
        begun = asyncio.Event()

        @worker.function(name)
        async def hang(payload: bytes) -> None:
            begun.set()
            try:
                await asyncio.sleep(3600)
            finally:
                ends.append("cancelled")

        task = asyncio.create_task(worker.run())
        client.submit("SUBMIT_JOB_BG", name.encode(), b"", b"")
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(story())
    assert ends == ["cancelled"]
    until(lambda: client.status(name.encode()), (1, 0, 0))


def test_leaving_the_block_raises_what_ended_the_worker(shared_server: Any) -> None:
    async def story() -> None:
        worker = AsyncWorker(shared_server.address)
        async with worker:
            await asyncio.sleep(0)
            with pytest.raises(ConfigError, match="runs already"):
                await worker.run()

    asyncio.run(story())


PROGRAM = """
import sys, threading
from postgear import Job, Worker

worker = Worker(sys.argv[1], drain_seconds=30)

@worker.function(sys.argv[2])
def run(payload: bytes, job: Job) -> bytes:
    print("begun", flush=True)
    if payload == b"hang":
        threading.Event().wait()
    sys.stdin.readline()
    return b"done"

print(worker.run(on_ready=lambda: print("ready", flush=True)), flush=True)
"""


@pytest.fixture
def process(shared_server: Any, name: str, tmp_path: Path) -> Any:
    """A worker that is a program of its own; its handler ends when it is sent a line."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    command = [sys.executable, str(program), shared_server.address, name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as started:
        assert line(started) == "ready"
        yield started
        started.kill()


def line(process: Any) -> str:
    return str(process.stdout.readline()).strip()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_the_worker(number: int, process: Any, client: Client, name: str) -> None:
    handle = client.start(name)
    assert line(process) == "begun"
    process.send_signal(number)
    process.stdin.write("\n")
    process.stdin.flush()

    assert client.end(handle) == [("WORK_COMPLETE", b"done")]
    assert line(process) == "stopped"
    assert process.wait(WAIT_SECONDS) == 0


def test_a_second_signal_ends_the_worker_though_a_thread_hangs(process: Any, client: Client, name: str) -> None:
    client.submit("SUBMIT_JOB_BG", name.encode(), b"", b"hang")
    assert line(process) == "begun"
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)

    assert line(process) == "stopped"
    assert process.wait(WAIT_SECONDS) == 0
    until(lambda: client.status(name.encode()), (1, 0, 0))


def test_the_job_of_a_killed_worker_is_run_by_another(process: Any, client: Client, name: str, make_worker: MakeWorker) -> None:
    handle = client.start(name)
    assert line(process) == "begun"
    process.kill()
    other = make_worker()
    other.function(name)(lambda payload: b"other")
    with running(other):
        assert client.end(handle) == [("WORK_COMPLETE", b"other")]


@pytest.mark.parametrize(
    "options",
    [
        {"concurrency": 0},
        {"drain_seconds": -1},
        {"keepalive_seconds": 0},
        {"client_id": ""},
        {"client_id": "a\nb"},
        {"client_id": "x" * 128},
        {"servers": ""},
        {"servers": "host:port"},
        {"servers": ["a:1", "b:99999"]},
    ],
)
def test_settings_that_cannot_be_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Worker(**options)


def test_a_fault_of_the_loop_is_not_hidden(make_worker: MakeWorker) -> None:
    run = Running(make_worker(), max_jobs=0)
    with pytest.raises(ConfigError, match="max_jobs"):
        run.wait()


def test_reports_after_the_end_of_the_worker_are_dropped(make_worker: MakeWorker, client: Client, name: str) -> None:
    worker = make_worker(drain_seconds=0)
    jobs: list[Job] = []
    begun, ended, go_on = threading.Event(), threading.Event(), threading.Event()

    @worker.function(name)
    def run(payload: bytes, job: Job) -> None:
        jobs.append(job)
        begun.set()
        wait(go_on)
        job.status(1, 2)
        ended.set()

    with running(worker):
        client.submit("SUBMIT_JOB_BG", name.encode(), b"", b"")
        wait(begun)
    go_on.set()
    wait(ended)
