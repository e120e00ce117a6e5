"""The programs of README.md run as they stand there, but for where server and database are."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from postgear import Client
from tests.server.bytes import Peer, until
from tests.server_process import ServerProcess

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
WORKER, CLIENT, DIRECT = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def start(server: ServerProcess, tmp_path: Path) -> Iterator[Callable[[str, str], subprocess.Popen[str]]]:
    """Write a program into a file and start it."""
    processes: list[subprocess.Popen[str]] = []

    def run(name: str, program: str) -> subprocess.Popen[str]:
        program = program.replace("127.0.0.1:4730", server.address).replace("host=db dbname=shop", server.dsn)
        (tmp_path / name).write_text(program)
        processes.append(subprocess.Popen([sys.executable, name], cwd=tmp_path, stdout=subprocess.PIPE, text=True))
        return processes[-1]

    yield run
    for process in processes:
        process.kill()
        process.communicate()


def test_client_worker_and_direct_worker_have_less_than_forty_lines() -> None:
    assert sum(line != "" for block in (WORKER, CLIENT, DIRECT) for line in block.splitlines()) < 40


def test_client_and_worker(server: ServerProcess, start: Callable[[str, str], subprocess.Popen[str]]) -> None:
    start("worker.py", WORKER)
    with Peer(server.host, server.port) as peer:
        until(lambda: (peer.status(b"index") or (0, 0, 0))[2], 1)

    out, _ = start("client.py", CLIENT).communicate(timeout=30)

    first, handle, rest = out.splitlines()
    assert (first, rest) == ("gears", "['screws', 'wedges']")
    with psycopg.connect(server.dsn) as connection:
        assert connection.execute("select unique_key from postgear.job").fetchall() == [(b"article:2",)]
    assert handle.startswith("H:test:")


def test_direct_worker(server: ServerProcess, start: Callable[[str, str], subprocess.Popen[str]]) -> None:
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute("create table account (id integer, balance integer)")
        connection.execute("insert into account values (1, 100), (2, 100)")
        with Client(server.address) as client:
            client.submit("charge", {"account": 1, "total": 30})
        start("charge.py", DIRECT)

        until(lambda: connection.execute("select id, balance from account order by id").fetchall(), [(1, 70), (2, 100)])
        assert connection.execute("select count(*) from postgear.job").fetchone() == (0,)
