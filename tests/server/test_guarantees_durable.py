"""G1 acked is durable, G2 transactional enqueue, G10 what a job is survives: against kill -9 of a working server."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable

import psycopg
import pytest

from tests.server.bytes import Peer, request, until
from tests.server.load import Runner, Submitter, count, drain, query, stored, wait_for
from tests.server_process import ServerProcess

Start = Callable[..., ServerProcess]
ConnectTo = Callable[[ServerProcess], Peer]
CONNECTIONS = 4


@pytest.mark.parametrize("seed", range(4))
def test_g1_every_acknowledged_job_is_stored_when_the_server_is_killed(seed: int, start_server: Start, dsn: str) -> None:
    functions = [b"f%d" % number for number in range(CONNECTIONS)]
    server = start_server()
    submitters = [Submitter(server, function) for function in functions]
    for submitter in submitters:
        submitter.start()
    wanted = random.Random(seed).randrange(1, 6000)
    wait_for(lambda: sum(len(submitter.acked) for submitter in submitters) >= wanted, f"{wanted} acks, seed {seed}")
    server.kill()
    for submitter in submitters:
        submitter.join(10)
    acked = {handle for submitter in submitters for handle in submitter.acked}

    assert len(acked) >= wanted, f"seed {seed}: a handle was given twice"
    assert acked <= stored(dsn), f"seed {seed}"
    ran = drain(start_server(), dsn, functions)
    assert acked <= set(ran), f"seed {seed}"
    assert len(ran) == len(set(ran)), f"seed {seed}: nothing had been given out, so nothing may be run twice"


@pytest.mark.parametrize("seed", range(3))
def test_g1_g3_jobs_under_way_at_the_kill_are_run_again_and_marked(seed: int, start_server: Start, dsn: str) -> None:
    functions = [b"f%d" % number for number in range(CONNECTIONS)]
    server = start_server()
    submitters = [Submitter(server, function) for function in functions]
    runner = Runner(server, *functions)
    for thread in (*submitters, runner):
        thread.start()
    wanted = random.Random(seed).randrange(200, 1500)
    wait_for(lambda: len(runner.ran) >= wanted, f"{wanted} jobs run, seed {seed}")
    server.kill()
    for thread in (*submitters, runner):
        thread.join(10)
    acked = {handle for submitter in submitters for handle in submitter.acked}
    ran_before = set(runner.ran)

    # A statement under way outlives its server, and may still commit.
    sessions = (
        "select count(*) from pg_stat_activity where datname = current_database() and starts_with(application_name, 'postgear ')"
    )
    wait_for(lambda: query(dsn, sessions) == [(0,)], "the killed server's sessions to end")
    left = stored(dsn)
    assert acked <= left | ran_before, f"seed {seed}"
    restarted = start_server()
    ran = drain(restarted, dsn, functions)
    assert left == set(ran), f"seed {seed}"
    assert len(ran) == len(set(ran)), f"seed {seed}: the second server lives and runs each job once"
    # Only what was not deleted yet is run again, and each such job says so.
    twice = {handle.decode() for handle in ran_before & set(ran)}
    flagged = set(re.findall(r"possible duplicate handle=(\S+) .*attempt=(?:[2-9]|\d\d)", restarted.log()))
    assert twice <= flagged, f"seed {seed}"


def test_g2_a_rolled_back_enqueue_leaves_nothing(server: ServerProcess, connect_to: ConnectTo, dsn: str) -> None:
    worker = connect_to(server)
    worker.can_do(b"f")
    worker.sleep()
    with psycopg.connect(dsn) as connection:
        connection.execute("select gman_do_background('f', 'undone')")
        worker.silent()
        connection.rollback()
        connection.execute("select gman_do_background('f', 'done')")
        worker.silent()
        connection.commit()

    worker.expect("NOOP")
    assert worker.grab()[2] == b"done"
    assert count(dsn) == 1


def test_g10_priority_schedule_unique_and_attempts_survive_kill_9(start_server: Start, connect_to: ConnectTo, dsn: str) -> None:
    server = start_server()
    client, lost = connect_to(server), connect_to(server)
    # One delivery before the kill: its worker vanishes, so the job's attempts are 1.
    lost.can_do(b"tried")
    tried = client.submit("SUBMIT_JOB_BG", b"tried", b"", b"tried")
    assert lost.grab()[0] == tried
    lost.close()
    until(lambda: client.status_of(tried), [b"1", b"0", b"0", b"0"])

    soon = int(time.time()) + 6
    handles = [
        client.submit("SUBMIT_JOB_LOW_BG", b"f", b"", b"low"),
        client.submit("SUBMIT_JOB_BG", b"f", b"", b"normal"),
        client.submit("SUBMIT_JOB_EPOCH", b"f", b"", b"%d" % soon, b"later"),
        client.submit("SUBMIT_JOB_HIGH_BG", b"f", b"", b"high"),
        client.submit("SUBMIT_REDUCE_JOB_BACKGROUND", b"g", b"one", b"fold", b"0", b"unique"),
    ]
    server.kill()
    restarted = start_server()
    client, worker = connect_to(restarted), connect_to(restarted)

    assert client.submit("SUBMIT_JOB_BG", b"g", b"one", b"again") == handles[4]
    assert query(dsn, "select attempt from postgear.jobs where handle = %s", tried.decode()) == [(1,)]
    worker.can_do(b"f")
    assert worker.grab("GRAB_JOB_ALL") == [handles[3], b"f", b"", b"high"]
    assert worker.grab("GRAB_JOB_ALL") == [handles[1], b"f", b"", b"normal"]
    assert worker.grab("GRAB_JOB_ALL") == [handles[0], b"f", b"", b"low"]
    worker.write(request("GRAB_JOB"))
    worker.expect("NO_JOB")
    worker.sleep()
    worker.socket.settimeout(12)
    worker.expect("NOOP")
    assert time.time() >= soon
    assert worker.grab() == [handles[2], b"f", b"later"]

    worker = connect_to(restarted)
    worker.can_do(b"g")
    assert worker.grab("GRAB_JOB_ALL") == [handles[4], b"g", b"one", b"fold", b"unique"]
    worker.can_do(b"tried")
    assert worker.grab()[0] == tried
    restarted.wait_for_log(rf"possible duplicate handle={tried.decode()} .*attempt=2")
