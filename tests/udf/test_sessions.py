"""Many sessions at once, and job servers that come and go meanwhile."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.extension.python_worker import PythonWorker
from tests.mariadb import MariaDB
from tests.server.gearmand import Gearmand
from tests.udf.asking import Session

SESSIONS = 40


def test_many_sessions_each_get_their_own_answers(asked: Session, worker: PythonWorker, loaded: MariaDB) -> None:
    together = threading.Barrier(SESSIONS)

    def ask(number: int) -> None:
        with loaded.connect() as connection:
            session = Session(connection)
            together.wait(30)
            for call in range(5):
                text = f"{number}/{call} {'x' * number * 100}"
                assert session.value("select gman_do('echo', %s)", text) == text.encode()
                assert session.value("select gman_do_background('nobody', %s)", text).startswith(b"H:")

    with ThreadPoolExecutor(SESSIONS) as pool:
        list(pool.map(ask, range(SESSIONS)))


def test_servers_are_set_while_others_use_them(asked: Session, job_server: object, loaded: MariaDB) -> None:
    address = asked.value("select gman_servers_set(%s)", job_server.address).decode()  # type: ignore[attr-defined]
    stop = threading.Event()

    def use() -> int:
        calls = 0
        with loaded.connect() as connection:
            session = Session(connection)
            while not stop.is_set():
                assert session.value("select gman_do_background('nobody', '')") is not None
                calls += 1
        return calls

    with ThreadPoolExecutor(8) as pool:
        users = [pool.submit(use) for _ in range(8)]
        for _ in range(50):
            asked.value("select gman_servers_set(%s)", f"{address},127.0.0.1:1")
            asked.value("select gman_servers_set(%s)", address)
        stop.set()
        assert sum(user.result(30) for user in users) > 0


def test_job_servers_are_killed_while_sessions_use_them(session: Session, loaded: MariaDB, tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    for option in ("back_off", "connect_timeout", "background_timeout"):
        session.value("select gman_option_set(%s, 0.2)", option)
    servers = [Gearmand(tmp_path) for _ in range(2)]
    session.value("select gman_servers_set(%s)", ",".join(server.address for server in servers))
    stop = threading.Event()

    def use(number: int) -> tuple[int, int]:
        queued = refused = 0
        with loaded.connect() as connection:
            asking = Session(connection)
            while not stop.is_set():
                if asking.value("select gman_do_background('nobody', repeat('x', %s))", number * 10_000) is None:
                    refused += 1
                    assert "gman_do_background: " in asking.warning()
                else:
                    queued += 1
        return queued, refused

    try:
        with ThreadPoolExecutor(8) as pool:
            users = [pool.submit(use, number) for number in range(8)]
            try:
                for _ in range(6):
                    victim = dice.randrange(2)
                    servers[victim].kill()
                    servers[victim] = Gearmand(tmp_path)
                    session.value("select gman_servers_set(%s)", ",".join(server.address for server in servers))
            finally:
                stop.set()
            queued, _ = map(sum, zip(*(user.result(30) for user in users), strict=True))
        assert queued > 0
        assert loaded.is_running(), f"seed {seed}"
    finally:
        for server in servers:
            server.kill()
