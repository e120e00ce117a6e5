"""Submitting jobs: handles, uniques and what joins what."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.server.bytes import Peer, until

FOREGROUND = ("SUBMIT_JOB", "SUBMIT_JOB_HIGH", "SUBMIT_JOB_LOW")
BACKGROUND = ("SUBMIT_JOB_BG", "SUBMIT_JOB_HIGH_BG", "SUBMIT_JOB_LOW_BG")
Connect = Callable[[], Peer]


@pytest.mark.parametrize("submit", FOREGROUND + BACKGROUND)
def test_each_submit_gives_a_handle_and_a_job(submit: str, client: Peer, worker: Peer, function: bytes) -> None:
    worker.can_do(function)
    handle = client.submit(submit, function, function, b"a\0b\0")

    assert worker.grab("GRAB_JOB_UNIQ") == [handle, function, function, b"a\0b\0"]


@pytest.mark.parametrize("submit", FOREGROUND + BACKGROUND)
def test_a_handle_is_at_most_63_bytes_of_plain_text(submit: str, client: Peer, function: bytes) -> None:
    handle = client.submit(submit, function, b"", b"")

    assert handle.startswith(b"H:")
    assert handle.count(b":") >= 2
    assert len(handle) <= 63
    assert b" " not in handle


def test_every_job_has_a_handle_of_its_own(client: Peer, function: bytes) -> None:
    handles = [client.submit(submit, function, b"", b"same") for submit in FOREGROUND + BACKGROUND for _ in range(5)]

    assert len(set(handles)) == len(handles)


@pytest.mark.parametrize("submit", ["SUBMIT_JOB", "SUBMIT_JOB_BG"])
def test_an_empty_payload_is_a_payload(submit: str, client: Peer, worker: Peer, function: bytes) -> None:
    worker.can_do(function)
    handle = client.submit(submit, function, b"", b"")

    assert worker.grab() == [handle, function, b""]


@pytest.mark.parametrize("submit", ["SUBMIT_JOB", "SUBMIT_JOB_BG"])
def test_a_function_name_may_hold_any_byte_but_nul(submit: str, client: Peer, worker: Peer, function: bytes) -> None:
    name = function + bytes(range(1, 256))
    worker.can_do(name)
    handle = client.submit(submit, name, b"", b"test")

    assert worker.grab() == [handle, name, b"test"]


@pytest.mark.parametrize("submit", ["SUBMIT_JOB", "SUBMIT_JOB_BG"])
def test_a_function_name_may_be_empty(submit: str, client: Peer, worker: Peer) -> None:
    worker.can_do(b"")
    handle = client.submit(submit, b"", b"", b"nameless")

    assert worker.grab() == [handle, b"", b"nameless"]
    worker.send("WORK_COMPLETE", handle, b"")


@pytest.mark.parametrize("submit", ["SUBMIT_JOB", "SUBMIT_JOB_BG"])
def test_a_function_name_may_have_512_bytes(submit: str, client: Peer, worker: Peer, function: bytes) -> None:
    name = function.ljust(512, b"x")
    worker.can_do(name)
    handle = client.submit(submit, name, b"", b"test")

    assert worker.grab() == [handle, name, b"test"]


@pytest.mark.parametrize("submit", ["SUBMIT_JOB", "SUBMIT_JOB_BG"])
@pytest.mark.parametrize("size", [63, pytest.param(64, marks=pytest.mark.difference("cuts a unique of 64 bytes to 63"))])
def test_a_long_unique_reaches_the_worker_whole(submit: str, size: int, client: Peer, worker: Peer, function: bytes) -> None:
    unique = (submit.encode() + function).ljust(size, b"u")
    worker.can_do(function)
    handle = client.submit(submit, function, unique, b"data")

    assert client.submit(submit, function, unique, b"") == handle
    assert worker.grab("GRAB_JOB_UNIQ") == [handle, function, unique, b"data"]


@pytest.mark.parametrize("submit", ["SUBMIT_JOB", "SUBMIT_JOB_BG"])
def test_a_unique_may_hold_any_byte_but_nul(submit: str, client: Peer, worker: Peer, function: bytes) -> None:
    unique = function + bytes(range(1, 16)) + bytes(range(224, 256))
    worker.can_do(function)
    handle = client.submit(submit, function, unique, b"data")

    assert worker.grab("GRAB_JOB_UNIQ") == [handle, function, unique, b"data"]


@pytest.mark.parametrize("submit", FOREGROUND + BACKGROUND)
def test_the_same_unique_joins_a_queued_job_and_its_payload_is_dropped(
    submit: str, connect: Connect, worker: Peer, function: bytes
) -> None:
    handle = connect().submit("SUBMIT_JOB_BG", function, function, b"first")

    assert connect().submit(submit, function, function, b"second") == handle
    worker.can_do(function)
    assert worker.grab() == [handle, function, b"first"]
    worker.send("GRAB_JOB")
    worker.expect("NO_JOB")


@pytest.mark.parametrize("submit", FOREGROUND)
@pytest.mark.parametrize("first", ["SUBMIT_JOB", "SUBMIT_JOB_BG"])
def test_the_same_unique_joins_a_running_job(first: str, submit: str, connect: Connect, worker: Peer, function: bytes) -> None:
    worker.can_do(function)
    handle = connect().submit(first, function, function, b"first")
    assert worker.grab() == [handle, function, b"first"]

    assert connect().submit(submit, function, function, b"second") == handle


@pytest.mark.parametrize("submit", BACKGROUND)
@pytest.mark.parametrize("first", ["SUBMIT_JOB", "SUBMIT_JOB_BG"])
def test_a_background_submit_joins_a_running_job(
    first: str, submit: str, connect: Connect, worker: Peer, admin: Peer, function: bytes
) -> None:
    client = connect()
    worker.can_do(function)
    handle = client.submit(first, function, function, b"first")
    assert worker.grab() == [handle, function, b"first"]
    joined = connect().submit(submit, function, function, b"second")

    assert admin.status(function) == (1, 1, 1)
    assert admin.status_of(handle) == admin.status_of(joined) == [b"1", b"1", b"0", b"0"]
    worker.send("WORK_COMPLETE", handle, b"done")
    if first == "SUBMIT_JOB":
        client.expect("WORK_COMPLETE", handle, b"done")
    until(lambda: admin.status(function), (0, 0, 1))
    assert admin.status_of(joined) == [b"0", b"0", b"0", b"0"]


def test_every_client_that_joined_gets_the_result(connect: Connect, worker: Peer, function: bytes) -> None:
    worker.can_do(function)
    clients = [connect() for _ in range(3)]
    (handle,) = {client.submit("SUBMIT_JOB", function, function, b"") for client in clients}
    assert worker.grab() == [handle, function, b""]
    worker.send("WORK_DATA", handle, b"part")
    worker.send("WORK_COMPLETE", handle, b"whole")

    for client in clients:
        client.expect("WORK_DATA", handle, b"part")
        client.expect("WORK_COMPLETE", handle, b"whole")
        client.silent()


def test_a_connection_that_joined_twice_gets_everything_twice(client: Peer, worker: Peer, function: bytes) -> None:
    worker.can_do(function)
    handle = client.submit("SUBMIT_JOB", function, function, b"")
    assert client.submit("SUBMIT_JOB", function, function, b"") == handle
    worker.grab()
    worker.send("WORK_COMPLETE", handle, b"whole")

    client.expect("WORK_COMPLETE", handle, b"whole")
    client.expect("WORK_COMPLETE", handle, b"whole")
    client.silent()


@pytest.mark.parametrize("submit", ["SUBMIT_JOB", "SUBMIT_JOB_BG"])
@pytest.mark.parametrize("end", [("WORK_COMPLETE", b""), ("WORK_FAIL",), ("WORK_EXCEPTION", b"")])
def test_a_unique_is_free_again_after_its_job_is_done(
    end: tuple[str, bytes], submit: str, connect: Connect, worker: Peer, function: bytes
) -> None:
    watcher = connect()
    worker.can_do(function)
    first = connect().submit(submit, function, function, b"1")
    assert worker.grab() == [first, function, b"1"]
    worker.send(end[0], first, *end[1:])
    until(lambda: watcher.status_of(first)[0], b"0")

    second = connect().submit(submit, function, function, b"2")
    assert second != first
    assert worker.grab() == [second, function, b"2"]


@pytest.mark.parametrize("submit", ["SUBMIT_JOB", "SUBMIT_JOB_BG"])
def test_another_function_s_unique_is_another_unique(submit: str, client: Peer, function: bytes) -> None:
    one = client.submit(submit, function, function, b"")

    assert client.submit(submit, function + b"'", function, b"") != one


@pytest.mark.parametrize("submit", ["SUBMIT_JOB", "SUBMIT_JOB_BG"])
def test_an_empty_unique_joins_nothing(submit: str, client: Peer, function: bytes) -> None:
    assert client.submit(submit, function, b"", b"same") != client.submit(submit, function, b"", b"same")


@pytest.mark.parametrize("submit", ["SUBMIT_JOB", "SUBMIT_JOB_BG"])
def test_the_unique_dash_joins_jobs_of_the_same_payload(submit: str, client: Peer, worker: Peer, function: bytes) -> None:
    one = client.submit(submit, function, b"-", b"same\0")

    assert client.submit(submit, function, b"-", b"same\0") == one
    assert client.submit(submit, function, b"-", b"other") != one
    worker.can_do(function)
    assert worker.grab("GRAB_JOB_UNIQ") == [one, function, b"-", b"same\0"]


def test_the_unique_dash_joins_long_payloads_by_every_byte(client: Peer, function: bytes) -> None:
    for submit in ("SUBMIT_JOB", "SUBMIT_JOB_BG"):
        one = client.submit(submit, function, b"-", b"x" * 9999 + submit.encode() + b"1")
        assert client.submit(submit, function, b"-", b"x" * 9999 + submit.encode() + b"2") != one
        assert client.submit(submit, function, b"-", b"x" * 9999 + submit.encode() + b"1") == one


@pytest.mark.parametrize("submit", ["SUBMIT_JOB", "SUBMIT_JOB_BG"])
def test_the_unique_dash_with_an_empty_payload_joins_nothing(submit: str, client: Peer, function: bytes) -> None:
    assert client.submit(submit, function, b"-", b"") != client.submit(submit, function, b"-", b"")


def test_a_unique_that_spells_a_payload_is_not_the_unique_dash(client: Peer, function: bytes) -> None:
    for submit in ("SUBMIT_JOB", "SUBMIT_JOB_BG"):
        payload = submit.encode()
        assert client.submit(submit, function, b"-", payload) != client.submit(submit, function, payload, payload)


def test_a_foreground_client_gets_the_result_of_the_background_job_it_joined(
    connect: Connect, worker: Peer, function: bytes
) -> None:
    handle = connect().submit("SUBMIT_JOB_BG", function, function, b"durable")
    client = connect()
    assert client.submit("SUBMIT_JOB", function, function, b"") == handle
    worker.can_do(function)
    assert worker.grab() == [handle, function, b"durable"]
    worker.send("WORK_COMPLETE", handle, b"result")

    client.expect("WORK_COMPLETE", handle, b"result")


@pytest.mark.difference("marks the job as abandoned and never runs it")
def test_a_background_job_outlives_the_foreground_client_that_joined_it(connect: Connect, worker: Peer, function: bytes) -> None:
    handle = connect().submit("SUBMIT_JOB_BG", function, function, b"durable")
    client = connect()
    assert client.submit("SUBMIT_JOB", function, function, b"") == handle
    client.close()

    worker.can_do(function)
    assert worker.grab() == [handle, function, b"durable"]


@pytest.mark.difference("drops the job with its foreground client")
def test_a_foreground_job_that_a_background_submit_joined_outlives_its_client(
    connect: Connect, worker: Peer, admin: Peer, function: bytes
) -> None:
    client = connect()
    client.submit("SUBMIT_JOB", function, function, b"shared")
    durable = connect().submit("SUBMIT_JOB_BG", function, function, b"")
    client.close()

    worker.can_do(function)
    handle, *rest = worker.grab()
    assert rest == [function, b"shared"]
    assert admin.status_of(durable) == [b"1", b"1", b"0", b"0"]
    worker.send("WORK_COMPLETE", handle, b"")
    until(lambda: admin.status(function), (0, 0, 1))


@pytest.mark.difference("names every handle by host and counter")
def test_background_handles_are_named_by_the_queue_and_foreground_ones_by_the_server(
    start_server: Callable[..., Any], connect_to: Callable[[Any], Peer], function: bytes
) -> None:
    client = connect_to(start_server("--name", "my-server"))
    foreground = client.submit("SUBMIT_JOB", function, b"", b"").split(b":")
    background = client.submit("SUBMIT_JOB_BG", function, b"", b"").split(b":")

    assert foreground[:-1] == [b"H", b"my-server"]
    assert background[0] == b"H"
    assert background[1:-1] != [b"my-server"]


def test_ten_thousand_pipelined_submits_are_answered_in_order(client: Peer, worker: Peer, function: bytes) -> None:
    one = b"\0REQ\0\0\0\x12\0\0\0" + bytes([len(function) + 7]) + function + b"\0\0"
    client.socket.settimeout(30)
    client.write(b"".join(one + b"%05d" % number for number in range(10_000)))
    handles = [client.created() for _ in range(10_000)]

    assert len(set(handles)) == 10_000
    worker.can_do(function)
    for number in range(3):
        assert worker.grab() == [handles[number], function, b"%05d" % number]
