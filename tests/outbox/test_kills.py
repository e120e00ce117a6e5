"""Nothing is lost and nothing doubled, whoever is killed at whatever moment: counted, with a seed."""

from __future__ import annotations

import itertools
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import mysql.connector
import psycopg
import pytest

from postgear import schema as queue_schema
from postgear.embedded import EmbeddedPostgres
from postgear.outbox import schema
from postgear.outbox.connecting import parse
from tests.mariadb import MariaDB
from tests.outbox.conftest import ask, url_of
from tests.outbox.relay_process import RelayProcess
from tests.ports import free_port
from tests.server_process import ServerProcess

SECONDS = 15
WAIT_SECONDS = 30
WORKER = """
import sys

from postgear import Worker

worker = Worker(sys.argv[1], concurrency=10)
done = open(sys.argv[2], "ab", buffering=0)


@worker.function("f")
def f(workload: bytes) -> None:
    done.write(workload + b"\\n")  # all at once, and there whatever becomes of this process


worker.run()
"""


class Postgres:
    """A PostgreSQL of the test's own, which it may kill."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started: list[EmbeddedPostgres] = []

    def start(self) -> str:
        """Start it, return its DSN."""
        self._started.append(EmbeddedPostgres(self._folder))
        return self._started[-1].start()

    def kill(self) -> None:
        """Send SIGKILL to the postmaster and wait for its end; the others notice, and end."""
        pid = int((self._folder / "postgres" / "postmaster.pid").read_text().split()[0])
        postmaster = os.pidfd_open(pid)
        os.kill(pid, signal.SIGKILL)
        select.select([postmaster], [], [])
        os.close(postmaster)

    def stop(self) -> None:
        """End it."""
        for started in self._started:
            started.stop()


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL of the test's own, not started."""
    folder = Path(tempfile.mkdtemp(prefix="postgear-kills-"))
    folder.chmod(0o755)
    server = Postgres(folder)
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)


