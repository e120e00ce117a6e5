"""Peers that do not read, vanish, or talk nonsense: the server's memory stays bounded and nobody else notices."""

from __future__ import annotations

import os
import re
import socket
import struct
import threading
from collections.abc import Callable

import pytest

from tests.server.bytes import Peer, request, until
from tests.server.load import count, open_files, resident_bytes, stored, wait_for
from tests.server_process import ServerProcess

Start = Callable[..., ServerProcess]
ConnectTo = Callable[[ServerProcess], Peer]
MEBIBYTE = 1024 * 1024


def others_are_served(server: ServerProcess, connect_to: ConnectTo) -> None:
    """A foreground and a background job of other peers run from end to end."""
    client, worker = connect_to(server), connect_to(server)
    worker.can_do(b"other")
    for submit in ("SUBMIT_JOB", "SUBMIT_JOB_BG"):
        handle = client.submit(submit, b"other", b"", b"w")
        assert worker.grab() == [handle, b"other", b"w"]
        worker.send("WORK_COMPLETE", handle, b"done")
        if submit == "SUBMIT_JOB":
            client.expect("WORK_COMPLETE", handle, b"done")
    client.silent()


def send_in_background(peer: Peer, data: bytes) -> threading.Thread:
    """Send what the server may not take at once; ends with the connection."""

    def send() -> None:
        try:
            peer.socket.settimeout(30)
            peer.socket.sendall(data)
        except OSError:
            pass

    thread = threading.Thread(target=send)
    thread.start()
    return thread


def test_a_client_that_pipelines_100000_submits_and_reads_late_gets_every_ack(
    server: ServerProcess, connect_to: ConnectTo, dsn: str
) -> None:
    jobs = 100_000
    client = connect_to(server)
    sending = send_in_background(client, b"".join(request("SUBMIT_JOB_BG", b"f", b"", b"%d" % number) for number in range(jobs)))
    most = 0
    stored_before = -1
    while (stored_now := count(dsn)) != stored_before:
        stored_before = stored_now
        others_are_served(server, connect_to)
        most = max(most, resident_bytes(server.process.pid))
    assert most < 150 * MEBIBYTE
    handles = [client.created() for _ in range(jobs)]
    sending.join()

    numbers = [int(handle.rpartition(b":")[2]) for handle in handles]
    assert numbers == sorted(numbers)
    assert set(handles) <= stored(dsn)
    assert count(dsn, "convert_from(workload, 'UTF8') ~ '^[0-9]+$'") == jobs
    client.silent()


def test_a_client_that_echoes_and_never_reads_is_not_read_either(server: ServerProcess, connect_to: ConnectTo) -> None:
    client = connect_to(server)
    sending = send_in_background(client, request("ECHO_REQ", b"x" * 100_000) * 2000)
    for _ in range(5):
        others_are_served(server, connect_to)

    assert resident_bytes(server.process.pid) < 150 * MEBIBYTE
    client.socket.shutdown(socket.SHUT_RDWR)
    sending.join()
    others_are_served(server, connect_to)


def test_a_foreground_client_that_never_reads_is_dropped_and_its_worker_goes_on(
    start_server: Start, connect_to: ConnectTo
) -> None:
    server = start_server("--output-buffer-bytes", "1MiB")
    client, worker = connect_to(server), connect_to(server)
    worker.can_do(b"f")
    handle = client.submit("SUBMIT_JOB", b"f", b"", b"")
    worker.grab()
    part = request("WORK_DATA", handle, b"x" * 65_536)
    for _ in range(1024):
        worker.write(part)
    worker.silent()

    server.wait_for_log(r"slow reader dropped .*unsent_bytes=\d+")
    assert resident_bytes(server.process.pid) < 120 * MEBIBYTE
    worker.send("WORK_COMPLETE", handle, b"")
    worker.silent()
    others_are_served(server, connect_to)
    admin = connect_to(server)
    assert admin.status(b"f") == (0, 0, 1)


