"""Kept results: what a server stores of background jobs that have ended, and who reads it."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from tests.server.bytes import Peer, until
from tests.server.load import query, wait_for
from tests.server_process import ServerProcess

Start = Callable[..., ServerProcess]
ConnectTo = Callable[[ServerProcess], Peer]
Read = Callable[[bytes], list[tuple[str, bytes | None]]]


@pytest.fixture
def result(dsn: str) -> Read:
    """What gman_result says of a job."""
    query(dsn, "select postgear.function_id('f'), postgear.keep_results('f', '1 hour')")
    return lambda handle: query(dsn, "select outcome, result from gman_result(%s)", handle.decode())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("WORK_COMPLETE", b"\x00done\xff"), ("completed", b"\x00done\xff")),
        (("WORK_COMPLETE", b""), ("completed", b"")),
        (("WORK_EXCEPTION", b"why"), ("failed", b"why")),
        (("WORK_FAIL",), ("failed", None)),
    ],
)
def test_how_a_background_job_has_ended_is_kept(
    result: Read,
    server: ServerProcess,
    connect_to: ConnectTo,
    words: tuple[str, *tuple[bytes, ...]],
    expected: tuple[str, bytes | None],
) -> None:
    client, worker = connect_to(server), connect_to(server)
    worker.can_do(b"f")
    handle = client.submit("SUBMIT_JOB_BG", b"f", b"", b"")
    assert worker.grab()[0] == handle
    assert result(handle) == []
    worker.send("WORK_DATA", handle, b"a part")
    worker.send(words[0], handle, *words[1:])
    until(lambda: result(handle), [expected])


def test_a_background_job_that_a_foreground_client_has_joined_is_kept(
    result: Read, server: ServerProcess, connect_to: ConnectTo
) -> None:
    client, waiting, worker = connect_to(server), connect_to(server), connect_to(server)
    handle = client.submit("SUBMIT_JOB_BG", b"f", b"u", b"")
    assert waiting.submit("SUBMIT_JOB", b"f", b"u", b"") == handle
    worker.can_do(b"f")
    assert worker.grab()[0] == handle
    worker.send("WORK_COMPLETE", handle, b"for both")
    waiting.expect("WORK_COMPLETE", handle, b"for both")
    until(lambda: result(handle), [("completed", b"for both")])


def test_a_job_whose_retries_are_used_up_has_failed(result: Read, start_server: Start, connect_to: ConnectTo) -> None:
    server = start_server("--job-retries", "1")
    client, worker = connect_to(server), connect_to(server)
    worker.can_do(b"f")
    handle = client.submit("SUBMIT_JOB_BG", b"f", b"", b"")
    assert worker.grab()[0] == handle
    worker.close()
    until(lambda: result(handle), [("failed", None)])


def test_a_running_server_hears_of_it_and_other_functions_keep_nothing(
    server: ServerProcess, connect_to: ConnectTo, dsn: str
) -> None:
    client, worker = connect_to(server), connect_to(server)
    worker.can_do(b"f")
    worker.can_do(b"g")

    def run(function: bytes) -> bytes:
        handle = client.submit("SUBMIT_JOB_BG", function, b"", b"")
        assert worker.grab()[0] == handle
        worker.send("WORK_COMPLETE", handle, b"x")
        return handle

    run(b"f")
    run(b"g")
    wait_for(lambda: query(dsn, "select count(*) from postgear.job") == [(0,)], "both jobs to end")
    assert query(dsn, "select count(*) from postgear.result") == [(0,)]
    query(dsn, "select postgear.keep_results('f', '1 hour')")
    wait_for(lambda: bool(run(b"f")) and query(dsn, "select count(*) from postgear.result") != [(0,)], "a result")
    query(dsn, "select postgear.keep_results('f', null)")
    kept = query(dsn, "select count(*) from postgear.result")
    run(b"f")
    wait_for(lambda: query(dsn, "select count(*) from postgear.job") == [(0,)], "the job to end")
    assert query(dsn, "select count(*) from postgear.result") == kept


def test_a_completion_that_comes_too_late_keeps_nothing(
    result: Read, server: ServerProcess, connect_to: ConnectTo, dsn: str
) -> None:
    client, worker = connect_to(server), connect_to(server)
    worker.can_do(b"f")
    handle = client.submit("SUBMIT_JOB_BG", b"f", b"", b"")
    assert worker.grab()[0] == handle
    query(dsn, "update postgear.job set lease = 12345")
    worker.send("WORK_COMPLETE", handle, b"late")
    wait_for(lambda: "stale completions ignored" in server.log(), "the completion is refused")
    assert result(handle) == []


def test_results_whose_time_is_over_are_deleted_by_any_server(result: Read, start_server: Start, dsn: str) -> None:
    query(
        dsn,
        "insert into postgear.result (job_id, function_id, outcome, finished_at, expires_at)"
        " select n, 1, 'failed', now(), now() + case when n > 1100 then interval '1 day' else '-1 s' end"
        " from generate_series(1, 1103) n",
    )
    assert result(b"H:test:1100") == []
    assert result(b"H:test:1101") == [("failed", None)]
    start_server()
    wait_for(lambda: query(dsn, "select count(*) from postgear.result") == [(3,)], "the others are deleted")


def test_no_job_is_taken_while_results_wait_for_the_database(
    result: Read, server: ServerProcess, connect_to: ConnectTo, dsn: str
) -> None:
    client, worker = connect_to(server), connect_to(server)
    for peer in (client, worker):
        peer.socket.settimeout(30)
    worker.can_do(b"f")
    large = client.submit("SUBMIT_JOB_BG", b"f", b"", b"")
    assert worker.grab()[0] == large
    handles = []

    def is_left_in_the_queue() -> bool:
        handles.append(client.submit("SUBMIT_JOB_BG", b"f", b"", b""))
        return query(dsn, "select lease is null from postgear.job order by id desc limit 1") == [(True,)]

    with psycopg.connect(dsn) as connection:
        connection.execute("lock table postgear.result")
        worker.send("WORK_COMPLETE", large, bytes(33 * 1024 * 1024))
        worker.send("PRE_SLEEP")
        wait_for(is_left_in_the_queue, "the server takes no more")
        connection.rollback()
    assert sorted(worker.grab()[0] for _ in handles) == sorted(handles)
    until(lambda: [outcome for outcome, _data in result(large)], ["completed"])
