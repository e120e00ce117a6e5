"""The rows of what happens in SQL: jobs added by triggers, by many sessions, and how soon a committed one starts."""

from __future__ import annotations

import contextlib
import functools
import random
import re
import statistics
import subprocess
import time
from typing import Final

import psycopg

from .cluster import binary
from .contestants import FUNCTION, POSTGEAR, Place
from .process import BenchError, wait_until
from .programs import Figures, Load
from .queues import BARE, GMAN_PLPYTHON, GMAN_SQL, GRAPHILE, ITEM_TABLE, NO_TRIGGER, PROCRASTINATE, QUEUES, WORKLOAD, Queue
from .row import Figure, Loads, Row, Target

_JOBS_THERE_BEFORE: Final = 1000
_INSERT_TIMEOUT_SECONDS: Final = 300
_SESSIONS: Final = 64
_PGBENCH_THREADS: Final = 2
_PGBENCH_GRACE_SECONDS: Final = 30.0  # for 64 connections, and the last transactions
_WARM_UP_SECONDS: Final = 1.0
_EMPTY_TIMEOUT_SECONDS: Final = 10.0


def _trigger(place: Place, loads: Loads, level: str) -> Figures:
    """The time of one INSERT, its commit included."""
    queue = _queue(place)
    trigger = queue.row_trigger if level == "row" else queue.statement_trigger
    assert trigger is not None
    _fill(place)
    with place.connect() as connection:
        connection.execute(f"set statement_timeout = '{_INSERT_TIMEOUT_SECONDS}s'".encode())
        connection.execute(ITEM_TABLE)
        if trigger:
            connection.execute(trigger.encode())
        started = time.monotonic()
        connection.execute(
            """
            insert into item (id, title, body)
            select n, 'item ' || n, repeat('x', 60)
            from generate_series(1, %s::integer) as n
            """,
            (loads.jobs,),
        )
        seconds = time.monotonic() - started
    _check_rows(place, "item", loads.jobs)
    _check_jobs(place, loads.jobs)
    return {"jobs": loads.jobs, "seconds": seconds, "rows_per_second": loads.jobs / seconds}


def _commits(place: Place, loads: Loads, served: bool) -> Figures:
    """Sessions of pgbench, each adding one job a transaction.

    served: a postgear server is up if the queue has one, asleep, since its workers do other jobs than these.
    """
    queue = _queue(place)
    with contextlib.ExitStack() as stack:
        if served and queue.program is not None:
            stack.enter_context(Load(stack.enter_context(place.server()), place.folder).workers(4))
        _fill(place)
        figures = _pgbench(place, queue.enqueue, loads.seconds)
        _check_jobs(place, int(figures["jobs"]))
    return figures


def _pgbench(place: Place, statement: str, seconds: float) -> Figures:
    script = place.folder / "enqueue.sql"
    script.write_text(statement + ";\n")
    command = [binary("pgbench"), "--no-vacuum", "--protocol", "prepared", "--file", str(script), "--time", f"{seconds:.0f}"]
    command += ["--client", str(_SESSIONS), "--jobs", str(_PGBENCH_THREADS), place.dsn]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds + _PGBENCH_GRACE_SECONDS
    )
    processed = re.search(r"actually processed: (\d+)", done.stdout)
    rate = re.search(r"tps = ([\d.]+) \(without", done.stdout)
    latency = re.search(r"latency average = ([\d.]+) ms", done.stdout)
    if done.returncode != 0 or processed is None or rate is None or latency is None:
        raise BenchError(f"pgbench: {(done.stderr or done.stdout).strip()[-500:]}")
    return {
        "jobs": float(processed[1]),
        "commits_per_second": float(rate[1]),
        "latency_milliseconds": float(latency[1]),
    }


def _start(place: Place, loads: Loads, jobs_per_second: float) -> Figures:
    """From the moment COMMIT is sent, so that the commit itself counts, to the call of the worker's function.

    Jobs come at random intervals, as from many independent sources: even ones could fall into step with a poll.
    """
    with place.server() as server, place.connect() as connection:
        warm_up = round(_WARM_UP_SECONDS * jobs_per_second)
        jobs = warm_up + round(loads.seconds * jobs_per_second)
        with Load(server, place.folder).starts(jobs) as started:
            sent, committed = _produce(connection, jobs, jobs_per_second)
            starts = started()
            wait_until(lambda: place.stored_jobs() == 0, "the queue's getting empty", timeout_seconds=_EMPTY_TIMEOUT_SECONDS)
    after_sent = [1000 * (start - then) for start, then in zip(starts, sent, strict=True)][warm_up:]
    after_committed = [1000 * (start - then) for start, then in zip(starts, committed, strict=True)][warm_up:]
    commits = [1000 * (after - before) for before, after in zip(sent, committed, strict=True)][warm_up:]
    return {
        "jobs": jobs - warm_up,
        "p50_milliseconds": statistics.median(after_sent),
        "p99_milliseconds": statistics.quantiles(after_sent, n=100, method="inclusive")[98],
        "longest_milliseconds": max(after_sent),
        "p50_milliseconds_after_reply_to_commit": statistics.median(after_committed),
        "p50_milliseconds_of_commit": statistics.median(commits),
    }


