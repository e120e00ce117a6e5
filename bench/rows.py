"""The rows of the table: what is done to a job server, which figures come out, and what they should be.

A measure function gets an empty place and returns its figures; it also checks that the jobs are where they should be,
so that no server is quick by losing them. The rows of what happens in SQL are in `sql_rows`.
"""

from __future__ import annotations

import functools
import time
from typing import Final

from .contestants import GEARMAND, GEARMAND_BUCKETS, GEARMAND_POSTGRES, POSTGEAR, Place, Server
from .direct_rows import DIRECT_ROWS
from .mysql_rows import MYSQL_ROWS
from .process import BenchError, cpu_seconds, resident_bytes, tree_cpu_seconds, wait_until
from .programs import Figures, Load
from .row import Figure, Loads, Row, Target
from .sql_rows import SQL_ROWS

_EMPTY_TIMEOUT_SECONDS: Final = 10.0
_STATUS_TIMEOUT_SECONDS: Final = 5.0
_MAP_IN_FLIGHT: Final = 100
_MAP_WORKERS: Final = 4
_SETTLE_SECONDS: Final = 2.0  # after connecting, before an idle server's CPU is counted


def _pipelined(place: Place, loads: Loads, unique: str) -> Figures:
    jobs = loads.of(place.contestant)
    with place.server() as server:
        printed = Load(server, place.folder).pipelined(jobs, unique)
        _check_queued(place, server, jobs)
    return _per_second(printed)


def _submit(place: Place, loads: Loads, clients: int) -> Figures:
    jobs = loads.of(place.contestant)
    with place.server() as server:
        printed = Load(server, place.folder).clients(jobs, clients, "background")
        _check_queued(place, server, printed["jobs"])
    return _per_second(printed)


def _drain(place: Place, loads: Loads, workers: int) -> Figures:
    """The time ends with the last completion written; how much later the job table is empty is kept beside it."""
    jobs = loads.of(place.contestant)
    with place.server() as server:
        load = Load(server, place.folder)
        load.pipelined(jobs)
        with load.drained(jobs, workers) as printed:
            ended = time.monotonic()
            wait_until(
                lambda: not place.stored_jobs() and server.counts()[0] == 0,
                "the queue's getting empty",
                timeout_seconds=_EMPTY_TIMEOUT_SECONDS,
            )
            return _per_second(printed) | {"empty_after_seconds": time.monotonic() - ended}


def _foreground(place: Place, loads: Loads, clients: int, workers: int) -> Figures:
    with place.server() as server:
        load = Load(server, place.folder)
        with load.workers(workers):
            printed = load.clients(loads.jobs, clients, "foreground")
    return _per_second(printed) | {"p50_microseconds": printed["p50_seconds"] * 1e6}


