"""Nothing is lost and nothing doubled, whoever is killed at whatever moment: counted, with a seed."""

from __future__ import annotations

import itertools
import os
import random
import select
import shutil
import signal
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

SECONDS = 15
WAIT_SECONDS = 20


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


@pytest.mark.timeout(180)
def test_kill_9_of_anything_at_any_moment(
    start_mariadb: Callable[..., MariaDB],
    postgres: Postgres,
    start_relay: Callable[..., RelayProcess],
) -> None:
    seed = int(os.environ.get("POSTGEAR_TEST_SEED", random.randrange(10**6)))
    chosen = random.Random(seed)
    mariadb = start_mariadb()
    with mariadb.connect() as session:
        ask(session, "create database app character set utf8mb4")
    url, dsn = url_of(mariadb, "app"), postgres.start()
    schema.install(parse(url))
    queue_schema.upgrade(dsn, functions="sql")

    def relay() -> RelayProcess:
        return start_relay("--batch", "200", "--poll", "0.02", "--lease", "5", url=url, dsn=dsn)

    relays = [relay(), relay()]
    relays[0].wait_for_log(" (working|standing_by) ")
    relays[1].wait_for_log(" (working|standing_by) ")
    writers = [Writer(mariadb, "app", number, seed) for number in range(3)]
    for writer in writers:
        writer.start()
    kills: dict[str, int] = {"relay": 0, "mariadb": 0, "postgres": 0}
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline or not all(kills.values()):
        time.sleep(chosen.uniform(0.05, 0.8))
        # Each at least once, however slow the machine is.
        victim = next((name for name, count in kills.items() if not count), None) or chosen.choices(list(kills), [6, 2, 2])[0]
        kills[victim] += 1
        if victim == "relay":
            place = chosen.randrange(2)
            relays[place].kill()
            relays[place] = relay()
        elif victim == "mariadb":
            mariadb.kill()
            mariadb.start()
        else:
            postgres.kill()
            postgres.start()
    for writer in writers:
        writer.is_ended.set()
    for writer in writers:
        writer.join()
    committed = set[str]().union(*(writer.committed for writer in writers))
    in_doubt = set[str]().union(*(writer.in_doubt for writer in writers))
    rolled_back = set[str]().union(*(writer.rolled_back for writer in writers))
    with mariadb.connect(database="app") as session, psycopg.connect(dsn, autocommit=True) as queue:
        until, left = time.monotonic() + WAIT_SECONDS, -1
        while (before := left) and (left := ask(session, "select count(*) from postgear_outbox")[0][0]):
            until = time.monotonic() + WAIT_SECONDS if left != before else until
            assert time.monotonic() < until, f"seed {seed}, {kills}: {left} rows are left\n{relays[0].log()}\n{relays[1].log()}"
            time.sleep(0.1)
        found = [row[0].decode() for row in queue.execute("select workload from postgear.job").fetchall()]
        moved = queue.execute("select rows_moved, rows_failed from postgear.relays").fetchall()
    told = f"seed {seed}, {kills}, {len(committed)} rows committed, {len(in_doubt)} in doubt"
    assert len(found) == len(set(found)), f"{told}: doubled"
    assert committed <= set(found), f"{told}: lost {len(committed - set(found))}"
    assert set(found) <= committed | in_doubt, f"{told}: rolled back and yet there"
    assert not rolled_back & set(found), told
    assert moved == [(len(found), 0)], told
    assert len(committed) > 500, told
    print(told)  # with -s
