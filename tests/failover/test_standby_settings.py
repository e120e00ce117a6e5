"""`postgear standby` and the primary's settings: they count once the primary's checkpointer has read them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from tests.failover.asking import run_all, submits
from tests.failover.conftest import Pair
from tests.failover.machines import NAME
from tests.server.load import query, wait_for

LOST_WITHOUT = "ERROR standby primary lost, and this replica was not its synchronous standby"


class Checkpointer:
    """That of the primary. Stopped it stands for one that waits for a slow disk and reads no settings meanwhile."""

    def __init__(self, dsn: str) -> None:
        self._pid = int(query(dsn, "select pid from pg_stat_activity where backend_type = 'checkpointer'")[0][0])

    def stop(self) -> None:
        os.kill(self._pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self._pid, signal.SIGCONT)


@pytest.fixture
def checkpointer(pair: Pair) -> Iterator[Checkpointer]:
    made = Checkpointer(pair.a.dsn)
    yield made
    with suppress(ProcessLookupError):
        made.go_on()


def _watched_again(pair: Pair) -> None:
    """Wait until the standby has looked at the primary's settings, as they are now, often enough to believe them."""
    wait_for(
        lambda: query(pair.a.dsn, "select 1 from pg_stat_replication where application_name = %s and sync_state = 'sync'", NAME),
        "the primary says that it is synchronous",
    )
    watched = "select query_start from pg_stat_activity where application_name = %s"
    for _ in range(4):
        before = query(pair.a.dsn, watched, f"{NAME} watch")
        wait_for(lambda before=before: query(pair.a.dsn, watched, f"{NAME} watch") not in ([], before), "asked")  # type: ignore[misc]


def test_names_that_the_checkpointer_has_not_read_confirm_nothing(pair: Pair, checkpointer: Checkpointer) -> None:
    server = pair.serve()
    checkpointer.stop()
    pair.b.start("--synchronous", "--auto-promote", "--loss-seconds", "2")
    pair.b.wait_for_log("made synchronous")
    _watched_again(pair)
    # So it is: the primary says "sync", and acknowledges without the standby.
    pair.network.cut()
    submits(server)
    pair.a.kill()
    pair.b.wait_for_log(LOST_WITHOUT)
    assert "synchronous: the primary's commits wait" not in pair.b.said()
    assert query(pair.b.dsn, "select pg_is_in_recovery()") == [(True,)]


def test_they_do_once_it_has_and_a_reload_asks_anew(pair: Pair, checkpointer: Checkpointer) -> None:
    server = pair.serve()
    checkpointer.stop()
    pair.b.start("--synchronous", "--auto-promote", "--loss-seconds", "2")
    _watched_again(pair)
    checkpointer.go_on()
    pair.b.wait_for_log("synchronous: the primary's commits wait")

    checkpointer.stop()
    query(pair.a.dsn, "select pg_reload_conf()")
    pair.b.wait_for_log("not synchronous: the primary may commit without this replica")
    _watched_again(pair)
    assert pair.b.said().count("synchronous: the primary's commits wait") == 1
    checkpointer.go_on()
    pair.b.wait_for_log("(?s)(?:synchronous: the primary's commits wait.*){2}")
    acked = {submits(server)}
    pair.a.kill()
    acked.add(submits(pair.b))
    run_all(pair.b, acked)


def test_a_broken_connection_to_the_primary_after_a_reload_changes_nothing(pair: Pair) -> None:
    pair.start_synchronous()
    query(pair.a.dsn, "select pg_terminate_backend(pid) from pg_stat_activity where application_name = %s", f"{NAME} watch")
    _watched_again(pair)
    assert "not synchronous" not in pair.b.said()


def test_who_may_not_ask_for_a_checkpoint_is_told(pair: Pair) -> None:
    with psycopg.connect(pair.a.dsn, autocommit=True) as connection:
        connection.execute("create role watcher login replication in role pg_monitor")
        connection.execute(f"alter system set synchronous_standby_names = '{NAME}'")
        connection.execute("select pg_reload_conf()")
    pair.b.primary = make_conninfo(pair.b.primary, user="watcher")
    pair.b.start("--auto-promote")
    pair.b.wait_for_log("ERROR standby no checkpoint of the primary reason=.*CHECKPOINT")
    _watched_again(pair)
    assert "synchronous: the primary's commits wait" not in pair.b.said()