def _map(place: Place, loads: Loads) -> Figures:
    """One client, 100 jobs in flight: each library's with four workers of libgearman, and postgear's with its own worker."""
    figures = {"jobs": float(loads.jobs)}
    with place.server() as server:
        load = Load(server, place.folder)
        with load.workers(_MAP_WORKERS):
            figures["map_per_second"] = _rate_of(load.mapped("postgear", loads.jobs, _MAP_IN_FLIGHT))
            figures["libgearman_per_second"] = _rate_of(load.tasks(loads.jobs, _MAP_IN_FLIGHT))
            figures["pygearman_per_second"] = _rate_of(load.mapped("pygearman", loads.jobs // 10, _MAP_IN_FLIGHT))
        wait_until(lambda: server.counts()[2] == 0, "the workers' end", timeout_seconds=_EMPTY_TIMEOUT_SECONDS)
        with load.python_worker():
            figures["both_per_second"] = _rate_of(load.mapped("postgear", loads.jobs, _MAP_IN_FLIGHT))
    return figures


def _rate_of(printed: Figures) -> float:
    return printed["jobs"] / printed["seconds"]


def _backlog(place: Place, loads: Loads) -> Figures:
    """Memory: the larger of the server that took the jobs and of one started on them, where they outlive it."""
    jobs = loads.of(place.contestant)
    resident_bytes_seen = []
    figures = {"jobs": float(jobs)}
    with place.server() as server:
        if place.contestant is GEARMAND_POSTGRES:
            place.fill_gearmand_table(jobs)
        else:
            Load(server, place.folder).pipelined(jobs)
            _check_queued(place, server, jobs)
            resident_bytes_seen.append(resident_bytes(server.process.pid))
    if place.contestant.job_table is not None:
        with place.server() as server:
            _check_queued(place, server, jobs)
            figures["start_seconds"] = server.start_seconds
            resident_bytes_seen.append(resident_bytes(server.process.pid))
    return figures | {"resident_megabytes": max(resident_bytes_seen) / 1e6}


def _idle(place: Place, loads: Loads) -> Figures:
    """PostgreSQL's figure is of the whole cluster; what it is beside a gearmand in memory is the cluster's own."""
    postmaster = place.cluster.postmaster_pid
    with place.server() as server, Load(server, place.folder).workers(4):
        time.sleep(_SETTLE_SECONDS)
        started = time.monotonic()
        server_seconds, postgres_seconds = cpu_seconds(server.process.pid), tree_cpu_seconds(postmaster)
        time.sleep(loads.seconds)
        server_seconds = cpu_seconds(server.process.pid) - server_seconds
        postgres_seconds = tree_cpu_seconds(postmaster) - postgres_seconds
        seconds = time.monotonic() - started
    return {"server_percent": 100 * server_seconds / seconds, "postgres_percent": 100 * postgres_seconds / seconds}


def _per_second(printed: Figures) -> Figures:
    return printed | {"jobs_per_second": printed["jobs"] / printed["seconds"]}


def _check_queued(place: Place, server: Server, jobs: float) -> None:
    """Raise BenchError unless the table, if there is one, holds *jobs* jobs at once and `status` shows them soon."""
    stored = place.stored_jobs()
    if stored not in (None, jobs):
        raise BenchError(f"{jobs:.0f} jobs acknowledged, {stored} in the table")
    wait_until(
        lambda: server.counts()[0] == jobs,
        f"{jobs:.0f} jobs in status",
        timeout_seconds=_STATUS_TIMEOUT_SECONDS,
    )


def _rate(title: str, *targets: Target) -> tuple[Figure, ...]:
    return (Figure("jobs_per_second", title, "jobs/s", targets),)


ROWS: Final = (
    Row(
        "pipelined",
        functools.partial(_pipelined, unique="sequential"),
        _rate("background submits, pipelined", Target(3, GEARMAND), Target(40, GEARMAND_POSTGRES)),
        200_000,
        15_000,
    ),
    Row(
        "pipelined-random",
        functools.partial(_pipelined, unique="random"),
        _rate("… with random UUIDs as uniques"),
        200_000,
        15_000,
    ),
    Row(
        "pipelined-empty",
        functools.partial(_pipelined, unique="empty"),
        _rate("… without uniques"),
        200_000,
        contestants=(POSTGEAR, GEARMAND, GEARMAND_BUCKETS),  # gearmand's Postgres queue refuses the second
    ),
    Row(
        "submit-8",
        functools.partial(_submit, clients=8),
        _rate("background submits, 8 synchronous clients", Target(3, GEARMAND_POSTGRES)),
        40_000,
        12_000,
    ),
    Row(
        "submit-1",
        functools.partial(_submit, clients=1),
        _rate("background submits, 1 synchronous client", Target(0.9, GEARMAND_POSTGRES)),
        10_000,
        10_000,
    ),
    Row(
        "drain-4",
        functools.partial(_drain, workers=4),
        _rate("drain, 4 workers", Target(1, GEARMAND), Target(8, GEARMAND_POSTGRES)),
        100_000,
        15_000,
    ),
    Row("drain-1", functools.partial(_drain, workers=1), _rate("… 1 worker"), 30_000, 10_000),
    Row(
        "foreground-16",
        functools.partial(_foreground, clients=16, workers=4),
        _rate("foreground, 16 clients, 4 workers", Target(1, GEARMAND)),
        40_000,
        contestants=(POSTGEAR, GEARMAND, GEARMAND_BUCKETS),  # foreground jobs are in memory everywhere
    ),
    Row(
        "foreground-1",
        functools.partial(_foreground, clients=1, workers=1),
        (Figure("p50_microseconds", "foreground, 1 client, 1 worker, p50", "µs", (Target(1, GEARMAND),), True),),
        10_000,
        contestants=(POSTGEAR, GEARMAND, GEARMAND_BUCKETS),
    ),
    Row(
        "map-100k",
        _map,
        (
            Figure("map_per_second", "map over 100,000 inputs, Client.map, 4 C workers", "jobs/s"),
            Figure("libgearman_per_second", "… libgearman's run_tasks by 100", "jobs/s"),
            Figure("pygearman_per_second", "… pygearman's submit_multiple_jobs by 100", "jobs/s"),
            Figure("both_per_second", "… Client.map and one process of Worker", "jobs/s"),
        ),
        100_000,
        contestants=(POSTGEAR, GEARMAND, GEARMAND_BUCKETS),
    ),
    Row(
        "backlog",
        _backlog,
        (
            Figure("resident_megabytes", "server memory, 1,000,000 jobs queued", "MB", (Target(150),), True, True),
            Figure("start_seconds", "start until ready with them queued", "s", (Target(1),), True, True),
        ),
        1_000_000,
        100_000,
        contestants=(POSTGEAR, GEARMAND_BUCKETS, GEARMAND_POSTGRES),  # the default table would take minutes to fill
    ),
    Row(
        "idle",
        _idle,
        (
            Figure("server_percent", "idle with 4 workers: server", "% CPU", (Target(1),), True),
            Figure("postgres_percent", "… PostgreSQL, all its processes", "% CPU", (), True),
        ),
        contestants=(POSTGEAR, GEARMAND, GEARMAND_POSTGRES),
    ),
    *SQL_ROWS,
    *DIRECT_ROWS,
    *MYSQL_ROWS,
)
