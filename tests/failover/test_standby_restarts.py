"""`postgear standby` killed and started again at every stage: it goes on from where the other was."""

from __future__ import annotations

import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from postgear.standby import primary, promotion, state
from postgear.standby.replica import Replica
from tests.failover.asking import run_all, submits
from tests.failover.conftest import Pair
from tests.failover.machines import kill_postgres, postgres_pids
from tests.server.bytes import Peer
from tests.server.load import query, wait_for


def test_a_set_up_that_was_killed_begins_anew(new_pair: Pair) -> None:
    pair = new_pair
    pair.b.start(until="base backup begun")
    pair.b.kill()
    assert not pair.b.cluster.exists()
    pair.start_synchronous()

    assert submits(pair.serve())
    assert pair.names() == '"postgear_b"'
    assert query(pair.a.dsn, "select slot_name, active from pg_replication_slots") == [("postgear_b", True)]
    for name in ("standby.json", "pg_hba.conf", "postgres.log"):
        assert stat.S_IMODE(os.stat(pair.b.folder / name).st_mode) == 0o600
    assert pair.b.stop() == 0
    assert not postgres_pids(pair.b.cluster)


def test_a_standby_that_was_killed_remembers_that_commits_wait_for_its_replica(pair: Pair) -> None:
    server = pair.serve()
    pair.start_synchronous("--auto-promote", "--loss-seconds", "2")
    acked = {submits(server) for _ in range(5)}
    pair.b.kill()
    acked.add(submits(server))  # the replica lives
    pair.a.kill()
    kill_postgres(pair.b.cluster)

    pair.b.start("--auto-promote", "--loss-seconds", "2")
    run_all(pair.b, acked | {submits(pair.b)})


def test_a_promotion_that_was_killed_is_brought_to_its_end(pair: Pair) -> None:
    pair.start_synchronous("--auto-promote")
    pair.b.kill()
    path = pair.b.folder / "standby.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"role": "promoting", "why": "a test"}))

    pair.b.start()
    pair.b.wait_for_log('promoted why="a test"')
    submits(pair.b)


def test_a_promotion_by_hand_stays_remembered_whatever_the_standby_records(pair: Pair) -> None:
    pair.start_synchronous()
    state.change(pair.b.folder, lambda known: replace(known, role=state.Role.PROMOTING, why="a test"))
    with primary.connected(pair.a.dsn) as connection:
        primary.set_names(connection, "")
    pair.b.wait_for_log("not synchronous")
    pair.b.kill()
    known = state.load(pair.b.folder)
    assert known is not None
    assert known.role is state.Role.PROMOTING

    pair.b.start()
    pair.b.wait_for_log('promoted why="a test"')


def test_a_promotion_that_another_process_brought_to_its_end_is_not_begun_again(tmp_path: Path) -> None:
    seen = state.State(state.Role.REPLICA, "b", "1", "postgres", "postgear", 1, 5432)
    done = replace(seen, role=state.Role.PROMOTED, timeline=2, why="the primary was lost")
    state.save(tmp_path, done)
    assert promotion.promote(Replica(tmp_path, "*:5432"), seen, "by hand") == done
    assert state.load(tmp_path) == done


def test_changes_of_the_state_by_several_at_a_time_are_all_there(tmp_path: Path) -> None:
    state.save(tmp_path, state.State(state.Role.REPLICA, "b", "1", "postgres", "postgear", 1, 5432))

    def count() -> None:
        for _ in range(50):
            state.change(tmp_path, lambda known: replace(known, replayed_lsn=known.replayed_lsn + 1))

    with ThreadPoolExecutor(4) as threads:
        for each in [threads.submit(count) for _ in range(4)]:
            each.result()
    known = state.load(tmp_path)
    assert known is not None
    assert known.replayed_lsn == 200


def test_a_standby_that_was_killed_after_its_promotion_goes_on_with_its_server(pair: Pair) -> None:
    pair.start_synchronous()
    pair.a.kill()
    assert pair.b.run("promote").returncode == 0
    acked = {submits(pair.b)}
    with Peer(pair.b.host, pair.b.port) as client:
        pair.b.kill()
        pair.a.start()  # the old primary comes back
        acked.add(client.submit("SUBMIT_JOB_BG", b"f", b"", b""))
        pair.b.start(until="server found")
        assert "the old primary runs" in pair.b.said()
        acked.add(client.submit("SUBMIT_JOB_BG", b"f", b"", b""))
    assert pair.b.stop() == 0
    assert not postgres_pids(pair.b.cluster)

    pair.b.start(until="daemon ready")
    run_all(pair.b, acked)
    kill_postgres(pair.b.cluster)
    pair.b.wait_for_log("the PostgreSQL here has ended, starting it again")
    submits(pair.b)


def test_a_replica_that_was_killed_is_started_again(pair: Pair) -> None:
    pair.start_synchronous()
    kill_postgres(pair.b.cluster)
    pair.b.wait_for_log("the PostgreSQL here has ended, starting it again")
    wait_for(lambda: postgres_pids(pair.b.cluster), "it runs")
    submits(pair.serve())
