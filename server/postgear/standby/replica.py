"""The PostgreSQL on this machine: its files, its start and stop, questions to it. Blocking.

In the data folder: ``postgres/`` (the cluster; a link, where an old primary's own folder is used), ``socket/``, ``postgres.log``,
``pg_hba.conf``, ``standby.json`` (``state``), lock files.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg.conninfo import make_conninfo

from postgear.config_values import parse_address
from postgear.errors import EmbeddedError, StandbyError
from postgear.postmaster import Postmaster
from postgear.standby.state import State, sync_folder

CONNECT_SECONDS: Final = 3
RECEIVER_TIMEOUT_SECONDS: Final = 4
"""After half of it without a word the replica asks the primary for one: the replication connection is a path of its own."""

_SETTINGS: Final = {
    "hot_standby": "on",
    "wal_log_hints": "on",  # or pg_rewind could not bring it back once it has been a primary
    "wal_receiver_timeout": f"{RECEIVER_TIMEOUT_SECONDS}s",
    "wal_receiver_status_interval": "1s",
    "wal_retrieve_retry_interval": "500ms",
    "logging_collector": "off",
    "archive_mode": "off",
}
KEEPALIVE: Final[dict[str, Any]] = {
    "connect_timeout": CONNECT_SECONDS,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 5000,
}
_OURS: Final = re.compile(
    r"\s*(primary_conninfo|primary_slot_name|synchronous_standby_names|recovery_target\w*|restore_command|listen_addresses|port)\b"
)
"""The settings of postgresql.auto.conf that a base backup or pg_rewind brings from the primary and that are not true here."""


class Replica:
    """The PostgreSQL of a data folder. Every failure is a StandbyError."""

    def __init__(self, data_dir: Path, listen: str) -> None:
        self.data_dir = data_dir.resolve()
        host, self.port = "*", 5432
        try:
            host, self.port = parse_address(listen)
        except ValueError:
            raise StandbyError(f"{listen!r} is no HOST:PORT for PostgreSQL to listen on") from None
        self._host = host
        self.postmaster = Postmaster(self.data_dir, self.data_dir / "postgres", self.port)
        self.cluster = self.postmaster.cluster
        self._lock: int | None = None

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn the errors of PostgreSQL's programs, of files and of psycopg into a StandbyError."""
        try:
            yield
        except EmbeddedError as error:
            raise StandbyError(str(error)) from error
        except (OSError, psycopg.Error) as error:
            raise StandbyError(f"the PostgreSQL in {self.data_dir}: {str(error).strip()}") from error

    def lock(self) -> None:
        """Make sure that no other process of ours uses the folder, until this one ends. Raises StandbyError if one does."""
        with self.errors():
            self.postmaster.make_data_dir()
            descriptor = os.open(self.data_dir / "standby.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise StandbyError(f"another `postgear standby` or `postgear rejoin` uses {self.data_dir}") from None
        self._lock = descriptor

    def dsn(self, state: State) -> str:
        """Return the DSN of the queue's database over the socket, as superuser."""
        with self.errors():
            folder = self.postmaster.socket_dir()
        return make_conninfo("", host=str(folder), port=self.port, user=state.superuser, dbname=state.database)

    def is_running(self) -> bool:
        """Whether the postmaster lives."""
        with self.errors():
            return self.postmaster.is_running()

    def start(self) -> None:
        """Start PostgreSQL unless it runs; returns when it takes connections."""
        with self.errors():
            self.postmaster.make_data_dir()
            listen = {"listen_addresses": self._host, "port": str(self.port), "hba_file": str(self.data_dir / "pg_hba.conf")}
            self.postmaster.start(_SETTINGS | listen)

    def stop(self, mode: str = "fast") -> None:
        """Stop PostgreSQL if it runs."""
        with self.errors():
            self.postmaster.stop(mode)

    def is_in_recovery(self, state: State) -> bool:
        """Whether it is a replica still."""
        with self.connect(state) as connection:
            row = connection.execute("select pg_is_in_recovery()").fetchone()
            return bool(row and row[0])

    @contextmanager
    def connect(self, state: State) -> Iterator[psycopg.Connection]:
        """Connect as superuser; each statement is a transaction of its own."""
        with (
            self.errors(),
            contextlib.closing(psycopg.connect(self.dsn(state), autocommit=True, connect_timeout=CONNECT_SECONDS)) as connection,
        ):
            yield connection

    # -- files ---------------------------------------------------------------------------------------------------

    def is_standby(self) -> bool:
        """Whether it would start as a replica."""
        return (self.cluster / "standby.signal").exists()

    def configure(self, primary: str, state: State, cluster: Path | None = None) -> None:
        """Let the cluster, which is stopped, follow *primary* from its next start on. *cluster*: where it is, if elsewhere."""
        cluster = cluster or self.cluster
        conninfo = make_conninfo(primary, **KEEPALIVE, application_name=state.name)
        settings = {"primary_conninfo": conninfo, "primary_slot_name": state.name, "synchronous_standby_names": ""}
        with self.errors():
            path = cluster / "postgresql.auto.conf"
            lines = [line for line in path.read_text().splitlines() if not _OURS.match(line)] if path.exists() else []
            lines += [f"{name} = {quoted(value)}" for name, value in settings.items()]
            self.write(path, "\n".join(lines) + "\n")
            self.write(cluster / "standby.signal", "")
            (cluster / "recovery.signal").unlink(missing_ok=True)
            sync_folder(cluster)

    def never_follow(self) -> None:
        """See to it that the cluster, which is stopped, starts as a primary."""
        with self.errors():
            for name in ("standby.signal", "recovery.signal"):
                (self.cluster / name).unlink(missing_ok=True)
            sync_folder(self.cluster)

    def write_hba(self, rules: str) -> None:
        """Make ``pg_hba.conf`` unless it is there: *rules* are those of the primary, after ours for the private socket."""
        path = self.data_dir / "pg_hba.conf"
        if not path.exists():
            ours = "# The socket's folder lets nobody else in.\nlocal all all trust\nlocal replication all trust\n\n"
            with self.errors():
                self.write(path, f"{ours}# As on the primary when this standby was made.\n{rules}")

    def write(self, path: Path, text: str) -> None:
        """Write a file of PostgreSQL's account, on disk when this returns."""
        unfinished = path.with_name(path.name + ".unfinished")
        with open(unfinished, "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        self.postmaster.own(unfinished)
        unfinished.rename(path)

    def control(self) -> Mapping[str, str]:
        """Return what pg_controldata says of the cluster."""
        with self.errors():
            programs = self.postmaster.programs("pg_controldata")
            said = self.postmaster.run([str(programs / "pg_controldata"), "-D", str(self.cluster)])
        pairs = (line.partition(":")[::2] for line in said.splitlines())
        return {name.strip(): value.strip() for name, value in pairs}

    def log_end(self) -> str:
        """Return the last line of PostgreSQL's log that tells of something wrong."""
        try:
            with self.postmaster.log.open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - 8192))
                lines = log.read().decode(errors="replace").splitlines()
        except OSError:
            return ""
        wrong = [line for line in lines if re.search(r"\b(FATAL|PANIC|ERROR):", line)]
        return wrong[-1] if wrong else ""

    def wait_until(self, state: State, sql: str, seconds: float) -> bool:
        """Ask until *sql* gives true; False: not in time."""
        deadline = time.monotonic() + seconds
        with self.connect(state) as connection:
            while True:
                row = connection.execute(sql.encode()).fetchone()
                if row and row[0]:
                    return True
                if time.monotonic() > deadline:
                    return False
                time.sleep(0.05)


def quoted(value: str) -> str:
    """Write a value as PostgreSQL's configuration files want it."""
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"
