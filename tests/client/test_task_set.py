"""Sets of jobs with callbacks, at postgear and at genuine gearmand, blocking and awaited."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from postgear import AsyncClient, AsyncTaskSet, Function
from postgear.errors import JobFailed, PayloadError
from tests.extension.python_worker import PythonWorker
from tests.server.bytes import Peer


class Log:
    """Remembers which callbacks were called, with what."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda _task, *arguments: self.calls.append((name, *arguments))

    def callbacks(self) -> dict[str, Any]:
        names = ("on_data", "on_status", "on_warning", "on_complete", "on_fail", "on_exception", "on_retry")
        return {name: getattr(self, name) for name in names}


def test_each_callback_is_called_with_what_came(client: Any, worker: PythonWorker, task_set: Any) -> None:
    log = Log()
    tasks = task_set(client)
    task = tasks.add("warn", b"careful", **log.callbacks())
    assert (task.handle, task.result, task.is_ended) == (None, None, False)
    assert tasks.wait(5)
    assert log.calls == [("on_status", 1, 2), ("on_warning", b"careful"), ("on_complete",)]
    assert (task.handle[:2], task.status, task.result, task.error, task.is_ended) == ("H:", (1, 2), b"done", None, True)


def test_parts_go_to_their_callback_or_else_into_the_result(client: Any, worker: PythonWorker, task_set: Any) -> None:
    log = Log()
    tasks = task_set(client)
    told = tasks.add("chunks", b"abc", on_data=log.on_data)
    whole = tasks.add("chunks", b"abc")
    assert tasks.wait(5)
    assert log.calls == [("on_data", b"ab"), ("on_data", b"c")]
    assert (told.result, whole.result) == (b"!", b"abc!")


def test_failures_are_told_and_not_raised(client: Any, worker: PythonWorker, task_set: Any) -> None:
    said, silent = Log(), Log()
    tasks = task_set(client)
    exception = tasks.add("raise", b"why", **said.callbacks())
    fail = tasks.add("fail", b"", **silent.callbacks())
    wrong = tasks.add(Function("echo", str, int), "no number")
    assert tasks.wait(5)
    assert said.calls == [("on_exception",), ("on_fail",)]
    assert silent.calls == [("on_fail",)]
    assert isinstance(exception.error, JobFailed)
    assert exception.error.exception == b"why"
    assert isinstance(fail.error, JobFailed)
    assert isinstance(wrong.error, PayloadError)
    assert wrong.error.handle == wrong.handle


def test_retries_are_told_and_parts_of_failed_runs_forgotten(client: Any, worker: PythonWorker, task_set: Any) -> None:
    errors = []
    tasks = task_set(client)
    task = tasks.add("flaky", b"x", retries=2, on_retry=lambda task, error: errors.append((task.attempts, error.exception)))
    hopeless = tasks.add("flaky", b"y", retries=1)
    assert tasks.wait(5)
    assert task.result == b"part x"
    assert errors == [(2, b"not yet"), (3, b"not yet")]
    assert (hopeless.result, hopeless.attempts) == (None, 2)


def test_waiting_ends_in_time_and_goes_on_later(client: Any, peer: Peer, task_set: Any, function: str) -> None:
    tasks = task_set(client)
    first = tasks.add(function, b"1")
    assert tasks.wait(0.1) is False
    second = tasks.add(function, b"2")
    assert tasks.wait(0.1) is False
    assert first.handle is not None
    assert second.handle is not None
    peer.can_do(function.encode())
    for handle in (first.handle, second.handle):
        assert peer.grab()[0] == handle.encode()
        peer.send("WORK_COMPLETE", handle.encode(), b"done")
    assert tasks.wait(5)
    assert (first.result, second.result) == (b"done", b"done")
    assert tasks.wait(0)


def test_a_callback_may_add_jobs(client: Any, worker: PythonWorker, task_set: Any) -> None:
    tasks = task_set(client, 1)
    results: list[bytes] = []

    def complete(task: Any) -> None:
        results.append(task.result)
        if len(results) < 4:
            tasks.add("echo", b"%d" % len(results), on_complete=complete)

    tasks.add("echo", b"0", on_complete=complete)
    assert tasks.wait(5)
    assert results == [b"0", b"1", b"2", b"3"]


def test_what_a_callback_raises_ends_the_wait_and_not_the_jobs(client: Any, worker: PythonWorker, task_set: Any) -> None:
    def fail(_task: Any) -> None:
        raise RuntimeError("mine")

    tasks = task_set(client)
    tasks.add("echo", b"1", on_complete=fail)
    other = tasks.add("echo", b"2")
    with pytest.raises(RuntimeError, match="mine"):
        tasks.wait(5)
    assert tasks.wait(5)
    assert other.result == b"2"


def test_no_more_jobs_than_allowed_run_at_a_time(client: Any, peer: Peer, task_set: Any, function: str) -> None:
    peer.can_do(function.encode())
    tasks = task_set(client, 2)
    for number in range(3):
        tasks.add(function, b"%d" % number)
    assert tasks.wait(0.1) is False
    assert peer.status(function.encode()) == (2, 0, 1)

    def work() -> None:
        for _ in range(3):
            peer.send("WORK_COMPLETE", peer.grab()[0], b"")

    thread = threading.Thread(target=work)
    thread.start()
    assert tasks.wait(5)
    thread.join()


def test_a_set_that_was_closed_says_that_not_all_have_ended(client: Any, task_set: Any, function: str) -> None:
    tasks = task_set(client)
    tasks.add(function, b"x")
    assert tasks.wait(0.05) is False
    tasks.close()
    assert tasks.wait(5) is False


def test_a_set_without_jobs_is_done(client: Any, task_set: Any) -> None:
    assert task_set(client).wait(0)


def test_callbacks_may_be_coroutine_functions(gearman_server: Any, worker: PythonWorker) -> None:
    results: list[bytes] = []

    async def main() -> None:
        async def complete(task: Any) -> None:
            results.append(await client.do("echo", b"again " + task.result))

        async with AsyncClient(gearman_server.address) as client, AsyncTaskSet(client) as tasks:
            tasks.add("echo", b"once", on_complete=complete)
            assert await tasks.wait(5)

    asyncio.run(main())
    assert results == [b"again once"]
