"""MariaDB with the library of mysql_udf/ loaded, Gearman servers and workers for it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.database import database
from tests.extension.python_worker import PythonWorker
from tests.mariadb import MariaDB, mariadb, mysql_database, start_mariadb  # noqa: F401
from tests.server.gearmand import PROGRAM, Gearmand
from tests.server_process import ServerProcess
from tests.udf.asking import Session

SOURCES = Path(__file__).parents[2] / "mysql_udf"
OPTIONS = ("connect_timeout", "timeout", "background_timeout", "back_off", "result_max", "errors")


def statements(name: str) -> list[str]:
    """The statements of install.sql or uninstall.sql."""
    lines = [line for line in (SOURCES / name).read_text().splitlines() if not line.startswith("--")]
    return [part.strip() for part in "\n".join(lines).split(";") if part.strip()]


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library, built from the sources as they are."""
    folder = tmp_path_factory.mktemp("udf")
    subprocess.run(["make", "-C", SOURCES, f"BUILD={folder}", "-j2", "-s"], check=True)
    return folder / "gman_udf.so"


@pytest.fixture(scope="session")
def loaded(mariadb: MariaDB, library: Path) -> MariaDB:  # noqa: F811
    """The session's MariaDB with the functions installed."""
    load(mariadb, library)
    return mariadb


def load(server: MariaDB, library: Path) -> None:
    """Install the functions in a running server."""
    shutil.copy(library, server.plugin_dir)
    with server.connect() as connection, connection.cursor() as cursor:
        for statement in statements("install.sql"):
            cursor.execute(statement)


@pytest.fixture
def session(loaded: MariaDB, mysql_database: str) -> Iterator[Session]:  # noqa: F811
    """A session in a database of its own; servers and options are as after the start of the database server."""
    with loaded.connect(database=mysql_database) as connection:
        asking = Session(connection)
        reset(asking)
        yield asking
        assert loaded.is_running(), loaded.log()


def reset(session: Session) -> None:
    """Forget what tests before have set."""
    session.value("select gman_servers_set('')")
    for option in OPTIONS:
        session.value("select gman_option_set(%s, null)", option)


@contextmanager
def postgear(request: pytest.FixtureRequest, folder: Path) -> Iterator[ServerProcess]:
    """A postgear server on a database of its own."""
    postgres_dsn, template = request.getfixturevalue("postgres_dsn"), request.getfixturevalue("template")
    with database(postgres_dsn, "udf", template) as dsn:
        server = ServerProcess(dsn=dsn, log_path=folder / "postgear.log")
        try:
            yield server
        finally:
            server.kill()


@contextmanager
def gearmand(folder: Path) -> Iterator[Gearmand]:
    """A stock gearmand."""
    if not Path(PROGRAM).exists():
        pytest.skip("no gearmand here (Debian: gearman-job-server)")
    server = Gearmand(folder)
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="module", params=["postgear", "gearmand"])
def job_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A job server for the tests of a module: postgear, and then gearmand."""
    folder = tmp_path_factory.mktemp("server")
    with postgear(request, folder) if request.param == "postgear" else gearmand(folder) as server:
        yield server


@pytest.fixture(scope="module")
def stock_gearmand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gearmand]:
    """A gearmand, where only that the server is good matters."""
    with gearmand(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def worker(job_server: Any) -> Iterator[PythonWorker]:
    """A worker at the job server; see tests/extension/python_worker.py for its functions."""
    with PythonWorker(job_server.host, job_server.port) as running:
        yield running


@pytest.fixture
def asked(session: Session, job_server: Any) -> Session:
    """The test's session, with the job server set."""
    session.value("select gman_servers_set(%s)", job_server.address)
    return session


Start = Callable[..., MariaDB]
