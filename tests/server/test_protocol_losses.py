"""Clients and workers that leave, jobs that take too long, and how often a job is tried."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.server.bytes import Peer, until

Connect = Callable[[], Peer]
Start = Callable[..., Any]
ConnectTo = Callable[[Any], Peer]


@pytest.mark.parametrize("submit", ["SUBMIT_JOB", "SUBMIT_JOB_BG"])
def test_a_lost_worker_s_job_goes_to_a_sleeping_one(submit: str, connect: Connect, client: Peer, function: bytes) -> None:
    loser, winner = connect(), connect()
    loser.can_do(function)
    handle = client.submit(submit, function, b"", b"test")
    loser.grab()
    winner.can_do(function)
    winner.sleep()
    loser.close()

    winner.expect("NOOP")
    assert winner.grab() == [handle, function, b"test"]
    winner.send("WORK_COMPLETE", handle, b"done")
    if submit == "SUBMIT_JOB":
        client.expect("WORK_COMPLETE", handle, b"done")
    client.silent()


def test_a_lost_worker_s_jobs_are_all_requeued(connect: Connect, client: Peer, worker: Peer, function: bytes) -> None:
    loser = connect()
    loser.can_do(function)
    for submit in ("SUBMIT_JOB", "SUBMIT_JOB_BG", "SUBMIT_JOB_HIGH_BG"):
        client.submit(submit, function, b"", submit.encode())
        loser.grab()
    loser.close()
    worker.can_do(function)

    assert {worker.grab()[-1] for _ in range(3)} == {b"SUBMIT_JOB", b"SUBMIT_JOB_BG", b"SUBMIT_JOB_HIGH_BG"}


def test_progress_is_forgotten_with_the_worker(connect: Connect, client: Peer, function: bytes) -> None:
    loser = connect()
    loser.can_do(function)
    handle = client.submit("SUBMIT_JOB_BG", function, b"", b"")
    loser.grab()
    loser.send("WORK_STATUS", handle, b"3", b"10")
    until(lambda: client.status_of(handle), [b"1", b"1", b"3", b"10"])
    loser.close()

    until(lambda: client.status_of(handle), [b"1", b"0", b"0", b"0"])


def test_a_queued_foreground_job_is_dropped_with_its_client(connect: Connect, worker: Peer, admin: Peer, function: bytes) -> None:
    client = connect()
    client.send("SET_CLIENT_ID", b"client-of-" + function)
    client.submit("SUBMIT_JOB", function, b"", b"")
    client.close()
    until(lambda: any(b"client-of-" + function in line for line in admin.command(b"workers")), False)
    worker.can_do(function)

    worker.send("GRAB_JOB")
    worker.expect("NO_JOB")
    until(lambda: admin.status(function), (0, 0, 1))


def test_a_queued_foreground_job_stays_for_the_client_that_stays(connect: Connect, worker: Peer, function: bytes) -> None:
    leaver, stayer = connect(), connect()
    handle = leaver.submit("SUBMIT_JOB", function, function, b"")
    assert stayer.submit("SUBMIT_JOB", function, function, b"") == handle
    leaver.close()
    worker.can_do(function)
    worker.grab()
    worker.send("WORK_COMPLETE", handle, b"done")

    stayer.expect("WORK_COMPLETE", handle, b"done")


def test_a_running_foreground_job_ends_quietly_without_its_client(
    connect: Connect, worker: Peer, admin: Peer, function: bytes
) -> None:
    client = connect()
    worker.can_do(function)
    handle = client.submit("SUBMIT_JOB", function, b"", b"")
    worker.grab()
    client.close()
    worker.send("WORK_DATA", handle, b"part")
    worker.send("WORK_COMPLETE", handle, b"whole")

    worker.silent()
    until(lambda: admin.status(function), (0, 0, 1))


def test_a_running_foreground_job_can_be_joined_after_its_client_left(
    connect: Connect, worker: Peer, admin: Peer, function: bytes
) -> None:
    client, second = connect(), connect()
    worker.can_do(function)
    handle = client.submit("SUBMIT_JOB", function, function, b"")
    worker.grab()
    client.close()
    until(lambda: _clients(admin, function), b"0")

    assert second.submit("SUBMIT_JOB", function, function, b"") == handle
    worker.send("WORK_COMPLETE", handle, b"done")
    second.expect("WORK_COMPLETE", handle, b"done")


def _clients(peer: Peer, unique: bytes) -> bytes:
    peer.send("GET_STATUS_UNIQUE", unique)
    return peer.packet().body.split(b"\0")[-1]


@pytest.mark.parametrize("submit", ["SUBMIT_JOB", "SUBMIT_JOB_BG"])
def test_with_job_retries_2_the_second_loss_fails_the_job(
    submit: str, start_server: Start, connect_to: ConnectTo, function: bytes
) -> None:
    server = start_server("--job-retries=2")
    client, admin = connect_to(server), connect_to(server)
    handle = client.submit(submit, function, b"", b"test")
    for _ in range(2):
        loser = connect_to(server)
        loser.can_do(function)
        assert loser.grab() == [handle, function, b"test"]
        loser.close()

    if submit == "SUBMIT_JOB":
        client.expect("WORK_FAIL", handle)
    until(lambda: admin.status_of(handle), [b"0", b"0", b"0", b"0"])
    until(lambda: admin.status(function), (0, 0, 0))


def test_without_job_retries_a_job_is_tried_for_ever(connect: Connect, client: Peer, function: bytes) -> None:
    handle = client.submit("SUBMIT_JOB_BG", function, b"", b"test")
    for _ in range(10):
        loser = connect()
        loser.can_do(function)
        assert loser.grab() == [handle, function, b"test"]
        loser.close()

    until(lambda: client.status_of(handle), [b"1", b"0", b"0", b"0"])


@pytest.mark.parametrize("submit", ["SUBMIT_JOB", "SUBMIT_JOB_BG"])
@pytest.mark.parametrize("milliseconds", [b"1000", b"1"])
def test_a_job_over_its_time_goes_to_another_worker(
    milliseconds: bytes, submit: str, connect: Connect, client: Peer, function: bytes
) -> None:
    slow, quick = connect(), connect()
    slow.send("CAN_DO_TIMEOUT", function, milliseconds)
    handle = client.submit(submit, function, b"", b"test")
    slow.grab()
    slow.send("WORK_STATUS", handle, b"1", b"2")
    quick.can_do(function)
    quick.sleep()

    quick.expect("NOOP")
    assert connect().status_of(handle) == [b"1", b"0", b"0", b"0"]
    assert quick.grab() == [handle, function, b"test"]
    slow.send("WORK_COMPLETE", handle, b"late")
    slow.expect("ERROR", b"JOB_NOT_FOUND", b"Job given in work result not found")
    quick.send("WORK_COMPLETE", handle, b"in time")
    if submit == "SUBMIT_JOB":
        client.expect("WORK_STATUS", handle, b"1", b"2")
        client.expect("WORK_COMPLETE", handle, b"in time")
    client.silent()


@pytest.mark.parametrize("timeout", [b"0", b"", b"never"])
def test_a_timeout_of_zero_or_no_number_is_none(
    timeout: bytes, connect: Connect, client: Peer, worker: Peer, function: bytes
) -> None:
    clock = connect()
    worker.send("CAN_DO_TIMEOUT", function, timeout)
    clock.send("CAN_DO_TIMEOUT", function + b"'", b"1000")
    handle = client.submit("SUBMIT_JOB", function, b"", b"")
    client.submit("SUBMIT_JOB", function + b"'", b"", b"")
    worker.grab()
    clock.grab()
    until(lambda: connect().status(function + b"'"), (1, 0, 1))

    worker.send("WORK_COMPLETE", handle, b"no hurry")
    client.expect("WORK_COMPLETE", handle, b"no hurry")


def test_a_job_over_its_time_counts_as_a_retry(start_server: Start, connect_to: ConnectTo, function: bytes) -> None:
    server = start_server("--job-retries=1")
    client, worker = connect_to(server), connect_to(server)
    worker.send("CAN_DO_TIMEOUT", function, b"1000")
    handle = client.submit("SUBMIT_JOB", function, b"", b"")
    worker.grab()

    client.expect("WORK_FAIL", handle)


def test_a_worker_s_own_failure_is_never_tried_again(client: Peer, worker: Peer, admin: Peer, function: bytes) -> None:
    worker.can_do(function)
    handle = client.submit("SUBMIT_JOB_BG", function, b"", b"")
    worker.grab()
    worker.send("WORK_FAIL", handle)

    until(lambda: admin.status(function), (0, 0, 1))
    worker.send("GRAB_JOB")
    worker.expect("NO_JOB")
