"""PgBouncer in transaction mode: for producers anything goes, a server needs sessions of its own."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from postgear import AdminClient
from tests.extension.asking import Connection, create_trigger, payloads, value
from tests.folders import open_folder
from tests.server.bytes import Peer
from tests.server_process import ServerProcess

PROGRAM = shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"
pytestmark = pytest.mark.skipif(not Path(PROGRAM).exists(), reason="pgbouncer is not installed")


def start_pgbouncer(folder: Path, dsn: str, pool_mode: str, pool_size: int) -> tuple[subprocess.Popen[bytes], str]:
    """Start a pooler of a few connections to the database of *dsn*, on a socket in *folder*; returns the DSN through it."""
    target = conninfo_to_dict(dsn)
    (folder / "users.txt").write_text('"postgres" ""\n')
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n* = host={target['host']} port={target['port']} user=postgres\n"
        f"[pgbouncer]\nlisten_addr =\nlisten_port = 6432\nunix_socket_dir = {folder}\n"
        f"auth_type = any\nauth_file = {folder}/users.txt\npidfile = {folder}/pid\nlogfile = {folder}/log\n"
        f"pool_mode = {pool_mode}\ndefault_pool_size = {pool_size}\nmax_client_conn = 100\n"
        "ignore_startup_parameters = extra_float_digits\n"
    )
    account = pwd.getpwnam("postgres").pw_uid if os.geteuid() == 0 else None
    if account is not None:
        os.chown(folder, account, -1)
    process = subprocess.Popen(
        [PROGRAM, "-q", str(folder / "pgbouncer.ini")],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        user=account,
    )
    pooled = make_conninfo("", host=str(folder), port=6432, user="postgres", dbname=target["dbname"])
    while True:
        try:
            psycopg.connect(pooled).close()
            return process, pooled
        except psycopg.OperationalError:
            assert process.poll() is None, (folder / "log").read_text()


@pytest.fixture
def pooler(dsn: str) -> Iterator[Callable[..., str]]:
    """Start a PgBouncer of a pool mode and size before ``dsn``; returns the DSN through it."""
    with open_folder() as folder:
        processes = []

        def start(pool_mode: str, pool_size: int) -> str:
            process, pooled = start_pgbouncer(folder, dsn, pool_mode, pool_size)
            processes.append(process)
            return pooled

        yield start
        for process in processes:
            process.terminate()
            process.wait(10)


@pytest.fixture
def pooled_dsn(pooler: Callable[..., str]) -> str:
    """A DSN through a PgBouncer in transaction mode."""
    return pooler("transaction", 2)


@pytest.fixture
def session(dsn: str) -> Iterator[Connection]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("create table item (id integer)")
        yield connection


def connect(pooled_dsn: str) -> Connection:
    # PgBouncer knows prepared statements from 1.21 on; psycopg makes some by itself.
    return psycopg.connect(pooled_dsn, prepare_threshold=None)


@pytest.mark.parametrize("level", ["statement", "row"])
@pytest.mark.parametrize("key", [None, ["id"]])
def test_producers_in_transactions(session: Connection, pooled_dsn: str, level: str, key: object) -> None:
    create_trigger(session, "item", level=level, key=key)

    def produce(number: int) -> None:
        with connect(pooled_dsn) as connection:
            for each in range(10):
                with connection.transaction(force_rollback=each == 9):
                    connection.execute("insert into item values (%s)", (number * 10 + each,))
                    connection.execute("select gman_do_background('g', %s::text)", (str(number * 10 + each),))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(produce, range(8)))
    committed = [number for number in range(80) if number % 10 != 9]
    assert sorted(each["id"] for each in payloads(session)) == committed
    assert sorted(payloads(session, "g")) == committed


def test_triggers_can_be_made_through_it(session: Connection, pooled_dsn: str) -> None:
    with connect(pooled_dsn) as connection:
        create_trigger(connection, "item", name="t")
        connection.execute("insert into item values (1)")
        connection.commit()
        connection.execute("select postgear.drop_trigger('item', 't')")
    assert payloads(session) == [{"id": 1}]


def test_a_worker_gets_what_was_committed_through_it(session: Connection, pooled_dsn: str, server: ServerProcess) -> None:
    create_trigger(session, "item")
    with Peer(server.host, server.port) as worker:
        worker.can_do(b"f")
        worker.sleep()
        while not value(session, "select coalesce(bool_and(sleeping), false) from postgear.server"):
            pass
        session.execute("listen postgear")
        with connect(pooled_dsn) as connection:
            connection.execute("insert into item values (1)")
        assert [notify.payload for notify in session.notifies(timeout=10, stop_after=1)] == ["wake"]
        worker.expect("NOOP")
        assert worker.grab()[-1] == b'{"id":1}'


def test_a_server_works_through_session_mode(
    session: Connection, pooler: Callable[..., str], start_server: Callable[..., ServerProcess]
) -> None:
    create_trigger(session, "item")
    server = start_server(dsn=pooler("session", 5))
    session.execute("insert into item values (1)")
    with AdminClient(server.address) as admin:
        assert "f\t1\t0\t0" in admin.command("status")
    assert server.stop() == 0
