"""A synchronous standby: what is acknowledged is on it, and serving goes on there."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from postgear import schema
from tests.failover.replicas import Standby, kill, set_synchronous
from tests.server.bytes import Peer
from tests.server.load import PrivatePostgres, Runner, Submitter, UnreadyServer, query, stored, wait_for
from tests.server_process import ServerProcess

Start = Callable[..., ServerProcess]
ConnectTo = Callable[[Any], Peer]
_numbers = itertools.count(1)
WAITING = (
    "select pid from pg_stat_activity where application_name like 'postgear test submit%' and wait_event = 'SyncRep'"
    " and datname = current_database()"
)


@pytest.fixture
def primary() -> Iterator[PrivatePostgres]:
    postgres = PrivatePostgres()
    yield postgres
    postgres.remove()


@pytest.fixture
def standby(primary: PrivatePostgres) -> Iterator[Standby]:
    """The synchronous standby of a primary that has the schema."""
    schema.upgrade(primary.dsn, queue="test")
    standby = Standby(primary, "b")
    set_synchronous(primary.dsn, "b")
    yield standby
    standby.stop()


@pytest.fixture
def connect_to() -> Iterator[ConnectTo]:
    peers: list[Peer] = []

    def open_connection(server: Any) -> Peer:
        peers.append(Peer(server.host, server.port))
        peers[-1].socket.settimeout(20)
        return peers[-1]

    yield open_connection
    for peer in peers:
        peer.close()


def both(primary: PrivatePostgres, standby: Standby) -> str:
    """A DSN of both hosts."""
    first, second = (conninfo_to_dict(dsn) for dsn in (primary.dsn, standby.dsn))
    return make_conninfo(
        primary.dsn, host=f"{first['host']},{second['host']}", port=f"{first.get('port', 5432)},{second['port']}"
    )


def test_a_cancelled_wait_is_acknowledged_only_after_the_standby_has_the_job(
    primary: PrivatePostgres, standby: Standby, start_server: Start, connect_to: ConnectTo
) -> None:
    server = start_server(dsn=primary.dsn)
    client = connect_to(server)
    client.submit("SUBMIT_JOB_BG", b"f", b"", b"before")
    standby.stop()
    client.send("SUBMIT_JOB_BG", b"f", b"", b"unsafe")
    with psycopg.connect(primary.dsn, autocommit=True) as connection:
        connection.execute("set synchronous_commit = local")
        wait_for(lambda: connection.execute(WAITING).fetchall(), "the commit waits")
        connection.execute("select pg_cancel_backend(pid) from (" + WAITING + ") waiting")
    server.wait_for_log("canceling wait for synchronous replication")
    client.socket.settimeout(0.5)
    with pytest.raises(TimeoutError):
        client.packet()
    client.socket.settimeout(20)
    standby.start()

    handle = client.created()
    wait_for(lambda: handle in stored(standby.dsn), "the standby has it")
    assert len(stored(primary.dsn)) == 2


def test_with_require_sync_nothing_is_acknowledged_without_a_standby(
    primary: PrivatePostgres, standby: Standby, start_server: Start, connect_to: ConnectTo
) -> None:
    server = start_server("--require-sync", "--submit-timeout-seconds", "2", dsn=primary.dsn)
    other = start_server("--name", "other", dsn=primary.dsn)
    client, worker = connect_to(server), connect_to(server)
    before = client.submit("SUBMIT_JOB_BG", b"f", b"", b"before")
    worker.can_do(b"f")
    assert worker.grab()[0] == before
    set_synchronous(primary.dsn, "")

    client.send("SUBMIT_JOB_BG", b"f", b"", b"alone")
    assert client.error() == "QUEUE_ERROR"
    assert connect_to(other).submit("SUBMIT_JOB_BG", b"f", b"", b"does not care")
    set_synchronous(primary.dsn, "b")
    after = client.submit("SUBMIT_JOB_BG", b"f", b"", b"after")
    wait_for(lambda: after in stored(standby.dsn), "the standby has it")


def test_with_require_sync_a_submit_is_acknowledged_when_the_standby_is_back(
    primary: PrivatePostgres, standby: Standby, start_server: Start, connect_to: ConnectTo
) -> None:
    server = start_server("--require-sync", dsn=primary.dsn)
    client = connect_to(server)
    client.submit("SUBMIT_JOB_BG", b"f", b"", b"before")
    set_synchronous(primary.dsn, "")
    client.send("SUBMIT_JOB_BG", b"f", b"", b"alone")
    server.wait_for_log("submits stored but not acknowledged yet")
    set_synchronous(primary.dsn, "b")

    handle = client.created()
    wait_for(lambda: handle in stored(standby.dsn), "the standby has it")
    assert len(stored(primary.dsn)) == 2


def test_a_relaxed_function_does_not_wait_for_the_standby(
    primary: PrivatePostgres, standby: Standby, start_server: Start, connect_to: ConnectTo
) -> None:
    for name in ("careful", "relaxed", "local"):
        query(primary.dsn, "select postgear.function_id(%s::bytea)", name.encode())
    for tier in ("relaxed", "local"):
        query(primary.dsn, "select postgear.set_durability(%s::bytea, %s)", tier.encode(), tier)
    server = start_server(dsn=primary.dsn)
    client = connect_to(server)
    for name in (b"careful", b"relaxed", b"local"):
        client.submit("SUBMIT_JOB_BG", name, b"", b"before")
    standby.stop()
    for name in (b"relaxed", b"local"):
        assert client.submit("SUBMIT_JOB_BG", name, b"", b"quick")
    client.send("SUBMIT_JOB_BG", b"careful", b"", b"waits")
    client.socket.settimeout(0.5)
    with pytest.raises(TimeoutError):
        client.packet()
    client.socket.settimeout(20)
    standby.start()
    assert client.created()


def test_an_unplanned_failover_loses_nothing_that_was_acknowledged(
    primary: PrivatePostgres, standby: Standby, start_server: Start
) -> None:
    server = start_server("--submit-timeout-seconds", "30", dsn=both(primary, standby))
    submitters = [Submitter(server, b"f%d" % number) for number in range(2)]
    runner = Runner(server, b"f0")
    for thread in (*submitters, runner):
        thread.start()
    wait_for(lambda: sum(len(each.acked) for each in submitters) > 500, "load")
    kill(primary)
    standby.promote()
    set_synchronous(standby.dsn, "")
    reached = sum(len(each.acked) for each in submitters)
    wait_for(lambda: sum(len(each.acked) for each in submitters) > reached + 500, "load again", 30)
    for submitter in submitters:
        submitter.stop()
    runner.stop()

    server.wait_for_log('database was promoted or replaced timeline="?00000001->00000002')
    assert not [body for submitter in submitters for body in submitter.refused]
    acked = {handle for submitter in submitters for handle in submitter.acked}
    assert acked <= set(runner.ran) | stored(standby.dsn)
    assert "Traceback" not in server.log()


def test_a_primary_that_became_read_only_is_left_for_the_other(
    primary: PrivatePostgres, standby: Standby, start_server: Start, connect_to: ConnectTo
) -> None:
    server = start_server(dsn=both(primary, standby))
    client = connect_to(server)
    client.submit("SUBMIT_JOB_BG", b"f", b"", b"before")
    query(primary.dsn, "alter system set default_transaction_read_only = on")
    query(primary.dsn, "select pg_reload_conf()")
    standby.promote()
    set_synchronous(standby.dsn, "")

    client.send("SUBMIT_JOB_BG", b"f", b"", b"after")
    handle = client.created()
    assert handle in stored(standby.dsn)
    assert handle not in stored(primary.dsn)


@pytest.mark.timeout(120)
def test_a_primary_that_lives_on_after_the_promotion_but_commits_nothing_is_left_for_the_other(
    primary: PrivatePostgres, standby: Standby, start_server: Start, connect_to: ConnectTo
) -> None:
    server = start_server("--lease-seconds", "4", "--submit-timeout-seconds", "60", dsn=both(primary, standby))
    client = connect_to(server)
    client.submit("SUBMIT_JOB_BG", b"f", b"", b"before")
    standby.promote()
    set_synchronous(standby.dsn, "")

    client.socket.settimeout(90)
    client.send("SUBMIT_JOB_BG", b"f", b"", b"after")
    handle = client.created()
    assert handle in stored(standby.dsn)
    server.wait_for_log("the lease could not be renewed")
    assert "database does not commit" not in server.log()  # the other was tried first


@pytest.mark.timeout(120)
def test_a_server_starts_and_stops_while_commits_wait_for_a_standby_that_is_away(
    primary: PrivatePostgres, tmp_path: Path
) -> None:
    schema.upgrade(primary.dsn, queue="test")
    set_synchronous(primary.dsn, "nobody")
    servers = [UnreadyServer(dsn=primary.dsn, log_path=tmp_path / f"unready-{number}.log") for number in range(2)]
    try:
        waiting = WAITING.replace("submit", "lease").replace("%", "%%")
        wait_for(lambda: len(query(primary.dsn, waiting)) == 2, "they are about to take a lease")
        servers[1].process.send_signal(signal.SIGTERM)
        assert servers[1].process.wait(30) == 0
        wait_for(servers[0].listens, "it listens all the same", 30)
        assert "database does not commit, retrying" in servers[0].log()
        set_synchronous(primary.dsn, "")
        wait_for(lambda: " ready " in servers[0].log(), "it is ready", 30)
        servers[0].process.send_signal(signal.SIGTERM)
        assert servers[0].process.wait(30) == 0
    finally:
        for server in servers:
            server.process.kill()
            server.process.wait()
        set_synchronous(primary.dsn, "")
