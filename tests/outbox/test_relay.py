"""What a relay moves, in which order, and what it leaves."""

from __future__ import annotations

import json
import logging
import random
import signal
import time
import urllib.request
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from postgear import cli
from postgear.errors import StoreError
from postgear.outbox import rows, status
from postgear.outbox.connecting import Address, connection
from postgear.outbox.queue import connected
from postgear.outbox.relay import STAND_BY_SECONDS, Relay, Settings, run
from postgear.outbox.rows import Row
from tests.mariadb import MariaDB
from tests.outbox.conftest import ask, jobs, wait_until
from tests.outbox.relay_process import RelayProcess
from tests.server_process import ServerProcess

Queue = psycopg.Connection[Any]
ONCE = Settings(once=True)


def put(session: Any, *workloads: str, function: str = "f", **more: object) -> None:
    columns = {"`function`": function, **more}
    names, places = ", ".join([*columns, "workload"]), ", ".join(["%s"] * (len(columns) + 1))
    with session.cursor() as cursor:
        cursor.executemany(
            f"insert into postgear_outbox ({names}) values ({places})", [(*columns.values(), each) for each in workloads]
        )


def test_rows_become_jobs_in_their_order(outbox: Address, session: Any, queue: Queue, dsn: str) -> None:
    put(session, *map(str, range(2500)))
    assert run(outbox, dsn, Settings(batch_rows=700, once=True)) == 2500
    assert jobs(queue) == [("f", str(number).encode()) for number in range(2500)]
    assert ask(session, "select count(*) from postgear_outbox") == [(0,)]


def test_priority_time_unique_and_any_bytes_are_kept(outbox: Address, session: Any, queue: Queue, dsn: str) -> None:
    workload = bytes(range(256)) + "ü🐘".encode()
    ask(
        session,
        "insert into postgear_outbox (`function`, unique_key, priority, run_at, workload) values (%s, %s, 2, 4102444800, %s)",
        *("größe", "schlüssel", workload),
    )
    put(session, "a", "b", unique_key="same")
    put(session, "twice", "twice", "once", unique_key="-")
    run(outbox, dsn, ONCE)
    found = queue.execute(
        "select function.name, unique_key, priority, extract(epoch from run_at)::bigint, workload"
        " from postgear.job join postgear.function on function.id = function_id order by job.id limit 1"
    ).fetchall()
    assert found == [("größe".encode(), "schlüssel".encode(), 2, 4102444800, workload)]
    assert [workload for _, workload in jobs(queue)][1:] == [b"a", b"twice", b"once"]


def test_a_later_id_that_commits_first_loses_no_row(
    outbox: Address, session: Any, mariadb: MariaDB, queue: Queue, dsn: str
) -> None:
    with mariadb.connect(database=outbox.database, autocommit=False) as slow:
        put(slow, "first")
        put(session, "second")
        assert run(outbox, dsn, ONCE) == 1
        slow.commit()
    assert run(outbox, dsn, ONCE) == 1
    assert [workload for _, workload in jobs(queue)] == [b"second", b"first"]


def test_a_relay_does_not_block_writers(outbox: Address, session: Any, mariadb: MariaDB, queue: Queue, dsn: str) -> None:
    """Rows committed between, before and after those that are moved go in while the relay's deletion has not committed."""
    put(session, *"abc")
    with connection(outbox) as other:
        other.start_transaction()
        rows.delete(other, [1, 3])
        ask(session, "set innodb_lock_wait_timeout = 1")
        put(session, "d")
        ask(session, "insert into postgear_outbox (id, `function`, workload) values (100, 'f', 'e'), (50, 'f', 'g')")
        other.commit()
    run(outbox, dsn, ONCE)
    assert [workload for _, workload in jobs(queue)] == [b"b", b"d", b"g", b"e"]


