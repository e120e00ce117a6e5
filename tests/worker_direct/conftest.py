"""Fixtures of the tests of workers straight on the database: SQL, workers in a thread or in processes of their own."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

WAIT_SECONDS = 30.0
PROGRAM = Path(__file__).with_name("program.py")


class Database:
    """The test's database, by SQL."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.connection = psycopg.connect(dsn, autocommit=True)

    def rows(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Return what a query finds; statements without a result give nothing."""
        cursor = self.connection.execute(sql, parameters or None)  # type: ignore[arg-type]
        return cursor.fetchall() if cursor.description else []

    def value(self, sql: str, *parameters: Any) -> Any:
        """Return the one value of the one row."""
        ((value,),) = self.rows(sql, *parameters)
        return value

    def queue(self, function: str, payload: str = "", unique: str | None = None, priority: str = "") -> int:
        """Queue a job and return its id."""
        prefix = f"{priority}_" if priority else ""
        handle = self.value(f"select gman_do_{prefix}background(%s, %s::text, %s)", function, payload, unique)
        return int(handle.rpartition(":")[2])

    def queue_many(self, function: str, count: int) -> None:
        """Queue jobs whose payloads are the numbers from 1."""
        self.rows("select gman_do_background(%s, number::text) from generate_series(1, %s) number", function, count)

    def jobs(self) -> int:
        """How many jobs there are, in any state."""
        return int(self.value("select count(*) from postgear.job"))

    def wait_for(self, sql: str, *parameters: Any, expected: Any = True) -> None:
        """Wait until a query's one value is as expected."""
        deadline = time.monotonic() + WAIT_SECONDS
        while (found := self.value(sql, *parameters)) != expected:
            assert time.monotonic() < deadline, f"{sql}: {found!r} after {WAIT_SECONDS:g} s, expected {expected!r}"
            time.sleep(0.005)

    def wait_empty(self) -> None:
        """Wait until no job is left."""
        self.wait_for("select count(*) from postgear.job", expected=0)


@pytest.fixture
def database(dsn: str) -> Iterator[Database]:
    """The test's database; in it a table ``effect`` for what handlers write."""
    found = Database(dsn)
    found.rows("create table effect (payload text not null, worker integer not null default pg_backend_pid())")
    yield found
    found.connection.close()


@pytest.fixture
def limited_role(database: Database) -> Iterator[str]:
    """A DSN of a role "limited", a member of postgear_worker, for limits of its connections."""
    database.rows("create role limited login in role postgear_worker")
    yield make_conninfo(database.dsn, user="limited")
    database.rows("drop owned by limited")
    database.rows("drop role limited")


@pytest.fixture
def start_worker(dsn: str, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start ``program.py`` on the test's database, with its functions; all are killed after the test."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(concurrency: int = 1) -> subprocess.Popen[bytes]:
        log = (tmp_path / f"worker-{len(processes)}.log").open("wb")
        command = [sys.executable, str(PROGRAM), dsn, str(concurrency)]
        with log:
            processes.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait(WAIT_SECONDS)
