"""The job servers that are compared: how each is started on an empty queue, asked, and stopped.

The queues that are compared by their SQL functions alone are in `queues`; they have their places here too.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import psycopg

from .cluster import Cluster
from .process import BenchError, child, free_port, tail, wait_until

ROOT: Final = Path(__file__).resolve().parent.parent
FUNCTION: Final = "bench"  # what the load programs submit; load/load.h
_READY_TIMEOUT_SECONDS: Final = 60.0
_ADMIN_TIMEOUT_SECONDS: Final = 20.0


@dataclasses.dataclass(frozen=True)
class Contestant:
    """A job server in one configuration, or a queue that is used by SQL.

    job_table: the table of its database in which queued jobs are rows; None if the queue is in memory.
    check: raises BenchError, which says what is missing, unless it can take part on this machine and cluster.
    prepare: makes what it needs in an empty database, whose DSN it gets; None if it does so itself.
    program: the server's command; None if it has no server.
    arguments: added to the command, and printed with the results.
    log_when_ready: the word its log shows when it is up; None if answering is all there is to see.
    """

    name: str
    title: str
    job_table: str | None
    check: Callable[[Cluster], None]
    prepare: Callable[[Cluster, str], None] | None = None
    program: str | None = None
    arguments: tuple[str, ...] = ()
    log_when_ready: str | None = None


def initialise(dsn: str, *options: str) -> None:
    """Run `postgear init` with *options*. Raises BenchError where it fails."""
    command = [postgear_command(), "init", "--dsn", dsn, *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_READY_TIMEOUT_SECONDS)
    if done.returncode != 0:
        raise BenchError(f"postgear init: {done.stderr.strip()[-500:]}")


def check_postgear(_: Cluster) -> None:
    """Raise BenchError unless there is a postgear command."""
    postgear_command()


def _check_gearmand(_: Cluster) -> None:
    if shutil.which("gearmand") is None:
        raise BenchError("no gearmand in PATH")


def postgear_command() -> str:
    """Return the command: the one of this tree's environment, else the one in PATH."""
    local = ROOT / ".venv" / "bin" / "postgear"
    found = str(local) if local.exists() else shutil.which("postgear")
    if found is None:
        raise BenchError("no postgear command in .venv/bin or PATH")
    return found


POSTGEAR: Final = Contestant(
    "postgear",
    "postgear",
    "postgear.job",
    check_postgear,
    prepare=lambda _, dsn: initialise(dsn),
    program="postgear",
    log_when_ready="ready",
)
GEARMAND: Final = Contestant("gearmand", "gearmand, memory", None, _check_gearmand, program="gearmand")
GEARMAND_BUCKETS: Final = dataclasses.replace(
    GEARMAND, name="gearmand-buckets", title="… 500,009 buckets", arguments=("--hashtable-buckets", "500009")
)
GEARMAND_POSTGRES: Final = dataclasses.replace(
    GEARMAND, name="gearmand-postgres", title="gearmand, Postgres", job_table="queue", arguments=("-q", "Postgres")
)
SERVERS: Final = (POSTGEAR, GEARMAND, GEARMAND_BUCKETS, GEARMAND_POSTGRES)


@dataclasses.dataclass(frozen=True)
class Server:
    """A contestant that is up.

    start_seconds: from the start of its process until it was ready.
    """

    port: int
    process: subprocess.Popen[bytes]
    start_seconds: float

    def ask(self, command: str, end: bytes = b"\n") -> str:
        """Send an admin command; return the reply up to *end*."""
        with socket.create_connection(("127.0.0.1", self.port), _ADMIN_TIMEOUT_SECONDS) as connection:
            connection.settimeout(_ADMIN_TIMEOUT_SECONDS)
            connection.sendall(command.encode() + b"\n")
            reply = b""
            while not reply.endswith(end):
                received = connection.recv(65536)
                if not received:
                    raise BenchError(f"{command}: connection closed after {reply!r}")
                reply += received
        return reply.decode()

    def counts(self) -> tuple[int, int, int]:
        """Return the jobs, running jobs and workers that `status` shows for the function."""
        for line in ("\n" + self.ask("status", b".\n")).splitlines():
            words = line.split("\t")
            if words[0] == FUNCTION:
                return int(words[1]), int(words[2]), int(words[3])
        return 0, 0, 0


