"""PostgreSQL for the measurements: a cluster of its own with default settings, and an empty database for each one."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from .process import BenchError, child, free_port, parent, tail, wait_until

_BINARIES: Final = Path("/usr/lib/postgresql")  # Debian's place; they are not in PATH
_UNPRIVILEGED: Final = "postgres"  # who runs the cluster when the harness is root, whom PostgreSQL refuses
_START_TIMEOUT_SECONDS: Final = 30.0
_STATEMENT_TIMEOUT_SECONDS: Final = 60


class Cluster:
    """A running PostgreSQL on this host, as seen by a superuser.

    dsn: names its maintenance database.
    """

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._numbers = itertools.count(1)
        with self.connect() as connection:
            self.postmaster_pid = parent(connection.info.backend_pid)

    def connect(self, dsn: str | None = None) -> psycopg.Connection[tuple[object, ...]]:
        """Return an autocommit connection to *dsn*, by default the maintenance database."""
        options = f"-c statement_timeout={_STATEMENT_TIMEOUT_SECONDS}s"
        return psycopg.connect(dsn or self._dsn, autocommit=True, connect_timeout=10, options=options)

    @contextlib.contextmanager
    def database(self) -> Iterator[str]:
        """Create a database, give its DSN, drop it. A checkpoint comes first: nobody pays for what was before."""
        name = f"postgear_bench_{os.getpid()}_{next(self._numbers)}"
        with self.connect() as connection:
            connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
            connection.execute("checkpoint")
        try:
            yield make_conninfo(self._dsn, dbname=name)
        finally:
            with self.connect() as connection:
                connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))

    def settings(self) -> dict[str, str]:
        """Return the settings that decide the figures, and every one that is not at its default."""
        with self.connect() as connection:
            rows = connection.execute(
                """
                select name, current_setting(name) from pg_settings
                where name in ('server_version', 'fsync', 'synchronous_commit', 'wal_sync_method', 'full_page_writes',
                               'wal_level', 'shared_buffers', 'max_wal_size', 'autovacuum', 'ssl')
                   or (source in ('configuration file', 'command line')
                       and name not in ('port', 'unix_socket_directories', 'data_directory'))
                order by name
                """
            ).fetchall()
        return {str(name): str(value) for name, value in rows}


@contextlib.contextmanager
def temporary_cluster(folder: Path) -> Iterator[Cluster]:
    """Make and run a cluster below *folder*, with initdb's settings and locale C.UTF-8, by TCP on 127.0.0.1 only."""
    user = _UNPRIVILEGED if os.geteuid() == 0 else None
    data = folder / "cluster"
    data.mkdir(mode=0o700)
    if user is not None:
        folder.chmod(0o711)
        shutil.chown(data, user, user)
    log = folder / "postgres.log"
    initdb = [binary("initdb"), "--pgdata", str(data), "--username", "postgres", "--auth", "trust"]
    initdb += ["--encoding", "UTF8", "--locale", "C.UTF-8"]
    with child(initdb, log, user=user) as process:
        if process.wait(_START_TIMEOUT_SECONDS) != 0:
            raise BenchError(f"initdb failed: {tail(log)}")
    port = free_port()
    postgres = [binary("postgres"), "-D", str(data), "-p", str(port)]
    postgres += ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]
    with child(postgres, log, user=user, stop_signal=signal.SIGINT) as process:
        dsn = f"host=127.0.0.1 port={port} user=postgres dbname=postgres"
        wait_until(
            lambda: _answers(dsn),
            f"start of PostgreSQL ({tail(log)})",
            timeout_seconds=_START_TIMEOUT_SECONDS,
            process=process,
        )
        yield Cluster(dsn)


def _answers(dsn: str) -> bool:
    try:
        psycopg.connect(dsn, connect_timeout=5).close()
    except psycopg.OperationalError:
        return False
    return True


def binary(name: str) -> str:
    """Return the path of a PostgreSQL program: from PATH, else the newest below Debian's folder."""
    found = shutil.which(name)
    if found is not None:
        return found
    versions = sorted(_BINARIES.glob(f"*/bin/{name}"), key=lambda path: float(path.parts[-3]))
    if not versions:
        raise BenchError(f"no {name} in PATH or {_BINARIES}")
    return str(versions[-1])
