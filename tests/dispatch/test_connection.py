"""Everything else that a connection may send: status, options, nonsense."""

from __future__ import annotations

import pytest

from postgear.dispatch.messages import RequestKind
from postgear.job import StoredStatus
from postgear.wire.packet import PacketType, encode_request

from .desk import Desk, row


@pytest.mark.parametrize("handle", [b"H:s:f9", b"H:other:1", b"H:q:x", b"H:q:", b"H:q:" + b"9" * 19, b"nonsense"])
def test_the_status_of_an_unknown_handle_needs_no_database(handle: bytes) -> None:
    desk = Desk()
    assert desk.send(desk.connect(), "GET_STATUS", handle) == [("STATUS_RES", handle + b"\x000\x000\x000\x000")]


def test_the_status_of_a_job_in_memory_is_known() -> None:
    desk = Desk()
    worker = desk.worker()
    desk.claim(row(1))
    desk.grab(worker)
    desk.send(worker, "WORK_STATUS", b"H:q:1", b"+3", b"4 of them")
    assert desk.send(desk.connect(), "GET_STATUS", b"H:q:1\0") == [("STATUS_RES", b"H:q:1\x001\x001\x003\x004")]


def test_the_status_of_another_job_is_asked_of_the_database() -> None:
    desk = Desk()
    client = desk.connect()
    packets = encode_request(PacketType.GET_STATUS, b"H:q:5") + encode_request(PacketType.ECHO_REQ, b"x")
    assert desk.send_bytes(client, packets) == []
    assert desk.send(client, "ECHO_REQ", b"y") == []
    (request,) = desk.dispatcher.requests
    assert (request.kind, request.number) == (RequestKind.STATUS, 5)
    desk.dispatcher.send_status(client, b"H:q:5", StoredStatus(5, False, 0, 0))
    desk.dispatcher.answered(client)
    assert desk.replies(client) == [("STATUS_RES", b"H:q:5\x001\x000\x000\x000"), ("ECHO_RES", b"x"), ("ECHO_RES", b"y")]


def test_a_submit_waits_for_a_request_before_it() -> None:
    desk = Desk()
    client = desk.connect()
    desk.send(client, "GET_STATUS", b"H:q:5")
    desk.send(client, "SUBMIT_JOB_BG", b"f", b"", b"w")
    assert not desk.dispatcher.submits
    desk.dispatcher.send_store_error(client, "away")
    desk.dispatcher.answered(client)
    assert desk.replies(client) == [("ERROR", b"QUEUE_ERROR\0away")]
    assert len(desk.dispatcher.submits) == 1


def test_the_status_of_a_unique_counts_its_clients() -> None:
    desk = Desk()
    client = desk.connect()
    desk.send(client, "SUBMIT_JOB", b"f", b"other", b"w")
    desk.send(client, "SUBMIT_JOB", b"f", b"u", b"w")
    assert desk.send(client, "GET_STATUS_UNIQUE", b"u") == [("STATUS_RES_UNIQUE", b"u\x001\x000\x000\x000\x001")]


@pytest.mark.parametrize("unique", [b"", b"-", b"u" * 65])
def test_a_unique_that_no_job_can_have_is_unknown(unique: bytes) -> None:
    desk = Desk()
    assert desk.send(desk.connect(), "GET_STATUS_UNIQUE", unique) == [
        ("STATUS_RES_UNIQUE", unique + b"\x000\x000\x000\x000\x000")
    ]


def test_the_status_of_another_unique_is_asked_of_the_database() -> None:
    desk = Desk()
    client = desk.connect()
    assert desk.send(client, "GET_STATUS_UNIQUE", b"u") == []
    assert desk.dispatcher.requests[0].kind is RequestKind.STATUS_UNIQUE


def test_echo_is_echoed_byte_for_byte() -> None:
    desk = Desk()
    assert desk.send(desk.connect(), "ECHO_REQ", bytes(range(256))) == [("ECHO_RES", bytes(range(256)))]


def test_an_unknown_option_is_refused() -> None:
    desk = Desk()
    ((kind, body),) = desk.send(desk.connect(), "OPTION_REQ", b"speed")
    assert (kind, body.split(b"\0")[0]) == ("ERROR", b"UNKNOWN_OPTION")


@pytest.mark.parametrize("kind", ["NOOP", "JOB_CREATED", "ALL_YOURS", "SUBMIT_JOB_SCHED"])
def test_a_packet_that_is_no_request_is_refused(kind: str) -> None:
    desk = Desk()
    arguments = {"JOB_CREATED": (b"h",), "SUBMIT_JOB_SCHED": (b"",) * 8}.get(kind, ())
    ((reply, body),) = desk.send(desk.connect(), kind, *arguments)
    assert (reply, body.split(b"\0")[0]) == ("ERROR", b"INVALID_COMMAND")


@pytest.mark.parametrize(("name", "known"), [(b"builder", b"builder"), (b"", b"-"), (b"x" * 200, b"x" * 127)])
def test_a_client_id_is_cut(name: bytes, known: bytes) -> None:
    desk = Desk()
    client = desk.connect()
    desk.send(client, "SET_CLIENT_ID", name)
    assert client.client_id == known


def test_a_packet_with_missing_arguments_is_an_error_and_the_connection_goes_on() -> None:
    desk = Desk()
    client = desk.connect()
    ((kind, _),) = desk.send(client, "SUBMIT_JOB", b"f")
    assert kind == "ERROR"
    assert desk.send(client, "ECHO_REQ", b"x") == [("ECHO_RES", b"x")]


def test_bytes_that_are_not_gearman_close_the_connection() -> None:
    desk = Desk()
    client = desk.connect()
    ((kind, _),) = desk.send_bytes(client, b"\0GET / HTTP")
    assert (kind, client.closing) == ("ERROR", True)


def test_a_line_without_end_closes_the_connection() -> None:
    desk = Desk()
    client = desk.connect()
    desk.dispatcher.receive(client, [(-4, (b"LINE_TOO_LONG", b"A line may have 8192 bytes"))])
    assert client.out == [b"ERR LINE_TOO_LONG A+line+may+have+8192+bytes\r\n"]
    assert client.closing


@pytest.mark.parametrize(
    ("line", "words"), [(b"status", (b"status",)), (b"", (b"",)), (b" cancel job h", (b"", b"cancel", b"job", b"h"))]
)
def test_a_line_is_a_request_of_its_words(line: bytes, words: tuple[bytes, ...]) -> None:
    desk = Desk()
    desk.send_bytes(desk.connect(), line + b"\n")
    assert (desk.dispatcher.requests[0].kind, desk.dispatcher.requests[0].arguments) == (RequestKind.ADMIN, words)


def test_nothing_is_sent_to_a_closed_connection() -> None:
    desk = Desk()
    client = desk.connect()
    desk.dispatcher.closed(client)
    desk.dispatcher.send(client, b"x")
    assert (client.out, desk.dispatcher.dirty) == ([], [])
