"""Jobs for a later time."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.server.bytes import Peer, until

Connect = Callable[[], Peer]
FAR = b"4102444800"


def soon(seconds: int = 1) -> bytes:
    """The next whole second but *seconds*: no more than that many seconds from now."""
    return b"%d" % (int(time.time()) + seconds)


@pytest.mark.parametrize("epoch", [b"0", b"", b"now", b"-1", b"1", b"1700000000"])
def test_a_time_that_has_passed_or_is_no_number_means_now(epoch: bytes, client: Peer, worker: Peer, function: bytes) -> None:
    handle = client.submit("SUBMIT_JOB_EPOCH", function, function, epoch, b"a\0b")
    worker.can_do(function)

    assert worker.grab("GRAB_JOB_UNIQ") == [handle, function, function, b"a\0b"]


def test_a_job_for_later_is_known_and_not_handed_out(client: Peer, worker: Peer, admin: Peer, function: bytes) -> None:
    worker.can_do(function)
    handle = client.submit("SUBMIT_JOB_EPOCH", function, b"", FAR, b"later")

    worker.send("GRAB_JOB")
    worker.expect("NO_JOB")
    assert client.status_of(handle) == [b"1", b"0", b"0", b"0"]
    assert admin.status(function) == (1, 0, 1)


def test_a_job_for_later_lets_the_jobs_behind_it_pass(client: Peer, worker: Peer, function: bytes) -> None:
    client.submit("SUBMIT_JOB_EPOCH", function, b"", FAR, b"later")
    for submit in ("SUBMIT_JOB_BG", "SUBMIT_JOB"):
        handle = client.submit(submit, function, b"", b"now")
        worker.can_do(function)
        assert worker.grab() == [handle, function, b"now"]


def test_a_job_for_later_is_handed_out_when_its_time_has_come(client: Peer, worker: Peer, function: bytes) -> None:
    epoch = soon()
    handle = client.submit("SUBMIT_JOB_EPOCH", function, b"", epoch, b"later")
    worker.can_do(function)
    got: list[bytes] = []

    def grab() -> bool:
        worker.send("GRAB_JOB")
        packet = worker.packet()
        got[:] = packet.body.split(b"\0")
        return packet.name == "JOB_ASSIGN"

    until(grab, True)
    assert got == [handle, function, b"later"]
    assert time.time() >= int(epoch) - 0.01


@pytest.mark.difference("sends no NOOP when the time comes")
def test_a_sleeping_worker_is_woken_when_the_time_comes(client: Peer, worker: Peer, function: bytes) -> None:
    worker.can_do(function)
    worker.sleep()
    epoch = soon()
    handle = client.submit("SUBMIT_JOB_EPOCH", function, b"", epoch, b"later")

    assert worker.packet().name == "NOOP"
    assert worker.grab() == [handle, function, b"later"]
    assert int(epoch) - 0.01 <= time.time() < int(epoch) + 2


@pytest.mark.difference("answers PRE_SLEEP with a NOOP again and again")
def test_a_worker_sleeps_quietly_beside_a_job_for_later(client: Peer, worker: Peer, function: bytes) -> None:
    worker.can_do(function)
    client.submit("SUBMIT_JOB_EPOCH", function, b"", FAR, b"later")
    worker.sleep()


@pytest.mark.difference("never hands out low jobs beside a normal one for later")
def test_a_job_for_later_does_not_hide_low_jobs(client: Peer, worker: Peer, function: bytes) -> None:
    client.submit("SUBMIT_JOB_EPOCH", function, b"", FAR, b"later")
    client.submit("SUBMIT_JOB_LOW_BG", function, b"", b"low")
    worker.can_do(function)

    assert worker.grab()[-1] == b"low"


def test_a_job_for_later_joins_by_its_unique(client: Peer, function: bytes) -> None:
    handle = client.submit("SUBMIT_JOB_EPOCH", function, function, FAR, b"later")

    assert client.submit("SUBMIT_JOB_EPOCH", function, function, FAR, b"again") == handle
    assert client.submit("SUBMIT_JOB_BG", function, function, b"again") == handle


def test_a_job_for_later_can_be_cancelled(client: Peer, admin: Peer, function: bytes) -> None:
    handle = client.submit("SUBMIT_JOB_EPOCH", function, b"", FAR, b"later")

    assert admin.reply(b"cancel job " + handle) == b"OK\r\n"


@pytest.mark.difference("drops the request without an answer")
@pytest.mark.parametrize("epoch", [b"9" * 30, b"9223372036854775808"])
def test_a_time_out_of_range_is_an_error(epoch: bytes, client: Peer, function: bytes) -> None:
    client.send("SUBMIT_JOB_EPOCH", function, b"", epoch, b"never")

    assert client.error() == "INVALID_ARGUMENT"
    client.silent()


def test_a_job_for_later_has_normal_priority(client: Peer, worker: Peer, admin: Peer, function: bytes) -> None:
    client.submit("SUBMIT_JOB_EPOCH", function, b"", FAR, b"later")
    worker.can_do(function)

    assert function + b"\t0\t1\t0\t1\n" in admin.command(b"prioritystatus")
