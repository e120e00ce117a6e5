"""Two and three servers on one database are one queue: what one took another gives out, shows, joins, cancels and limits."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

import pytest

from tests.server.bytes import Peer, until
from tests.server.load import Runner, Submitter, count, enqueue, query, stored, wait_for
from tests.server_process import ServerProcess

ConnectTo = Callable[[ServerProcess], Peer]


@pytest.fixture
def servers(start_server: Callable[..., ServerProcess]) -> tuple[ServerProcess, ServerProcess]:
    """Servers "a" and "b" on one database."""
    return start_server("--name", "a"), start_server("--name", "b")


Pair = tuple[ServerProcess, ServerProcess]


def test_a_job_submitted_here_is_run_there_under_the_same_handle(servers: Pair, connect_to: ConnectTo, dsn: str) -> None:
    a, b = map(connect_to, servers)
    b.can_do(b"f")
    b.sleep()
    handle = a.submit("SUBMIT_JOB_BG", b"f", b"one", b"w")

    b.expect("NOOP")
    assert b.grab("GRAB_JOB_UNIQ") == [handle, b"f", b"one", b"w"]
    assert stored(dsn) == {handle}
    b.send("WORK_COMPLETE", handle, b"")
    until(lambda: a.status_of(handle), [b"0", b"0", b"0", b"0"])


def test_a_job_that_runs_there_shows_its_progress_here(servers: Pair, connect_to: ConnectTo) -> None:
    a, b = map(connect_to, servers)
    asks = connect_to(servers[0])
    handle = a.submit("SUBMIT_JOB_BG", b"f", b"one", b"")
    assert a.status_of(handle) == [b"1", b"0", b"0", b"0"]
    b.can_do(b"f")
    assert b.grab()[0] == handle
    b.send("WORK_STATUS", handle, b"3", b"10")

    until(lambda: a.status_of(handle), [b"1", b"1", b"3", b"10"])
    a.send("GET_STATUS_UNIQUE", b"one")
    a.expect("STATUS_RES_UNIQUE", b"one", b"1", b"1", b"3", b"10", b"0")
    until(lambda: asks.status(b"f"), (1, 1, 0))


def test_every_server_shows_all_background_jobs(servers: Pair, connect_to: ConnectTo) -> None:
    a, b = map(connect_to, servers)
    handles = {a.submit("SUBMIT_JOB_BG", b"f", b"", b"1"), b.submit("SUBMIT_JOB_HIGH_BG", b"f", b"", b"2")}

    for peer in (a, b):
        assert peer.status(b"f") == (2, 0, 0)
        assert {line.split(b"\t")[0] for line in peer.command(b"show jobs")} == handles


@pytest.mark.parametrize("runs", [False, True])
def test_the_same_unique_here_and_there_is_one_job(runs: bool, servers: Pair, connect_to: ConnectTo, dsn: str) -> None:
    a, b = map(connect_to, servers)
    worker = connect_to(servers[1])
    handle = a.submit("SUBMIT_JOB_BG", b"f", b"one", b"first")
    if runs:
        worker.can_do(b"f")
        assert worker.grab()[0] == handle

    assert b.submit("SUBMIT_JOB_HIGH_BG", b"f", b"one", b"second") == handle
    assert a.submit("SUBMIT_JOB_BG", b"f", b"one", b"third") == handle
    assert count(dsn) == 1


@pytest.mark.parametrize("known", [True, False])
def test_a_foreground_client_joins_a_job_that_was_queued_elsewhere(
    known: bool, servers: Pair, connect_to: ConnectTo, dsn: str
) -> None:
    a, b = map(connect_to, servers)
    worker = connect_to(servers[1])
    handle = a.submit("SUBMIT_JOB_BG", b"f", b"one", b"w")
    if known:
        b.submit("SUBMIT_JOB_LOW_BG", b"f", b"", b"another")
    assert b.submit("SUBMIT_JOB", b"f", b"one", b"") == handle
    worker.can_do(b"f")
    assert worker.grab() == [handle, b"f", b"w"]
    worker.send("WORK_COMPLETE", handle, b"done")

    b.expect("WORK_COMPLETE", handle, b"done")
    until(lambda: handle in stored(dsn), False)


@pytest.mark.parametrize("held", ["queued", "claimed", "running"])
def test_a_job_can_be_cancelled_at_any_server(held: str, servers: Pair, connect_to: ConnectTo, dsn: str) -> None:
    a, b = map(connect_to, servers)
    worker = connect_to(servers[1])
    if held != "queued":
        worker.can_do(b"f")
    handles = [b.submit("SUBMIT_JOB_BG", b"f", b"", b"%d" % number) for number in range(3)]
    if held == "running":
        assert worker.grab()[0] == handles[0]
    assert a.reply(b"cancel job " + handles[0]) == b"OK\r\n"

    assert stored(dsn) == set(handles[1:])
    assert b.status_of(handles[0])[0] == b"0" or held == "running"
    if held == "running":
        worker.send("WORK_COMPLETE", handles[0], b"")
    worker.can_do(b"f")
    for handle in handles[1:]:
        assert worker.grab()[0] == handle
        worker.send("WORK_COMPLETE", handle, b"")
    until(lambda: count(dsn), 0)
    assert a.reply(b"cancel job " + handles[0]) == b"ERR UNKNOWN_JOB\r\n"


def test_a_queue_limit_set_here_holds_there(servers: Pair, connect_to: ConnectTo) -> None:
    a, b = map(connect_to, servers)
    a.submit("SUBMIT_JOB_BG", b"f", b"", b"1")
    assert a.reply(b"maxqueue f 2") == b"OK\r\n"
    b.submit("SUBMIT_JOB_BG", b"f", b"", b"2")

    for peer in (a, b):
        peer.send("SUBMIT_JOB_BG", b"f", b"", b"3")
        peer.expect("ERROR", b"QUEUE_ERROR", b"Job queue is full")


def test_claims_that_are_not_used_here_are_run_there(servers: Pair, connect_to: ConnectTo, dsn: str) -> None:
    a, b = servers
    enqueue(dsn, b"f", 2000)
    # A quick worker at a, so that a claims ahead; then it stops in the middle of a job.
    worker = connect_to(a)
    worker.can_do(b"f")
    for _ in range(300):
        handle = worker.grab()[0]
        worker.send("WORK_COMPLETE", handle, b"")
    kept = worker.grab()[0]
    assert count(dsn, "lease is not null") > 1, "nothing was claimed ahead"
    started = time.monotonic()
    runner = Runner(b, b"f")
    runner.start()
    try:
        wait_for(lambda: count(dsn) == 1, "b ran the rest", 10)
    finally:
        runner.stop()

    assert time.monotonic() - started < 5.0, "2 s until a reviews what it holds, and the work"
    assert stored(dsn) == {kept}
    assert len(runner.ran) == len(set(runner.ran)) == 2000 - 301


def test_a_scheduled_job_runs_at_one_server_only(servers: Pair, connect_to: ConnectTo, dsn: str) -> None:
    a, b = map(connect_to, servers)
    for peer in (a, b):
        peer.can_do(b"f")
        peer.sleep()
    handle = connect_to(servers[0]).submit("SUBMIT_JOB_EPOCH", b"f", b"", b"%d" % (time.time() + 1.5), b"w")
    ran = []
    wait_for(lambda: count(dsn, "lease is not null") == 1, "the time has come")
    for peer in (a, b):
        peer.send("GRAB_JOB")
        while (packet := peer.packet()).name == "NOOP":
            pass
        ran += [packet.arguments(3)[0]] if packet.name == "JOB_ASSIGN" else []

    assert ran == [handle]


def test_three_servers_share_the_load_and_the_death_of_one(
    start_server: Callable[..., ServerProcess], connect_to: ConnectTo, dsn: str
) -> None:
    servers = [start_server("--name", name) for name in "abc"]
    submitters = [Submitter(server, b"f") for server in servers]
    runners = [Runner(server, b"f") for server in servers]
    for thread in (*submitters, *runners):
        thread.start()
    wait_for(lambda: min(len(runner.ran) for runner in runners) > 200, "work at every server")
    servers[0].kill()
    wait_for(lambda: not submitters[0].is_alive() and not runners[0].is_alive(), "the end of its clients")
    for submitter in submitters:
        submitter.stop()
    wait_for(lambda: count(dsn) == 0, "an empty queue", 30)
    for runner in runners:
        runner.stop()
    acked = {handle for submitter in submitters for handle in submitter.acked}
    ran = [handle for runner in runners for handle in runner.ran]

    assert len(acked) == sum(len(submitter.acked) for submitter in submitters)
    assert acked <= set(ran)
    # Only jobs that the killed server held may have run twice.
    assert {handle for handle, times in Counter(ran).items() if times > 1} <= set(runners[0].ran)
    assert query(dsn, "select name from postgear.server order by name") == [("b",), ("c",)]
    assert connect_to(servers[1]).status(b"f") is not None


def test_a_second_live_server_of_one_name_is_told(start_server: Callable[..., ServerProcess]) -> None:
    dead, first = start_server("--name", "other"), start_server("--name", "same")
    dead.kill()
    assert "another server has this name" not in first.log()
    again, second = start_server("--name", "other"), start_server("--name", "same")

    second.wait_for_log(
        rf"WARNING daemon another server has this name name=same address={first.address} pid={first.process.pid} "
    )
    until(lambda: "another server" in again.log(), False)


def test_the_jobs_of_a_killed_server_run_elsewhere_though_the_clock_was_set_back(
    servers: Pair, connect_to: ConnectTo, dsn: str
) -> None:
    a, b = map(connect_to, servers)
    a.can_do(b"f")
    handle = a.submit("SUBMIT_JOB_BG", b"f", b"", b"w")
    assert a.grab()[0] == handle
    servers[0].kill()
    query(dsn, "update postgear.server set renewed_at = renewed_at + interval '1 hour' where name = 'a'")
    b.can_do(b"f")
    b.socket.settimeout(30)
    assert b.grab() == [handle, b"f", b"w"]
