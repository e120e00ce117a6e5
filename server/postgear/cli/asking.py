"""`postgear status`, `workers`, `jobs`, `result`, `cancel`: what a server or the database knows."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Final

from postgear.errors import ConfigError, JobFailed, UnknownJob

from .words import address, count, dsn, dsn_option, server_option, timeout

if TYPE_CHECKING:
    from .words import Commands

WATCH_SECONDS: Final = 2.0
_ADMIN_SECONDS: Final = 10.0
"""How long a server may take to answer an admin command."""
_FROM_SETTINGS: Final = "\0"
"""What ``--dsn`` without a value stands for; no DSN holds a NUL."""
_JOBS_DESCRIPTION: Final = """\
Show the jobs that the server holds, as far as Gearman's `show jobs` can tell:

  retries  how often it was given out and came back, for its worker was lost
  ignored  it was cancelled, or its client has left: it will not run
  queued   it is a background job, be it waiting or running; gearmand counts so, too

With --dsn the database is asked, which knows more of background jobs: function, priority, state
(claimed: a server has it, and mostly a worker runs it), attempt, age, the time it is scheduled for,
and the server. It is a part of the view postgear.jobs."""


def add(commands: Commands) -> None:
    """Add the commands that ask."""
    server = server_option()
    table = argparse.ArgumentParser(add_help=False, parents=[server])
    table.add_argument("--json", action="store_true", help="print a JSON list instead of a table")
    status = commands.add_parser(
        "status",
        parents=[table],
        help="show each function's jobs and workers",
        description="Show each function's queued jobs by priority, those that run, workers, and all jobs.",
    )
    status.add_argument(
        "--watch",
        metavar="SECONDS",
        type=timeout,
        nargs="?",
        const=WATCH_SECONDS,
        help=f"ask again and again, every {WATCH_SECONDS:g} s or so often, until Ctrl-C: how fast all jobs become more or "
        "fewer, and when there will be none",
    )
    status.add_argument("--relays", action="store_true", help="show the relays from MariaDB and MySQL, which the database knows")
    status.add_argument("--dsn", help="with --relays: the database (POSTGEAR_DSN, libpq's environment, or the TOML file)")
    status.set_defaults(run=_status)
    text = "show the connections and their functions"
    workers = commands.add_parser("workers", parents=[table], help=text, description=text.capitalize() + ".")
    workers.set_defaults(run=_workers)
    _add_jobs(commands, table)
    text = "print what a background job returned"
    result = commands.add_parser(
        "result",
        parents=[dsn_option()],
        help=text,
        description=text.capitalize()
        + ", where its function keeps results (`postgear keep-results`). If it failed, what was said "
        "about that is an error, exit code 1; where nothing is kept, or the job has not ended, the exit code is 7.",
    )
    result.add_argument("handle", metavar="HANDLE", help="what `postgear submit -b` printed")
    result.set_defaults(run=_result)
    cancel = commands.add_parser(
        "cancel",
        parents=[server],
        help="cancel a job",
        description="Cancel a job. If it runs, its worker goes on, and the result is dropped.",
    )
    cancel.add_argument("handle", metavar="HANDLE", help="what `postgear submit -b` printed")
    cancel.set_defaults(run=_cancel)


def _add_jobs(commands: Commands, table: argparse.ArgumentParser) -> None:
    jobs = commands.add_parser(
        "jobs",
        parents=[table],
        help="show the jobs that the server holds",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=_JOBS_DESCRIPTION,
    )
    jobs.add_argument(
        "--dsn",
        nargs="?",
        const=_FROM_SETTINGS,
        help="ask this database instead; without a value that of POSTGEAR_DSN, libpq's environment or the TOML file",
    )
    jobs.add_argument(
        "--limit", metavar="N", type=count, default=1000, help="with --dsn: how many, the oldest first (default: 1000)"
    )
    jobs.set_defaults(run=_jobs)


def _admin_lines(arguments: argparse.Namespace, *commands: str) -> list[list[str]]:
    import time

    from postgear.client.calls import Address
    from postgear.client.links import Links
    from postgear.client.operations import admin_command

    links = Links(wants_exceptions=False)
    where = (Address(*address(arguments)),)
    deadline = time.monotonic() + _ADMIN_SECONDS
    try:
        return [links.run(where, deadline, admin_command(command.encode("utf-8", "surrogateescape"))) for command in commands]
    finally:
        links.close()


def _status(arguments: argparse.Namespace) -> int:
    if arguments.relays:
        database = dsn(arguments.dsn)
        from postgear import jobs, tables

        tables.print_rows(jobs.Relay._fields, jobs.relays(database), as_json=arguments.json)
        return 0
    from postgear.client.admin import FunctionStatus, parse_status

    def ask() -> list[FunctionStatus]:
        return parse_status(*_admin_lines(arguments, "status", "prioritystatus"))

    if arguments.watch is not None:
        from postgear.watch import watch

        return watch(ask, arguments.server, arguments.watch, as_json=arguments.json)
    from postgear.tables import print_rows

    print_rows(FunctionStatus._fields, ask(), as_json=arguments.json)
    return 0


def _workers(arguments: argparse.Namespace) -> int:
    from postgear.client.admin import WorkerStatus, parse_workers
    from postgear.tables import print_rows

    (lines,) = _admin_lines(arguments, "workers")
    print_rows(WorkerStatus._fields, parse_workers(lines), as_json=arguments.json)
    return 0


def _jobs(arguments: argparse.Namespace) -> int:
    if arguments.dsn is not None:
        return _jobs_in_database(arguments)
    from postgear.client.admin import JobStatus, parse_jobs
    from postgear.tables import print_rows

    (lines,) = _admin_lines(arguments, "show jobs")
    print_rows(JobStatus._fields, parse_jobs(lines), as_json=arguments.json)
    return 0


def _jobs_in_database(arguments: argparse.Namespace) -> int:
    database = dsn(None if arguments.dsn is _FROM_SETTINGS else arguments.dsn)
    from postgear import jobs
    from postgear.tables import print_rows

    rows = jobs.oldest(database, arguments.limit + 1)
    print_rows(jobs.StoredJob._fields, rows[: arguments.limit], as_json=arguments.json)
    if len(rows) > arguments.limit:
        print(f"postgear: these are the oldest {arguments.limit}, there are more: --limit N", file=sys.stderr)
    return 0


def _result(arguments: argparse.Namespace) -> int:
    from postgear.client.database import connect

    with connect(dsn(arguments.dsn)) as client:
        result = client.result(arguments.handle)
    if result is None:
        raise UnknownJob(f"nothing is kept of job {arguments.handle}, or it has not ended")
    if not result.is_completed:
        raise JobFailed(arguments.handle, result.data or b"")
    sys.stdout.buffer.write(result.data or b"")
    return 0


def _cancel(arguments: argparse.Namespace) -> int:
    if not arguments.handle or any(character.isspace() for character in arguments.handle):
        raise ConfigError(f"{arguments.handle!r} is no handle")
    _admin_lines(arguments, f"cancel job {arguments.handle}")
    print(f"cancelled {arguments.handle}")
    return 0
