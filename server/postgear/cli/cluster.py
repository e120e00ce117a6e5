"""`postgear doctor`, `cluster`, `durability`, `keep-results`: is the database fit, who is there, what a function's jobs get."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Final

from postgear.errors import ConfigError

from .words import dsn, dsn_option

if TYPE_CHECKING:
    from .words import Commands

TIERS: Final = ("replicated", "local", "relaxed")
_DURABILITY_DESCRIPTION: Final = """\
Say what the acknowledgement of a job of this function promises. A batch of jobs is stored as its most
careful function asks, so the others lose nothing; it takes effect at once.

  replicated  on the disk, and where there is a synchronous standby, on its disk, too (every function's default)
  local       on the primary's disk: a failover may lose the newest
  relaxed     soon on the disk: a crash of PostgreSQL may lose the last half second

It is about jobs that come over the wire. A transaction of SQL has its own synchronous_commit."""

_KEEP_DESCRIPTION: Final = """\
Say how long it is kept how the background jobs of this function have ended, and what they returned: read it
with `postgear result`, gman_result(handle) in SQL, or result(handle) of a client on the database.

It is about jobs that end from now on. Every result is a row more that is written, and deleted when its
time is over; functions that keep none pay nothing."""
NO_RESULTS: Final = "no"


def add(commands: Commands) -> None:
    """Add the commands of those who run the servers."""
    text = "look at everything that the queue stands on, and say what to do"
    doctor = commands.add_parser(
        "doctor",
        parents=[dsn_option()],
        help=text,
        description=text.capitalize() + ". The exit code is 1 if something fails, 0 with mere warnings.",
    )
    doctor.add_argument("--json", action="store_true", help="print a JSON list instead of lines")
    doctor.set_defaults(run=_doctor)
    text = "show the servers and direct workers of a database, and its standbys"
    cluster = commands.add_parser("cluster", parents=[dsn_option()], help=text, description=text.capitalize() + ".")
    cluster.add_argument("--json", action="store_true", help="print a JSON object instead of tables")
    cluster.set_defaults(run=_cluster)
    durability = commands.add_parser(
        "durability",
        parents=[dsn_option()],
        help="say what the acknowledgement of a function's jobs promises",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=_DURABILITY_DESCRIPTION,
    )
    durability.add_argument("function", metavar="FUNCTION", help="a function that has been used before")
    durability.add_argument("tier", metavar="TIER", choices=TIERS, help=" or ".join(TIERS))
    durability.set_defaults(run=_durability)
    keep = commands.add_parser(
        "keep-results",
        parents=[dsn_option()],
        help="say how long the results of a function's background jobs are kept",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=_KEEP_DESCRIPTION,
    )
    keep.add_argument("function", metavar="FUNCTION", help="a function that has been used before")
    keep.add_argument(
        "how_long",
        metavar="INTERVAL",
        help=f"an interval of PostgreSQL ('1 day', 90min), or `{NO_RESULTS}` for none (the default)",
    )
    keep.set_defaults(run=_keep_results)


def _doctor(arguments: argparse.Namespace) -> int:
    from postgear import doctor

    findings = list(doctor.examine(dsn(arguments.dsn)))
    if arguments.json:
        print(json.dumps([finding._asdict() for finding in findings], ensure_ascii=False, indent=2))
    else:
        for finding in findings:
            print(f"{finding.level:<4}  {finding.name}: {finding.text}")
            if finding.level is not doctor.Level.OK:
                print(f"      {finding.advice}")
    return int(any(finding.level is doctor.Level.FAIL for finding in findings))


def _cluster(arguments: argparse.Namespace) -> int:
    from postgear import cluster
    from postgear.tables import print_rows

    found = cluster.look(dsn(arguments.dsn))
    last = found.last_at_duties
    if arguments.json:
        shown = {
            "database": found.database._asdict(),
            "members": [member._asdict() for member in found.members],
            "duties": last and {"name": last.name, "lease": last.lease, "seconds_ago": last.duties_seconds_ago},
            "standbys": [standby._asdict() for standby in found.standbys],
        }
        json.dump(shown, sys.stdout, ensure_ascii=False, indent=2)
        print()
        return 0
    database = found.database
    timeline = _timeline(database.timeline)
    print(f"{database.name}: {database.role}, PostgreSQL {database.version}, timeline {timeline} at {database.lsn}")
    if found.members:
        # What fits on a terminal; the rest is in the JSON.
        columns = ("name", "kind", "address", "state", "jobs", "renewed", "duties", "up_seconds")
        rows = [
            (
                each.name,
                each.kind,
                each.address,
                each.state,
                each.jobs,
                _ago(each.renewed_seconds_ago),
                _ago(each.duties_seconds_ago),
                each.up_seconds,
            )
            for each in found.members
        ]
        print_rows(columns, rows, as_json=False)
        if last is not None:
            print(f"duties last done by {last.name} {_ago(last.duties_seconds_ago)}; each does them, there is no leader")
        else:
            print("duties not done yet")
    else:
        print("no server")
    if found.standbys:
        print_rows(found.standbys[0]._fields, found.standbys, as_json=False)
    else:
        print("no standby")
    return 0


def _ago(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.1f} s ago"


def _timeline(digits: str | None) -> str:
    """Return the timeline as PostgreSQL's logs and the metrics write it."""
    return str(int(digits, 16)) if digits else "-"


def _durability(arguments: argparse.Namespace) -> int:
    from postgear import cluster

    with cluster.session(dsn(arguments.dsn)) as connection:
        name = arguments.function.encode()
        row = connection.execute("select postgear.set_durability(%s::bytea, %s)", (name, arguments.tier)).fetchone()
    if row is None or not row[0]:
        raise ConfigError(f"no such function: {arguments.function}")
    print(f"{arguments.function}: {arguments.tier}")
    return 0


def _keep_results(arguments: argparse.Namespace) -> int:
    import psycopg

    from postgear import cluster

    how_long = None if arguments.how_long == NO_RESULTS else arguments.how_long
    with cluster.session(dsn(arguments.dsn)) as connection:
        name = arguments.function.encode()
        try:
            row = connection.execute("select postgear.keep_results(%s::bytea, %s::interval)", (name, how_long)).fetchone()
        except (psycopg.errors.DataError, psycopg.errors.CheckViolation):
            raise ConfigError(f"{how_long!r} is no interval above 0 and up to 100 years") from None
    if row is None or not row[0]:
        raise ConfigError(f"no such function: {arguments.function}")
    print(f"{arguments.function}: {arguments.how_long}")
    return 0
