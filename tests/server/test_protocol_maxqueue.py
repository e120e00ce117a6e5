"""Queue limits: maxqueue and what it refuses."""

from __future__ import annotations

import pytest

from tests.server.bytes import Peer


def full(client: Peer, submit: str, function: bytes) -> bool:
    """Submit, and say whether it was refused because the queue is full."""
    client.send(submit, function, b"", b"")
    packet = client.packet()
    if packet.name == "JOB_CREATED":
        return False
    assert packet == ("ERROR", b"QUEUE_ERROR\0Job queue is full")
    return True


FOREGROUND = ("SUBMIT_JOB_HIGH", "SUBMIT_JOB", "SUBMIT_JOB_LOW")
BACKGROUND = ("SUBMIT_JOB_HIGH_BG", "SUBMIT_JOB_BG", "SUBMIT_JOB_LOW_BG")


@pytest.mark.parametrize("submits", [FOREGROUND, BACKGROUND], ids=["foreground", "background"])
def test_one_number_limits_every_priority(
    submits: tuple[str, ...], client: Peer, worker: Peer, admin: Peer, function: bytes
) -> None:
    worker.can_do(function)
    assert admin.reply(b"maxqueue " + function + b" 2\r") == b"OK\r\n"

    assert not full(client, submits[1], function)
    assert not full(client, submits[1], function)
    for submit in submits:
        assert full(client, submit, function)


@pytest.mark.parametrize(("first", "then"), [(FOREGROUND, BACKGROUND), (BACKGROUND, FOREGROUND)], ids=["fg-bg", "bg-fg"])
def test_foreground_and_background_jobs_share_a_limit(
    first: tuple[str, ...], then: tuple[str, ...], client: Peer, worker: Peer, admin: Peer, function: bytes
) -> None:
    worker.can_do(function)
    admin.reply(b"maxqueue " + function + b" 2\r")
    assert not full(client, first[1], function)
    assert not full(client, first[1], function)

    assert full(client, then[0], function)


def test_three_numbers_limit_high_normal_and_low(client: Peer, worker: Peer, admin: Peer, function: bytes) -> None:
    worker.can_do(function)
    assert admin.reply(b"maxqueue " + function + b" 3 2 1\r") == b"OK\r\n"

    assert not full(client, "SUBMIT_JOB_LOW", function)
    assert full(client, "SUBMIT_JOB_LOW", function)
    assert not full(client, "SUBMIT_JOB", function)
    assert full(client, "SUBMIT_JOB", function)
    assert not full(client, "SUBMIT_JOB_HIGH", function)
    assert full(client, "SUBMIT_JOB_HIGH", function)


@pytest.mark.parametrize("limit", [b"", b" 0", b" -1", b" 0 0 0"])
def test_no_number_or_none_above_zero_lifts_the_limit(
    limit: bytes, client: Peer, worker: Peer, admin: Peer, function: bytes
) -> None:
    worker.can_do(function)
    admin.reply(b"maxqueue " + function + b" 1\r")
    assert not full(client, "SUBMIT_JOB", function)
    assert full(client, "SUBMIT_JOB", function)

    assert admin.reply(b"maxqueue " + function + limit + b"\r") == b"OK\r\n"
    assert not full(client, "SUBMIT_JOB", function)


def test_running_jobs_count_and_finished_ones_do_not(client: Peer, worker: Peer, admin: Peer, function: bytes) -> None:
    worker.can_do(function)
    admin.reply(b"maxqueue " + function + b" 1\r")
    handle = client.submit("SUBMIT_JOB", function, b"", b"")
    worker.grab()
    assert full(client, "SUBMIT_JOB", function)
    worker.send("WORK_COMPLETE", handle, b"")
    client.expect("WORK_COMPLETE", handle, b"")

    assert not full(client, "SUBMIT_JOB", function)


def test_joining_a_job_is_never_refused(client: Peer, worker: Peer, admin: Peer, function: bytes) -> None:
    worker.can_do(function)
    admin.reply(b"maxqueue " + function + b" 1\r")
    handle = client.submit("SUBMIT_JOB", function, function, b"")

    assert client.submit("SUBMIT_JOB", function, function, b"") == handle


def test_limiting_an_unknown_function_is_ok(admin: Peer, function: bytes) -> None:
    assert admin.reply(b"maxqueue " + function + b" 7") == b"OK\r\n"


def test_maxqueue_needs_a_function(admin: Peer) -> None:
    incomplete = b"ERR INVALID_ARGUMENTS An+incomplete+set+of+arguments+was+sent+to+this+command+maxqueue\r\n"

    assert admin.reply(b"maxqueue") == incomplete
