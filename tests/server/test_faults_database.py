"""The database is away, goes away, or does as it should not: no false ack, no lost job, and the server recovers by itself."""

from __future__ import annotations

import itertools
import random
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from postgear import schema
from tests.server.bytes import Peer, request, until
from tests.server.load import PROGRAM, PrivatePostgres, Runner, Submitter, UnreadyServer, count, drain, query, stored, wait_for
from tests.server.wire import Wire
from tests.server_process import ServerProcess

SLOW_CLAIMS = """
create function hold() returns trigger language plpgsql as $$ begin perform pg_advisory_xact_lock_shared(42); return new; end $$;
create trigger hold before insert on postgear.job for each row when (new.lease is not null) execute function hold();
"""
BLOCKED = "select count(*)::integer from pg_locks where locktype = 'advisory' and objid = 42 and not granted"

Start = Callable[..., ServerProcess]
ConnectTo = Callable[[ServerProcess | UnreadyServer], Peer]
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def private_postgres() -> Iterator[PrivatePostgres]:
    postgres = PrivatePostgres()
    query(postgres.dsn, "create database fault_template")
    schema.upgrade(make_conninfo(postgres.dsn, dbname="fault_template"), queue="test")
    yield postgres
    postgres.remove()


@pytest.fixture
def postgres(private_postgres: PrivatePostgres) -> Iterator[PrivatePostgres]:
    """A PostgreSQL that the test may stop; it runs when the test begins."""
    yield private_postgres
    private_postgres.start()


@pytest.fixture
def private_dsn(postgres: PrivatePostgres) -> str:
    """A database of the test's own in it."""
    name = f"fault_{next(_numbers)}"
    query(postgres.dsn, f"create database {name} template fault_template")
    return make_conninfo(postgres.dsn, dbname=name)


@pytest.fixture
def start_unready(private_dsn: str, tmp_path: Path) -> Iterator[Callable[..., UnreadyServer]]:
    """Start servers on ``private_dsn`` without waiting until they are ready."""
    servers: list[UnreadyServer] = []

    def start(*arguments: str) -> UnreadyServer:
        servers.append(UnreadyServer(*arguments, dsn=private_dsn, log_path=tmp_path / f"unready-{next(_numbers)}.log"))
        return servers[-1]

    yield start
    for server in servers:
        server.process.kill()
        server.process.wait()


def acked_by(submitters: list[Submitter]) -> set[bytes]:
    return {handle for submitter in submitters for handle in submitter.acked}


def test_a_database_that_is_down_at_start_is_waited_for(
    postgres: PrivatePostgres, private_dsn: str, start_unready: Callable[..., UnreadyServer], connect_to: ConnectTo
) -> None:
    postgres.stop()
    server = start_unready("--submit-timeout-seconds", "1")
    wait_for(server.listens, "the server listens")

    # Foreground jobs need no database.
    client, worker = connect_to(server), connect_to(server)
    worker.can_do(b"f")
    handle = client.submit("SUBMIT_JOB", b"f", b"", b"w")
    assert worker.grab() == [handle, b"f", b"w"]
    worker.send("WORK_COMPLETE", handle, b"done")
    client.expect("WORK_COMPLETE", handle, b"done")
    # Background jobs do.
    client.send("SUBMIT_JOB_BG", b"f", b"", b"w")
    assert client.error() == "QUEUE_ERROR"
    assert "ready" not in re.findall(r"^\S+ INFO daemon (\w+)", server.log(), re.MULTILINE)
    postgres.start()

    wait_for(lambda: "INFO daemon ready " in server.log(), "ready")
    handle = client.submit("SUBMIT_JOB_BG", b"f", b"", b"again")
    assert worker.grab() == [handle, b"f", b"again"]
    assert server.log().count("INFO daemon ready ") == 1
    assert "Traceback" not in server.log()


