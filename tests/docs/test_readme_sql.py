"""The SQL and the psql line of README.md, run by psql as they stand there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.docs.test_readme import README
from tests.server.bytes import Peer, until
from tests.server_process import ServerProcess

(TRIGGER,) = re.findall(r"```sql\n(.*?)```", README, re.DOTALL)
(QUESTION,) = re.findall(r"^    (psql .*)$", README, re.MULTILINE)
(WORKER,) = re.findall(r"^    gearman (-w .*)$", README, re.MULTILINE)
VARIABLES = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD", "dbname": "PGDATABASE"}


@pytest.fixture
def shell(server: ServerProcess) -> Callable[..., str]:
    """Run a line of shell, whose psql goes to the test's database, and return what it prints; fails with what it says."""
    if shutil.which("psql") is None:
        pytest.skip("no psql here (Debian: postgresql-client)")
    found = conninfo_to_dict(server.dsn)
    environment = os.environ | {VARIABLES[name]: str(value) for name, value in found.items() if name in VARIABLES}

    def run(line: str, text: str = "") -> str:
        done = subprocess.run(
            line, shell=True, input=text, env=environment, capture_output=True, text=True, check=False, timeout=30
        )
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        return done.stdout

    return run


@pytest.fixture
def worker(server: ServerProcess) -> Iterator[None]:
    """README's stock worker at the test's server."""
    if shutil.which("gearman") is None:
        pytest.skip("no command gearman here (Debian: gearman-tools)")
    process = subprocess.Popen(
        f"exec gearman -h {server.host} -p {server.port} {WORKER}",
        shell=True,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with Peer(server.host, server.port) as peer:
        until(lambda: (peer.status(b"index") or (0, 0, 0))[2], 1)
    yield
    process.kill()
    process.wait()


def test_the_trigger_queues_the_row_with_its_transaction(server: ServerProcess, shell: Callable[..., str]) -> None:
    strict = "psql --no-psqlrc -v ON_ERROR_STOP=1 -q"
    shell(strict, "create table article (id integer, title text)")
    shell(strict, TRIGGER)
    shell(strict, "insert into article values (1, 'Gears')")
    shell(strict, "begin; insert into article values (2, 'Levers'); rollback")
    with Peer(server.host, server.port) as peer:
        peer.can_do(b"index")
        assert peer.grab()[2] == b'{"id":1,"title":"Gears"}'
        assert peer.status(b"index") == (1, 1, 1)


@pytest.mark.usefixtures("worker")
def test_psql_waits_for_a_result(server: ServerProcess, shell: Callable[..., str]) -> None:
    with psycopg.connect(server.dsn) as connection:
        if connection.execute("select from pg_language where lanname = 'plpython3u'").fetchone() is None:
            pytest.skip("gman_do needs PL/Python (Debian: postgresql-plpython3-…)")
    name, rule, result, *_ = shell(QUESTION).splitlines()
    assert (name.strip(), set(rule), result.strip(" +")) == ("gman_do", {"-"}, "5")
