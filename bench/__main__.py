"""Measure postgear against gearmand, and against other queues in PostgreSQL: `python -m bench` from the root of the tree.

For each row of the table the contestants take turns (A B C A B C …), each time with a fresh server and a fresh
database, so that what disturbs the machine disturbs all of them.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psycopg
from rich.console import Console

from . import machine
from .cluster import Cluster, temporary_cluster
from .contestants import SERVERS, Contestant, fresh_place
from .mysql_rows import MYSQL
from .process import BenchError
from .programs import compile_programs
from .queues import DIRECT_QUEUES, QUEUES
from .results import Results
from .row import Row
from .rows import ROWS
from .table import console, number, table

_DATA_PARENT: Final = "/var/tmp"  # on a disk everywhere; /tmp may be memory, where a commit costs nothing
_BUSY_LOAD_AVERAGE: Final = 0.7  # over a minute, before the first load
_CONTESTANTS: Final = tuple(dict.fromkeys((*SERVERS, *DIRECT_QUEUES[:1], *QUEUES, *DIRECT_QUEUES, *MYSQL)))
_FAILURES: Final = (BenchError, OSError, psycopg.Error, subprocess.SubprocessError)


def main() -> int:
    """Run what the arguments ask for; return 1 if a measurement failed."""
    arguments = _arguments()
    for number_ in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number_, signal.default_int_handler)  # all leave as Ctrl-C does, ending everything
    out = console()
    results = Results()
    try:
        compile_programs()
        with _cluster(arguments.dsn) as (cluster, folder):
            contestants = _present(arguments, cluster, out)
            about = _about(arguments, cluster, folder)
            versions = machine.versions() | {"postgresql": cluster.settings()["server_version"]}
            out.print(", ".join(f"{name} {version}" for name, version in versions.items()), markup=False)
            if os.getloadavg()[0] > _BUSY_LOAD_AVERAGE:
                out.print(f"the machine is busy (load average {os.getloadavg()[0]:.1f}): the figures will be of little use")
            for row in arguments.rows:
                _measure_row(row, contestants, arguments, cluster, folder, results, out)
    except KeyboardInterrupt:
        out.print("interrupted")
        return 130
    except _FAILURES as error:
        out.print(str(error), style="red", markup=False)
        return 1
    path = results.save(f"{about['date']}-{about['commit']}".replace(":", ""), arguments.rows, about)
    for group in (SERVERS, QUEUES, DIRECT_QUEUES, MYSQL):
        rows = [row for row in arguments.rows if row.subject is group[0] or (group is MYSQL and row.subject in group)]
        columns = [contestant for contestant in contestants if contestant in group]
        if rows:
            out.print(table(results, rows, columns, arguments.repeats))
    for failure in results.failures:
        out.print(failure, style="red", markup=False)
    out.print(f"all samples: {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")
    return 1 if results.failures else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure postgear against gearmand and other queues.")
    parser.add_argument("--quick", action="store_true", help="one repeat, and shorter loads for what is slow")
    parser.add_argument("--repeats", type=int, help="samples of each figure (default: 3; with --quick 1)")
    parser.add_argument(
        "--rows",
        type=_rows,
        default=list(ROWS),
        metavar="NAME,…",
        help=f"{', '.join(row.name for row in ROWS)}; what stands before a hyphen means all of these",
    )
    parser.add_argument(
        "--only",
        type=_contestants,
        default=list(_CONTESTANTS),
        metavar="NAME,…",
        help=", ".join(contestant.name for contestant in _CONTESTANTS),
    )
    parser.add_argument("--dsn", help="a superuser's DSN of a PostgreSQL on this host (default: a temporary cluster)")
    arguments = parser.parse_args()
    arguments.repeats = arguments.repeats or (1 if arguments.quick else 3)
    return arguments


def _rows(text: str) -> list[Row]:
    picked: list[Row] = []
    for name in text.split(","):
        named = [row for row in ROWS if row.name == name] or [row for row in ROWS if row.name.startswith(f"{name}-")]
        if not named:
            raise argparse.ArgumentTypeError(f"{name} is none of {', '.join(row.name for row in ROWS)}")
        picked += [row for row in named if row not in picked]
    return picked


def _contestants(text: str) -> list[Contestant]:
    known = {contestant.name: contestant for contestant in _CONTESTANTS}
    for name in text.split(","):
        if name not in known:
            raise argparse.ArgumentTypeError(f"{name} is none of {', '.join(known)}")
    return [known[name] for name in text.split(",")]


@contextlib.contextmanager
def _cluster(dsn: str | None) -> Iterator[tuple[Cluster, Path]]:
    """Give a cluster, and a folder for logs that is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="postgear-bench-", dir=_DATA_PARENT) as name:
        folder = Path(name)
        if dsn is not None:
            yield Cluster(dsn), folder
            return
        with temporary_cluster(folder) as cluster:
            yield cluster, folder


def _present(arguments: argparse.Namespace, cluster: Cluster, out: Console) -> list[Contestant]:
    """Return those of the contestants asked for that the rows need and that can take part."""
    present = []
    for contestant in arguments.only:
        if any(contestant in row.contestants for row in arguments.rows):
            try:
                contestant.check(cluster)
            except _FAILURES as error:
                out.print(f"{contestant.name} is left out: {error}", markup=False)
                continue
            present.append(contestant)
    return present


def _measure_row(
    row: Row,
    contestants: list[Contestant],
    arguments: argparse.Namespace,
    cluster: Cluster,
    folder: Path,
    results: Results,
    out: Console,
) -> None:
    loads = row.loads(arguments.quick)
    for repeat in range(1, arguments.repeats + 1):
        for contestant in (c for c in contestants if c in row.contestants):
            label = f"{row.name:18} {repeat}/{arguments.repeats} {contestant.name:17}"
            try:
                with fresh_place(contestant, cluster, folder) as place:
                    figures = row.measure(place, loads)
            except _FAILURES as error:
                results.failures.append(f"{row.name} {contestant.name}: {error}")
                out.print(f"{label} failed: {error}", style="red", markup=False)
                continue
            results.add(row, contestant, figures)
            shown = [f"{number(figures[f.name])} {f.unit}" for f in row.figures if f.name in figures]
            out.print(f"{label} {', '.join(shown)}", markup=False)


def _about(arguments: argparse.Namespace, cluster: Cluster, folder: Path) -> dict[str, object]:
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").removesuffix("+00:00") + "Z",
        "commit": machine.commit(),
        "quick": arguments.quick,
        "repeats": arguments.repeats,
        "machine": machine.facts(folder),
        "versions": machine.versions(),
        "postgresql": cluster.settings(),
        "arguments": {server.name: " ".join(server.arguments) for server in SERVERS},
        "jobs": {row.name: row.loads(arguments.quick).__dict__ for row in arguments.rows},
    }


if __name__ == "__main__":
    sys.exit(main())