def test_a_submit_waits_for_a_database_that_comes(
    postgres: PrivatePostgres, private_dsn: str, start_unready: Callable[..., UnreadyServer], connect_to: ConnectTo
) -> None:
    postgres.stop()
    server = start_unready()
    wait_for(server.listens, "the server listens")
    client = connect_to(server)
    client.socket.settimeout(20)
    client.write(b"".join(request("SUBMIT_JOB_BG", b"f", b"", b"%d" % number) for number in range(100)))
    wait_for(lambda: "database away" in server.log(), "the server has tried")
    postgres.start()

    assert {client.created() for _ in range(100)} == stored(private_dsn)


def test_a_submit_that_waited_too_long_is_an_error_and_later_ones_succeed(
    postgres: PrivatePostgres, private_dsn: str, start_server: Start, connect_to: ConnectTo
) -> None:
    server = start_server("--submit-timeout-seconds", "1", dsn=private_dsn)
    client, waiting = connect_to(server), connect_to(server)
    before = client.submit("SUBMIT_JOB_BG", b"f", b"", b"before")
    postgres.stop()
    server.wait_for_log("database connection lost")
    started = time.monotonic()
    client.write(request("SUBMIT_JOB_BG", b"f", b"", b"lost") * 3 + request("ECHO_REQ", b"next"))
    assert [client.error() for _ in range(3)] == ["QUEUE_ERROR"] * 3
    assert time.monotonic() - started < 4.0
    client.expect("ECHO_RES", b"next")
    assert waiting.reply(b"status").startswith(b"ERR ")
    waiting.silent()
    postgres.start()

    wait_for(lambda: "database connected" in server.log(), "the server is back")
    after = client.submit("SUBMIT_JOB_BG", b"f", b"", b"after")
    assert stored(private_dsn) == {before, after}


def test_a_statement_that_outlives_its_connection_leaves_no_job_behind(
    postgres: PrivatePostgres, private_dsn: str, start_server: Start, connect_to: ConnectTo
) -> None:
    """A submit is born claimed, its connection is lost, and its statement would commit after the server has settled its jobs."""
    query(private_dsn, SLOW_CLAIMS)
    with Wire(private_dsn) as wire, psycopg.connect(private_dsn, autocommit=True) as blocker:
        server = start_server(dsn=wire.dsn)
        worker, client = connect_to(server), connect_to(server)
        worker.can_do(b"f")
        worker.send("GRAB_JOB")
        worker.expect("NO_JOB")  # the server knows that the queue is empty: the next job is born claimed
        worker.send("PRE_SLEEP")
        worker.send("ECHO_REQ", b"asleep")
        worker.expect("ECHO_RES", b"asleep")
        blocker.execute("select pg_advisory_lock(42)")
        client.send("SUBMIT_JOB_BG", b"f", b"", b"w")
        wait_for(lambda: query(private_dsn, BLOCKED) == [(1,)], "the submit is under way")
        wire.cut()
        server.wait_for_log("submits were in doubt jobs=1 stored=false")
        server.wait_for_log("database connected")
        wait_for(lambda: query(private_dsn, BLOCKED) == [(1,)], "only its second sending is left")
        blocker.execute("select pg_advisory_unlock(42)")
        handle = client.created()
        worker.expect("NOOP")
        assert worker.grab() == [handle, b"f", b"w"]
        assert stored(private_dsn) == {handle}


@pytest.fixture
def born_claimed(
    start_server: Start, private_dsn: str, connect_to: ConnectTo
) -> Iterator[tuple[Wire, ServerProcess, Peer, Peer]]:
    """A server behind a wire, a worker asleep at it, and a client that waits: its job is stored, but that was not heard."""
    with Wire(private_dsn) as wire:
        server = start_server(dsn=wire.dsn)
        worker, client = connect_to(server), connect_to(server)
        worker.can_do(b"f")
        worker.send("GRAB_JOB")
        worker.expect("NO_JOB")
        worker.send("PRE_SLEEP")
        worker.send("ECHO_REQ", b"asleep")
        worker.expect("ECHO_RES", b"asleep")
        client.submit("SUBMIT_JOB_BG", b"other", b"", b"")  # so that no question comes before the submit
        query(private_dsn, "delete from postgear.job")
        wire.mute()
        client.write(request("SUBMIT_JOB_BG", b"f", b"", b"w") + request("SUBMIT_JOB_BG", b"other", b"", b"w"))
        wait_for(lambda: count(private_dsn) == 2, "the jobs are stored")
        yield wire, server, worker, client


