"""Bytes that are not Gearman get a clear answer; nothing is lost and the stream stays in step where it can."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest

from tests.server.bytes import NAMES, Peer, request, until

Connect = Callable[[], Peer]
closes = pytest.mark.difference("closes the connection without an answer")
hangs = pytest.mark.difference("waits for the missing separator and swallows what follows")
THREE = ["SUBMIT_JOB", "SUBMIT_JOB_BG", "SUBMIT_JOB_HIGH", "SUBMIT_JOB_HIGH_BG", "SUBMIT_JOB_LOW", "SUBMIT_JOB_LOW_BG"]


def header(kind: int, length: int) -> bytes:
    return b"\0REQ" + struct.pack(">II", kind, length)


@closes
@pytest.mark.parametrize("start", [b"\0BAD", b"\0req", b"\0\0\0\0", b"\0REX"])
def test_a_wrong_magic_is_answered_and_the_connection_closed(start: bytes, client: Peer) -> None:
    client.write(start + header(16, 0)[4:])

    client.expect("ERROR", b"INVALID_MAGIC", b"Request magic expected")
    client.closed()


@closes
def test_what_came_before_a_wrong_magic_is_answered_first(client: Peer, function: bytes) -> None:
    client.write(request("SUBMIT_JOB_BG", function, b"", b"") + request("ECHO_REQ", b"1") + b"\0BAD" + b"version\n")

    client.created()
    client.expect("ECHO_RES", b"1")
    client.expect("ERROR", b"INVALID_MAGIC", b"Request magic expected")
    client.closed()


def test_a_response_sent_to_the_server_is_answered_and_the_connection_stays(client: Peer) -> None:
    client.write(b"\0RES\0\0\0\x06\0\0\0\0")

    client.expect("ERROR", b"INVALID_MAGIC", b"Request magic expected")
    client.silent()


def test_a_response_with_a_body_is_skipped_whole(client: Peer) -> None:
    client.write(b"\0RES\0\0\0\x11\0\0\0\x0cversion\nfoo\n")

    client.expect("ERROR", b"INVALID_MAGIC", b"Request magic expected")
    client.silent()


@closes
@pytest.mark.parametrize("kind", [0, 43, 44, 255, 65536, 0xFFFFFFFF])
@pytest.mark.parametrize("body", [b"", b"version\n\0REQ"])
def test_an_unknown_type_is_answered_and_the_stream_stays_in_step(kind: int, body: bytes, client: Peer) -> None:
    client.write(header(kind, len(body)) + body)

    assert client.error() == "INVALID_COMMAND"
    client.silent()


@pytest.mark.parametrize("name", ["UNUSED", "NOOP", "NO_JOB", "ALL_YOURS"])
def test_a_type_that_is_not_for_servers_is_an_unexpected_command(name: str, client: Peer) -> None:
    client.send(name)

    client.expect("ERROR", b"INVALID_COMMAND", b"Command not expected")
    client.silent()


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("JOB_CREATED", 1),
        ("JOB_ASSIGN", 3),
        ("ECHO_RES", 1),
        ("ERROR", 2),
        ("STATUS_RES", 5),
        ("OPTION_RES", 1),
        ("JOB_ASSIGN_UNIQ", 4),
        ("JOB_ASSIGN_ALL", 5),
        ("STATUS_RES_UNIQUE", 6),
        ("SUBMIT_JOB_SCHED", 8),
    ],
)
def test_a_type_with_arguments_that_is_not_for_servers_is_an_unexpected_command(name: str, count: int, client: Peer) -> None:
    client.send(name, *[b"1"] * count)

    client.expect("ERROR", b"INVALID_COMMAND", b"Command not expected")
    client.silent()


@hangs
@pytest.mark.parametrize(
    ("name", "body"),
    [
        *((name, body) for name in THREE for body in (b"", b"function", b"function\0unique")),
        ("SUBMIT_JOB_EPOCH", b"function\0unique\x000"),
        ("SUBMIT_REDUCE_JOB", b"function\0unique\0fold"),
        ("SUBMIT_REDUCE_JOB_BACKGROUND", b"function"),
        ("CAN_DO_TIMEOUT", b"function"),
        ("WORK_STATUS", b"H:nobody:1\x001"),
    ],
)
def test_missing_separators_are_answered_and_the_stream_stays_in_step(name: str, body: bytes, client: Peer) -> None:
    client.write(header(NAMES.index(name), len(body)) + body + request("ECHO_REQ", b"next"))

    assert client.error() == "INVALID_PACKET"
    client.expect("ECHO_RES", b"next")
    client.silent()


@pytest.mark.parametrize("submit", THREE)
@pytest.mark.parametrize("size", [65, 1000])
def test_a_unique_too_long_is_refused(submit: str, size: int, client: Peer, function: bytes) -> None:
    client.send(submit, function, b"u" * size, b"data")

    client.expect("ERROR", b"ARGUMENT_TOO_LARGE", b"Unique value too large")
    client.silent()
    assert client.status(function) in (None, (0, 0, 0))


@pytest.mark.difference("takes uniques of any length in reduce jobs")
@pytest.mark.parametrize("submit", ["SUBMIT_JOB_EPOCH", "SUBMIT_REDUCE_JOB", "SUBMIT_REDUCE_JOB_BACKGROUND"])
def test_a_unique_too_long_is_refused_in_the_longer_submits(submit: str, client: Peer, function: bytes) -> None:
    rest = [b"0", b"data"] if submit == "SUBMIT_JOB_EPOCH" else [b"fold", b"0", b"data"]
    client.send(submit, function, b"u" * 65, *rest)

    client.expect("ERROR", b"ARGUMENT_TOO_LARGE", b"Unique value too large")
    client.silent()


@pytest.mark.difference("takes names of any length")
@pytest.mark.parametrize("submit", THREE)
@pytest.mark.parametrize("size", [513, 9000])
def test_a_function_name_too_long_is_refused(submit: str, size: int, client: Peer) -> None:
    client.send(submit, b"f" * size, b"", b"data")

    assert client.error() == "ARGUMENT_TOO_LARGE"
    client.silent()


@pytest.mark.difference("takes names of any length")
@pytest.mark.parametrize("ability", [("CAN_DO",), ("CAN_DO_TIMEOUT", b"1000")])
def test_an_ability_with_too_long_a_name_is_refused(ability: tuple[str, bytes], client: Peer) -> None:
    client.send(ability[0], b"f" * 513, *ability[1:])

    assert client.error() == "ARGUMENT_TOO_LARGE"
    client.silent()


@pytest.mark.difference("has no maximum")
def test_a_packet_over_the_maximum_is_refused_at_its_header_and_skipped(
    start_server: Callable[..., Any], connect_to: Callable[[Any], Peer], function: bytes
) -> None:
    server = start_server("--max-packet-bytes", "100000")
    client, worker = connect_to(server), connect_to(server)
    worker.can_do(function)
    body = function + b"\0\0" + b"\0REQversion\n" * 20_000
    client.write(header(7, len(body)))
    assert client.error() == "ARGUMENT_TOO_LARGE"
    client.write(body)
    client.silent()

    handle = client.submit("SUBMIT_JOB", function, b"", b"x" * 90_000)
    assert worker.grab() == [handle, function, b"x" * 90_000]


@pytest.mark.difference("has no maximum")
def test_a_body_of_four_gigabytes_is_refused_before_it_comes(client: Peer) -> None:
    client.write(header(7, 0xFFFFFFFF))

    assert client.error() == "ARGUMENT_TOO_LARGE"


@closes
@pytest.mark.parametrize("line", [b"a b c d e f", b"show unique jobs of mine please", b"maxqueue f 1 2 3 4"])
def test_a_sixth_word_is_an_error_line(line: bytes, client: Peer) -> None:
    reply = client.reply(line)

    assert reply.startswith(b"ERR ")
    assert reply.endswith(b"\r\n")
    client.silent()


@closes
def test_a_line_too_long_is_an_error_line_and_the_connection_is_closed(client: Peer) -> None:
    client.write(b"x" * 8193)
    reply = client.line()

    assert reply.startswith(b"ERR ")
    assert reply.endswith(b"\r\n")
    client.closed()


def test_a_line_may_hold_nuls_and_any_other_byte(client: Peer) -> None:
    reply = client.reply(b"\xff\xfe\x01what")

    assert reply == b"ERR UNKNOWN_COMMAND Unknown+server+command\xff\xfe\x01what\r\n"


@pytest.mark.difference("answers with the name of an internal constant")
def test_a_failure_of_a_handle_too_long_is_a_failure_of_no_job(client: Peer) -> None:
    client.send("WORK_FAIL", b"h" * 64)

    assert client.error() in ("JOB_NOT_FOUND", "ARGUMENT_TOO_LARGE")
    client.silent()


def test_bad_input_of_one_connection_disturbs_no_other(connect: Connect, worker: Peer, function: bytes) -> None:
    worker.can_do(function)
    good = connect()
    handle = good.submit("SUBMIT_JOB", function, b"", b"test")
    for rubbish in (b"\0BAD" * 100, b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\0\x01\0", b"\xff" * 9000, header(99, 0)):
        bad = connect()
        bad.write(rubbish)
        bad.close()

    assert worker.grab() == [handle, function, b"test"]
    worker.send("WORK_COMPLETE", handle, b"done")
    good.expect("WORK_COMPLETE", handle, b"done")


@pytest.mark.difference("shares one buffer between reading and writing")
def test_a_peer_that_does_not_read_delays_nobody(connect: Connect, function: bytes) -> None:
    deaf, client, worker = connect(), connect(), connect()
    deaf.socket.settimeout(0.5)
    try:
        for _ in range(1000):
            deaf.write(request("ECHO_REQ", b"x" * 100_000))
    except TimeoutError:
        pass  # the server has stopped reading from it

    worker.can_do(function)
    handle = client.submit("SUBMIT_JOB_BG", function, b"", b"test")
    assert worker.grab() == [handle, function, b"test"]
    worker.send("WORK_COMPLETE", handle, b"")
    until(lambda: client.status_of(handle)[0], b"0")
