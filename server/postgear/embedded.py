"""A PostgreSQL of our own in a data folder, for a first try, tests and small installations.

It is an ordinary cluster, reached by a Unix socket that only its owner can open: no TCP, no password, durable as any.
Not a supervisor: PostgreSQL runs as a daemon, outlives a ``kill -9`` of its starter, and the next ``start`` finds and uses
it. Several processes may use one folder at the same time; the last one to ``stop`` stops it.

In the data folder: ``postgres/`` (the cluster), ``socket/``, ``postgres.log`` and two lock files. How PostgreSQL is found,
started and stopped is in ``postmaster``.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psycopg
from psycopg.conninfo import make_conninfo

from postgear.errors import EmbeddedError
from postgear.postmaster import Postmaster

DATABASE: Final = "postgear"
_SETTINGS: Final = {
    "listen_addresses": "",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "max_wal_size": "2GB",  # a busy queue would else checkpoint by size every few seconds
    "autovacuum_naptime": "10s",  # a queue's tables are all churn
    "jit": "off",  # costs more than it saves for statements of milliseconds
}


class EmbeddedPostgres:
    """A PostgreSQL cluster in *data_dir*, made at the first start. Blocking; every failure is an EmbeddedError."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir.resolve()
        self._postmaster = Postmaster(self._data_dir, self._data_dir / "postgres")
        self._use_lock: int | None = None
        self._dsn: str | None = None

    @property
    def dsn(self) -> str:
        """The libpq DSN of the database "postgear", as superuser. Raises EmbeddedError before ``start``."""
        if self._dsn is None:
            raise EmbeddedError(f"the embedded PostgreSQL in {self._data_dir} is not started")
        return self._dsn

    def start(self) -> str:
        """Start PostgreSQL, or join the one that runs in the folder, and return the DSN when it takes connections."""
        if self._use_lock is not None:
            return self.dsn
        postmaster = self._postmaster
        try:
            postmaster.make_data_dir()
            with self._locked():
                if not postmaster.cluster.exists():
                    self._initialize(postmaster.programs())
                dsn = make_conninfo("", host=str(postmaster.socket_dir()), port=5432, user="postgres")
                postmaster.start(_SETTINGS)
                postmaster.wait_until_ready(dsn)
                self._create_database(dsn)
                self._use_lock = _open_lock(self._data_dir / "use.lock")
                fcntl.flock(self._use_lock, fcntl.LOCK_SH)
        except (OSError, psycopg.Error) as error:
            raise EmbeddedError(f"cannot set up the embedded PostgreSQL in {self._data_dir}: {error}") from error
        self._dsn = make_conninfo(dsn, dbname=DATABASE)
        return self._dsn

    def stop(self) -> None:
        """Stop PostgreSQL, ending its connections, unless another process uses it too. Does nothing when not started."""
        if self._use_lock is None:
            return
        with self._locked():
            try:
                fcntl.flock(self._use_lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                last = True
            except BlockingIOError:
                last = False
            os.close(self._use_lock)
            self._use_lock = self._dsn = None
            if last:
                self._postmaster.stop()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other processes from starting or stopping this cluster meanwhile."""
        lock = _open_lock(self._data_dir / "start.lock")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _initialize(self, programs: Path) -> None:
        """Make the cluster aside and rename it: a cluster that exists is complete."""
        unfinished = self._data_dir / "postgres.unfinished"
        if unfinished.exists():
            shutil.rmtree(unfinished)
        unfinished.mkdir(mode=0o700)
        self._postmaster.own(unfinished)
        options = ["-U", "postgres", "-E", "UTF8", "--locale=C", "--auth-local=trust", "--auth-host=reject"]
        self._postmaster.run([str(programs / "initdb"), "-D", str(unfinished), *options])
        unfinished.rename(self._postmaster.cluster)

    def _create_database(self, dsn: str) -> None:
        with psycopg.connect(dsn, dbname="postgres", autocommit=True) as connection:
            if not connection.execute("select 1 from pg_database where datname = %s", (DATABASE,)).fetchone():
                connection.execute(f"create database {DATABASE}")


def _open_lock(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
