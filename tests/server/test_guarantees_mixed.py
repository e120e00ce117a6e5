"""G6: a job that is both, by its unique, foreground and background, is durable."""

from __future__ import annotations

from collections.abc import Callable

from tests.server.bytes import Peer, until
from tests.server.load import count, stored
from tests.server_process import ServerProcess

Start = Callable[..., ServerProcess]
ConnectTo = Callable[[ServerProcess], Peer]
NAMED = ("--name", "server")  # not the queue's name, so that foreground and background handles differ


def test_g6_a_background_job_stays_when_the_foreground_client_that_joined_leaves(
    start_server: Start, connect_to: ConnectTo, dsn: str
) -> None:
    server = start_server(*NAMED)
    background, foreground = connect_to(server), connect_to(server)
    handle = background.submit("SUBMIT_JOB_BG", b"f", b"one", b"w")
    assert foreground.submit("SUBMIT_JOB", b"f", b"one", b"ignored") == handle
    foreground.close()
    until(lambda: _clients(background, b"one"), b"0")
    assert stored(dsn) == {handle}

    worker = connect_to(server)
    worker.can_do(b"f")
    assert worker.grab() == [handle, b"f", b"w"]
    worker.send("WORK_COMPLETE", handle, b"")
    until(lambda: count(dsn), 0)


def test_g6_a_background_job_that_a_foreground_client_joined_survives_kill_9(
    start_server: Start, connect_to: ConnectTo, dsn: str
) -> None:
    server = start_server(*NAMED)
    client, worker = connect_to(server), connect_to(server)
    handle = client.submit("SUBMIT_JOB_BG", b"f", b"one", b"w")
    assert connect_to(server).submit("SUBMIT_JOB", b"f", b"one", b"") == handle
    worker.can_do(b"f")
    assert worker.grab() == [handle, b"f", b"w"]
    server.kill()

    worker = connect_to(start_server())
    worker.can_do(b"f")
    assert worker.grab() == [handle, b"f", b"w"]


def test_g6_a_foreground_job_that_a_background_submit_joined_survives_its_client_and_kill_9(
    start_server: Start, connect_to: ConnectTo, dsn: str
) -> None:
    server = start_server(*NAMED)
    foreground, background = connect_to(server), connect_to(server)
    foreground.submit("SUBMIT_JOB", b"f", b"one", b"w")
    assert stored(dsn) == set()
    acked = background.submit("SUBMIT_JOB_BG", b"f", b"one", b"w")
    assert acked in stored(dsn), "acknowledged before it was durable"
    foreground.close()
    until(lambda: _clients(background, b"one"), b"0")
    assert background.status_of(acked)[0] == b"1"
    server.kill()

    worker = connect_to(start_server())
    worker.can_do(b"f")
    assert worker.grab() == [acked, b"f", b"w"]
    worker.send("WORK_COMPLETE", acked, b"")
    until(lambda: count(dsn), 0)


def test_g6_a_running_foreground_job_that_a_background_submit_joined_survives_kill_9(
    start_server: Start, connect_to: ConnectTo
) -> None:
    server = start_server(*NAMED)
    client, worker = connect_to(server), connect_to(server)
    worker.can_do(b"f")
    client.submit("SUBMIT_JOB", b"f", b"one", b"w")
    worker.grab()
    acked = connect_to(server).submit("SUBMIT_JOB_BG", b"f", b"one", b"w")
    server.kill()

    worker = connect_to(start_server())
    worker.can_do(b"f")
    assert worker.grab() == [acked, b"f", b"w"]


def test_g6_a_foreground_job_ends_with_its_server(start_server: Start, connect_to: ConnectTo, dsn: str) -> None:
    server = start_server(*NAMED)
    connect_to(server).submit("SUBMIT_JOB", b"f", b"one", b"w")
    server.kill()

    worker = connect_to(start_server())
    worker.can_do(b"f")
    worker.send("GRAB_JOB")
    worker.expect("NO_JOB")
    assert count(dsn) == 0


def test_g6_no_two_jobs_have_one_handle_when_server_and_queue_have_one_name(
    start_server: Start, connect_to: ConnectTo, dsn: str
) -> None:
    server = start_server("--name", "test")
    client = connect_to(server)

    assert client.submit("SUBMIT_JOB", b"f", b"", b"1") != client.submit("SUBMIT_JOB_BG", b"f", b"", b"2")


def _clients(peer: Peer, unique: bytes) -> bytes:
    peer.send("GET_STATUS_UNIQUE", unique)
    return peer.packet().body.split(b"\0")[-1]
