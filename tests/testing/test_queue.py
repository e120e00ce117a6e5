"""The queue in memory: what each way to submit puts there, and what becomes of jobs that run."""

from __future__ import annotations

import asyncio
from datetime import UTC
from typing import Any

import pytest

from postgear import AsyncClient, Client, Function, Job, NewJob, TaskSet, Worker, enqueue, enqueue_async, enqueue_many
from postgear.client.database import connect, connect_async
from postgear.compat import gearman
from postgear.errors import ConfigError, JobFailed, NotAllSubmitted, PayloadError
from postgear.testing.queue import MemoryQueue

NOW_HERE = "127.0.0.1:1"
index: Function[dict[str, int], str] = Function("index", dict[str, int], str)


@pytest.fixture
def worker() -> Worker:
    """A worker with a handler of each kind."""
    worker = Worker()

    @worker.function("reverse")
    def reverse(payload: bytes) -> bytes:
        return payload[::-1]

    @worker.function("talk")
    async def talk(payload: bytes, job: Job) -> str:
        await asyncio.sleep(0)
        job.data("part ")
        job.warning("careful")
        job.status(1, 2)
        return "whole"

    @worker.function("fail", retries=1)
    def fail(payload: str) -> None:
        raise ValueError(payload)

    @worker.function("again")
    def again(count: int) -> None:
        if count:
            Client().submit("again", count - 1)

    return worker


def test_everything_that_submits_comes_here(postgear_queue: MemoryQueue) -> None:
    client = Client(NOW_HERE)
    client.submit("a", {"n": 1}, unique="u", priority="high")
    client.submit("b", "text", delay=60)
    client.submit_many([NewJob("c", b"\xff", priority="low"), ("c", 2)])
    enqueue(None, "d", [1, 2], unique="d:1")  # type: ignore[arg-type]
    enqueue_many(object(), [("e",), ("e",)])  # type: ignore[arg-type]
    with connect("host=nowhere.invalid") as database:
        database.submit("f", 1)
        assert database.status(database.submit("f", 2, unique="f:2")).known
        assert database.status_of_unique("f:2").known
        assert database.cancel(database.submit("f", 3))
    gearman.GearmanClient([NOW_HERE]).submit_job("g", "x", background=True)

    async def story() -> None:
        async with AsyncClient(NOW_HERE) as client:
            await client.submit("h", 1)
        await enqueue_async(None, "i", 1)  # type: ignore[arg-type]
        async with await connect_async("host=nowhere.invalid") as database:
            await database.submit("j", 1)

    asyncio.run(story())

    assert postgear_queue.assert_enqueued("a", {"n": 1}, unique="u", priority="high").handle == "H:memory:1"
    assert postgear_queue.assert_enqueued("b", "text").run_at is not None
    assert postgear_queue.assert_enqueued("c", b"\xff", priority="low").payload == b"\xff"
    postgear_queue.assert_enqueued("d", "[1,  2]", unique="d:1", run_at=None)
    postgear_queue.assert_not_enqueued("f", 3)
    order = [job.function for job in postgear_queue.jobs]
    assert order == ["a", "b", "c", "d", "e", "e", "f", "f", "g", "h", "i", "j", "c"]


def test_clients_on_the_database_read_how_jobs_have_ended(postgear_queue: MemoryQueue) -> None:
    worker = Worker()

    @worker.function("f")
    def f(payload: str) -> str:
        if not payload:
            raise ValueError("empty")
        return payload.upper()

    with connect("host=nowhere.invalid") as database:
        good, bad = database.submit_many([("f", "x"), ("f", "")])
        assert database.result(good) is None
        postgear_queue.run(worker, raises=False)
        found, failed = database.result(good), database.result(bad)
        assert found is not None
        assert failed is not None
        assert (found.is_completed, found.data, found.finished_at.tzinfo) == (True, b"X", UTC)
        assert (failed.is_completed, failed.data) == (False, b"ValueError: empty")
        assert database.result("H:memory:9") is None


def test_a_missing_job_is_told_with_those_there(postgear_queue: MemoryQueue) -> None:
    with pytest.raises(AssertionError, match=r"not enqueued: 'index', \{'id': 2\}, unique='x'; nothing was"):
        postgear_queue.assert_enqueued(index, {"id": 2}, unique="x")
    Client().submit(index, {"id": 1}, unique="u")

    with pytest.raises(AssertionError, match=r"enqueued were:\n  queued: 'index', \{'id': 1\}, unique='u'"):
        postgear_queue.assert_enqueued(index, {"id": 2})
    with pytest.raises(AssertionError, match=r"enqueued: queued: 'index'"):
        postgear_queue.assert_not_enqueued("index")


def test_jobs_of_one_unique_are_one_job(postgear_queue: MemoryQueue) -> None:
    client = Client()
    first = client.submit("f", 1, unique="u")
    assert client.submit("f", 2, unique="u") == first
    assert client.submit("f", 2, unique="other") != first
    assert client.submit("f", "same", unique="-") == client.submit("f", "same", unique="-")
    assert [job.workload for job in postgear_queue.jobs] == [b"1", b"2", b"same"]


def test_run_takes_what_it_can_by_priority(postgear_queue: MemoryQueue, worker: Worker) -> None:
    client = Client()
    client.submit("reverse", "ab", priority="low")
    client.submit("unknown", "x")
    client.submit("reverse", "later", delay=60)
    client.submit("talk")
    client.submit("again", 2)

    ran = postgear_queue.run(worker)

    assert [(job.function, job.state, job.result) for job in ran] == [
        ("talk", "done", b"whole"),
        ("again", "done", b""),
        ("again", "done", b""),
        ("again", "done", b""),
        ("reverse", "done", b"ba"),
    ]
    assert (ran[0].data, ran[0].warnings, ran[0].progress) == ([b"part "], ["careful"], (1, 2))
    assert [job.function for job in postgear_queue.jobs] == ["unknown", "reverse"]
    assert [job.result for job in postgear_queue.run(worker, scheduled=True)] == [b"retal"]