def test_a_submit_whose_answer_was_lost_is_acknowledged_and_stays_held(
    born_claimed: tuple[Wire, ServerProcess, Peer, Peer], private_dsn: str
) -> None:
    wire, server, worker, client = born_claimed
    wire.cut()

    handles = [client.created(), client.created()]
    assert set(handles) == stored(private_dsn)
    worker.expect("NOOP")
    assert worker.grab() == [handles[0], b"f", b"w"]
    server.wait_for_log("database connected")
    assert query(private_dsn, "select attempt from postgear.job where lease is not null") == [(1,)]
    worker.send("WORK_COMPLETE", handles[0], b"")
    until(lambda: stored(private_dsn), {handles[1]})
    worker.send("GRAB_JOB")
    worker.expect("NO_JOB")


def test_a_submit_whose_answer_was_lost_is_acknowledged_though_its_lease_was_ended(
    born_claimed: tuple[Wire, ServerProcess, Peer, Peer], private_dsn: str
) -> None:
    wire, server, worker, client = born_claimed
    query(private_dsn, "select postgear.end_lease(lease) from postgear.server")
    wire.cut()

    handles = [client.created(), client.created()]
    assert set(handles) == stored(private_dsn)
    server.wait_for_log("lease lost")
    worker.expect("NOOP")
    assert worker.grab() == [handles[0], b"f", b"w"]
    worker.send("WORK_COMPLETE", handles[0], b"")
    until(lambda: stored(private_dsn), {handles[1]})
    worker.send("GRAB_JOB")
    worker.expect("NO_JOB")


def test_a_lease_without_a_record_of_batches_is_taken_anew(start_server: Start, private_dsn: str, connect_to: ConnectTo) -> None:
    server = start_server(dsn=private_dsn)
    client = connect_to(server)
    client.submit("SUBMIT_JOB_BG", b"f", b"", b"")
    query(private_dsn, "with ended as (delete from postgear.batch) delete from postgear.server")

    assert client.submit("SUBMIT_JOB_BG", b"f", b"", b"") in stored(private_dsn)
    server.wait_for_log("lease lost")


@pytest.mark.parametrize("seed", [11, 12])
def test_the_database_may_drop_every_connection_again_and_again_under_load(
    seed: int, start_server: Start, private_dsn: str
) -> None:
    chance = random.Random(seed)
    server = start_server(dsn=private_dsn)
    submitters = [Submitter(server, b"f%d" % number) for number in range(3)]
    runner = Runner(server, b"f0")
    for thread in (*submitters, runner):
        thread.start()
    for turn in range(12):
        reached = len(acked_by(submitters))
        wait_for(lambda least=reached + 200: len(acked_by(submitters)) > least, f"progress after storm {turn}, seed {seed}")
        for _ in range(chance.randrange(1, 6)):
            query(
                private_dsn,
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where application_name like 'postgear test %%' and datname = current_database() and random() < %s",
                chance.choice((0.2, 0.5, 1.0)),
            )
    for submitter in submitters:
        submitter.stop()
    acked = acked_by(submitters)

    # It serves on: what is left is run, every acknowledged job at least once.
    runner.stop()
    ran = set(runner.ran) | set(drain(server, private_dsn, [b"f0", b"f1", b"f2"]))
    assert acked <= ran, f"seed {seed}"
    assert not [body for submitter in submitters for body in submitter.refused], f"seed {seed}"
    assert len(ran) == sum(submitter.sent for submitter in submitters), f"seed {seed}"  # none was stored twice
    assert "Traceback" not in server.log()


