"""What a worker can do, changed while it runs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from postgear.errors import ConfigError
from postgear.functions import Handler
from postgear.worker.runner import Worker
from tests.server.bytes import Packet, until
from tests.worker.conftest import WAIT_SECONDS, Client, running

MakeWorker = Callable[..., Worker]


def workers(client: Client, name: str) -> int:
    """Return how many connections can do a function."""
    row = client.status(name.encode())
    return row[2] if row else 0


def answer(text: bytes) -> Callable[[bytes], bytes]:
    def run(payload: bytes) -> bytes:
        return text

    return run


def test_a_function_added_while_running_gets_the_jobs_that_wait(make_worker: MakeWorker, client: Client, name: str) -> None:
    worker = make_worker()
    worker.function(f"{name} other")(answer(b"other"))
    with running(worker):
        handle = client.start(name)
        worker.add(Handler(answer(b"done"), name))
        assert client.end(handle) == [("WORK_COMPLETE", b"done")]


def test_a_worker_that_can_do_nothing_yet_runs(make_worker: MakeWorker, client: Client, name: str) -> None:
    worker = make_worker()
    with running(worker):
        worker.function(name)(answer(b"done"))
        assert client.do(name) == Packet("WORK_COMPLETE", b"done")


def test_a_function_removed_while_running_is_left_to_others(make_worker: MakeWorker, client: Client, name: str) -> None:
    worker = make_worker()
    worker.function(name)(answer(b"done"))
    with running(worker):
        assert client.do(name) == Packet("WORK_COMPLETE", b"done")
        worker.remove(name)
        until(lambda: workers(client, name), 0)
        handle = client.start(name)
        other = make_worker()
        other.function(name)(answer(b"other"))
        with running(other):
            assert client.end(handle) == [("WORK_COMPLETE", b"other")]
    with pytest.raises(ConfigError, match=name):
        worker.remove(name)


def test_jobs_of_a_removed_function_that_run_are_ended_here_and_once(make_worker: MakeWorker, client: Client, name: str) -> None:
    worker = make_worker(concurrency=2)
    runs = []
    begun, go_on = threading.Event(), threading.Event()

    @worker.function(name)
    def slow(payload: bytes) -> bytes:
        runs.append(payload)
        begun.set()
        assert go_on.wait(WAIT_SECONDS)
        return b"done"

    worker.function(f"{name} other")(answer(b"other"))
    with running(worker):
        handle = client.start(name, b"first")
        assert begun.wait(WAIT_SECONDS)
        worker.remove(name)
        with Client(client.socket.getpeername()[0], client.socket.getpeername()[1]) as second:
            until(
                lambda: workers(second, f"{name} other"), 2
            )  # the connection that ends its job, and the one that took its place
            assert second.do(f"{name} other") == Packet("WORK_COMPLETE", b"other")
            go_on.set()
            assert client.end(handle) == [("WORK_COMPLETE", b"done")]
            until(lambda: workers(second, f"{name} other"), 1)
            assert workers(second, name) == 0
    assert runs == [b"first"]


def test_another_handler_takes_over_while_running(make_worker: MakeWorker, client: Client, name: str) -> None:
    worker = make_worker()
    worker.function(name)(answer(b"one"))
    with running(worker):
        assert client.do(name) == Packet("WORK_COMPLETE", b"one")
        worker.function(name)(answer(b"two"))
        until(lambda: client.do(name), Packet("WORK_COMPLETE", b"two"))
        worker.function(name, timeout=5)(answer(b"three"))
        until(lambda: client.do(name), Packet("WORK_COMPLETE", b"three"))
        assert workers(client, name) == 1


def test_stop_ends_jobs_on_a_connection_that_was_replaced(make_worker: MakeWorker, client: Client, name: str) -> None:
    worker = make_worker()
    begun, go_on = threading.Event(), threading.Event()

    @worker.function(name)
    def slow(payload: bytes) -> bytes:
        begun.set()
        assert go_on.wait(WAIT_SECONDS)
        return b"done"

    with running(worker) as run:
        handle = client.start(name)
        assert begun.wait(WAIT_SECONDS)
        worker.remove(name)
        worker.stop()
        go_on.set()
        assert run.wait() == "stopped"
    assert client.end(handle) == [("WORK_COMPLETE", b"done")]


def test_hooks_added_while_running_are_called(make_worker: MakeWorker, client: Client, name: str) -> None:
    worker = make_worker()
    worker.function(name)(answer(b"done"))
    seen: list[Any] = []
    with running(worker):
        client.do(name)
        worker.before(lambda job: seen.append(job.function))
        until(lambda: client.do(name) and bool(seen), True)
    assert set(seen) == {name}
