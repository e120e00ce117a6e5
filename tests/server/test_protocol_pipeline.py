"""Binary and text on one connection, many in one write, answered in order."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.server.bytes import Peer, request, until

Connect = Callable[[], Peer]


def test_lines_and_packets_in_one_write_are_answered_in_order(connect: Connect, function: bytes) -> None:
    peer = connect()
    peer.write(
        request("ECHO_REQ", b"1")
        + b"getpid\r\n"
        + request("CAN_DO", function)
        + b"status\n"
        + request("GRAB_JOB")
        + b"nonsense\n"
        + request("ECHO_REQ", b"2")
    )

    peer.expect("ECHO_RES", b"1")
    assert peer.line().startswith(b"OK ")
    rows = []
    while not rows or rows[-1] != b".\n":
        rows.append(peer.line())
    assert function + b"\t0\t0\t1\n" in rows
    peer.expect("NO_JOB")
    assert peer.line() == b"ERR UNKNOWN_COMMAND Unknown+server+commandnonsense\r\n"
    peer.expect("ECHO_RES", b"2")


def test_answers_that_wait_for_the_disk_keep_their_place(connect: Connect, function: bytes) -> None:
    peer = connect()
    peer.write(
        request("SUBMIT_JOB_BG", function, b"", b"1")
        + request("ECHO_REQ", b"after 1")
        + request("SUBMIT_JOB_BG", function, b"", b"2")
        + request("SUBMIT_JOB", function, b"", b"3")
        + b"version\n"
        + request("SUBMIT_JOB_EPOCH", function, b"", b"4102444800", b"4")
        + request("GET_STATUS", b"H:nobody:1")
        + request("OPTION_REQ", b"speed")
    )

    peer.created()
    peer.expect("ECHO_RES", b"after 1")
    peer.created()
    peer.created()
    assert peer.line().startswith(b"OK ")
    peer.created()
    peer.expect("STATUS_RES", b"H:nobody:1", b"0", b"0", b"0", b"0")
    assert peer.error() == "UNKNOWN_OPTION"


def test_a_submit_and_the_status_behind_it_in_one_write(connect: Connect, function: bytes) -> None:
    peer = connect()
    peer.write(
        request("SUBMIT_JOB_BG", function, function, b"")
        + request("SUBMIT_JOB_BG", function, function, b"")
        + request("GET_STATUS_UNIQUE", function)
    )

    assert peer.created() == peer.created()
    peer.expect("STATUS_RES_UNIQUE", function, b"1", b"0", b"0", b"0", b"0")


@pytest.mark.difference("may send freed memory as the data of a job that ends before its assignment is written")
def test_a_whole_worker_s_life_in_one_write(connect: Connect, function: bytes) -> None:
    peer, client = connect(), connect()
    handle = client.submit("SUBMIT_JOB", function, b"", b"test")
    peer.write(
        request("CAN_DO", function)
        + request("GRAB_JOB")
        + request("WORK_DATA", handle, b"part")
        + request("WORK_COMPLETE", handle, b"whole")
        + request("GRAB_JOB")
        + request("CANT_DO", function)
    )

    peer.expect("JOB_ASSIGN", handle, function, b"test")
    peer.expect("NO_JOB")
    client.expect("WORK_DATA", handle, b"part")
    client.expect("WORK_COMPLETE", handle, b"whole")


def test_many_grabs_in_one_write_hand_out_many_jobs(connect: Connect, function: bytes) -> None:
    peer, client = connect(), connect()
    peer.can_do(function)
    for number in range(100):
        client.submit("SUBMIT_JOB", function, b"", b"%d" % number)
    peer.write(request("GRAB_JOB") * 101)

    assert [peer.packet().body.split(b"\0")[-1] for _ in range(100)] == [b"%d" % number for number in range(100)]
    peer.expect("NO_JOB")


def test_a_client_that_leaves_behind_its_submits_leaves_the_jobs(connect: Connect, function: bytes) -> None:
    leaver, stayer = connect(), connect()
    leaver.write(request("SUBMIT_JOB_BG", function, b"", b"left") * 50 + request("ECHO_REQ", b""))
    for _ in range(50):
        leaver.created()
    leaver.close()

    until(lambda: stayer.status(function), (50, 0, 0))


def test_a_connection_cut_inside_a_packet_disturbs_nobody(connect: Connect, function: bytes) -> None:
    for size in (1, 5, 11, 12, 20):
        torn = connect()
        torn.write(request("SUBMIT_JOB", function, b"", b"never whole")[:size])
        torn.close()
    peer = connect()

    peer.silent()
    assert peer.status(function) is None
