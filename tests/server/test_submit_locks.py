"""A transaction of SQL that is not over: who submits the same unique by wire is told so, and nobody else has to wait."""

from __future__ import annotations

from collections.abc import Callable

import psycopg

from tests.server.bytes import Peer, request
from tests.server.load import query, stored, wait_for
from tests.server_process import ServerProcess

Start = Callable[..., ServerProcess]
ConnectTo = Callable[[ServerProcess], Peer]


def test_only_who_submits_the_same_unique_is_refused(start_server: Start, connect_to: ConnectTo, dsn: str) -> None:
    server = start_server()
    client, other, worker = (connect_to(server) for _ in range(3))
    for peer in (client, other):
        peer.socket.settimeout(30)
    worker.can_do(b"f")
    before = client.submit("SUBMIT_JOB_BG", b"f", b"", b"before")
    with psycopg.connect(dsn) as connection:
        connection.execute("select gman_do_background('f', 'by SQL', 'u')")
        jobs = ((b"", b"1"), (b"", b"2"), (b"u", b"waits"), (b"v", b"3"), (b"", b"4"))
        client.write(b"".join(request("SUBMIT_JOB_BG", b"f", unique, workload) for unique, workload in jobs))
        other.send("SUBMIT_JOB_BG", b"g", b"", b"")

        assert other.created() in stored(dsn)
        handles = [client.created(), client.created()]
        assert client.error() == "QUEUE_ERROR"
        handles += [client.created(), client.created()]
        assert {before, *handles} < stored(dsn)
        ran = {}
        for _ in range(5):
            handle, _name, workload = worker.grab()
            ran[handle] = workload
        assert ran == {before: b"before", **dict(zip(handles, (b"1", b"2", b"3", b"4"), strict=True))}
    coalesced = client.submit("SUBMIT_JOB_BG", b"f", b"u", b"again")
    assert worker.grab() == [coalesced, b"f", b"by SQL"]


def test_a_function_that_is_being_added_keeps_no_other_waiting(start_server: Start, connect_to: ConnectTo, dsn: str) -> None:
    server = start_server()
    client, worker, of_new = (connect_to(server) for _ in range(3))
    client.socket.settimeout(30)
    worker.can_do(b"f")
    client.submit("SUBMIT_JOB_BG", b"f", b"", b"before")
    assert worker.grab()[2] == b"before"
    with psycopg.connect(dsn) as connection:
        connection.execute("select gman_do_background('new', 'by SQL')")
        of_new.can_do(b"new")
        handle = client.submit("SUBMIT_JOB_BG", b"f", b"", b"meanwhile")
        wait_for(lambda: _grabbed(worker) == handle, "it runs", 30)
    wait_for(lambda: _grabbed(of_new), "the new one runs", 30)


def test_a_lock_of_a_whole_table_is_waited_for(start_server: Start, connect_to: ConnectTo, dsn: str) -> None:
    server = start_server("--submit-timeout-seconds", "60")
    client = connect_to(server)
    client.socket.settimeout(30)
    client.submit("SUBMIT_JOB_BG", b"f", b"u", b"")
    query(dsn, "delete from postgear.job")
    with psycopg.connect(dsn) as connection:
        connection.execute("lock table postgear.job in exclusive mode")
        client.write(request("SUBMIT_JOB_BG", b"f", b"u", b"") + request("SUBMIT_JOB_BG", b"f", b"", b""))
        server.wait_for_log("submits wait for a lock")
    assert {client.created(), client.created()} == stored(dsn)


def _grabbed(worker: Peer) -> bytes:
    worker.send("GRAB_JOB")
    packet = worker.packet()
    return packet.arguments(3)[0] if packet.name == "JOB_ASSIGN" else b""


def test_a_drop_that_waits_for_a_lock_keeps_no_submit_waiting(start_server: Start, connect_to: ConnectTo, dsn: str) -> None:
    server = start_server()
    client, admin = connect_to(server), connect_to(server)
    for peer in (client, admin):
        peer.socket.settimeout(30)
    client.submit("SUBMIT_JOB_BG", b"g", b"", b"")
    assert admin.reply(b"create function f") == b"OK\r\n"
    with psycopg.connect(dsn) as connection:
        connection.execute("select postgear.keep_results('f', '1 day')")
        admin.write(b"drop function f\n")
        assert client.submit("SUBMIT_JOB_BG", b"h", b"", b"") in stored(dsn)
        assert admin.line().startswith(b"ERR")
    assert admin.reply(b"drop function f") == b"OK\r\n"
