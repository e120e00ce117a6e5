"""A PostgreSQL with the extension for the session; a database with it, a server and workers for each test."""

from __future__ import annotations

import itertools
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from postgear import schema
from tests.extension import postgres_tree
from tests.extension.python_worker import PythonWorker
from tests.server_process import ServerProcess

Connection = psycopg.Connection[tuple[object, ...]]
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def config() -> str:
    """The pg_config of a PostgreSQL with PL/Python and PGXS."""
    found = postgres_tree.pg_config()
    if found is None:
        pytest.skip("no PostgreSQL here has PL/Python and PGXS (Debian: postgresql-plpython3-15, postgresql-server-dev-15)")
    return found


@pytest.fixture(scope="session")
def programs(config: str) -> Iterator[Path]:
    """The folder of the programs of a PostgreSQL with the extension."""
    tree = Path(tempfile.mkdtemp(prefix="postgear-tree-"))
    tree.chmod(0o755)
    try:
        yield postgres_tree.plant(tree, config)
    finally:
        shutil.rmtree(tree)


@pytest.fixture(scope="session")
def extension_postgres(programs: Path) -> Iterator[str]:
    """A running PostgreSQL with the extension; the DSN of its superuser. Tests want ``dsn``."""
    folder = Path(tempfile.mkdtemp(prefix="postgear-test-"))
    folder.chmod(0o755)
    try:
        with postgres_tree.running(folder, programs) as dsn:
            yield dsn
    finally:
        shutil.rmtree(folder)


@contextmanager
def database(postgres_dsn: str, options: str = "") -> Iterator[str]:
    """A new database, dropped at the end."""
    name = f"test_{next(_numbers)}"
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute(f"create database {name} {options}")
        yield make_conninfo(postgres_dsn, dbname=name)
        connection.execute(f"drop database {name} with (force)")


@pytest.fixture(scope="session")
def extension_template(extension_postgres: str) -> Iterator[str]:
    """The name of a database with schema and extension."""
    with database(extension_postgres) as dsn:
        schema.upgrade(dsn, queue="test")
        yield psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]


@pytest.fixture
def dsn(extension_postgres: str, extension_template: str) -> Iterator[str]:
    """A fresh database with schema and extension, in place of the one without that other tests get."""
    with database(extension_postgres, f"template {extension_template}") as found:
        yield found


@pytest.fixture
def empty_dsn(extension_postgres: str) -> Iterator[str]:
    """A fresh database with nothing in it."""
    with database(extension_postgres) as found:
        yield found


@pytest.fixture
def session(dsn: str) -> Iterator[Connection]:
    """A session in the test's database; every statement commits."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection


@pytest.fixture
def worker(server: ServerProcess) -> Iterator[PythonWorker]:
    """A worker in Python at the test's server; see python_worker.py for its functions."""
    with PythonWorker(server.host, server.port) as running:
        yield running


@pytest.fixture
def stock_worker(server: ServerProcess) -> Iterator[Callable[..., None]]:
    """Start Debian's ``gearman -w``: ``stock_worker(function, *command)``."""
    if shutil.which("gearman") is None:
        pytest.skip("no command gearman here (Debian: gearman-tools)")
    processes: list[subprocess.Popen[bytes]] = []

    def start(function: str, *command: str) -> None:
        words = ["gearman", "-h", server.host, "-p", str(server.port), "-w", "-f", function, "--", *command]
        processes.append(subprocess.Popen(words, stdin=subprocess.DEVNULL))

    yield start
    for process in processes:
        process.kill()
        process.wait()
