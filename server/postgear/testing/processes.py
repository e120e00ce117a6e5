"""What really runs for tests: a PostgreSQL with databases for one test each, and servers."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from postgear.embedded import EmbeddedPostgres
from postgear.errors import PostgearError
from postgear.schema import upgrade

QUEUE: Final = "test"
_START_SECONDS: Final = 30.0
_STOP_SECONDS: Final = 15.0
_READY: Final = re.compile(r"\bready\b.*\blisten=\"?([^\s,\"]+:\d+)")


class Databases:
    """Databases with the schema in one PostgreSQL, copies of a template. dsn: of a role that may create databases."""

    def __init__(self, dsn: str, label: str) -> None:
        self._dsn = dsn
        self._prefix = f"postgear_test_{label}"
        self._template = f"{self._prefix}_template"
        self._has_template = False
        self._number = 0

    @contextmanager
    def database(self) -> Iterator[str]:
        """Give the DSN of a fresh database with the schema, its queue named "test"; it is dropped afterwards."""
        if not self._has_template:
            self._execute("drop database if exists {0} with (force)", self._template)
            self._execute("create database {0}", self._template)
            self._has_template = True
            upgrade(make_conninfo(self._dsn, dbname=self._template), queue=QUEUE)
        self._number += 1
        name = f"{self._prefix}_{self._number}"
        self._execute("create database {0} template {1}", name, self._template)
        try:
            yield make_conninfo(self._dsn, dbname=name)
        finally:
            self._execute("drop database if exists {0} with (force)", name)

    def close(self) -> None:
        """Drop the template."""
        if self._has_template:
            self._execute("drop database if exists {0} with (force)", self._template)

    def _execute(self, statement: str, *names: str) -> None:
        with psycopg.connect(self._dsn, autocommit=True, connect_timeout=10) as connection:
            connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


@contextmanager
def postgres() -> Iterator[str]:
    """Run a PostgreSQL of the tests' own, found or embedded, and give its DSN. Raises EmbeddedError."""
    # Not pytest's tmp_path: only its owner may enter that, and PostgreSQL does not run as root.
    folder = Path(tempfile.mkdtemp(prefix="postgear-pytest-"))
    folder.chmod(0o755)
    server = EmbeddedPostgres(folder)
    try:
        yield server.start()
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


class RunningServer:
    """A ``postgear serve`` on a free port of 127.0.0.1.

    address: ``host:port``, for clients and workers. dsn: its database. process: for tests that stop or kill it.
    """

    def __init__(self, dsn: str, log_path: Path) -> None:
        self.dsn = dsn
        self._log_path = log_path
        command = [sys.executable, "-m", "postgear", "serve", "--dsn", dsn, "--listen", "127.0.0.1:0", "--name", QUEUE]
        with log_path.open("wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            self.address = self._wait_for_address()
        except BaseException:
            self.kill()
            raise
        self.host, _, port = self.address.rpartition(":")
        self.port = int(port)

    def log(self) -> str:
        """Return what it has logged."""
        return self._log_path.read_text(errors="replace")

    def stop(self) -> None:
        """End it with SIGTERM, or if that takes long with SIGKILL."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it with SIGKILL."""
        self.process.kill()
        self.process.wait()

    def _wait_for_address(self) -> str:
        deadline = time.monotonic() + _START_SECONDS
        while (match := _READY.search(self.log())) is None:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise PostgearError(f"postgear serve did not start:\n{self.log()}")
            time.sleep(0.01)
        return match[1]
