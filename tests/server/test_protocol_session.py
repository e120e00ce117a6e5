"""The example session of Gearman's PROTOCOL, every byte written out."""

from __future__ import annotations

from collections.abc import Callable

from tests.server.bytes import Peer


def test_the_reverse_example_of_the_protocol_text(connect: Callable[[], Peer]) -> None:
    worker, client = connect(), connect()

    worker.write(bytes.fromhex("00524551 00000001 00000007") + b"reverse")  # CAN_DO
    worker.write(bytes.fromhex("00524551 00000009 00000000"))  # GRAB_JOB
    assert worker.read(12) == bytes.fromhex("00524553 0000000a 00000000")  # NO_JOB
    worker.write(bytes.fromhex("00524551 00000004 00000000"))  # PRE_SLEEP
    worker.write(bytes.fromhex("00524551 00000010 00000002") + b"ok")  # ECHO_REQ: the server has read it all
    assert worker.read(14) == bytes.fromhex("00524553 00000011 00000002") + b"ok"

    client.write(bytes.fromhex("00524551 00000007 0000000d") + b"reverse\0\0test")  # SUBMIT_JOB
    header = client.read(12)
    assert header[:8] == bytes.fromhex("00524553 00000008")  # JOB_CREATED
    handle = client.read(header[11])
    length = len(handle)

    assert worker.read(12) == bytes.fromhex("00524553 00000006 00000000")  # NOOP
    worker.write(bytes.fromhex("00524551 00000009 00000000"))  # GRAB_JOB
    assignment = bytes.fromhex(f"00524553 0000000b {length + 13:08x}") + handle + b"\0reverse\0test"
    assert worker.read(len(assignment)) == assignment

    worker.write(bytes.fromhex(f"00524551 0000000d {length + 5:08x}") + handle + b"\0tset")  # WORK_COMPLETE
    complete = bytes.fromhex(f"00524553 0000000d {length + 5:08x}") + handle + b"\0tset"
    assert client.read(len(complete)) == complete

    worker.silent()
    client.silent()


def test_the_example_with_every_byte_sent_alone(connect: Callable[[], Peer], function: bytes) -> None:
    worker, client = connect(), connect()
    worker.can_do(function)

    for byte in b"\0REQ\0\0\0\x07\0\0\0" + bytes([len(function) + 6]) + function + b"\0\0test":
        client.write(bytes([byte]))
    handle = client.created()
    for byte in b"\0REQ\0\0\0\x09\0\0\0\0":
        worker.write(bytes([byte]))
    worker.expect("JOB_ASSIGN", handle, function, b"test")


def test_an_echo_comes_back_to_the_byte(connect: Callable[[], Peer]) -> None:
    peer = connect()

    for data in (b"", b"\0", bytes(range(256)), b"x" * 100_000):
        peer.send("ECHO_REQ", data)
        peer.expect("ECHO_RES", data)


def test_one_connection_is_client_and_worker_at_once(connect: Callable[[], Peer], function: bytes) -> None:
    peer = connect()
    peer.can_do(function)

    handle = peer.submit("SUBMIT_JOB", function, b"", b"self-service")
    peer.send("GRAB_JOB")
    peer.expect("JOB_ASSIGN", handle, function, b"self-service")
    peer.send("WORK_COMPLETE", handle, b"done")
    peer.expect("WORK_COMPLETE", handle, b"done")


def test_a_job_waits_for_a_worker_that_comes_later(connect: Callable[[], Peer], function: bytes) -> None:
    client = connect()
    handle = client.submit("SUBMIT_JOB", function, b"", b"early")

    worker = connect()
    worker.can_do(function)
    worker.send("PRE_SLEEP")
    worker.expect("NOOP")
    worker.send("GRAB_JOB")
    worker.expect("JOB_ASSIGN", handle, function, b"early")


def test_a_background_job_sends_its_client_nothing_but_the_handle(connect: Callable[[], Peer], function: bytes) -> None:
    worker, client = connect(), connect()
    worker.can_do(function)
    handle = client.submit("SUBMIT_JOB_BG", function, b"", b"test")

    assert worker.grab() == [handle, function, b"test"]
    worker.send("WORK_DATA", handle, b"part")
    worker.send("WORK_STATUS", handle, b"1", b"2")
    worker.send("WORK_COMPLETE", handle, b"whole")

    worker.silent()
    client.silent()


def test_a_payload_of_all_bytes_and_of_three_megabytes_survives_both_ways(connect: Callable[[], Peer], function: bytes) -> None:
    worker, client = connect(), connect()
    worker.can_do(function)
    for submit in ("SUBMIT_JOB", "SUBMIT_JOB_BG"):
        for data in (bytes(range(256)), bytes(range(256)) * 12 * 1024):
            handle = client.submit(submit, function, b"", data)
            assert worker.grab() == [handle, function, data]
            worker.send("WORK_COMPLETE", handle, data[::-1])
            if submit == "SUBMIT_JOB":
                client.expect("WORK_COMPLETE", handle, data[::-1])
