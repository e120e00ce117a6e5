"""A rolled-back transaction leaves no job, a committed one always does; and who waits for whom."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from postgear import schema
from postgear.embedded import EmbeddedPostgres
from tests.extension.asking import Connection, claim, create_trigger, payloads, rows, start_server, value, workloads
from tests.folders import open_folder

LEVELS = pytest.mark.parametrize("level", ["statement", "row"])
WAYS = pytest.mark.parametrize(
    "insert",
    [
        "insert into statement_item values ({0})",
        "insert into row_item values ({0})",
        "insert into keyed_item values ({0})",
        "select gman_do_background('f', '{{\"id\":{0}}}')",
        "select postgear.submit_coalesced('f', '{0}', '{{\"id\":{0}}}')",
    ],
    ids=["statement", "row", "keyed", "gman_do_background", "submit_coalesced"],
)


def make_tables(connection: Connection) -> None:
    for table, options in (("statement", {}), ("row", {"level": "row"}), ("keyed", {"key": ["id"]})):
        connection.execute(f"create table {table}_item (id integer)")
        create_trigger(connection, f"{table}_item", **options)


@pytest.fixture
def session(dsn: str) -> Iterator[Connection]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        make_tables(connection)
        yield connection


@pytest.fixture
def other(dsn: str) -> Iterator[Connection]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection


@pytest.fixture(scope="module")
def prepared_dsn() -> Iterator[str]:
    """A PostgreSQL of its own that allows prepared transactions and logical replication, with the schema and the tables."""
    with open_folder() as folder:
        postgres = EmbeddedPostgres(folder)
        try:
            with psycopg.connect(postgres.start(), autocommit=True) as connection:
                connection.execute("alter system set max_prepared_transactions = 4")
                connection.execute("alter system set wal_level = logical")
            postgres.stop()
            dsn = postgres.start()
            schema.upgrade(dsn, queue="test")
            with psycopg.connect(dsn, autocommit=True) as connection:
                make_tables(connection)
            yield dsn
        finally:
            postgres.stop()


@pytest.fixture
def preparing(prepared_dsn: str) -> Iterator[Connection]:
    with psycopg.connect(prepared_dsn, autocommit=True) as connection:
        connection.execute("truncate postgear.job, postgear.server")
        yield connection
        for (name,) in rows(connection, "select gid from pg_prepared_xacts"):
            connection.execute(f"rollback prepared '{name}'")


def ids(connection: Connection) -> list[int]:
    return [each["id"] for each in payloads(connection)]


@WAYS
def test_a_rollback_leaves_no_job(session: Connection, insert: str) -> None:
    session.execute(f"begin; {insert.format(1)}; rollback; begin; {insert.format(2)}; commit")
    assert ids(session) == [2]


@WAYS
def test_savepoints(session: Connection, insert: str) -> None:
    session.execute(
        f"begin; {insert.format(1)}; savepoint s; {insert.format(2)}; rollback to s; {insert.format(3)};"
        f" savepoint t; {insert.format(4)}; release t; commit"
    )
    assert ids(session) == [1, 3, 4]


@WAYS
def test_subtransactions(session: Connection, insert: str) -> None:
    perform = insert.replace("select", "perform")
    session.execute(
        f"do $$ begin {perform.format(1)};"
        f" begin {perform.format(2)}; raise division_by_zero; exception when division_by_zero then {perform.format(3)}; end;"
        f" begin {perform.format(4)}; exception when others then null; end; end $$"
    )
    assert ids(session) == [1, 3, 4]


@WAYS
def test_a_failed_statement_leaves_no_job(session: Connection, insert: str) -> None:
    with pytest.raises(psycopg.errors.DivisionByZero):
        session.execute(f"begin; {insert.format(1)}; select 1/0")
    session.execute("rollback")
    assert ids(session) == []


@WAYS
def test_a_killed_backend_leaves_no_job(session: Connection, other: Connection, insert: str) -> None:
    session.execute(f"begin; {insert.format(1)}")
    assert value(other, "select pg_terminate_backend(%s, 10000)", session.info.backend_pid)
    with pytest.raises(psycopg.OperationalError):
        session.execute("commit")
    assert ids(other) == []


def test_a_backend_killed_while_it_commits_leaves_row_and_job_or_neither(dsn: str, session: Connection) -> None:
    def insert(number: int) -> None:
        with psycopg.connect(dsn, autocommit=True) as victim:
            pids.append(victim.info.backend_pid)
            try:
                for each in range(1000):
                    victim.execute("insert into statement_item values (%s)", (number * 1000 + each,))
            except psycopg.OperationalError:
                return

    pids: list[int] = []
    for number in range(5):
        thread = threading.Thread(target=insert, args=(number,))
        thread.start()
        while len(pids) <= number or value(session, "select count(*) from statement_item where id >= %s", number * 1000) < 20:
            assert thread.is_alive()
        session.execute("select pg_terminate_backend(%s, 10000)", (pids[number],))
        thread.join()
    assert ids(session) == [row[0] for row in rows(session, "select id from statement_item order by id")]


# -- two-phase commit ------------------------------------------------------------------------------------------------------


@WAYS
@pytest.mark.parametrize("sleeping", [False, True])
def test_two_phase_commit(preparing: Connection, insert: str, sleeping: bool) -> None:
    lease = start_server(preparing, sleeping=sleeping)
    for number in (1, 2):
        preparing.execute(f"begin; {insert.format(number)}; prepare transaction 't{number}'")
    assert ids(preparing) == []
    preparing.execute("rollback prepared 't1'")
    preparing.execute("commit prepared 't2'")
    assert ids(preparing) == [2]
    assert len(claim(preparing, lease)) == 1


def test_postgear_notify_on_notifies_where_transactions_can_be_prepared(preparing: Connection) -> None:
    start_server(preparing, sleeping=True)
    preparing.execute("set postgear.notify = on; begin; insert into statement_item values (1)")
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="NOTIFY"):
        preparing.execute("prepare transaction 't'")
    preparing.execute("rollback")


# -- NOTIFY ----------------------------------------------------------------------------------------------------------------


@WAYS
def test_one_notify_a_transaction_and_only_while_a_server_sleeps(session: Connection, other: Connection, insert: str) -> None:
    other.execute("listen postgear")
    start_server(session, sleeping=False)
    session.execute(insert.format(1))
    session.execute("update postgear.server set sleeping = true; set postgear.notify = off")
    session.execute(insert.format(2))
    session.execute("reset postgear.notify")
    session.execute(f"begin; {insert.format(3)}; {insert.format(4)}; commit")
    session.execute("notify postgear, 'end'")
    heard = []
    for notify in other.notifies(timeout=10):
        heard.append(notify.payload)
        if notify.payload == "end":
            break
    assert heard == ["wake", "end"]


# -- keys between transactions ---------------------------------------------------------------------------------------------


@LEVELS
def test_a_transaction_waits_for_another_of_the_same_key_and_wins(session: Connection, other: Connection, level: str) -> None:
    session.execute("create table item (id integer, version text)")
    create_trigger(session, "item", level=level, key=["id"])
    session.execute("insert into item values (9, 'known'); begin; insert into item values (1, 'first')")
    thread = threading.Thread(target=other.execute, args=("insert into item values (1, 'second')",))
    thread.start()
    while not value(session, "select cardinality(pg_blocking_pids(%s)) > 0", other.info.backend_pid):
        pass
    session.execute("commit")
    thread.join()
    assert [each["version"] for each in payloads(session)] == ["known", "second"]


def test_no_update_is_lost_between_claims_and_updates(dsn: str, session: Connection) -> None:
    """Whatever the order of claims and updates, the last version of each row is in a job that was claimed after it."""
    session.execute("create table counter (id integer primary key, version integer)")
    create_trigger(session, "counter", events=["insert", "update"], key=[])
    session.execute("insert into counter select n, 0 from generate_series(1, 5) n")
    lease = start_server(session)
    seen = dict.fromkeys(range(1, 6), -1)

    def update() -> None:
        with psycopg.connect(dsn, autocommit=True) as writer:
            for each in range(300):
                writer.execute("update counter set version = version + 1 where id = %s", (each % 5 + 1,))

    writers = [threading.Thread(target=update) for _ in range(2)]
    for writer in writers:
        writer.start()
    finished = False
    while not finished:
        finished = not any(writer.is_alive() for writer in writers)
        claimed = claim(session, lease)
        for workload in rows(
            session, "select convert_from(workload, 'UTF8')::json from postgear.job where id = any (%s)", claimed
        ):
            seen[workload[0]["id"]] = max(seen[workload[0]["id"]], workload[0]["version"])
        session.execute("select postgear.finish_jobs(%s, %s)", (lease, claimed))
    assert seen == dict(rows(session, "select id, version from counter"))
    assert workloads(session) == []


# -- logical replication ---------------------------------------------------------------------------------------------------


def test_rows_that_logical_replication_applies(prepared_dsn: str, preparing: Connection) -> None:
    name = f"subscriber_{os.getpid()}"
    preparing.execute("create table copied (id integer primary key); create publication p for table copied")
    preparing.execute(f"create database {name}")
    preparing.execute("select pg_create_logical_replication_slot('s', 'pgoutput')")
    subscriber_dsn = make_conninfo(prepared_dsn, dbname=name)
    schema.upgrade(subscriber_dsn)
    try:
        with psycopg.connect(subscriber_dsn, autocommit=True) as subscriber:
            subscriber.execute("create table copied (id integer primary key)")
            create_trigger(subscriber, "copied", name="t", level="row", enable="always", events=["insert", "update", "delete"])
            subscriber.execute(
                f"create subscription s connection '{make_conninfo(prepared_dsn)}' publication p"
                " with (create_slot = false, slot_name = 's', copy_data = false)"
            )
            preparing.execute("insert into copied values (1); update copied set id = 2; delete from copied")
            deadline = time.monotonic() + 30
            while len(workloads(subscriber)) < 3 and time.monotonic() < deadline:
                pass
            assert payloads(subscriber) == [{"id": 1}, {"id": 2}, {"id": 2}]
            subscriber.execute("alter subscription s disable")
            subscriber.execute("alter subscription s set (slot_name = none)")
            subscriber.execute("drop subscription s")
    finally:
        while value(preparing, "select active from pg_replication_slots where slot_name = 's'"):
            pass
        preparing.execute("select pg_drop_replication_slot('s')")
        preparing.execute(f"drop database {name} with (force)")