class Consumers:
    """A server and a worker of it, each of which the test may kill; what the worker has done is in a file."""

    def __init__(self, folder: Path, dsn: str) -> None:
        self._folder, self._dsn = folder, dsn
        self._address = f"127.0.0.1:{free_port()}"
        self._numbers = itertools.count()
        (folder / "done").touch()
        (folder / "worker.py").write_text(WORKER)
        self._server = self._started_server()
        self._worker = self._started_worker()

    def restart_server(self) -> None:
        """Send SIGKILL to the server and start it anew."""
        self._server.kill()
        self._server = self._started_server()

    def restart_worker(self) -> None:
        """Send SIGKILL to the worker and start it anew."""
        self._kill_worker()
        self._worker = self._started_worker()

    def done(self) -> list[str]:
        """The workloads of the jobs that ran, one as often as it ran."""
        return (self._folder / "done").read_text().split()

    def kill(self) -> None:
        """End both."""
        self._kill_worker()
        self._server.kill()

    def log(self) -> str:
        """What the last server logged."""
        return self._server.log()

    def _kill_worker(self) -> None:
        self._worker.kill()
        self._worker.wait(WAIT_SECONDS)

    def _started_server(self) -> ServerProcess:
        log_path = self._folder / f"server-{next(self._numbers)}.log"
        return ServerProcess("--listen", self._address, dsn=self._dsn, log_path=log_path)

    def _started_worker(self) -> subprocess.Popen[bytes]:
        words = [sys.executable, "worker.py", self._address, "done"]
        with (self._folder / "worker.log").open("ab") as log:
            return subprocess.Popen(words, cwd=self._folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


@pytest.fixture
def start_consumers(tmp_path: Path, postgres: Postgres) -> Iterator[Callable[[str], Consumers]]:
    """Start a server and a worker on a DSN; both are ended after the test, before the database."""
    started: list[Consumers] = []

    def start(dsn: str) -> Consumers:
        started.append(Consumers(tmp_path, dsn))
        return started[-1]

    yield start
    for consumers in started:
        consumers.kill()


class Writer(threading.Thread):
    """Commits and rolls back transactions of some rows each, until told to end; keeps account of what MariaDB acknowledged."""

    def __init__(self, server: MariaDB, database: str, number: int, seed: int) -> None:
        super().__init__(daemon=True)
        self._server, self._database, self._name, self._random = (
            server,
            database,
            f"w{number}",
            random.Random(seed * 1000 + number),
        )
        self.is_ended = threading.Event()
        self.committed: set[str] = set()
        self.in_doubt: set[str] = set()
        self.rolled_back: set[str] = set()

    def run(self) -> None:
        numbers = itertools.count()
        while not self.is_ended.is_set():
            with (
                suppress(mysql.connector.Error, OSError),
                self._server.connect(database=self._database, autocommit=False) as session,
            ):
                while not self.is_ended.is_set():
                    self.is_ended.wait(0.01)
                    self._write(session, [f"{self._name}-{next(numbers)}" for _ in range(self._random.randint(1, 30))])
            self.is_ended.wait(0.05)

    def _write(self, session: Any, rows: list[str]) -> None:
        with session.cursor() as cursor:
            for row in rows:
                cursor.execute("insert into postgear_outbox (`function`, workload) values ('f', %s)", (row,))
        if self._random.random() < 0.2:
            self.rolled_back |= set(rows)
            session.rollback()
            return
        self.in_doubt |= set(rows)
        session.commit()
        self.committed |= set(rows)
        self.in_doubt -= set(rows)


@pytest.mark.timeout(240)
def test_kill_9_of_anything_at_any_moment(
    start_mariadb: Callable[..., MariaDB],
    postgres: Postgres,
    start_relay: Callable[..., RelayProcess],
    start_consumers: Callable[[str], Consumers],
) -> None:
    seed = int(os.environ.get("POSTGEAR_TEST_SEED", random.randrange(10**6)))
    chosen = random.Random(seed)
    mariadb = start_mariadb()
    with mariadb.connect() as session:
        ask(session, "create database app character set utf8mb4")
    url, dsn = url_of(mariadb, "app"), postgres.start()
    schema.install(parse(url))
    queue_schema.upgrade(dsn, functions="sql")
    with psycopg.connect(dsn, autocommit=True) as queue:
        # What was ever queued, though it is gone from the queue when it has run.
        queue.execute("""
            create table public.queued (workload bytea);
            create function public.remember() returns trigger language plpgsql as $$
            begin
                insert into public.queued values (new.workload);
                return null;
            end
            $$;
            create trigger remember after insert on postgear.job for each row execute function public.remember();
        """)
    consumers = start_consumers(dsn)

    def relay() -> RelayProcess:
        return start_relay("--batch", "200", "--poll", "0.02", "--lease", "5", url=url, dsn=dsn)

    relays = [relay(), relay()]
    relays[0].wait_for_log(" (working|standing_by) ")
    relays[1].wait_for_log(" (working|standing_by) ")
    writers = [Writer(mariadb, "app", number, seed) for number in range(3)]
    for writer in writers:
        writer.start()
    kills: dict[str, int] = dict.fromkeys(("relay", "mariadb", "postgres", "server", "worker"), 0)
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline or not all(kills.values()):
        time.sleep(chosen.uniform(0.02, 0.5))
        # Each at least once, however slow the machine is.
        victim = (
            next((name for name, count in kills.items() if not count), None) or chosen.choices(list(kills), [8, 2, 2, 2, 2])[0]
        )
        kills[victim] += 1
        if victim == "relay":
            place = chosen.randrange(2)
            relays[place].kill()
            relays[place] = relay()
        elif victim == "mariadb":
            mariadb.kill()
            mariadb.start()
        elif victim == "postgres":
            postgres.kill()
            postgres.start()
        elif victim == "server":
            consumers.restart_server()
        else:
            consumers.restart_worker()
    for writer in writers:
        writer.is_ended.set()
    for writer in writers:
        writer.join()
    committed = set[str]().union(*(writer.committed for writer in writers))
    in_doubt = set[str]().union(*(writer.in_doubt for writer in writers))
    rolled_back = set[str]().union(*(writer.rolled_back for writer in writers))
    with mariadb.connect(database="app") as session, psycopg.connect(dsn, autocommit=True) as queue:

        def left() -> tuple[int, int]:
            ((rows,),) = ask(session, "select count(*) from postgear_outbox")
            ((queued,),) = queue.execute("select count(*) from postgear.job").fetchall()
            return rows, queued

        until, before = time.monotonic() + WAIT_SECONDS, (-1, -1)
        while any(now := left()):
            until, before = (until if now == before else time.monotonic() + WAIT_SECONDS), now
            logs = "\n".join(each.log() for each in (*relays, consumers))
            assert time.monotonic() < until, f"seed {seed}, {kills}: {now} rows and jobs are left\n{logs}"
            time.sleep(0.1)
        found = [row[0].decode() for row in queue.execute("select workload from public.queued").fetchall()]
        moved = queue.execute("select rows_moved, rows_failed from postgear.relays").fetchall()
    done = consumers.done()
    told = f"seed {seed}, {kills}, {len(committed)} rows committed, {len(in_doubt)} in doubt, {len(done)} times a job ran"
    assert len(found) == len(set(found)), f"{told}: doubled"
    assert committed <= set(found), f"{told}: lost {len(committed - set(found))}"
    assert set(found) <= committed | in_doubt, f"{told}: rolled back and yet there"
    assert not rolled_back & set(found), told
    assert moved == [(len(found), 0)], told
    assert set(done) == set(found), f"{told}: {len(set(found) - set(done))} never ran"
    assert len(committed) > 500, told
    print(told)  # with -s
