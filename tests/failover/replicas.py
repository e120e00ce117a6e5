"""A primary and a synchronous standby that a test may stop, freeze and promote."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from postgear import schema
from postgear.embedded import _SETTINGS
from tests.server.load import PrivatePostgres, query, wait_for


class Standby:
    """A copy of *primary* that streams from it, in a folder beside the primary's data."""

    def __init__(self, primary: PrivatePostgres, name: str) -> None:
        self.name = name
        self._primary = primary
        primary_data = primary.folder / "postgres"
        self._data = primary.folder / name
        self._programs = self._programs_of(primary_data)
        owner = primary_data.stat()
        self._data.mkdir(mode=0o700)
        os.chown(self._data, owner.st_uid, owner.st_gid)
        self._as_owner = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []} if os.geteuid() == 0 else {}
        parameters = conninfo_to_dict(primary.dsn)
        self._socket = str(parameters["host"])
        self._port = "5433"
        self._run("pg_basebackup", "-D", str(self._data), "-h", self._socket, "-U", "postgres", "-R", "--checkpoint=fast")
        with (self._data / "postgresql.auto.conf").open("a") as conf:
            conninfo = f"host={self._socket} port={parameters.get('port', 5432)} user=postgres application_name={name}"
            conf.write(f"primary_conninfo = '{conninfo}'\n")
        self.dsn = make_conninfo(primary.dsn, port=self._port)
        self.start()

    @staticmethod
    def _programs_of(data: Path) -> Path:
        pid = int((data / "postmaster.pid").read_text().split()[0])
        return Path(os.readlink(f"/proc/{pid}/exe")).parent

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [str(self._programs / program), *arguments],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            **self._as_owner,  # type: ignore[call-overload]
        )

    def start(self) -> None:
        """Start it and wait until it streams."""
        # What the primary was started with must not be less here, as the number of connections.
        settings = {**_SETTINGS, "unix_socket_directories": self._socket, "port": self._port}
        options = " ".join(f"-c {shlex.quote(f'{name}={value}')}" for name, value in settings.items())
        log = self._data / "log.txt"
        try:
            self._run("pg_ctl", "start", "-w", "-D", str(self._data), "-l", str(log), "-o", options)
        except subprocess.CalledProcessError as error:
            raise AssertionError(log.read_text()) from error
        streams = "select count(*)::integer from pg_stat_replication where application_name = %s and state = 'streaming'"
        wait_for(lambda: query(self._primary.dsn, streams, self.name) == [(1,)], "it streams")

    def stop(self) -> None:
        """Stop it."""
        with suppress(subprocess.CalledProcessError):
            self._run("pg_ctl", "stop", "-m", "immediate", "-D", str(self._data))

    def promote(self) -> None:
        """Make it a primary; returns when it takes writes."""
        self._run("pg_ctl", "promote", "-w", "-D", str(self._data))

    def remove(self) -> None:
        """Stop it and delete it."""
        self.stop()
        shutil.rmtree(self._data)


@dataclass
class Hosts:
    """A primary, its standby, and a DSN that names both."""

    old: PrivatePostgres
    new: Standby
    dsn: str

    def set_fence(self, *, is_on: bool) -> None:
        """Let the old primary take no writes in new transactions, or take them again."""
        with psycopg.connect(self.old.dsn, autocommit=True) as connection:
            connection.execute(f"alter system set default_transaction_read_only = {'on' if is_on else 'off'}")
            connection.execute("select pg_reload_conf()")
        is_set = [("on" if is_on else "off",)]
        wait_for(lambda: query(self.old.dsn, "show default_transaction_read_only") == is_set, "it is set")

    def promote(self) -> None:
        """Make the standby, which has got everything, the one primary that takes writes."""
        self.set_fence(is_on=True)
        ((end,),) = query(self.old.dsn, "select pg_current_wal_lsn()::text")
        has_all = "select pg_last_wal_replay_lsn() >= %s::pg_lsn"
        wait_for(lambda: query(self.new.dsn, has_all, end) == [(True,)], "the standby has everything")
        self.new.promote()

    @classmethod
    @contextmanager
    def make(cls) -> Iterator[Self]:
        """Start both, with the schema; at the end delete both."""
        old = PrivatePostgres()
        new = None
        try:
            schema.upgrade(old.dsn, queue="test")
            new = Standby(old, "b")
            ways = [conninfo_to_dict(dsn) for dsn in (old.dsn, new.dsn)]
            both = {name: ",".join(str(way.get(name, 5432)) for way in ways) for name in ("host", "port")}
            yield cls(old, new, make_conninfo(old.dsn, **both))
        finally:
            if new is not None:
                new.stop()
            old.remove()


def set_synchronous(dsn: str, name: str) -> None:
    """Name the standby whose confirmation commits wait for; empty: none."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("set synchronous_commit = local")
        connection.execute(f"alter system set synchronous_standby_names = '{name}'")
        connection.execute("select pg_reload_conf()")
    wait_for(lambda: query(dsn, "show synchronous_standby_names") == [(name,)], "it is configured")
    query(dsn, "checkpoint")  # the checkpointer has read it then: commits wait, or do not any more


def kill(postgres: PrivatePostgres) -> None:
    """The primary's machine dies: all its processes at once."""
    postmaster = int((postgres.folder / "postgres" / "postmaster.pid").read_text().split()[0])
    children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
    for pid in (postmaster, *map(int, children)):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