def _produce(connection: psycopg.Connection[tuple[object, ...]], jobs: int, per_second: float) -> tuple[list[float], list[float]]:
    """Add numbered jobs by SQL; return when each one's COMMIT was sent, and when it was answered."""
    connection.autocommit = False
    gaps = random.Random(jobs)
    sent, committed = [], []
    due = time.monotonic()
    for number in range(jobs):
        due += gaps.expovariate(per_second)
        time.sleep(max(0.0, due - time.monotonic()))
        workload = f"{number} {WORKLOAD}"
        connection.execute("select gman_do_background(%s, %s::text)", (FUNCTION, workload), prepare=True)
        sent.append(time.monotonic())
        connection.commit()
        committed.append(time.monotonic())
    return sent, committed


def _queue(place: Place) -> Queue:
    assert isinstance(place.contestant, Queue)
    return place.contestant


def _fill(place: Place) -> None:
    """Put some jobs into the queue and let PostgreSQL count them.

    A queue in use has statistics. Without them graphile-worker's add_job reads the whole table each time, from a plan made
    when it was empty, and 100,000 of them in one transaction would take half an hour.
    """
    with place.connect() as connection:
        if _queue(place).enqueue:
            connection.execute(
                f"""
                do $fill$
                begin
                    for n in 1 .. {_JOBS_THERE_BEFORE} loop
                        execute $enqueue${_queue(place).enqueue}$enqueue$;
                    end loop;
                end
                $fill$
                """.encode()
            )
        connection.execute("analyze")


def _check_jobs(place: Place, added: int) -> None:
    table = place.contestant.job_table
    if table is not None:
        _check_rows(place, table, _JOBS_THERE_BEFORE + added)


def _check_rows(place: Place, table: str, expected: int) -> None:
    found = place.rows_in(table)
    if found != expected:
        raise BenchError(f"{expected} rows should be in {table}, {found} are")


SQL_ROWS: Final = (
    Row(
        "triggers-row",
        functools.partial(_trigger, level="row"),
        (
            Figure(
                "rows_per_second",
                "100,000 rows, row trigger",
                "rows/s",
                (
                    Target(0.5, BARE),
                    Target(3, PROCRASTINATE),
                    Target(0.5, BARE, of=GMAN_PLPYTHON),
                    Target(3, PROCRASTINATE, of=GMAN_PLPYTHON),
                ),
            ),
        ),
        100_000,
        contestants=QUEUES,
        subject=GMAN_SQL,
    ),
    Row(
        "triggers-statement",
        functools.partial(_trigger, level="statement"),
        (
            Figure(
                "rows_per_second",
                "… statement trigger",
                "rows/s",
                (Target(0.7, BARE), Target(1.5, GRAPHILE)),
            ),
        ),
        100_000,
        contestants=tuple(queue for queue in QUEUES if queue.statement_trigger is not None),
        subject=GMAN_SQL,
    ),
    Row(
        "commits-64",
        functools.partial(_commits, served=False),
        (
            Figure(
                "commits_per_second",
                "64 sessions, 1 job a commit",
                "commits/s",
                (Target(0.9, BARE), Target(0.9, BARE, of=GMAN_PLPYTHON)),
            ),
        ),
        contestants=tuple(queue for queue in QUEUES if queue is not NO_TRIGGER),
        subject=GMAN_SQL,
        seconds=5.0,
    ),
    Row(
        "commits-64-served",
        functools.partial(_commits, served=True),
        (Figure("commits_per_second", "… with a sleeping server", "commits/s"),),
        contestants=(GMAN_SQL, BARE),
        subject=GMAN_SQL,
        seconds=5.0,
    ),
    Row(
        "starts-100",
        functools.partial(_start, jobs_per_second=100),
        (
            Figure("p50_milliseconds", "commit to start, 100 jobs/s, p50", "ms", (Target(5),), True),
            Figure("p99_milliseconds", "… p99", "ms", (Target(25),), True),
        ),
        contestants=(POSTGEAR,),
    ),
    Row(
        "starts-2",
        functools.partial(_start, jobs_per_second=2),
        (Figure("p50_milliseconds", "… 2 jobs/s, p50", "ms", (), True),),
        contestants=(POSTGEAR,),
    ),
)