def test_a_failure_is_raised_and_tried_again(postgear_queue: MemoryQueue, worker: Worker) -> None:
    Client().submit("fail", "no")
    with pytest.raises(ValueError, match="no"):
        postgear_queue.run(worker)
    (job,) = postgear_queue.jobs
    assert (job.state, job.attempt) == ("queued", 2)
    assert postgear_queue.run(worker) == []

    (ran,) = postgear_queue.run(worker, scheduled=True, raises=False)

    assert (ran.state, str(ran.error), ran.result) == ("failed", "no", None)
    assert postgear_queue.jobs == []


def test_a_payload_that_cannot_be_decoded_fails_at_once(postgear_queue: MemoryQueue, worker: Worker) -> None:
    Client().submit("again", "no number")
    with pytest.raises(PayloadError, match="function again"):
        postgear_queue.run(worker)
    assert [job.state for job in postgear_queue.ended] == ["failed"]


def test_inline_runs_at_submit(postgear_queue: MemoryQueue, worker: Worker) -> None:
    postgear_queue.inline(worker)
    client = Client()

    client.submit("reverse", "abc")
    assert client.do("reverse", "xyz") == b"zyx"
    assert list(client.map("reverse", ["ab", "cd"])) == [b"ba", b"dc"]
    assert client.do("talk") == b"part whole"
    with pytest.raises(JobFailed, match="ValueError: no"):
        client.do("fail", "no")
    with pytest.raises(ValueError, match="background"):
        client.submit("fail", "background")
    enqueue(None, "reverse", "sql")  # type: ignore[arg-type]
    client.submit("reverse", "later", delay=60)

    assert [job.result for job in postgear_queue.ended] == [b"cba", b"zyx", b"ba", b"dc", b"whole", None, None, b"lqs"]
    assert [job.payload for job in postgear_queue.jobs] == ["later"]
    postgear_queue.inline(None)
    client.submit("reverse", "waits")
    assert len(postgear_queue.jobs) == 2


def test_a_task_set_inline(postgear_queue: MemoryQueue, worker: Worker) -> None:
    postgear_queue.inline(worker)
    heard: list[Any] = []
    tasks = TaskSet(Client())
    task = tasks.add("talk", on_data=lambda task, data: heard.append(data), on_status=lambda task, *ab: heard.append(ab))
    tasks.add("fail", "no", on_fail=lambda task: heard.append(str(task.error)))

    assert tasks.wait(5)
    assert (task.result, heard[:2]) == (b"whole", [b"part ", (1, 2)])
    assert "ValueError: no" in heard[2]


def test_inline_with_an_async_client(postgear_queue: MemoryQueue, worker: Worker) -> None:
    postgear_queue.inline(worker)

    async def story() -> None:
        async with AsyncClient() as client:
            assert await client.do("talk") == b"part whole"
            assert [result async for result in client.map("reverse", ["ab", "cd"])] == [b"ba", b"dc"]
            await client.submit("talk")
            # A blocking client cannot wait in the loop that its handler needs.
            assert Client().do("talk") == b"part whole"
        postgear_queue.inline(None)
        Client().submit("talk")
        (job,) = await postgear_queue.run_async(worker)
        assert job.result == b"whole"

    asyncio.run(story())


def test_nobody_to_wait_for(postgear_queue: MemoryQueue, worker: Worker) -> None:
    with pytest.raises(ConfigError, match=r"function reverse: nobody runs it; say postgear_queue.inline\(worker\)"):
        Client().do("reverse", "x")
    assert postgear_queue.jobs == []


def test_hooks_and_transactions(postgear_queue: MemoryQueue) -> None:
    worker = Worker(dsn="")
    called: list[Any] = []

    @worker.function("write", transactional=True)
    def write(payload: bytes, job: Job) -> None:
        called.append(job.connection)

    @worker.before
    def before(job: Job) -> None:
        called.append(job.function)

    @worker.after
    async def after(job: Job, error: BaseException | None) -> None:
        called.append(error)

    Client().submit("write")
    with pytest.raises(ConfigError, match="it is transactional"):
        postgear_queue.run(worker)
    called.clear()
    Client().submit("write")

    postgear_queue.run(worker, connection="the test's")

    assert called == ["write", "the test's", None]


def test_an_exception_that_a_handler_reports(postgear_queue: MemoryQueue, worker: Worker) -> None:
    @worker.function("report")
    def report(payload: bytes, job: Job) -> str:
        job.exception("oops")
        return "too late"

    postgear_queue.inline(worker)
    with pytest.raises(JobFailed, match="oops"):
        Client().do("report")
    assert [(job.state, job.result) for job in postgear_queue.ended] == [("failed", None)]


def test_nothing_of_it_is_left(worker: Worker) -> None:
    from postgear.testing.memory import installed

    client = Client(NOW_HERE)
    queue = MemoryQueue()
    with installed(queue):
        client.submit("f")
    with pytest.raises(Exception, match="cannot be reached"):
        client.submit("f")
    other = MemoryQueue()
    with installed(other):
        client.submit_many([("g",)])
    assert [[job.function for job in each.jobs] for each in (queue, other)] == [["f"], ["g"]]
    with pytest.raises(NotAllSubmitted):
        client.submit_many([("g",)])
