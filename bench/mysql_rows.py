"""The rows of what happens in MariaDB: what a trigger costs that queues a job, and how fast the relay is."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from . import mariadb
from .cluster import Cluster
from .contestants import GEARMAND, POSTGEAR, Contestant, Place, postgear_command
from .process import BenchError, child, wait_until
from .programs import Figures
from .row import Figure, Loads, Row, Target

_ITEM_TABLE: Final = """
create table item (id bigint primary key, title varchar(100) not null, body text not null,
    changed_at timestamp not null default current_timestamp) engine = InnoDB
"""
_UDF_TRIGGER: Final = """
create trigger item_changed after insert on item for each row set @handle = gman_do_background('bench',
    json_object('id', new.id, 'title', new.title, 'body', new.body, 'changed_at', new.changed_at))
"""
_COMMAND_TIMEOUT_SECONDS: Final = 60
_RELAY_TIMEOUT_SECONDS: Final = 120.0
_ROWS_A_STATEMENT: Final = {"select": None, "values": 1000, "single": 1}


def _check(contestant: Contestant) -> Callable[[Cluster], None]:
    def check(cluster: Cluster) -> None:
        mariadb.check()
        contestant.check(cluster)

    return check


MYSQL_NONE: Final = Contestant("mysql-none", "MariaDB, no trigger", None, lambda _: mariadb.check())
MYSQL_OUTBOX: Final = dataclasses.replace(
    POSTGEAR, name="mysql-outbox", title="outbox", job_table=None, check=_check(POSTGEAR), program=None
)
MYSQL_UDF: Final = dataclasses.replace(POSTGEAR, name="mysql-udf", title="UDF, postgear", check=_check(POSTGEAR))
MYSQL_UDF_GEARMAND: Final = dataclasses.replace(
    GEARMAND,
    name="mysql-udf-gearmand",
    title="UDF, gearmand",
    check=_check(GEARMAND),
    arguments=("--hashtable-buckets", "500009"),
)
MYSQL: Final = (MYSQL_OUTBOX, MYSQL_NONE, MYSQL_UDF, MYSQL_UDF_GEARMAND)


def _trigger(place: Place, loads: Loads, form: str) -> Figures:
    """The time of INSERTs of as many rows in one transaction, its commit included."""
    has_udf = place.contestant in (MYSQL_UDF, MYSQL_UDF_GEARMAND)
    jobs = loads.jobs // 10 if has_udf else loads.jobs  # each row is a round trip; the rate does not depend on their number
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(mariadb.temporary_mariadb(place.folder))
        with server.connect(database=mariadb.DATABASE) as session, session.cursor() as cursor:
            cursor.execute(_ITEM_TABLE)
            if place.contestant is MYSQL_OUTBOX:
                _postgear("mysql", "install", "--mysql", server.url)
                _postgear("mysql", "trigger", "create", "item", "bench", "--mysql", server.url)
            elif has_udf:
                server.load_functions(stack.enter_context(place.server()).port)
                cursor.execute(_UDF_TRIGGER)
        statements = list(_statements(jobs, _ROWS_A_STATEMENT[form]))
        with server.connect(database=mariadb.DATABASE) as session, session.cursor() as cursor:
            started = time.monotonic()
            session.start_transaction()
            for statement in statements:
                cursor.execute(statement)
            session.commit()
            seconds = time.monotonic() - started
            cursor.execute("select count(*) from item")
            _check_count("item", cursor.fetchone(), jobs)
            if place.contestant is MYSQL_OUTBOX:
                cursor.execute("select count(*) from postgear_outbox")
                _check_count("postgear_outbox", cursor.fetchone(), jobs)
        if place.stored_jobs() not in (None, jobs):
            raise BenchError(f"{jobs} rows inserted, {place.stored_jobs()} jobs queued")
    return {"jobs": jobs, "seconds": seconds, "rows_per_second": jobs / seconds}


def _statements(rows: int, in_one: int | None) -> Iterator[str]:
    """Yield INSERTs of rows of about 100 bytes; in_one: rows in each, None: all in one INSERT … SELECT."""
    if in_one is None:
        yield ("insert into item (id, title, body) select seq, concat('item ', seq), repeat('x', 60) from seq_1_to_" + str(rows))
        return
    for first in range(1, rows + 1, in_one):
        values = (f"({number}, 'item {number}', '{'x' * 60}')" for number in range(first, min(first + in_one, rows + 1)))
        yield f"insert into item (id, title, body) values {', '.join(values)}"


def _relay(place: Place, loads: Loads) -> Figures:
    """From the commit of as many rows in the outbox of a relay that waits, to the last of them queued in PostgreSQL."""
    with mariadb.temporary_mariadb(place.folder) as server:
        _postgear("mysql", "install", "--mysql", server.url)
        command = [postgear_command(), "relay", "--mysql", server.url, "--dsn", place.dsn]
        log = place.folder / "relay.log"
        log.unlink(missing_ok=True)
        with child(command, log) as process, place.connect() as queue:

            def moved() -> int:
                rows: list[tuple[Any, ...]] = queue.execute("select rows_moved from postgear.relay").fetchall()
                return int(rows[0][0]) if rows else 0

            wait_until(
                lambda: " working " in log.read_text(errors="replace"),
                f"start of the relay ({log})",
                timeout_seconds=_RELAY_TIMEOUT_SECONDS,
                process=process,
            )
            with server.connect(database=mariadb.DATABASE) as session, session.cursor() as cursor:
                cursor.execute(
                    "insert into postgear_outbox (`function`, workload)"
                    f" select 'bench', concat('{{\"body\": \"', repeat('x', 88), '\"}}') from seq_1_to_{loads.jobs}"
                )
            started = time.monotonic()
            wait_until(
                lambda: moved() >= loads.jobs,
                "the rows in the queue",
                timeout_seconds=_RELAY_TIMEOUT_SECONDS,
                interval_seconds=0.01,
                process=process,
            )
            seconds = time.monotonic() - started
    if place.stored_jobs() != loads.jobs:
        raise BenchError(f"{loads.jobs} rows moved, {place.stored_jobs()} jobs queued")
    return {"jobs": loads.jobs, "seconds": seconds, "rows_per_second": loads.jobs / seconds}


def _postgear(*words: str) -> None:
    done = subprocess.run([postgear_command(), *words], capture_output=True, text=True, timeout=_COMMAND_TIMEOUT_SECONDS)
    if done.returncode != 0:
        raise BenchError(f"postgear {words[0]}: {done.stderr.strip()[-500:]}")


def _check_count(table: str, row: tuple[Any, ...] | None, expected: int) -> None:
    if row is None or row[0] != expected:
        raise BenchError(f"{expected} rows should be in {table}, {row} are")


MYSQL_ROWS: Final = (
    *(
        Row(
            f"mysql-{form}",
            functools.partial(_trigger, form=form),
            (Figure("rows_per_second", title, "rows/s", (Target(1 / 2.5, MYSQL_NONE),)),),
            100_000,
            contestants=MYSQL,
            subject=MYSQL_OUTBOX,
        )
        for form, title in (
            ("select", "MariaDB, 100,000 rows, INSERT … SELECT"),
            ("values", "… 1,000 rows a statement"),
            ("single", "… a row a statement"),
        )
    ),
    Row(
        "relay",
        _relay,
        (Figure("rows_per_second", "relay, 100,000 rows", "rows/s", (Target(20_000),)),),
        100_000,
        contestants=(POSTGEAR,),
    ),
)
