"""Commits that wait for a standby which does not exist: what is in doubt, and what waits with it."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from postgear import schema
from postgear.dispatch.peer import Function, Peer
from postgear.embedded import EmbeddedPostgres
from postgear.errors import StoreInDoubt
from postgear.job import SubmitBatch
from postgear.store.postgres import PostgresStore
from postgear.store.session import StoreLocked
from tests.store.test_sql_functions import Connection, rows, value, workloads


@pytest.fixture
def synchronous_dsn() -> Iterator[str]:
    """A PostgreSQL of its own, with the schema, whose commits wait for a standby that does not exist."""
    folder = Path(tempfile.mkdtemp(prefix="postgear-test-"))
    folder.chmod(0o755)
    postgres = EmbeddedPostgres(folder)
    try:
        dsn = postgres.start()
        schema.upgrade(dsn)
        yield dsn
    finally:
        postgres.stop()
        shutil.rmtree(folder)


def wait_for_standby(admin: Connection, names: str) -> None:
    """Let commits wait for these standbys from now on, or for none."""
    admin.execute("alter system set synchronous_standby_names = " + names)  # type: ignore[arg-type]
    admin.execute("select pg_reload_conf()")
    while value(admin, "show synchronous_standby_names") != names.strip("'"):
        pass
    # Commits wait as soon as the checkpointer has read it, which it does before it begins a checkpoint.
    admin.execute("checkpoint")


def test_a_commit_whose_wait_for_the_standby_was_cancelled_is_in_doubt(synchronous_dsn: str) -> None:
    lost: list[bool] = []

    async def run() -> None:
        store = PostgresStore(synchronous_dsn, "a", on_lost=lambda reason: lost.append(True))
        await store.connect()
        await store.register_server("a", "here", 1, "test", 30)
        function = Function(b"f")
        function.id = (await store.ensure_functions([b"f"]))[0].id
        batch = SubmitBatch()
        batch.peers, batch.functions, batch.priorities = [Peer()], [function], [1]
        batch.unique_keys, batch.workloads, batch.claims = [b""], [b"work"], [True]
        wait_for_standby(admin, "'nobody'")
        submit = asyncio.create_task(store.submit_jobs(batch))
        waiting = "select pid from pg_stat_activity where application_name = 'postgear a submit' and wait_event = 'SyncRep'"
        while not (found := rows(admin, waiting)):
            await asyncio.sleep(0.01)
        assert not submit.done()
        admin.execute("select pg_cancel_backend(%s)", found[0])
        with pytest.raises(StoreInDoubt, match="synchronous replication"):
            await submit
        assert lost == [True]
        assert not store.is_open
        store.close()

    with psycopg.connect(synchronous_dsn, autocommit=True) as admin:
        admin.execute("set synchronous_commit = local")
        asyncio.run(run())
        assert workloads(admin) == [b"work"]


@pytest.mark.parametrize("limit", [None, 1])
def test_who_joins_a_job_that_only_the_primary_has_waits_for_the_standby(synchronous_dsn: str, limit: int | None) -> None:
    with (
        psycopg.connect(synchronous_dsn, autocommit=True) as admin,
        psycopg.connect(synchronous_dsn, autocommit=True) as joining,
    ):
        admin.execute("set synchronous_commit = local")
        admin.execute("select postgear.function_id('f')")
        admin.execute("update postgear.function set max_normal = %s where name = 'f'", (limit,))
        wait_for_standby(admin, "'nobody'")
        # As a commit whose wait was cancelled, or that a restart cut short, leaves it: seen by all, not at the standby.
        handle = value(admin, "select gman_do_background('f', 'w', 'u')")

        warnings: list[str | None] = []
        joining.add_notice_handler(lambda notice: warnings.append(notice.severity_nonlocalized))
        pid = joining.info.backend_pid
        joined: list[object] = []
        thread = threading.Thread(target=lambda: joined.append(value(joining, "select gman_do_background('f', 'w', 'u')")))
        thread.start()
        waits = "select count(*) from pg_stat_activity where pid = %s and wait_event = 'SyncRep'"
        while thread.is_alive() and not value(admin, waits, pid):
            pass
        admin.execute("select pg_cancel_backend(%s)", (pid,))
        thread.join()
        wait_for_standby(admin, "''")
        assert joined == [handle]
        assert warnings == ["WARNING"]


def test_a_notification_waits_for_no_commit_that_waits_for_the_standby(synchronous_dsn: str) -> None:
    async def run() -> None:
        store = PostgresStore(synchronous_dsn, "a")
        await store.connect()
        await store.notify("before")
        wait_for_standby(admin, "'nobody'")
        waiting = "select count(*) from pg_stat_activity where pid = %s and wait_event = 'SyncRep'"
        thread.start()
        while not value(admin, waiting, notifying.info.backend_pid):
            await asyncio.sleep(0.01)
        with pytest.raises(StoreLocked):
            await store.notify("meanwhile")
        wait_for_standby(admin, "''")
        await store.notify("after")
        store.close()

    def queue() -> None:
        with notifying.transaction():
            notifying.execute("create table written ()")
            notifying.execute("notify postgear")

    with (
        psycopg.connect(synchronous_dsn, autocommit=True) as admin,
        psycopg.connect(synchronous_dsn, autocommit=True) as notifying,
    ):
        admin.execute("set synchronous_commit = local")
        thread = threading.Thread(target=queue)
        asyncio.run(run())
        thread.join()
