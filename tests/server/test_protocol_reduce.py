"""Reduce jobs, in the five-argument form of real clients and the four-argument one of PROTOCOL."""

from __future__ import annotations

import pytest

from tests.server.bytes import Peer

SUBMITS = ["SUBMIT_REDUCE_JOB", "SUBMIT_REDUCE_JOB_BACKGROUND"]


@pytest.mark.parametrize("submit", SUBMITS)
@pytest.mark.parametrize("flag", [b"0", b"1", b""])
def test_grab_job_all_shows_the_reducer(submit: str, flag: bytes, client: Peer, worker: Peer, function: bytes) -> None:
    worker.can_do(function)
    handle = client.submit(submit, function, function, b"fold", flag, b"a\0b\0")

    assert worker.grab("GRAB_JOB_ALL") == [handle, function, function, b"fold", b"a\0b\0"]


@pytest.mark.difference("waits for a fifth argument")
@pytest.mark.parametrize("submit", SUBMITS)
def test_the_documented_form_of_four_arguments_works(submit: str, client: Peer, worker: Peer, function: bytes) -> None:
    worker.can_do(function)
    handle = client.submit(submit, function, function, b"fold", b"the data")

    assert worker.grab("GRAB_JOB_ALL") == [handle, function, function, b"fold", b"the data"]


@pytest.mark.parametrize("submit", SUBMITS)
def test_the_other_grabs_hand_out_a_reduce_job_without_its_reducer(
    submit: str, client: Peer, worker: Peer, function: bytes
) -> None:
    worker.can_do(function)
    one = client.submit(submit, function, b"1" + function, b"fold", b"0", b"data")
    two = client.submit(submit, function, b"2" + function, b"fold", b"0", b"data")

    assert worker.grab("GRAB_JOB") == [one, function, b"data"]
    assert worker.grab("GRAB_JOB_UNIQ") == [two, function, b"2" + function, b"data"]


def test_a_foreground_reduce_job_gives_its_client_the_result(client: Peer, worker: Peer, function: bytes) -> None:
    worker.can_do(function)
    handle = client.submit("SUBMIT_REDUCE_JOB", function, b"", b"fold", b"0", b"data")
    worker.grab("GRAB_JOB_ALL")
    worker.send("WORK_COMPLETE", handle, b"folded")

    client.expect("WORK_COMPLETE", handle, b"folded")


def test_a_background_reduce_job_sends_its_client_nothing(client: Peer, worker: Peer, function: bytes) -> None:
    worker.can_do(function)
    handle = client.submit("SUBMIT_REDUCE_JOB_BACKGROUND", function, b"", b"fold", b"0", b"data")
    worker.grab("GRAB_JOB_ALL")
    worker.send("WORK_COMPLETE", handle, b"folded")
    worker.silent()

    client.silent()


@pytest.mark.parametrize("submit", SUBMITS)
def test_a_requeued_reduce_job_keeps_its_reducer(submit: str, client: Peer, worker: Peer, function: bytes) -> None:
    worker.can_do(function)
    handle = client.submit(submit, function, b"", b"fold", b"0", b"data")
    worker.grab("GRAB_JOB_ALL")
    worker.send("CANT_DO", function)
    worker.can_do(function)

    assert worker.grab("GRAB_JOB_ALL") == [handle, function, b"", b"fold", b"data"]
