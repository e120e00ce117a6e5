"""What handlers get and return, and what clients hear of it; against postgear and genuine gearmand."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import pytest

from postgear.errors import ConfigError
from postgear.worker.job import Job
from postgear.worker.runner import Worker
from tests.server.bytes import Packet
from tests.worker.conftest import WAIT_SECONDS, Client, running

MakeWorker = Callable[..., Worker]
BYTES = bytes(range(256))


@dataclass
class Article:
    id: int
    title: str


@pytest.mark.parametrize("workload", [b"", BYTES, BYTES * 12 * 1024], ids=["nothing", "256 bytes", "3 MB"])
def test_every_byte_arrives_and_comes_back(workload: bytes, make_worker: MakeWorker, client: Client, name: str) -> None:
    worker = make_worker()

    @worker.function(name)
    def reverse(payload: bytes) -> bytes:
        return payload[::-1]

    with running(worker):
        assert client.do(name, workload) == Packet("WORK_COMPLETE", workload[::-1])


def test_plain_handlers_run_in_a_thread_and_async_ones_in_the_loop(make_worker: MakeWorker, client: Client, name: str) -> None:
    worker = make_worker()
    threads = []

    @worker.function(f"{name} plain")
    def plain(payload: str) -> str:
        threads.append(threading.current_thread().name)
        return payload.upper()

    @worker.function(f"{name} async")
    async def in_loop(payload: str) -> str:
        await asyncio.sleep(0)
        threads.append(threading.current_thread().name)
        return payload.upper()

    with running(worker):
        assert client.do(f"{name} plain", b"a") == Packet("WORK_COMPLETE", b"A")
        assert client.do(f"{name} async", b"b") == Packet("WORK_COMPLETE", b"B")
    assert threads[0] == "postgear-slot-1"
    assert threads[1] != threads[0]


def test_payloads_are_decoded_and_results_encoded_by_annotation(make_worker: MakeWorker, client: Client, name: str) -> None:
    worker = make_worker()

    @worker.function(name)
    def rename(article: Article) -> Article:
        return Article(article.id + 1, article.title.upper())

    with running(worker):
        assert client.do(name, b'{"id":1,"title":"a"}') == Packet("WORK_COMPLETE", b'{"id":2,"title":"A"}')


def test_a_handler_hears_of_its_job_and_reports(make_worker: MakeWorker, client: Client, name: str) -> None:
    worker = make_worker()
    seen = []

    @worker.function(name)
    def talk(payload: bytes, job: Job) -> None:
        seen.append((job.function, job.handle, job.unique, job.workload, job.attempt, job.possible_duplicate))
        job.status(1, 2)
        job.data("part")
        job.warning("careful")

    with running(worker):
        handle = client.start(name, b"x", b"unique")
        said = client.end(handle)
    assert said == [("WORK_STATUS", b"1\x002"), ("WORK_DATA", b"part"), ("WORK_WARNING", b"careful"), ("WORK_COMPLETE", b"")]
    assert seen == [(name, handle.decode(), "unique", b"x", None, False)]


@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])
def test_what_a_handler_raises_fails_the_job(
    is_async: bool, make_worker: MakeWorker, client: Client, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    worker = make_worker()

    def plain(payload: bytes) -> bytes:
        raise ValueError("no such article")

    async def in_loop(payload: bytes) -> bytes:
        raise ValueError("no such article")

    worker.function(name)(in_loop if is_async else plain)
    with running(worker):
        handle = client.start(name)
        assert client.end(handle) == [("WORK_EXCEPTION", b"ValueError: no such article")]
        assert client.do(name).name == "WORK_EXCEPTION"  # the worker goes on
    assert worker.jobs_failed == 2
    record = next(each for each in caplog.records if each.levelno == logging.ERROR)
    assert f"function={name} handle={handle.decode()} server=" in record.getMessage()
    assert record.exc_text is not None
    assert "in in_loop" in record.exc_text or "in plain" in record.exc_text


@pytest.mark.parametrize("kind", [SystemExit, asyncio.CancelledError, StopIteration, BaseException])
@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])
def test_a_job_whose_handler_raises_what_should_end_programs_fails_like_others(
    kind: type[BaseException], is_async: bool, make_worker: MakeWorker, client: Client, name: str
) -> None:
    worker = make_worker()

    def plain(payload: bytes) -> bytes:
        raise kind("x")

    async def in_loop(payload: bytes) -> bytes:
        raise kind("x")

    worker.function(name)(in_loop if is_async else plain)
    with running(worker):
        for _ in range(2):
            assert client.do(name).name == "WORK_EXCEPTION"


def test_a_job_is_failed_by_its_handlers_word(make_worker: MakeWorker, client: Client, name: str) -> None:
    worker = make_worker()

    @worker.function(name, retries=3)
    def fail(payload: bytes, job: Job) -> bytes:
        job.exception("no")
        job.data("too late")
        return b"too late"

    with running(worker):
        handle = client.start(name)
        assert client.end(handle) == [("WORK_EXCEPTION", b"no")]
        assert client.do(name) == Packet("WORK_EXCEPTION", b"no")  # nothing else came in between


def test_without_exceptions_a_failure_is_only_that(make_worker: MakeWorker, client: Client, name: str) -> None:
    worker = make_worker(exceptions=False)

    @worker.function(name)
    def fail(payload: bytes, job: Job) -> None:
        if payload:
            job.exception("no")
        raise ValueError("no")

    with running(worker):
        assert client.do(name) == Packet("WORK_FAIL", b"")
        assert client.do(name, b"x") == Packet("WORK_FAIL", b"")


def test_a_payload_that_cannot_be_decoded_fails_its_job_at_once(
    make_worker: MakeWorker, shared_server: Any, client: Client, name: str
) -> None:
    worker = make_worker()
    calls = []

    @worker.function(name, retries=5)
    def index(article: Article) -> None:
        calls.append(article)

    with running(worker):
        handle = client.start(name, b'{"id":"x"}')
        ((kind, said),) = client.end(handle)
    assert kind == "WORK_EXCEPTION"
    assert said.startswith(f"PayloadError: server {shared_server.address}: the payload cannot be decoded: ".encode())
    assert said.endswith(f" (function {name}, job {handle.decode()})".encode())
    assert calls == []


def test_a_result_that_cannot_be_encoded_fails_its_job_at_once(
    make_worker: MakeWorker, shared_server: Any, client: Client, name: str
) -> None:
    worker = make_worker()

    @worker.function(name, retries=5)
    def index(payload: bytes) -> Any:
        return object()

    with running(worker):
        handle = client.start(name)
        ((kind, said),) = client.end(handle)
    assert kind == "WORK_EXCEPTION"
    assert said.startswith(f"PayloadError: server {shared_server.address}: the result cannot be encoded: ".encode())
    assert said.endswith(f" (function {name}, job {handle.decode()})".encode())


@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])
def test_a_job_that_failed_runs_again(is_async: bool, make_worker: MakeWorker, client: Client, name: str) -> None:
    worker = make_worker()
    attempts: list[tuple[int | None, bool]] = []

    def plain(payload: bytes, job: Job) -> bytes:
        attempts.append((job.attempt, job.possible_duplicate))
        if len(attempts) < 3:
            raise ValueError(len(attempts))
        return b"done"

    async def in_loop(payload: bytes, job: Job) -> bytes:
        return plain(payload, job)

    worker.function(name, retries=2)(in_loop if is_async else plain)
    with running(worker):
        assert client.do(name) == Packet("WORK_COMPLETE", b"done")
    assert attempts == [(None, False), (2, True), (3, True)]


def test_a_job_fails_when_its_retries_are_used_up(make_worker: MakeWorker, client: Client, name: str) -> None:
    worker = make_worker()
    attempts = []

    @worker.function(name, retries=1)
    async def fail(payload: bytes) -> bytes:
        attempts.append(payload)
        raise ValueError(len(attempts))

    with running(worker):
        assert client.do(name) == Packet("WORK_EXCEPTION", b"ValueError: 2")


def test_an_async_handler_that_takes_too_long_is_cancelled(make_worker: MakeWorker, client: Client, name: str) -> None:
    worker = make_worker()
    ends = []

    @worker.function(name, timeout=0.05)
    async def hang(payload: bytes) -> bytes:
        try:
            await asyncio.sleep(3600)
        finally:
            ends.append("cancelled")
        return b""

    with running(worker):
        for _ in range(2):
            assert client.do(name) == Packet("WORK_EXCEPTION", b"TimeoutError: the handler took longer than 0.05 s")
    assert ends == ["cancelled"] * 2


def test_an_async_handler_that_will_not_be_cancelled_fails_its_job_all_the_same(
    make_worker: MakeWorker, client: Client, name: str
) -> None:
    worker = make_worker()
    ends = []

    @worker.function(name, timeout=0.05)
    async def stubborn(payload: bytes) -> bytes:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            ends.append("refused")
        return b"late"

    with running(worker):
        for _ in range(2):
            assert client.do(name) == Packet("WORK_EXCEPTION", b"TimeoutError: the handler took longer than 0.05 s")
    assert ends == ["refused"] * 2


def test_a_thread_that_takes_too_long_fails_its_job_and_keeps_its_slot(
    make_worker: MakeWorker, client: Client, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    worker = make_worker(concurrency=1)
    go_on = threading.Event()

    @worker.function(name, timeout=0.05)
    def hang(payload: bytes) -> bytes:
        if payload:
            assert go_on.wait(WAIT_SECONDS)
        return b"done"

    with running(worker):
        assert client.do(name, b"hang") == Packet("WORK_EXCEPTION", b"TimeoutError: the handler took longer than 0.05 s")
        assert worker.jobs_running == 1
        assert "its slot stays taken" in caplog.text
        handle = client.start(name)
        go_on.set()
        assert client.end(handle) == [("WORK_COMPLETE", b"done")]


def test_a_timeout_counts_as_a_failure_that_is_retried(make_worker: MakeWorker, client: Client, name: str) -> None:
    worker = make_worker()
    runs = []

    @worker.function(name, timeout=0.05, retries=1)
    async def slow_once(payload: bytes) -> bytes:
        runs.append(payload)
        await asyncio.sleep(3600 if len(runs) == 1 else 0)
        return b"done"

    with running(worker):
        assert client.do(name) == Packet("WORK_COMPLETE", b"done")


def test_as_many_jobs_run_at_a_time_as_there_are_slots(make_worker: MakeWorker, client: Client, name: str) -> None:
    worker = make_worker(concurrency=3)
    barrier = threading.Barrier(3)

    @worker.function(name)
    def meet(payload: bytes) -> None:
        barrier.wait(WAIT_SECONDS)

    with running(worker):
        for number in range(9):
            client.send("SUBMIT_JOB", name.encode(), b"", b"%d" % number)
        packets = [client.packet() for _ in range(18)]
    handles = {body for kind, body in packets if kind == "JOB_CREATED"}
    assert {body.rstrip(b"\0") for kind, body in packets if kind == "WORK_COMPLETE"} == handles
    assert worker.jobs_done == len(handles) == 9


def test_two_thousand_jobs_through_ten_slots(make_worker: MakeWorker, client: Client, name: str) -> None:
    worker = make_worker(concurrency=10)
    workloads = []

    @worker.function(name)
    async def collect(payload: str) -> None:
        workloads.append(int(payload))

    for number in range(2000):
        client.send("SUBMIT_JOB_BG", name.encode(), b"", b"%d" % number)
    for _ in range(2000):
        client.created()
    with running(worker, max_jobs=2000) as run:
        assert run.wait() == "max_jobs"
    assert sorted(workloads) == list(range(2000))


def test_hooks_run_around_each_job_where_it_runs(make_worker: MakeWorker, client: Client, name: str) -> None:
    worker = make_worker()
    said: list[str] = []

    @worker.before
    def before(job: Job) -> None:
        said.append(f"before {job.function[len(name) :]} {threading.current_thread().name == 'postgear-slot-1'}")

    @worker.after
    def after(job: Job, error: BaseException | None) -> None:
        said.append(f"after {error!r} {threading.current_thread().name == 'postgear-slot-1'}")

    @worker.before
    async def async_before(job: Job) -> None:
        said.append("async before")

    @worker.after
    async def async_after(job: Job, error: BaseException | None) -> None:
        said.append("async after")

    @worker.function(f"{name}p")
    def plain(payload: bytes) -> None:
        said.append("runs")

    @worker.function(f"{name}a")
    async def in_loop(payload: bytes) -> None:
        raise KeyError("x")

    with running(worker):
        client.do(f"{name}p")
        client.do(f"{name}a")
    assert said == [
        "async before",
        "before p True",
        "runs",
        "after None True",
        "async after",
        "async before",
        "before a False",
        "after KeyError('x') False",
        "async after",
    ]


def test_a_before_hook_that_raises_fails_the_job(make_worker: MakeWorker, client: Client, name: str) -> None:
    worker = make_worker()
    runs = []

    @worker.before
    def refuse(job: Job) -> None:
        raise PermissionError("closed")

    @worker.function(name)
    def run(payload: bytes) -> None:
        runs.append(payload)

    with running(worker):
        assert client.do(name) == Packet("WORK_EXCEPTION", b"PermissionError: closed")
    assert runs == []


@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])
def test_an_after_hook_that_raises_changes_nothing_about_the_job(
    is_async: bool, make_worker: MakeWorker, client: Client, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    worker = make_worker()

    def plain(job: Job, error: BaseException | None) -> None:
        raise PermissionError("closed")

    async def in_loop(job: Job, error: BaseException | None) -> None:
        raise PermissionError("closed")

    worker.after(in_loop if is_async else plain)

    @worker.function(name)
    def run(payload: bytes) -> bytes:
        return b"done"

    with running(worker):
        assert client.do(name) == Packet("WORK_COMPLETE", b"done")
    assert "after hook failed" in caplog.text


def test_much_data_from_a_thread_waits_for_a_slow_client_and_all_arrives(
    make_worker: MakeWorker, client: Client, name: str
) -> None:
    worker = make_worker()

    @worker.function(name)
    def pour(payload: bytes, job: Job) -> None:
        for number in range(64):
            job.data(bytes([number]) * 256 * 1024)

    with running(worker):
        handle = client.start(name)
        said = client.end(handle)
    assert [each.body[:1] + each.body[-1:] for each in said[:-1]] == [bytes([number] * 2) for number in range(64)]
    assert {len(each.body) for each in said[:-1]} == {256 * 1024}


@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])
def test_context_variables_are_a_jobs_own(is_async: bool, make_worker: MakeWorker, client: Client, name: str) -> None:
    worker = make_worker()
    variable: ContextVar[str] = ContextVar("variable", default="unset")

    @worker.before
    async def before(job: Job) -> None:
        variable.set(variable.get() + " before")

    def plain(payload: bytes) -> str:
        variable.set(variable.get() + " handler")
        return variable.get()

    async def in_loop(payload: bytes) -> str:
        await asyncio.sleep(0)
        return plain(payload)

    worker.function(name)(in_loop if is_async else plain)
    with running(worker):
        for _ in range(2):
            assert client.do(name) == Packet("WORK_COMPLETE", b"unset before handler")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"timeout": 0}, "timeout 0"),
        ({"retries": -1}, "retries -1"),
        ({"transactional": True}, "transactional needs a worker with a dsn"),
        ({"name": ""}, "1 to 512 bytes"),
        ({"name": "a\0b"}, "no NUL"),
    ],
)
def test_what_a_function_cannot_be_is_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        Worker().function(**{"name": "f", **options})(lambda payload: payload)