def test_a_reader_that_is_only_slow_gets_everything(start_server: Start, connect_to: ConnectTo) -> None:
    server = start_server("--output-buffer-bytes", "64MiB")
    client, worker = connect_to(server), connect_to(server)
    worker.can_do(b"f")
    handle = client.submit("SUBMIT_JOB", b"f", b"", b"")
    worker.grab()
    for _ in range(300):
        worker.send("WORK_DATA", handle, b"x" * 65_536)
    worker.send("WORK_COMPLETE", handle, b"")
    worker.silent()

    for _ in range(300):
        client.expect("WORK_DATA", handle, b"x" * 65_536)
    client.expect("WORK_COMPLETE", handle, b"")


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_client_that_vanishes_in_a_packet_leaves_nothing(
    how: str, server: ServerProcess, connect_to: ConnectTo, dsn: str
) -> None:
    files = open_files(server.process.pid)
    whole = request("SUBMIT_JOB_BG", b"f", b"", b"x" * 100_000)
    for length in (1, 4, 11, 12, 13, 20, 50_000, len(whole) - 1):
        client = connect_to(server)
        client.write(whole[:length])
        if how == "reset":
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
    until(lambda: open_files(server.process.pid), files)

    assert stored(dsn) == set()
    others_are_served(server, connect_to)
    assert "Traceback" not in server.log()


def test_a_client_that_vanishes_after_its_submits_leaves_them_stored(
    server: ServerProcess, connect_to: ConnectTo, dsn: str
) -> None:
    for _ in range(20):
        client = connect_to(server)
        client.write(request("SUBMIT_JOB_BG", b"f", b"", b"w") * 10)
        client.close()

    until(lambda: count(dsn), 200)
    assert "Traceback" not in server.log()


def test_garbage_of_50_connections_disturbs_nobody(server: ServerProcess, connect_to: ConnectTo) -> None:
    files = open_files(server.process.pid)
    seed = 7
    noise = [os.urandom(1) + b"%d" % seed * 5000 for _ in range(10)]
    kinds = [b"x" * 10_000, b"\0" * 10_000, b"\0REQ" + b"\xff" * 9_996, b"\0RES" * 2500, b"\n" * 10_000, *noise]
    peers = [connect_to(server) for _ in range(50)]
    for number, peer in enumerate(peers):
        send_in_background(peer, kinds[number % len(kinds)]).join()
    others_are_served(server, connect_to)
    for peer in peers:
        peer.close()

    # The connections of others_are_served stay open.
    until(lambda: open_files(server.process.pid), files + 2)
    assert resident_bytes(server.process.pid) < 120 * MEBIBYTE
    assert "Traceback" not in server.log()


def test_packets_that_announce_four_gigabytes_take_no_memory(server: ServerProcess, connect_to: ConnectTo) -> None:
    before = resident_bytes(server.process.pid)
    peers = [connect_to(server) for _ in range(20)]
    for peer in peers:
        peer.write(b"\0REQ" + struct.pack(">II", 18, 0xFFFFFFFF))
        assert peer.error() == "ARGUMENT_TOO_LARGE"
        peer.write(b"x" * MEBIBYTE * 4)
    others_are_served(server, connect_to)

    assert resident_bytes(server.process.pid) - before < 40 * MEBIBYTE


def test_a_crowd_that_connects_and_leaves_leaves_nothing(server: ServerProcess, connect_to: ConnectTo) -> None:
    files = open_files(server.process.pid)
    for _ in range(3):
        crowd = [connect_to(server) for _ in range(150)]
        for peer in crowd:
            peer.send("CAN_DO", b"f")
            peer.send("PRE_SLEEP")
        admin = connect_to(server)
        until(lambda asked=admin: asked.status(b"f"), (0, 0, 150))
        for peer in (*crowd, admin):
            peer.close()
    until(lambda: open_files(server.process.pid), files)

    assert not re.search("ERROR|CRITICAL|Traceback", server.log())
    others_are_served(server, connect_to)


def test_a_worker_that_grabs_and_never_answers_keeps_only_its_job(server: ServerProcess, connect_to: ConnectTo, dsn: str) -> None:
    stuck, client = connect_to(server), connect_to(server)
    stuck.can_do(b"f")
    handles = [client.submit("SUBMIT_JOB_BG", b"f", b"", b"") for _ in range(100)]
    kept = stuck.grab()[0]
    worker = connect_to(server)
    worker.can_do(b"f")
    for _ in range(99):
        handle = worker.grab()[0]
        assert handle != kept
        worker.send("WORK_COMPLETE", handle, b"")

    wait_for(lambda: count(dsn) == 1, "the others are done")
    assert stored(dsn) == {kept} <= set(handles)
