"""What workers report and what clients see of it: data, warnings, status, exceptions, ends."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.server.bytes import Peer, until

Connect = Callable[[], Peer]


@pytest.fixture
def running(client: Peer, worker: Peer, function: bytes) -> bytes:
    """The handle of a foreground job of *client*, held by *worker*."""
    worker.can_do(function)
    handle = client.submit("SUBMIT_JOB", function, function, b"test")
    assert worker.grab() == [handle, function, b"test"]
    return handle


REPORTS = {
    "WORK_DATA": (b"part \0\xff\0",),
    "WORK_WARNING": (b"mind\0the gap",),
    "WORK_STATUS": (b"3", b"10"),
    "WORK_COMPLETE": (b"\0whole\0",),
    "WORK_FAIL": (),
}


@pytest.mark.parametrize("report", REPORTS)
def test_a_report_reaches_the_client_to_the_byte(report: str, client: Peer, worker: Peer, running: bytes) -> None:
    worker.send(report, running, *REPORTS[report])

    client.expect(report, running, *REPORTS[report])
    worker.silent()


@pytest.mark.parametrize("report", ["WORK_DATA", "WORK_WARNING", "WORK_COMPLETE"])
def test_a_report_may_be_empty(report: str, client: Peer, worker: Peer, running: bytes) -> None:
    worker.send(report, running, b"")

    client.expect(report, running, b"")


def test_reports_arrive_in_the_order_sent(client: Peer, worker: Peer, running: bytes) -> None:
    sent = [
        ("WORK_DATA", b"1"),
        ("WORK_WARNING", b"2"),
        ("WORK_DATA", b"3"),
        ("WORK_STATUS", b"4", b"5"),
        ("WORK_COMPLETE", b"6"),
    ]
    for name, *arguments in sent:
        worker.send(name, running, *arguments)

    for name, *arguments in sent:
        client.expect(name, running, *arguments)


@pytest.mark.difference("waits for the separator, and the job never ends")
@pytest.mark.parametrize("report", ["WORK_DATA", "WORK_WARNING", "WORK_COMPLETE"])
def test_a_handle_alone_is_a_report_without_data(report: str, client: Peer, worker: Peer, running: bytes) -> None:
    # Perl's Gearman::Worker 2.004 leaves the separator out when a function returns "" or 0.
    worker.send(report, running)

    client.expect(report, running, b"")
    worker.silent()


@pytest.mark.difference("sends a NUL after the handle")
def test_an_exception_is_a_plain_failure_to_a_client_without_the_option(client: Peer, worker: Peer, running: bytes) -> None:
    worker.send("WORK_EXCEPTION", running, b"out of cheese")

    client.expect("WORK_FAIL", running)
    client.silent()


def test_an_exception_reaches_a_client_with_the_option(client: Peer, worker: Peer, function: bytes) -> None:
    client.send("OPTION_REQ", b"exceptions")
    client.expect("OPTION_RES", b"exceptions")
    worker.can_do(function)
    handle = client.submit("SUBMIT_JOB", function, b"", b"")
    worker.grab()
    worker.send("WORK_EXCEPTION", handle, b"out\0of cheese")

    client.expect("WORK_EXCEPTION", handle, b"out\0of cheese")
    client.silent()


def test_an_exception_ends_the_job(client: Peer, worker: Peer, running: bytes) -> None:
    worker.send("WORK_EXCEPTION", running, b"out of cheese")
    worker.send("WORK_FAIL", running)

    assert worker.error() == "JOB_NOT_FOUND"


@pytest.mark.parametrize("end", [("WORK_COMPLETE", b""), ("WORK_FAIL",), ("WORK_EXCEPTION", b"")])
def test_an_end_is_final(end: tuple[str, bytes], client: Peer, worker: Peer, running: bytes) -> None:
    worker.send(end[0], running, *end[1:])
    client.packet()
    until(lambda: client.status_of(running), [b"0", b"0", b"0", b"0"])

    for report, arguments in REPORTS.items():
        worker.send(report, running, *arguments)
        assert worker.error() == "JOB_NOT_FOUND"
    client.silent()


NOT_THE_OWNER = {
    "WORK_STATUS": (b"Job given in work result not found", b"1", b"2"),
    "WORK_COMPLETE": (b"Job given in work result not found", b""),
    "WORK_FAIL": (b"Job given in work result not found",),
    "WORK_DATA": (b"Job does not exist on server", b""),
    "WORK_WARNING": (b"Job does not exist on server", b""),
    "WORK_EXCEPTION": (b"An exception was received for a job that does not exist", b""),
}


@pytest.mark.parametrize("report", NOT_THE_OWNER)
def test_a_report_by_another_than_the_holder_is_refused(
    report: str, connect: Connect, client: Peer, worker: Peer, running: bytes
) -> None:
    text, *arguments = NOT_THE_OWNER[report]
    thief = connect()
    thief.send(report, running, *arguments)

    thief.expect("ERROR", b"JOB_NOT_FOUND", text)
    worker.send("WORK_COMPLETE", running, b"mine")
    client.expect("WORK_COMPLETE", running, b"mine")


@pytest.mark.parametrize("report", NOT_THE_OWNER)
@pytest.mark.parametrize("handle", [b"", b"H:nobody:1", b"H:nobody:99999999999999999999", b"gibberish"])
def test_a_report_on_no_job_is_refused(report: str, handle: bytes, worker: Peer) -> None:
    text, *arguments = NOT_THE_OWNER[report]
    worker.send(report, handle, *arguments)

    worker.expect("ERROR", b"JOB_NOT_FOUND", text)


@pytest.mark.parametrize("submit", ["SUBMIT_JOB", "SUBMIT_JOB_BG"])
def test_status_of_a_job_from_queue_to_end(submit: str, connect: Connect, worker: Peer, function: bytes) -> None:
    client, watcher = connect(), connect()
    handle = client.submit(submit, function, b"", b"")
    assert watcher.status_of(handle) == [b"1", b"0", b"0", b"0"]
    worker.can_do(function)
    worker.grab()
    assert watcher.status_of(handle) == [b"1", b"1", b"0", b"0"]
    worker.send("WORK_STATUS", handle, b"3", b"10")
    worker.silent()
    assert watcher.status_of(handle) == [b"1", b"1", b"3", b"10"]
    worker.send("WORK_COMPLETE", handle, b"")
    until(lambda: watcher.status_of(handle), [b"0", b"0", b"0", b"0"])


def test_a_status_that_is_no_number_is_passed_on_and_counted_as_zero(
    connect: Connect, client: Peer, worker: Peer, running: bytes
) -> None:
    worker.send("WORK_STATUS", running, b"half", b"way")

    client.expect("WORK_STATUS", running, b"half", b"way")
    assert connect().status_of(running) == [b"1", b"1", b"0", b"0"]


@pytest.mark.difference("drops a long denominator without a word")
def test_a_denominator_of_more_than_ten_digits_is_not_dropped_silently(client: Peer, worker: Peer, running: bytes) -> None:
    worker.send("WORK_STATUS", running, b"1", b"12345678901")
    worker.send("ECHO_REQ", b"end")

    answer = worker.packet()
    if answer.name == "ERROR":
        worker.expect("ECHO_RES", b"end")
    else:
        client.expect("WORK_STATUS", running, b"1", b"12345678901")


@pytest.mark.parametrize("handle", [b"", b"H:nobody:1", b"H:", b"gibberish", b"H:\xff\xfe:1", b"h" * 63])
def test_the_status_of_no_job_is_unknown(handle: bytes, client: Peer) -> None:
    client.send("GET_STATUS", handle)
    client.expect("STATUS_RES", handle, b"0", b"0", b"0", b"0")


@pytest.mark.difference("does not answer")
@pytest.mark.parametrize("size", [64, 65, 1000])
def test_the_status_of_a_handle_too_long_is_unknown(size: int, client: Peer) -> None:
    client.send("GET_STATUS", b"h" * size)
    assert client.packet().body.split(b"\0")[1:] == [b"0", b"0", b"0", b"0"]


def test_a_nul_after_the_handle_is_tolerated(connect: Connect, running: bytes) -> None:
    peer = connect()
    peer.send("GET_STATUS", running + b"\0")
    name, body = peer.packet()
    assert name == "STATUS_RES"
    assert body.startswith(running + b"\0")
    assert body.endswith(b"\x001\x001\x000\x000")


@pytest.mark.parametrize("submit", ["SUBMIT_JOB", "SUBMIT_JOB_BG"])
def test_status_by_unique_counts_the_clients_that_listen(
    submit: str, connect: Connect, client: Peer, worker: Peer, function: bytes
) -> None:
    watcher = connect()
    listening = 1 if submit == "SUBMIT_JOB" else 0
    handle = client.submit(submit, function, function, b"")
    watcher.send("GET_STATUS_UNIQUE", function)
    watcher.expect("STATUS_RES_UNIQUE", function, b"1", b"0", b"0", b"0", b"%d" % listening)
    assert connect().submit("SUBMIT_JOB", function, function, b"") == handle
    worker.can_do(function)
    worker.grab()
    worker.send("WORK_STATUS", handle, b"3", b"10")
    worker.silent()

    watcher.send("GET_STATUS_UNIQUE", function)
    watcher.expect("STATUS_RES_UNIQUE", function, b"1", b"1", b"3", b"10", b"%d" % (listening + 1))


@pytest.mark.parametrize("unique", [b"", b"-", b"nobody's unique", b"\xff"])
def test_status_by_a_unique_of_no_job_is_unknown(unique: bytes, client: Peer, function: bytes) -> None:
    client.submit("SUBMIT_JOB_BG", function, b"-", b"payload")
    client.send("GET_STATUS_UNIQUE", unique)
    client.expect("STATUS_RES_UNIQUE", unique, b"0", b"0", b"0", b"0", b"0")


@pytest.mark.difference("does not answer")
def test_status_by_a_unique_too_long_is_unknown(client: Peer) -> None:
    client.send("GET_STATUS_UNIQUE", b"u" * 65)
    client.expect("STATUS_RES_UNIQUE", b"u" * 65, b"0", b"0", b"0", b"0", b"0")


@pytest.mark.difference("does not answer")
def test_status_by_a_unique_of_64_bytes_finds_its_job(client: Peer, function: bytes) -> None:
    unique = function.ljust(64, b"u")
    client.submit("SUBMIT_JOB_BG", function, unique, b"")
    client.send("GET_STATUS_UNIQUE", unique)
    client.expect("STATUS_RES_UNIQUE", unique, b"1", b"0", b"0", b"0", b"0")