class Place:
    """One contestant's empty place for one measurement: a database, and a folder for logs."""

    def __init__(self, contestant: Contestant, cluster: Cluster, folder: Path, dsn: str) -> None:
        self.contestant = contestant
        self.cluster = cluster
        self.dsn = dsn
        self.folder = folder
        self._log = folder / f"{contestant.name}.log"

    def log_tail(self) -> str:
        """Return the last lines the server logged."""
        return tail(self._log)

    @contextlib.contextmanager
    def server(self) -> Iterator[Server]:
        """Run the server on whatever the place's queue holds, for the time of the block."""
        port = free_port()
        self._log.unlink(missing_ok=True)
        started = time.monotonic()
        with child(self._command(port), self._log) as process:
            server = Server(port, process, 0.0)
            wait_until(
                lambda: self._is_ready(server),
                f"start of {self.contestant.name}",
                timeout_seconds=_READY_TIMEOUT_SECONDS,
                interval_seconds=0.005,
                process=process,
            )
            yield dataclasses.replace(server, start_seconds=time.monotonic() - started)

    def _is_ready(self, server: Server) -> bool:
        word = self.contestant.log_when_ready
        if word is not None and word not in self._log.read_text(errors="replace"):
            return False
        try:
            return server.ask("version").startswith("OK")
        except ConnectionRefusedError:
            return False

    def _command(self, port: int) -> list[str]:
        if self.contestant.program == "postgear":
            command = [postgear_command(), "serve", "--dsn", self.dsn, "--listen", f"127.0.0.1:{port}", "--name", "bench"]
        else:
            command = ["gearmand", "--listen", "127.0.0.1", "--port", str(port), "--log-file", "stderr"]
            command += ["--pid-file", str(self.folder / "gearmand.pid")]
            if self.contestant is GEARMAND_POSTGRES:
                command += ["--libpq-conninfo", self.dsn]
        return [*command, *self.contestant.arguments]

    def connect(self) -> psycopg.Connection[tuple[object, ...]]:
        """Return an autocommit connection to the place's database."""
        return self.cluster.connect(self.dsn)

    def stored_jobs(self) -> int | None:
        """Count the rows of the job table; None if the queue is in memory."""
        table = self.contestant.job_table
        return None if table is None else self.rows_in(table)

    def rows_in(self, table: str) -> int:
        """Count the rows of a table."""
        with self.connect() as connection:
            row = connection.execute(f"select count(*)::int from {table}".encode()).fetchone()
        assert row is not None
        assert isinstance(row[0], int)
        return row[0]

    def fill_gearmand_table(self, jobs: int) -> None:
        """Put rows into gearmand's table, for its next start to load: submitting them takes minutes."""
        with self.connect() as connection:
            connection.execute(
                """
                insert into queue (unique_key, function_name, priority, data, when_to_run)
                select 'job-' || to_char(n, 'FM000000000'), %s, 1, convert_to(repeat('x', 100), 'UTF8'), 0
                from generate_series(1, %s) n
                """,
                (FUNCTION, jobs),
            )


@contextlib.contextmanager
def fresh_place(contestant: Contestant, cluster: Cluster, folder: Path) -> Iterator[Place]:
    """Give *contestant* an empty queue, prepared as it needs, and take it away again."""
    with cluster.database() as dsn:
        if contestant.prepare is not None:
            contestant.prepare(cluster, dsn)
        yield Place(contestant, cluster, folder, dsn)


def versions() -> dict[str, str]:
    """Return what the programs that are installed say of their versions."""
    found = {}
    for contestant in (POSTGEAR, GEARMAND):
        with contextlib.suppress(BenchError, FileNotFoundError):
            command = [postgear_command(), "version"] if contestant is POSTGEAR else ["gearmand", "--version"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=10)
            found[contestant.name] = done.stdout.strip().partition(" - ")[0]
    return found
