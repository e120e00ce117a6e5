"""`postgear standby` when the primary is lost: it takes over if it may, and nothing acknowledged is missing."""

from __future__ import annotations

import socket
import time

from psycopg.conninfo import make_conninfo

from tests.failover.asking import acks_nothing, connect, run_all, submits
from tests.failover.conftest import Pair
from tests.failover.machines import Network
from tests.server.load import Submitter, query, wait_for


def test_a_dead_primary_is_replaced_and_every_acknowledged_job_is_there(pair: Pair) -> None:
    server = pair.serve()
    pair.start_synchronous("--auto-promote")
    submitters = [Submitter(server, b"f", burst=20) for _ in range(3)]
    for submitter in submitters:
        submitter.start()
    wait_for(lambda: sum(len(each.acked) for each in submitters) > 500, "load")

    died_at = time.monotonic()
    pair.a.kill()
    with connect(pair.b) as client:
        client.socket.settimeout(20)
        client.submit("SUBMIT_JOB_BG", b"g", b"", b"first")
        acked_after = time.monotonic() - died_at
        client.can_do(b"g")
        client.grab()
        ran_after = time.monotonic() - died_at
    print(f"\nprimary killed: first ack after {acked_after:.2f} s, first job after {ran_after:.2f} s")
    server.kill()
    for submitter in submitters:
        submitter.stop()
    run_all(pair.b, {handle for each in submitters for handle in each.acked})


def test_a_frozen_primary_is_replaced_and_acknowledges_nothing_when_it_thaws(pair: Pair) -> None:
    server = pair.serve()
    pair.start_synchronous("--auto-promote", "--loss-seconds", "2")
    acked = {submits(server) for _ in range(10)}
    pair.a.freeze()
    acked.add(submits(pair.b))
    pair.a.thaw()

    wait_for(lambda: query(pair.a.dsn, "select 1"), "the old primary answers")
    acks_nothing(server, 3)
    assert query(pair.b.dsn, "show synchronous_standby_names") == [("",)]
    assert query(pair.b.dsn, "select count(*) from pg_stat_wal_receiver") == [(0,)]
    run_all(pair.b, acked)


def test_a_primary_cut_off_is_replaced_and_acknowledges_nothing(pair: Pair) -> None:
    server = pair.serve()
    with socket.create_server(("127.0.0.1", 0)) as witness:
        pair.start_synchronous("--auto-promote", "--loss-seconds", "2", "--witness", f"127.0.0.1:{witness.getsockname()[1]}")
        acked = {submits(server) for _ in range(10)}
        pair.network.cut()
        acks_nothing(server, 2)
        acked.add(submits(pair.b))
    pair.network.heal()
    acks_nothing(server, 2)
    run_all(pair.b, acked)


def test_a_standby_cut_off_from_everybody_does_not_take_over(pair: Pair) -> None:
    server = pair.serve()
    to_witness = Network(server.port)
    try:
        pair.start_synchronous("--auto-promote", "--loss-seconds", "2", "--witness", f"127.0.0.1:{to_witness.port}")
        to_witness.refuse()
        pair.network.cut()
        acks_nothing(server, 2)
        pair.b.wait_for_log("this machine is the one cut off")
        pair.network.heal()
        to_witness.heal()
        pair.b.wait_for_log("INFO standby primary heard")
        submits(server)
    finally:
        to_witness.close()
    assert query(pair.b.dsn, "select pg_is_in_recovery()") == [(True,)]


def test_a_witness_that_reaches_the_database_keeps_it_from_taking_over_until_it_does_not(pair: Pair) -> None:
    to_primary = Network(pair.a.port)
    witness = pair.serve(make_conninfo(pair.a.dsn, port=to_primary.port))
    try:
        pair.start_synchronous("--auto-promote", "--loss-seconds", "2", "--witness", witness.address)
        pair.network.cut()
        pair.b.wait_for_log("a witness still reaches the database")
        to_primary.cut()
        submits(pair.b)
    finally:
        to_primary.close()


def test_a_replica_that_was_not_synchronous_does_not_take_over_by_itself(pair: Pair) -> None:
    server = pair.serve()
    pair.b.start("--auto-promote", "--loss-seconds", "2")
    submits(server)
    pair.a.kill()
    pair.b.wait_for_log("ERROR standby primary lost, and this replica was not its synchronous standby")

    refused = pair.b.run("promote")
    assert refused.returncode == 8
    assert "what it had not received is lost" in refused.stderr
    forced = pair.b.run("promote", "--force")
    assert forced.returncode == 0, forced.stderr
    submits(pair.b)


def test_without_being_told_to_it_does_nothing_and_promote_does_it(pair: Pair) -> None:
    server = pair.serve()
    pair.start_synchronous("--loss-seconds", "2")
    acked = {submits(server)}
    refused = pair.b.run("promote")
    assert refused.returncode == 8
    assert "the primary still runs" in refused.stderr

    pair.a.kill()
    pair.b.wait_for_log("ERROR standby primary lost, this replica may be promoted .*postgear promote --data-dir")
    assert query(pair.b.dsn, "select pg_is_in_recovery()") == [(True,)]
    promoted = pair.b.run("promote")
    assert promoted.returncode == 0, promoted.stderr
    assert "every acknowledged job is here" in promoted.stdout
    acked.add(submits(pair.b))
    run_all(pair.b, acked)
    assert "promoted already" in pair.b.run("promote").stdout


def test_a_standby_that_was_detached_may_be_stopped_and_takes_over_no_more(pair: Pair) -> None:
    server = pair.serve()
    pair.start_synchronous("--auto-promote", "--loss-seconds", "2")
    detached = pair.b.run("detach")
    assert detached.returncode == 0, detached.stderr
    assert pair.names() == ""
    pair.b.wait_for_log("not synchronous: the primary may commit without this replica")
    assert pair.b.stop() == 0
    submits(server)
    pair.a.kill()
    pair.b.start("--auto-promote", "--synchronous", "--loss-seconds", "2")
    pair.b.wait_for_log("ERROR standby primary lost, and this replica was not its synchronous standby")


def test_an_address_that_is_taken_is_told_at_the_start_and_who_waits_at_the_end(pair: Pair) -> None:
    with socket.create_server((pair.b.host, pair.b.port)):
        pair.start_synchronous()
        pair.b.wait_for_log("WARNING standby the server's address is taken: it could not serve after a promotion")
    assert pair.b.stop() == 0
    assert "stopped: the primary acknowledges nothing until this standby is back" in pair.b.log()


def test_a_detach_that_does_not_reach_the_primary_says_what_is_done_and_what_not(pair: Pair) -> None:
    pair.start_synchronous("--loss-seconds", "2")
    pair.network.refuse()
    half = pair.b.run("detach")
    assert half.returncode == 8
    assert "this standby is detached and does not take over any more" in half.stderr
    assert "the primary may still wait for it" in half.stderr
    pair.b.wait_for_log("ERROR standby primary lost, and this standby was detached")
    assert pair.names() == '"postgear_b"'

    pair.network.heal()
    again = pair.b.run("detach")
    assert again.returncode == 0, again.stderr
    assert pair.names() == ""