@pytest.mark.parametrize("how", ["break_off", "stop"])
def test_the_database_may_be_stopped_and_started_under_load(
    how: str, postgres: PrivatePostgres, start_server: Start, private_dsn: str
) -> None:
    server = start_server(dsn=private_dsn)
    submitters = [Submitter(server, b"f%d" % number) for number in range(3)]
    runner = Runner(server, b"f0")
    for thread in (*submitters, runner):
        thread.start()
    wait_for(lambda: len(acked_by(submitters)) > 1000, "load")
    getattr(postgres, how)()
    server.wait_for_log("database connection lost")
    reached = len(acked_by(submitters))
    postgres.start()
    wait_for(lambda: len(acked_by(submitters)) > reached + 1000, "load again")
    for submitter in submitters:
        submitter.stop()
    acked = acked_by(submitters)

    runner.stop()
    ran = set(runner.ran) | set(drain(server, private_dsn, [b"f0", b"f1", b"f2"]))
    assert acked <= ran
    assert "Traceback" not in server.log()


def test_a_worker_s_result_that_came_while_the_database_was_away_counts(
    postgres: PrivatePostgres, private_dsn: str, start_server: Start, connect_to: ConnectTo
) -> None:
    server = start_server(dsn=private_dsn)
    client, worker = connect_to(server), connect_to(server)
    worker.can_do(b"f")
    handle = client.submit("SUBMIT_JOB_BG", b"f", b"", b"")
    assert worker.grab()[0] == handle
    postgres.break_off()
    server.wait_for_log("database connection lost")
    worker.send("WORK_COMPLETE", handle, b"done")
    worker.silent()
    postgres.start()

    server.wait_for_log("database connected")
    until(lambda: count(private_dsn), 0)
    worker.send("GRAB_JOB")
    worker.expect("NO_JOB")


def test_a_commit_that_only_waits_for_a_standby_is_no_ack(
    postgres: PrivatePostgres, private_dsn: str, start_server: Start, connect_to: ConnectTo
) -> None:
    # G1: "canceling wait for synchronous replication" is a warning; the row is there, the promise is not.
    server = start_server("--submit-timeout-seconds", "2", dsn=private_dsn)
    client = connect_to(server)
    client.submit("SUBMIT_JOB_BG", b"f", b"", b"before")
    waits = "application_name like 'postgear test submit%' and wait_event = 'SyncRep' and datname = current_database()"
    with psycopg.connect(private_dsn, autocommit=True) as connection:
        connection.execute("set synchronous_commit = local")
        connection.execute("alter system set synchronous_standby_names = 'nobody'")
        connection.execute("select pg_reload_conf()")
        try:
            until(lambda: connection.execute("show synchronous_standby_names").fetchone(), ("nobody",))
            connection.execute("checkpoint")  # the checkpointer has read it then: commits wait
            client.send("SUBMIT_JOB_BG", b"f", b"", b"unsafe")
            wait_for(
                lambda: connection.execute(f"select pg_cancel_backend(pid) from pg_stat_activity where {waits}").fetchall(),
                "a commit that waits",
            )
            assert client.error() == "QUEUE_ERROR"
        finally:
            connection.execute("alter system reset synchronous_standby_names")
            connection.execute("select pg_reload_conf()")
    client.socket.settimeout(15)
    assert client.submit("SUBMIT_JOB_BG", b"f", b"", b"after") in stored(private_dsn)


