"""How fast the functions are: ``python -m tests.udf.measure LIBRARY [ROWS]``. Not a test."""

from __future__ import annotations

import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from postgear import schema
from postgear.embedded import EmbeddedPostgres
from tests.folders import open_folder
from tests.mariadb import MariaDB
from tests.server.gearmand import Gearmand
from tests.server_process import ServerProcess
from tests.udf.asking import Session
from tests.udf.conftest import load

SESSIONS = 16


def seconds(session: Session, query: str, *parameters: object) -> float:
    """How long a statement takes."""
    started = time.monotonic()
    session.rows(query, *parameters)
    taken = time.monotonic() - started
    assert session.warnings == [], session.warnings[:1]
    return taken


@contextmanager
def postgear() -> Iterator[ServerProcess]:
    """A postgear on a PostgreSQL that syncs every commit."""
    with tempfile.TemporaryDirectory(prefix="postgear-measure-") as name:
        Path(name).chmod(0o755)
        postgres = EmbeddedPostgres(Path(name))
        dsn = postgres.start()
        try:
            schema.upgrade(dsn, queue="measure")
            server = ServerProcess("--name", "measure", dsn=dsn, log_path=Path(name) / "server.log")
            try:
                yield server
            finally:
                server.kill()
        finally:
            postgres.stop()


def measure(database_server: MariaDB, name: str, address: str | None, rows: int) -> None:
    """Print the figures for one job server, or for none."""
    with database_server.database() as database, database_server.connect(database=database) as connection:
        session = Session(connection)
        session.rows("create table article (id int primary key, title varchar(100))")
        if address is not None:
            session.value("select gman_servers_set(%s)", address)
            session.rows(
                "create trigger article after insert on article for each row"
                " set @job = gman_do_background('index', repeat('x', 100))"
            )
        taken = seconds(session, f"insert into article select seq, 'title' from seq_1_to_{rows}")
        print(f"{name}: INSERT of {rows} rows {taken:.2f} s, {rows / taken:.0f} rows/s", flush=True)
        if address is None:
            return
        calls = f"select count(gman_do_background('index', repeat('x', 100))) from mysql.seq_1_to_{rows // 4}"
        taken = seconds(session, calls)
        print(f"{name}: {rows / 4 / taken:.0f} calls/s in one session", flush=True)
        started = time.monotonic()
        with ThreadPoolExecutor(SESSIONS) as pool:
            list(pool.map(lambda _: call(database_server, rows // 2 // SESSIONS), range(SESSIONS)))
        print(f"{name}: {rows / 2 / (time.monotonic() - started):.0f} calls/s in {SESSIONS} sessions", flush=True)


def call(database_server: MariaDB, calls: int) -> Any:
    """Make calls in a session of its own."""
    with database_server.connect(database="mysql") as connection:
        return Session(connection).value(f"select count(gman_do_background('index', repeat('x', 100))) from seq_1_to_{calls}")


def main() -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that timeout(1) leaves nothing running
    library, rows = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 100_000
    with open_folder() as path, tempfile.TemporaryDirectory() as logs:
        database_server = MariaDB(path)
        database_server.start()
        try:
            load(database_server, library)
            measure(database_server, "no trigger", None, rows)
            gearmand = Gearmand(Path(logs))
            try:
                measure(database_server, "gearmand", gearmand.address, rows)
            finally:
                gearmand.kill()
            with postgear() as server:
                measure(database_server, "postgear", server.address, rows)
        finally:
            database_server.stop()


if __name__ == "__main__":
    main()
