"""The queues that are compared by their SQL functions: how each is made, and how a statement or a trigger adds jobs to it.

`bare` is the least that can be called a queue: one table, one INSERT. It is what a function is measured by.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Final

from . import peers
from .cluster import Cluster
from .contestants import Contestant, check_postgear, initialise
from .process import BenchError

WORKLOAD: Final = '{"body": "' + "x" * 88 + '"}'
"""100 bytes: what a session enqueues. No colon stands before a letter, which pgbench would take for a variable."""

ITEM_TABLE: Final = """
create table item (
    id bigint primary key,
    title text not null,
    body text not null,
    changed_at timestamptz not null default now()
)
"""
"""The application's table whose rows become jobs."""


@dataclasses.dataclass(frozen=True)
class Queue(Contestant):
    """A queue that is used by SQL.

    enqueue: the statement by which a session adds one job.
    fill: the statement that adds so many jobs at once. drain: its worker, a module of `drain`.
    row_trigger, statement_trigger: SQL that makes the table item queue a job for each row inserted; None: it has no such.
    """

    enqueue: str = ""
    fill: str = ""
    drain: str = ""
    row_trigger: str | None = None
    statement_trigger: str | None = None


def _trigger(level: str, action: str) -> str:
    """Return SQL that makes a trigger of plpgsql. level: `row`, or `statement`, whose action sees the rows as new_rows."""
    return f"""
        create function item_changed() returns trigger language plpgsql as $$
        begin
            {action};
            return null;
        end
        $$;
        create trigger item_changed after insert on item
        {"referencing new table as new_rows" if level == "statement" else ""}
        for each {level} execute function item_changed()
    """


def _make_bare_table(cluster: Cluster, dsn: str) -> None:
    with cluster.connect(dsn) as connection:
        connection.execute(
            """
            create table bare_job (
                id bigint generated always as identity primary key,
                created_at timestamptz not null default now(),
                function text not null,
                workload json not null
            )
            """
        )


def _check_plpython(cluster: Cluster) -> None:
    check_postgear(cluster)
    with cluster.connect() as connection:
        if connection.execute("select from pg_available_extensions where name = 'plpython3u'").fetchone() is None:
            raise BenchError("the server has no PL/Python")


def _always(_: Cluster) -> None:
    """Find nothing missing."""


def _peer(install: Callable[[], object]) -> Callable[[Cluster], None]:
    return lambda _: (install(), None)[1]


GMAN_SQL: Final = Queue(
    "gman-sql",
    "postgear",
    "postgear.job",
    check_postgear,
    prepare=lambda _, dsn: initialise(dsn, "--functions", "sql"),
    program="postgear",
    log_when_ready="ready",
    enqueue=f"select gman_do_background('index', '{WORKLOAD}')",
    row_trigger=_trigger("row", "perform gman_do_background('index', row_to_json(new))"),
    statement_trigger="select postgear.create_trigger('item', 'index')",
)
GMAN_PLPYTHON: Final = dataclasses.replace(
    GMAN_SQL,
    name="gman-plpython",
    title="… PL/Python",
    check=_check_plpython,
    prepare=lambda _, dsn: initialise(dsn, "--functions", "plpython"),
    statement_trigger=None,  # create_trigger's calls no gman_ function
)
BARE: Final = Queue(
    "bare",
    "bare table",
    "bare_job",
    _always,
    prepare=_make_bare_table,
    enqueue=f"insert into bare_job (function, workload) values ('index', '{WORKLOAD}')",
    row_trigger=_trigger("row", "insert into bare_job (function, workload) values ('index', row_to_json(new))"),
    statement_trigger=_trigger(
        "statement", "insert into bare_job (function, workload) select 'index', row_to_json(new_rows) from new_rows"
    ),
)
NO_TRIGGER: Final = Queue("no-trigger", "no trigger", None, _always, row_trigger="", statement_trigger="")
PROCRASTINATE: Final = Queue(
    "procrastinate",
    "procrastinate",
    "procrastinate_jobs",
    _peer(peers.python_folder),
    prepare=peers.make_procrastinate_schema,
    enqueue="select procrastinate_defer_jobs_v1(array[row('default', 'index', 0, null, null,"
    f" '{WORKLOAD}', null)::procrastinate_job_to_defer_v1])",
    fill="select procrastinate_defer_jobs_v1(array_agg(row('default', 'index', 0, null, null,"
    f" '{WORKLOAD}', null)::procrastinate_job_to_defer_v1)) from generate_series(1, %s::integer)",
    drain="procrastinate_worker",
    row_trigger=_trigger(
        "row",
        "perform procrastinate_defer_jobs_v1(array[row('default', 'index', 0, null, null,"
        " to_jsonb(new), null)::procrastinate_job_to_defer_v1])",
    ),
)
GRAPHILE: Final = Queue(
    "graphile-worker",
    "graphile",
    "graphile_worker._private_jobs",
    _peer(peers.graphile_folder),
    prepare=peers.make_graphile_schema,
    enqueue=f"select graphile_worker.add_job('index', '{WORKLOAD}')",
    fill=f"select count(*) from graphile_worker.add_jobs(array(select row('index', '{WORKLOAD}', null, null, null, null,"
    " null, null)::graphile_worker.job_spec from generate_series(1, %s::integer)))",
    row_trigger=_trigger("row", "perform graphile_worker.add_job('index', row_to_json(new))"),
    statement_trigger=_trigger(
        "statement",
        "perform graphile_worker.add_jobs(array(select row('index', row_to_json(new_rows), null, null, null, null,"
        " null, null)::graphile_worker.job_spec from new_rows))",
    ),
)
DIRECT: Final = dataclasses.replace(
    GMAN_SQL,
    name="postgear-direct",
    title="postgear",
    fill=f"select count(gman_do_background('index', '{WORKLOAD}')) from generate_series(1, %s::integer)",
    drain="postgear_worker",
)
PGQUEUER: Final = Queue(
    "pgqueuer",
    "pgqueuer",
    "pgqueuer",
    _peer(peers.python_folder),
    prepare=peers.make_pgqueuer_schema,
    fill="insert into pgqueuer (priority, entrypoint, payload, status)"
    f" select 0, 'index', convert_to('{WORKLOAD}', 'UTF8'), 'queued' from generate_series(1, %s::integer)",
    drain="pgqueuer_worker",
)
DIRECT_QUEUES: Final = (DIRECT, PROCRASTINATE, PGQUEUER, GRAPHILE)
"""Those whose own workers are measured."""
QUEUES: Final = (GMAN_SQL, GMAN_PLPYTHON, BARE, NO_TRIGGER, PROCRASTINATE, GRAPHILE)