def test_a_database_without_the_schema_stops_the_start_and_says_what_to_run(empty_dsn: str) -> None:
    command = [PROGRAM, "serve", "--dsn", empty_dsn, "--listen", "127.0.0.1:0"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)

    assert result.returncode == 3
    assert result.stderr.count("postgear init") == 1
    assert "Traceback" not in result.stderr
    assert len(result.stderr.splitlines()) <= 2


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"dbname": "nowhere"}, 'database "nowhere" does not exist'),
        ({"user": "nobody_here"}, 'role "nobody_here" does not exist'),
        ({"sslmode": "perhaps"}, 'invalid sslmode value: "perhaps"'),
    ],
)
def test_a_database_that_refuses_stops_the_start_and_says_why(private_dsn: str, wrong: dict[str, str], said: str) -> None:
    for command in (["serve", "--listen", "127.0.0.1:0"], ["init"]):
        result = subprocess.run(
            [PROGRAM, *command, "--dsn", make_conninfo(private_dsn, **wrong)],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

        assert result.returncode == 4
        first, second = result.stderr.splitlines()
        assert first.startswith("postgear: cannot connect to the database: ")
        assert first.endswith(said)
        assert "correct the DSN" in second


@pytest.mark.parametrize("command", [["serve", "--listen", "127.0.0.1:0"], ["init"]])
def test_a_malformed_dsn_stops_the_start(command: list[str]) -> None:
    result = subprocess.run([PROGRAM, *command, "--dsn", "garbage"], capture_output=True, text=True, timeout=30, check=False)

    assert result.returncode == 2
    assert result.stderr.startswith('postgear: --dsn: missing "=" after "garbage" in connection info string, must be a libpq')


def test_a_database_that_is_away_is_told_once(
    postgres: PrivatePostgres, private_dsn: str, start_server: Start, connect_to: ConnectTo
) -> None:
    server = start_server("--submit-timeout-seconds", "2", dsn=private_dsn)
    client, worker = connect_to(server), connect_to(server)
    worker.can_do(b"f")
    client.submit("SUBMIT_JOB_BG", b"f", b"", b"")
    handle = worker.grab()[0]
    postgres.break_off()
    server.wait_for_log("database connection lost")
    worker.send("WORK_COMPLETE", handle)
    client.send("SUBMIT_JOB_BG", b"f", b"", b"")
    assert client.error() == "QUEUE_ERROR"  # after two seconds
    postgres.start()

    server.wait_for_log("database connected")
    lines = [line for line in server.log().splitlines() if not re.search("INFO daemon ready|INFO exchange lease taken", line)]
    assert [re.sub(" (reason|listen)=.*", "", line.split(" ", 1)[1]) for line in lines] == [
        "WARNING exchange database connection lost",
        "INFO exchange database connected",
    ]
    assert len(lines[0]) < 250


def test_a_server_without_a_lease_has_none_in_doubt(
    postgres: PrivatePostgres, private_dsn: str, start_unready: Callable[..., UnreadyServer], connect_to: ConnectTo
) -> None:
    postgres.stop()
    server = start_unready("--lease-seconds", "2", "--submit-timeout-seconds", "2")
    wait_for(server.listens, "the server listens")
    client = connect_to(server)
    client.send("SUBMIT_JOB_BG", b"f", b"", b"")
    assert client.error() == "QUEUE_ERROR"  # after more than three quarters of a lease
    (line,) = server.log().splitlines()
    assert "WARNING exchange database away, retrying reason=" in line


def test_an_older_schema_stops_the_start_and_is_named(private_dsn: str) -> None:
    query(private_dsn, "update postgear.alembic_version set version_num = '0000'")
    command = [PROGRAM, "serve", "--dsn", private_dsn, "--listen", "127.0.0.1:0"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    query(private_dsn, f"update postgear.alembic_version set version_num = '{schema.VERSION}'")

    assert result.returncode == 3
    assert f"version 0000, this server needs {schema.VERSION}" in result.stderr
    assert result.stderr.count("postgear init") == 1


def test_a_schema_that_vanishes_under_a_running_server_is_waited_for(
    start_server: Start, private_dsn: str, connect_to: ConnectTo
) -> None:
    server = start_server("--submit-timeout-seconds", "1", dsn=private_dsn)
    client = connect_to(server)
    client.submit("SUBMIT_JOB_BG", b"f", b"", b"")
    query(private_dsn, "alter schema postgear rename to gone")
    client.send("SUBMIT_JOB_BG", b"f", b"", b"")
    assert client.error() == "QUEUE_ERROR"
    query(private_dsn, "alter schema gone rename to postgear")

    server.wait_for_log("database connected")
    assert client.submit("SUBMIT_JOB_BG", b"f", b"", b"") in stored(private_dsn)
