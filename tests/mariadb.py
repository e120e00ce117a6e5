"""A MariaDB, or MySQL, of the tests' own: its data in a folder, its socket and port its own; never the system's service.

A folder's conftest.py that wants these fixtures imports them: ``from tests.mariadb import mariadb, mysql_session  # noqa: F401``.

``POSTGEAR_TEST_MYSQLD`` names another program than Debian's mariadbd, for example a MySQL's mysqld.
"""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mysql.connector
import pytest

from tests.folders import open_folder
from tests.ports import free_port

START_SECONDS = 60
STOP_SECONDS = 60
_SETTINGS = {
    "innodb-buffer-pool-size": "64M",
    "innodb-flush-log-at-trx-commit": "1",
    "max-connections": "300",
    "skip-name-resolve": "ON",
    "sync-binlog": "0",
}
_numbers = itertools.count(1)


def program() -> str | None:
    """The database server to test with; None: there is none here."""
    return os.environ.get("POSTGEAR_TEST_MYSQLD") or shutil.which("mariadbd", path="/usr/sbin:/usr/bin:/usr/libexec")


class MariaDB:
    """A server with its data in *folder*, which the account "mysql" must be able to enter if root runs the tests.

    Durable as any: ``kill`` and ``start`` again is a crash and its recovery. *options* are ``name=value`` of the server.
    Libraries of functions belong into ``plugin_dir``.
    """

    user = "root"
    password = ""
    host = "127.0.0.1"

    def __init__(self, folder: Path, *options: str) -> None:
        found = program()
        assert found is not None, "no mariadbd here (Debian: mariadb-server)"
        self._program = found
        self._account = pwd.getpwnam("mysql") if os.geteuid() == 0 else None
        self._data = folder / "data"
        self._log = folder / "server.err"  # a name without a dot would get ".err" added
        self.socket = str(folder / "socket")
        self.plugin_dir = folder / "plugin"
        self.port = free_port()
        settings = _SETTINGS | {
            "bind-address": self.host,
            "datadir": str(self._data),
            "log-error": str(self._log),
            "pid-file": str(folder / "pid"),
            "plugin-dir": str(self.plugin_dir),
            "port": str(self.port),
            "secure-file-priv": str(folder),
            "socket": self.socket,
            "tmpdir": str(folder / "tmp"),
        }
        self._options = [f"--{name}={value}" for name, value in settings.items()]
        self._options += [f"--{option}" for option in options]
        self.process: subprocess.Popen[bytes] | None = None
        for path in (self._data, self.plugin_dir, folder / "tmp"):
            path.mkdir(mode=0o755)
        for path in (folder, self._data, folder / "tmp"):
            if self._account is not None:
                os.chown(path, self._account.pw_uid, self._account.pw_gid)
        self._initialize()

    @property
    def is_mysql(self) -> bool:
        """True for MySQL, false for MariaDB."""
        return "mariadb" not in Path(self._program).name

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        start = self._log.stat().st_size if self._log.exists() else 0
        words = [self._program, "--no-defaults", *self._options]
        words += ["--mysqlx=OFF"] if self.is_mysql else []
        self.process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **self._as_account()
        )
        try:
            self._wait_until_ready(start)
        except BaseException:
            self.kill()
            raise

    def stop(self) -> int:
        """Shut it down as an administrator would; returns the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_SECONDS)

    def kill(self) -> None:
        """Send SIGKILL and wait for the end."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(STOP_SECONDS)

    def is_running(self) -> bool:
        """True unless the process has ended."""
        return self.process is not None and self.process.poll() is None

    def log(self) -> str:
        """All that it has logged."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def connect(self, **options: Any) -> Any:
        """Open a session as its superuser, every statement a transaction; *options* are those of mysql.connector."""
        standard = {"unix_socket": self.socket, "user": self.user, "password": self.password, "autocommit": True}
        return mysql.connector.connect(**(standard | options))

    @contextmanager
    def database(self) -> Iterator[str]:
        """A new database, dropped at the end; yields its name."""
        name = f"test_{next(_numbers)}"
        with self.connect() as session, session.cursor() as cursor:
            cursor.execute(f"create database {name} character set utf8mb4")
            try:
                yield name
            finally:
                cursor.execute(f"drop database {name}")

    def _initialize(self) -> None:
        if self.is_mysql:
            words = [self._program, "--no-defaults", "--initialize-insecure", *self._options]
        else:
            words = ["mariadb-install-db", "--no-defaults", f"--datadir={self._data}", "--skip-test-db", "--skip-name-resolve"]
            words += ["--auth-root-authentication-method=normal"]
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **self._as_account()
        )
        assert done.returncode == 0, f"{words[0]} failed:\n{done.stdout}\n{self.log()}"

    def _wait_until_ready(self, start: int) -> None:
        assert self.process is not None
        deadline = time.monotonic() + START_SECONDS
        while True:
            said = self.log()[start:]
            assert self.process.poll() is None, f"{self._program} ended with {self.process.returncode}:\n{said}"
            # MySQL says the same of the port of its X protocol, and writes the word "socket" otherwise.
            if "ready for connections" in said and f"port: {self.port}" in said:
                return
            assert time.monotonic() < deadline, f"{self._program} was not ready after {START_SECONDS} s:\n{said}"
            time.sleep(0.02)

    def _as_account(self) -> dict[str, Any]:
        if self._account is None:
            return {}
        return {"user": self._account.pw_uid, "group": self._account.pw_gid, "extra_groups": []}


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDB]:
    """A running server for the whole session; tests want ``mysql_session`` or ``mysql_database`` of it."""
    if program() is None:
        pytest.skip("no mariadbd here (Debian: mariadb-server)")
    with open_folder() as path:
        server = MariaDB(path)
        server.start()
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture
def start_mariadb() -> Iterator[Callable[..., MariaDB]]:
    """Start servers of the test's own, which it may kill: ``start_mariadb(*options)``. About 3 s each."""
    servers: list[MariaDB] = []
    with open_folder() as path:

        def start(*options: str) -> MariaDB:
            place = path / str(len(servers))
            place.mkdir(mode=0o755)
            servers.append(MariaDB(place, *options))
            servers[-1].start()
            return servers[-1]

        yield start
        for server in servers:
            server.kill()


@pytest.fixture
def mysql_database(mariadb: MariaDB) -> Iterator[str]:
    """The name of a fresh database; dropped after the test."""
    with mariadb.database() as name:
        yield name


@pytest.fixture
def mysql_session(mariadb: MariaDB, mysql_database: str) -> Iterator[Any]:
    """A session in the test's database."""
    with mariadb.connect(database=mysql_database) as session:
        yield session
