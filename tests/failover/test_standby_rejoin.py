"""`postgear rejoin`: an old primary becomes the standby of the one that took over."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator

import pytest

from postgear.postmaster import Postmaster
from tests.failover.asking import acks_nothing, run_all, submits
from tests.failover.conftest import Pair
from tests.failover.machines import PROGRAM, Standby
from tests.server.load import query, stored

pytestmark = pytest.mark.timeout(120)  # two fail-overs, or copies of everything, on a busy machine

Rejoiner = Callable[[Pair], Standby]


@pytest.fixture
def old_primary() -> Iterator[Rejoiner]:
    """Machine A as the standby of B; not started."""
    made: list[Standby] = []

    def make(pair: Pair) -> Standby:
        made.append(Standby(pair.folder / "a2", pair.b.dsn, name="postgear_a", postgres_port=pair.a.port))
        return made[-1]

    yield make
    for each in made:
        each.kill_machine()


def test_an_old_primary_rejoins_by_pg_rewind_and_takes_over_in_its_turn(pair: Pair, old_primary: Rejoiner) -> None:
    server = pair.serve()
    pair.start_synchronous("--auto-promote", "--loss-seconds", "2")
    acked = {submits(server) for _ in range(5)}
    pair.network.cut()
    acks_nothing(server, 1)  # it is in A's log all the same
    acked.add(submits(pair.b))
    server.kill()

    # A still runs.
    a = old_primary(pair)
    a.start(
        *("--cluster", str(pair.a.postmaster.cluster), "--synchronous", "--auto-promote", "--loss-seconds", "2"),
        command="rejoin",
        until="rejoined .*how=rewind",
    )
    a.wait_for_log("synchronous: the primary's commits wait")
    assert query(a.dsn, "select count(*) from pg_replication_slots") == [(0,)]
    acked.add(submits(pair.b))
    assert stored(a.dsn) == acked

    pair.network.heal()
    pair.b.kill_machine()
    acked.add(submits(a))
    run_all(a, acked)

    # B comes back with what it was, and finds that it is that no more.
    with pytest.raises(AssertionError, match="it ended with 8"):
        pair.b.start()
    assert "it took over from this one; run `postgear rejoin`" in pair.b.said()


def test_an_old_primary_that_was_started_by_another_path_is_stopped_and_rejoins(pair: Pair, old_primary: Rejoiner) -> None:
    pair.start_synchronous()
    pair.a.stop()
    (pair.folder / "link").symlink_to(pair.a.folder)
    by_link = Postmaster(pair.a.folder, pair.folder / "link" / "postgres", pair.a.port)
    by_link.start({"listen_addresses": "127.0.0.1", "port": str(pair.a.port)})
    assert pair.b.run("promote", "--force").returncode == 0
    handle = submits(pair.b)

    a = old_primary(pair)
    a.start("--cluster", str(pair.a.postmaster.cluster), command="rejoin", until="rejoined .*how=rewind")
    a.wait_for_log("standby ready")
    assert stored(a.dsn) == {handle}


def test_an_old_primary_that_cannot_be_rewound_rejoins_by_a_base_backup(pair: Pair, old_primary: Rejoiner) -> None:
    pair.a.stop()
    pair.a.start(wal_log_hints="off")
    pair.start_synchronous()
    pair.a.kill()
    assert pair.b.run("promote").returncode == 0
    handle = submits(pair.b)

    a = old_primary(pair)
    a.start("--cluster", str(pair.a.postmaster.cluster), command="rejoin", until='rejoined .*how="base backup"')
    assert "pg_rewind needs wal_log_hints or data checksums" in a.said()
    a.wait_for_log("standby ready")
    assert stored(a.dsn) == {handle}
    # The next start needs no rejoin.
    assert a.stop() == 0
    a.start("--synchronous")
    a.wait_for_log("synchronous: the primary's commits wait")
    assert (pair.a.postmaster.cluster / "PG_VERSION").exists()


def test_a_cluster_does_not_rejoin_what_did_not_take_over_from_it(pair: Pair, old_primary: Rejoiner) -> None:
    pair.b.start()
    a = old_primary(pair)
    command = [str(PROGRAM), "rejoin", "--cluster", str(pair.a.postmaster.cluster), "--prepare-only", *a.options()]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert result.returncode == 8
    assert "is a standby itself" in result.stderr
    assert query(pair.a.dsn, "select pg_is_in_recovery()") == [(False,)]