@pytest.mark.parametrize(("count", "every"), [(7, 1), (1000, 1), (1000, 5)])
def test_an_open_transaction_does_not_block_the_relay(outbox: Address, mariadb: MariaDB, count: int, every: int) -> None:
    """Deleted by lookups: were the table read through, the uncommitted row would be waited for."""
    with mariadb.connect(database=outbox.database, autocommit=False) as slow:
        with connection(outbox) as other:
            put(other, *["x"] * (count // 2))
            put(slow, "open")
            put(other, *["x"] * (count - count // 2))
            ask(other, "set innodb_lock_wait_timeout = 1")
            ids = [row.id for row in rows.read(other, count).rows][::every]
            rows.delete(other, ids)
            rows.set_aside(other, {row.id: "wrong" for row in rows.read(other, 5).rows})
            status.retry(outbox, None)
            rows.waiting(other)
        slow.rollback()


def test_jobs_come_while_a_transaction_is_open(outbox: Address, session: Any, mariadb: MariaDB, queue: Queue, dsn: str) -> None:
    with mariadb.connect(database=outbox.database, autocommit=False) as slow:
        ask(session, "set global innodb_lock_wait_timeout = 1")  # for the relay's session
        try:
            put(session, *"ab")
            put(slow, "open")
            put(session, *"cdefg")
            assert run(outbox, dsn, Settings(batch_rows=3, once=True)) == 7
            put(session, *"hijk", "")
            assert run(outbox, dsn, ONCE) == 5
        finally:
            ask(session, "set global innodb_lock_wait_timeout = default")
        slow.commit()
    assert run(outbox, dsn, ONCE) == 1
    assert b"".join(workload for _, workload in jobs(queue)) == b"abcdefghijkopen"


def test_each_row_is_stored_once_whatever_batches_it_comes_in(outbox: Address, session: Any, queue: Queue, dsn: str) -> None:
    seed = random.randrange(10**6)
    chosen = random.Random(seed)
    seen: set[int] = set()
    with connected(dsn) as store:
        assert store.take_over("source", "outbox", "test", 60)
        for _ in range(40):
            low = chosen.randrange(1, 200)
            ids = sorted({chosen.randrange(1, 200), *chosen.sample(range(low, low + 30), chosen.randint(1, 20))})
            store.store([Row(number, 1, b"f", b"", 1, None, False, b"%d" % number) for number in ids])
            seen |= set(ids)
    assert sorted(int(workload) for _, workload in jobs(queue)) == sorted(seen), f"seed {seed}"


def test_records_of_other_ids_are_not_read(queue: Queue, dsn: str) -> None:
    """One row that commits late must not cost a look at all that was moved in the last minute."""
    with connected(dsn) as store:
        assert store.take_over("source", "outbox", "test", 60)
        # That would be known, were it read.
        queue.execute(
            "insert into postgear.relayed (relay_id, batch, low_id, high_id, row_ids, row_times)"
            " select id, 1000, 10, 20, '{1, 30}', '{1, 1}' from postgear.relay"
        )
        store.store([Row(number, 1, b"f", b"", 1, None, False, b"x") for number in (1, 30)])
    assert len(jobs(queue)) == 2


def test_what_is_recorded_is_not_stored_again(outbox: Address, session: Any, queue: Queue, dsn: str) -> None:
    """As when MariaDB forgets a deletion: rows that come back as they were are known; another row with an old id is not."""
    put(session, "a", "b", "c")
    ask(session, "create table kept as select * from postgear_outbox")
    run(outbox, dsn, ONCE)
    ask(session, "insert into postgear_outbox select * from kept where id < 3")
    ask(session, "insert into postgear_outbox (id, `function`, workload) values (3, 'f', 'new')")
    run(outbox, dsn, ONCE)
    assert [workload for _, workload in jobs(queue)] == [b"a", b"b", b"c", b"new"]
    assert ask(session, "select count(*) from postgear_outbox") == [(0,)]


def test_records_are_dropped_a_minute_after_the_deletion(outbox: Address, session: Any, queue: Queue, dsn: str) -> None:
    for workload in "ab":
        put(session, workload)
        run(outbox, dsn, ONCE)
    assert queue.execute("select count(*) from postgear.relayed").fetchone() == (2,)
    queue.execute("update postgear.relayed set stored_at = now() - interval '2 minutes'")
    put(session, "c")
    run(outbox, dsn, ONCE)
    assert queue.execute("select batch from postgear.relayed").fetchall() == [(3,)]


def test_keys_of_triggers_hold_for_queued_jobs_only(outbox: Address, session: Any, queue: Queue, dsn: str) -> None:
    put(session, "old", unique_key="k", until_claimed=1)
    put(session, "between")
    put(session, "new", unique_key="k", until_claimed=1)
    put(session, "alone", until_claimed=1)
    run(outbox, dsn, ONCE)
    assert [workload for _, workload in jobs(queue)] == [b"new", b"between", b"alone"]
    queue.execute("update postgear.job set unique_key = null, lease = 1 where workload = 'new'")  # as a claim does
    put(session, "newer", unique_key="k", until_claimed=1)
    run(outbox, dsn, ONCE)
    assert [workload for _, workload in jobs(queue)] == [b"new", b"between", b"alone", b"newer"]


def test_poison_rows_are_set_aside_and_can_be_put_back(
    outbox: Address, session: Any, queue: Queue, dsn: str, mysql_url: str, capsys: Any
) -> None:
    put(session, "good 1")
    put(session, "x", function="f" * 513)
    put(session, "x", function="")
    put(session, "x", function="a\0b")
    put(session, "x", unique_key="ü" * 33)
    put(session, "x", unique_key="a\0b")
    put(session, "x", priority=3)
    put(session, "x", run_at=-1)
    put(session, "x", run_at=253402300800)
    put(session, "x", unique_key="a\0b", until_claimed=1)
    put(session, "good 2")
    run(outbox, dsn, ONCE)
    assert [workload for _, workload in jobs(queue)] == [b"good 1", b"good 2"]
    failed = ask(session, "select id, error, workload from postgear_outbox_failed order by id")
    assert [(row[0], row[2]) for row in failed] == [(number, b"x") for number in range(2, 11)]
    assert failed[0][1] == "a function has 1 to 512 bytes, 513 given"
    assert queue.execute("select rows_moved, rows_failed, rows_waiting, error from postgear.relays").fetchall() == [
        (2, 9, 0, f"row 10 set aside: {failed[-1][1]}")
    ]
    assert cli.main(["mysql", "status", "--mysql", mysql_url, "--json"]) == 0
    (shown,) = json.loads(capsys.readouterr().out)
    assert (shown["waiting"], shown["set_aside"], shown["last_error"]) == (0, 9, f"10: {failed[-1][1]}")

    ask(session, "update postgear_outbox_failed set `function` = 'corrected' where id = 2")
    assert status.retry(outbox, [2]) == 1
    run(outbox, dsn, ONCE)
    assert jobs(queue)[-1] == ("corrected", b"x")
    assert status.retry(outbox, None) == 8
    run(outbox, dsn, ONCE)
    assert ask(session, "select count(*) from postgear_outbox_failed") == [(8,)]


def test_ids_that_come_again_do_not_take_the_place_of_rows_set_aside(
    outbox: Address, session: Any, queue: Queue, dsn: str
) -> None:
    for workload in ("first", "second"):
        put(session, workload, priority=3)
        run(outbox, dsn, ONCE)
        ask(session, "truncate table postgear_outbox")
    assert ask(session, "select id, workload from postgear_outbox_failed order by number") == [(1, b"first"), (1, b"second")]
    ask(session, "update postgear_outbox_failed set priority = 1")
    assert status.retry(outbox, [1]) == 2
    run(outbox, dsn, ONCE)
    assert jobs(queue) == [("f", b"first"), ("f", b"second")]


def test_a_row_that_postgresql_refuses_is_found_among_others(outbox: Address, session: Any, queue: Queue, dsn: str) -> None:
    queue.execute("""
        create function refuse() returns trigger language plpgsql as $$
        begin
            raise exception 'no such workload here' using errcode = 'invalid_parameter_value';
        end
        $$;
        create trigger refuse before insert on postgear.job for each row when (new.workload = 'bad') execute function refuse();
    """)
    put(session, *["good"] * 20, "bad", *["good"] * 30, "bad")
    run(outbox, dsn, ONCE)
    assert [workload for _, workload in jobs(queue)] == [b"good"] * 50
    assert ask(session, "select id, error from postgear_outbox_failed order by id") == [
        (21, "no such workload here"),
        (52, "no such workload here"),
    ]


def test_a_fault_of_the_queue_is_not_taken_for_one_of_the_rows(outbox: Address, session: Any, queue: Queue, dsn: str) -> None:
    """An internal error says nothing of the row; and when all are refused it is not the rows."""
    refuse = """
        create or replace function refuse() returns trigger language plpgsql as $$
        begin
            raise exception 'refused' using errcode = '%';
        end
        $$
    """
    queue.execute(refuse.replace("%", "XX001"))
    queue.execute("create trigger refuse before insert on postgear.job for each row execute function refuse()")
    put(session, *["x"] * 103)
    with pytest.raises(StoreError, match="refused"):
        run(outbox, dsn, ONCE)
    assert ask(session, "select count(*) from postgear_outbox_failed") == [(0,)]
    queue.execute(refuse.replace("%", "22000"))
    with pytest.raises(StoreError, match="PostgreSQL refused 100 rows in a row, now 101: refused"):
        run(outbox, dsn, Settings(batch_rows=70, once=True))
    assert ask(session, "select count(*) from postgear_outbox_failed") == [(100,)]
    queue.execute("drop trigger refuse on postgear.job")
    assert run(outbox, dsn, ONCE) == 3
    assert status.retry(outbox, None) == 100
    assert run(outbox, dsn, ONCE) == 100


def test_a_full_function_keeps_its_rows_and_others_go_on(
    outbox: Address, session: Any, queue: Queue, dsn: str, start_relay: Callable[..., RelayProcess]
) -> None:
    queue.execute("insert into postgear.function (name, max_high, max_normal, max_low) values ('full', 3, 3, 3)")
    put(session, *"abcde", function="full")
    put(session, *"xyz")
    put(session, "k", function="full", unique_key="k", until_claimed=1)
    relay = start_relay("--batch", "2")
    wait_until(lambda: len(jobs(queue)) == 6, "the jobs that fit")
    assert jobs(queue) == [("full", b"a"), ("full", b"b"), ("full", b"c"), ("f", b"x"), ("f", b"y"), ("f", b"z")]
    queue.execute("delete from postgear.job")
    wait_until(lambda: len(jobs(queue)) == 3, "the rest")
    assert [workload for _, workload in jobs(queue)] == [b"d", b"e", b"k"]
    assert relay.end() == 0


def test_batches_are_cut_by_bytes(outbox: Address, session: Any, queue: Queue, dsn: str) -> None:
    for _ in range(60):
        put(session, "x" * 700_000)
    put(session, "last")
    assert run(outbox, dsn, ONCE) == 61
    assert queue.execute("select count(*) from postgear.relayed").fetchone() == (3,)
    assert jobs(queue)[-1] == ("f", b"last")


def test_one_relay_works_and_another_takes_over(
    outbox: Address, session: Any, queue: Queue, start_relay: Callable[..., RelayProcess]
) -> None:
    first = start_relay()
    first.wait_for_log(" working ")
    second = start_relay()
    second.wait_for_log(" standing_by ")
    put(session, "a")
    wait_until(lambda: len(jobs(queue)) == 1, "the first job")
    first.kill()
    second.wait_for_log(" working ")
    put(session, "b")
    wait_until(lambda: len(jobs(queue)) == 2, "the second job")
    assert second.end() == 0


def test_a_relay_that_hangs_is_replaced_and_fenced(
    outbox: Address, session: Any, queue: Queue, start_relay: Callable[..., RelayProcess]
) -> None:
    first = start_relay("--lease", "1")
    first.wait_for_log(" working ")
    first.process.send_signal(signal.SIGSTOP)
    second = start_relay("--lease", "30")
    second.wait_for_log(" working ")
    put(session, *"abc")
    wait_until(lambda: len(jobs(queue)) == 3, "the jobs")
    first.process.send_signal(signal.SIGCONT)
    first.wait_for_log(" taken_over ")
    put(session, *"def")
    wait_until(lambda: len(jobs(queue)) == 6, "more jobs")
    assert first.end() == second.end() == 0
    assert len(jobs(queue)) == 6


def test_an_outbox_that_cannot_be_read(
    outbox: Address, session: Any, queue: Queue, dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is shown as failing, told once each time, tried again ever less often, and each time from the start."""
    caplog.set_level(logging.INFO, "postgear.relay")
    poll = 0.03
    pauses: list[float] = []
    shown: list[Any] = []

    def wait(seconds: float) -> bool:
        if seconds == STAND_BY_SECONDS:
            time.sleep(0.01)  # PostgreSQL has not seen yet that the connection before has ended
        elif seconds == poll:
            if len(pauses) == 8:
                shown.append(queue.execute("select state, oldest_seconds from postgear.relays").fetchone())
                return True
            queue.execute("update postgear.relay set oldest_at = now() - interval '1 hour', rows_waiting = 7")
            ask(session, "rename table postgear_outbox to away")
        elif seconds:
            pauses.append(seconds)
            if len(pauses) in (4, 8):
                shown.append(queue.execute("select state, rows_waiting, oldest_seconds > 3600 from postgear.relays").fetchone())
                ask(session, "rename table away to postgear_outbox")
        return False

    Relay(outbox, dsn, Settings(poll_seconds=poll), wait).run()
    assert pauses == [0.1, 0.2, 0.4, 0.8] * 2
    assert shown == [("failing", 7, True)] * 2 + [("working", None)]
    told = [word for record in caplog.records if (word := record.getMessage().split()[0]) != "standing_by"]
    assert told == ["working", "retry"] * 2 + ["working"]


def test_rows_that_postgresql_refuses(outbox: Address, session: Any, queue: Queue, dsn: str) -> None:
    """It is shown as failing with the reason, also while it is tried again, until the rows are stored."""
    queue.execute("""
        create function refuse() returns trigger language plpgsql as $$
        begin
            raise exception 'no room here' using errcode = 'disk_full';
        end
        $$;
        create table change (is_failing boolean);
        create function noted() returns trigger language plpgsql as $$
        begin
            if new.is_failing <> old.is_failing then
                insert into public.change values (new.is_failing);
            end if;
            return null;
        end
        $$;
    """)
    poll = 0.03
    shown: list[Any] = []
    reported = "select state, error, error_at is not null, oldest_seconds > 0 from postgear.relays"

    def wait(seconds: float) -> bool:
        if seconds == STAND_BY_SECONDS:
            time.sleep(0.01)  # as above
        elif seconds == poll:
            shown.append(queue.execute(reported).fetchone())
            if len(shown) > 1:
                return True
            put(session, "x")
            queue.execute("create trigger refuse before insert on postgear.job for each row execute function refuse()")
            queue.execute("create trigger noted after update on postgear.relay for each row execute function noted()")
        elif seconds and shown:
            shown.append(queue.execute(reported).fetchone())
            if len(shown) == 4:
                queue.execute("drop trigger refuse on postgear.job")
        return False

    Relay(outbox, dsn, Settings(poll_seconds=poll), wait).run()
    assert shown[0] == ("working", None, False, None)
    assert shown[1:4] == [("failing", "no room here", True, True)] * 3
    assert set(shown[4:]) == {("working", "no room here", True, None)}
    assert jobs(queue) == [("f", b"x")]
    assert queue.execute("select is_failing from change").fetchall() == [(True,), (False,)]


def test_relays_are_shown(
    outbox: Address,
    session: Any,
    queue: Queue,
    start_relay: Callable[..., RelayProcess],
    start_server: Callable[..., ServerProcess],
    dsn: str,
    capsys: Any,
) -> None:
    server = start_server("--http", "127.0.0.1:0")
    port = server.wait_for_log(r"http listens address=127\.0\.0\.1:(\d+)")[1]

    def metrics() -> dict[str, float]:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            lines = [line.rsplit(" ", 1) for line in answer.read().decode().splitlines()]
        label = f'{{outbox="{outbox}"}}'
        return {name.removesuffix(label): float(value) for name, value in lines if name.endswith(label)}

    assert metrics() == {}
    relay = start_relay()
    put(session, "a")
    shown = "select state, rows_moved, rows_waiting, oldest_seconds, error from postgear.relays"
    wait_until(lambda: queue.execute(shown).fetchall() == [("working", 1, 0, None, None)], "the relay's report")
    assert cli.main(["status", "--relays", "--dsn", dsn, "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert (told["outbox"], told["state"], told["rows_moved"]) == (str(outbox), "working", 1)
    now = metrics()
    assert now.pop("postgear_relay_rows_per_second") >= 0
    assert now == {
        "postgear_relay_working": 1,
        "postgear_relay_rows_waiting": 0,
        "postgear_relay_oldest_seconds": 0,
        "postgear_relay_rows_moved_total": 1,
        "postgear_relay_rows_failed_total": 0,
    }
    assert relay.end() == 0
    assert " stopped " in relay.log()
    assert queue.execute("select state from postgear.relays").fetchall() == [("stopped",)]
    relay = start_relay()
    wait_until(lambda: queue.execute("select state from postgear.relays").fetchall() == [("working",)], "another relay")
    relay.kill()
    queue.execute(
        "update postgear.relay set renewed_at = renewed_at - interval '1 hour', looked_at = looked_at - interval '1 hour'"
    )
    assert queue.execute("select state from postgear.relays").fetchall() == [("silent",)]
    now = metrics()
    assert now["postgear_relay_working"] == 0
    assert now["postgear_relay_oldest_seconds"] > 3600
