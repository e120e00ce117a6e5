"""What Client and AsyncClient promise, at postgear and at genuine gearmand."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from postgear import Client, Function, NewJob
from postgear.client.operations import Status
from postgear.errors import InvalidJob, JobFailed, NotAllSubmitted, PayloadError, ServerRefused, ServerTimeout
from tests.extension.python_worker import PythonWorker
from tests.server.bytes import Peer, until


class Article(msgspec.Struct):
    id: int
    title: str


ARTICLES = Function("echo", Article, Article)


def test_do_returns_the_result(client: Any, worker: PythonWorker) -> None:
    assert client.do("echo", b"a\0b") == b"a\0b"
    assert client.do(b"echo", "text ü") == "text ü".encode()
    assert client.do("echo", {"id": 1}) == b'{"id":1}'
    assert client.do("echo") == b""


def test_do_of_a_function_has_its_types(client: Any, worker: PythonWorker) -> None:
    assert client.do(ARTICLES, Article(1, "one")) == Article(1, "one")


def test_do_puts_the_parts_of_a_result_together(client: Any, worker: PythonWorker) -> None:
    assert client.do("chunks", b"abcde") == b"abcde!"


@pytest.mark.parametrize("priority", ["high", "normal", "low"])
def test_do_of_each_priority(client: Any, worker: PythonWorker, priority: str) -> None:
    assert client.do("echo", b"x", priority=priority, unique=f"do {priority}") == b"x"


def test_a_failed_job_is_raised_with_what_the_worker_said(client: Any, worker: PythonWorker, gearman_server: Any) -> None:
    with pytest.raises(JobFailed) as caught:
        client.do("raise", "it was \N{SNOWMAN}")
    assert caught.value.exception.decode() == "it was \N{SNOWMAN}"
    assert (caught.value.function, caught.value.server) == ("raise", gearman_server.address)
    assert str(caught.value) == (
        f"job {caught.value.handle} failed (function raise at {gearman_server.address}): it was \N{SNOWMAN}"
    )
    with pytest.raises(JobFailed) as caught:
        client.do("fail", b"x")
    assert caught.value.exception == b""


def test_a_result_that_is_not_what_the_function_says(client: Any, worker: PythonWorker, gearman_server: Any) -> None:
    with pytest.raises(PayloadError) as caught:
        client.do(Function("echo", str, Article), "no article")
    error = caught.value
    assert (error.server, error.function, error.handle[:2]) == (gearman_server.address, "echo", "H:")
    assert client.do("echo", b"again") == b"again"


def test_a_job_that_takes_too_long_is_named(client: Any, worker: PythonWorker, gearman_server: Any) -> None:
    with pytest.raises(ServerTimeout) as caught:
        client.do("never", b"x", timeout=0.2)
    error = caught.value
    assert (error.server, error.function, error.handle[:2]) == (gearman_server.address, "never", "H:")
    assert client.do("echo", b"next", timeout=5) == b"next"


def test_retries_submit_a_failed_job_again(client: Any, worker: PythonWorker) -> None:
    assert client.do("flaky", b"one", retries=2) == b"part one"
    assert worker.workloads == [b"one"] * 3
    with pytest.raises(JobFailed, match="not yet"):
        client.do("flaky", b"two", retries=1)
    assert worker.workloads.count(b"two") == 2


def test_a_reduce_job_names_its_reducer(client: Any, peer: Peer, function: str) -> None:
    peer.can_do(function.encode())
    client.submit(function, b"work", unique="u", reducer="sum")
    assert peer.grab("GRAB_JOB_ALL")[1:] == [function.encode(), b"u", b"sum", b"work"]


def test_a_reduce_job_that_is_waited_for(client: Any, worker: PythonWorker) -> None:
    assert client.do("echo", b"work", reducer="sum") == b"work"


def test_submit_returns_the_handle_under_which_the_job_is_known(client: Any, peer: Peer, function: str) -> None:
    handle = client.submit(function, {"id": 1}, unique="a:1", priority="high")
    assert client.status(handle) == Status(True, False, 0, 0)
    assert client.submit(function, {"id": 2}, unique="a:1") == handle
    peer.can_do(function.encode())
    given, _, unique, workload = peer.grab("GRAB_JOB_UNIQ")
    assert (given.decode(), unique, workload) == (handle, b"a:1", b'{"id":1}')
    peer.send("WORK_STATUS", given, b"3", b"7")
    peer.silent()
    assert client.status(handle) == Status(True, True, 3, 7)
    peer.send("WORK_COMPLETE", given, b"")
    peer.silent()
    assert client.status(handle) == Status(False, False, 0, 0)


def test_status_of_a_unique_counts_the_clients(client: Any, peer: Peer, function: str) -> None:
    unique = f"{function}:unique"
    assert client.status_of_unique(unique) == Status(False, False, 0, 0, 0)
    peer.submit("SUBMIT_JOB", function.encode(), unique.encode(), b"")
    assert client.status_of_unique(unique.encode()) == Status(True, False, 0, 0, 1)


@pytest.mark.parametrize("priority", ["high", "normal", "low"])
def test_submit_of_each_priority(client: Any, peer: Peer, function: str, priority: str) -> None:
    client.submit(function, b"x", priority=priority)
    rows = [row.split(b"\t") for row in peer.command(b"prioritystatus")]
    counts = next(row[1:4] for row in rows if row[0] == function.encode())
    assert counts == [b"1" if name == priority else b"0" for name in ("high", "normal", "low")]


def test_a_job_for_later_is_not_run_now(client: Any, peer: Peer, function: str) -> None:
    handles = [
        client.submit(function, b"x", run_at=datetime.now(UTC) + timedelta(hours=1)),
        client.submit(function, b"x", delay=3600),
        client.submit(function, b"x", delay=timedelta(hours=1)),
    ]
    client.submit(function, b"now", run_at=time.time() - 1)
    peer.can_do(function.encode())
    assert peer.grab()[2] == b"now"
    peer.send("GRAB_JOB")
    peer.expect("NO_JOB")
    assert [client.status(handle).known for handle in handles] == [True] * 3


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ((b"",), {}),
        ((b"f\0",), {}),
        (("f", {1, 2}), {}),
        (("f", b""), {"unique": "x" * 65}),
        (("f", b""), {"priority": "urgent"}),
        (("f", b""), {"priority": "high", "delay": 5}),
        (("f", b""), {"delay": -1}),
        (("f", b""), {"delay": 1, "run_at": 1}),
        (("f", b""), {"reducer": ""}),
        (("f", b""), {"reducer": "r", "delay": 1}),
        (("f", b""), {"run_at": datetime(2030, 1, 1)}),
    ],
)
def test_a_job_that_cannot_be_is_refused_before_anything_is_sent(
    client: Any, arguments: tuple[Any, ...], options: dict[str, Any]
) -> None:
    with pytest.raises(InvalidJob):
        client.submit(*arguments, **options)


@pytest.mark.parametrize("count", [0, 1, 12_345])
def test_many_jobs_are_submitted_in_their_order(client: Any, peer: Peer, function: str, count: int) -> None:
    handles = client.submit_many(NewJob(function, str(number)) for number in range(count))
    assert len(set(handles)) == count
    if count == 1:
        peer.can_do(function.encode())
        handle, _, workload = peer.grab()
        assert (handle.decode(), workload) == (handles[0], b"0")
    if count:
        assert peer.status(function.encode()) == (count, 1 if count == 1 else 0, 1 if count == 1 else 0)


def test_many_jobs_of_large_workloads(client: Any, peer: Peer, function: str) -> None:
    handles = client.submit_many([(function, b"x" * 3_000_000)] * 7)
    assert len(set(handles)) == 7
    peer.can_do(function.encode())
    assert all(len(peer.grab()[2]) == 3_000_000 for _ in range(7))


def test_what_was_not_submitted_of_many_is_told(client: Any, peer: Peer, function: str) -> None:
    peer.submit("SUBMIT_JOB_BG", function.encode(), b"", b"")
    assert peer.reply(b"maxqueue %s 3\r" % function.encode()) == b"OK\r\n"
    with pytest.raises(NotAllSubmitted, match=r"2 of 4 jobs were not submitted; the first is number 2: ") as caught:
        client.submit_many([NewJob(function, str(number)) for number in range(4)])
    assert [handle is None for handle in caught.value.handles] == [False, False, True, True]
    assert sorted(caught.value.errors) == [2, 3]
    refused = caught.value.errors[2]
    assert isinstance(refused, ServerRefused)
    assert (refused.code, refused.function) == ("QUEUE_ERROR", function)


def test_jobs_that_end_with_an_exception_are_submitted_up_to_it(client: Any, peer: Peer, function: str) -> None:
    def jobs(count: int) -> Iterator[NewJob]:
        yield from (NewJob(function, str(number)) for number in range(count))
        yield NewJob(function, {"no JSON": object()})

    with pytest.raises(InvalidJob):
        client.submit_many(jobs(10))
    assert peer.status(function.encode()) is None
    with pytest.raises(NotAllSubmitted) as caught:
        client.submit_many(jobs(12_345))
    assert len(set(caught.value.handles)) == 12_345
    assert caught.value.errors == {}
    assert isinstance(caught.value.raised, InvalidJob)
    assert peer.status(function.encode()) == (12_345, 0, 0)
    assert len(client.submit_many([NewJob(function)])) == 1


def test_a_full_queue_refuses(client: Any, peer: Peer, function: str, gearman_server: Any) -> None:
    peer.submit("SUBMIT_JOB_BG", function.encode(), b"", b"")
    assert peer.reply(b"maxqueue %s 1\r" % function.encode()) == b"OK\r\n"
    with pytest.raises(ServerRefused) as caught:
        client.submit(function)
    assert (caught.value.code, caught.value.function, caught.value.server) == ("QUEUE_ERROR", function, gearman_server.address)


def test_map_gives_results_in_the_order_of_its_inputs(client: Any, worker: PythonWorker) -> None:
    assert list(client.map("echo", map(str, range(1000)))) == [b"%d" % number for number in range(1000)]
    assert list(client.map(ARTICLES, [Article(1, "a"), Article(2, "b")])) == [Article(1, "a"), Article(2, "b")]
    assert list(client.map("echo", [])) == []


def test_map_reads_inputs_only_as_they_are_sent(client: Any, worker: PythonWorker) -> None:
    inputs = itertools.count()
    results = client.map("echo", map(str, inputs), in_flight=5)
    assert [next(results) for _ in range(20)] == [b"%d" % number for number in range(20)]
    results.close()
    assert 20 <= next(inputs) <= 27


def test_map_as_jobs_end(client: Any, peer: Peer, function: str) -> None:
    peer.can_do(function.encode())

    def last_first() -> None:
        jobs = [peer.grab() for _ in range(3)]
        for handle, _, workload in reversed(jobs):
            peer.send("WORK_COMPLETE", handle, workload)

    thread = threading.Thread(target=last_first)
    thread.start()
    assert list(client.map(function, [b"1", b"2", b"3"], ordered=False)) == [b"3", b"2", b"1"]
    thread.join()
    thread = threading.Thread(target=last_first)
    thread.start()
    assert list(client.map(function, [b"1", b"2", b"3"])) == [b"1", b"2", b"3"]
    thread.join()


def test_map_raises_what_ended_a_job_in_its_place(client: Any, worker: PythonWorker) -> None:
    results = client.map("maybe", [b"a", b"bad", b"c"])
    assert next(results) == b"A"
    with pytest.raises(JobFailed, match="it was bad"):
        next(results)
    with pytest.raises(StopIteration):
        next(results)
    assert client.do("echo", b"x") == b"x"


def test_map_with_retries(client: Any, worker: PythonWorker) -> None:
    assert list(client.map("flaky", [b"1", b"2"], retries=2)) == [b"part 1", b"part 2"]


def test_equal_uniques_of_one_client_are_one_job(client: Any, worker: PythonWorker, task_set: Any) -> None:
    tasks = task_set(client)
    same = [tasks.add("chunks", b"abcd", unique="same") for _ in range(3)]
    hashed = [tasks.add("chunks", b"xyz", unique="-") for _ in range(2)]
    assert tasks.wait(5)
    assert [task.result for task in same] == [b"abcd!"] * 3
    assert [task.result for task in hashed] == [b"xyz!"] * 2
    assert worker.workloads == [b"abcd", b"xyz"]
    assert client.do("echo", b"x") == b"x"


def test_echo(client: Any) -> None:
    assert client.echo() == b"postgear"
    assert client.echo(b"a\0b") == b"a\0b"


def test_the_connection_is_used_again(client: Any, worker: PythonWorker, peer: Peer) -> None:
    for _ in range(5):
        client.do("echo", b"x")
        client.submit("length", b"x")
        list(client.map("echo", [b"1", b"2"]))
    # The worker, this peer, the client.
    until(lambda: len(peer.command(b"workers")), 3)


def test_a_client_is_for_many_threads(gearman_server: Any, worker: PythonWorker) -> None:
    wrong = []

    def ask(number: int) -> None:
        for turn in range(30):
            text = b"%d %d" % (number, turn)
            if client.do("echo", text) != text:
                wrong.append(text)

    with Client(gearman_server.address) as client:
        threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []
    assert len(worker.workloads) == 240


def test_map_reads_no_more_inputs_while_too_many_results_wait_for_one(client: Any, peer: Peer, function: str) -> None:
    peer.can_do(function.encode())
    inputs = itertools.count()

    def all_but_the_first() -> None:
        first = peer.grab()
        for _ in range(19):
            handle, _, workload = peer.grab()
            peer.send("WORK_COMPLETE", handle, workload)
        peer.send("GRAB_JOB")
        peer.expect("NO_JOB")
        seen.append(next(inputs))
        peer.send("WORK_COMPLETE", first[0], b"first")

    seen: list[int] = []
    thread = threading.Thread(target=all_but_the_first)
    thread.start()
    results = client.map(function, map(str, inputs), in_flight=2)
    assert next(results) == b"first"
    thread.join()
    assert seen == [20]
    results.close()
