"""Two PostgreSQL clusters, a primary and its synchronous standby, that can be killed, stopped, cut apart and exchanged.

Strict as a careful operator's: a commit waits for the standby, however long that is away. Only a promoted standby commits alone,
until the old primary has been made its standby anew by pg_basebackup.
"""

from __future__ import annotations

import glob
import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from tests.failover.chaos.programs import end_with_parent
from tests.folders import forget_shared_memory
from tests.ports import free_port
from tests.server.load import query, wait_for

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "wal_level": "replica",
    "max_wal_senders": "8",
    "max_connections": "100",
    "shared_buffers": "64MB",
    "dynamic_shared_memory_type": "mmap",  # in the data folder, which is deleted; else a killed one leaves it in /dev/shm
    "min_wal_size": "32MB",
    "max_wal_size": "160MB",
    "wal_keep_size": "96MB",
    "wal_sender_timeout": "3s",
    "wal_receiver_timeout": "3s",
    "wal_retrieve_retry_interval": "200ms",
    "autovacuum_naptime": "5s",
    "jit": "off",
    "lc_messages": "C",
    "log_line_prefix": "%m [%p] ",
}
START_SECONDS = 60
DATABASE = "chaos"


def programs() -> Path:
    """Return the folder of PostgreSQL's programs, the newest of Debian's or that of PATH."""
    folders = sorted(glob.glob("/usr/lib/postgresql/*/bin"), key=lambda path: float(path.split("/")[4]))
    if folders:
        return Path(folders[-1])
    found = shutil.which("postgres")
    assert found, "PostgreSQL is not installed"
    return Path(found).resolve().parent


def account() -> pwd.struct_passwd:
    """Return the account that PostgreSQL runs as: our own unless that is root, which it refuses."""
    return pwd.getpwnam("postgres") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())


class Cluster:
    """One cluster: a node of the pair. *size*: of a small file system of its own, None for none; see ``is_mounted``."""

    def __init__(self, name: str, folder: Path, size: str | None) -> None:
        self.name = name
        self.port = free_port()
        self.folder = folder
        self._programs = programs()
        self._account = account()
        self._process: subprocess.Popen[bytes] | None = None
        self.upstream_port = 0
        """The link to the other node, which this one follows as a standby."""
        folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "tmpfs", str(folder)]
        self.is_mounted = size is not None and subprocess.run(mount, capture_output=True).returncode == 0
        os.chown(folder, self._account.pw_uid, self._account.pw_gid)
        self.data = folder / "data"
        self.log_path = folder.with_suffix(".log")
        self.log_path.touch()
        os.chown(self.log_path, self._account.pw_uid, self._account.pw_gid)

    @property
    def dsn(self) -> str:
        """Its superuser's way to the database, past the links."""
        return make_conninfo("", host="127.0.0.1", port=self.port, user="postgres", dbname=DATABASE, connect_timeout=5)

    def query(self, sql: str, *parameters: object, database: str = DATABASE) -> list[tuple[Any, ...]]:
        """Run one statement past the links."""
        return query(make_conninfo(self.dsn, dbname=database), sql, *parameters)

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(self._programs / program), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            cwd="/",
            **self._as_account(),
        )
        assert done.returncode == 0, f"{program}: {done.stderr.decode()}"

    def _as_account(self) -> dict[str, Any]:
        if os.geteuid() != 0:
            return {}
        return {"user": self._account.pw_uid, "group": self._account.pw_gid, "extra_groups": []}

    def initialize(self) -> None:
        """Make an empty cluster."""
        self._run("initdb", "-D", str(self.data), "-U", "postgres", "-E", "UTF8", "--locale=C", "--auth=trust")
        with (self.data / "pg_hba.conf").open("a") as rules:
            rules.write("host replication all 127.0.0.1/32 trust\n")

    def copy_upstream(self) -> None:
        """Become a copy of the node it follows, which can start as its standby."""
        forget_shared_memory(self.data)
        shutil.rmtree(self.data, ignore_errors=True)
        self._run(
            "pg_basebackup", "-D", str(self.data), "-X", "stream", "-c", "fast", "-d",
            f"host=127.0.0.1 port={self.upstream_port} user=postgres",
        )  # fmt: skip
        (self.data / "standby.signal").touch()
        self.wait_for_standby(None)

    def wait_for_standby(self, name: str | None) -> None:
        """Let commits wait for the standby of this name; None: for none. A running cluster takes notice."""
        path = self.data / "postgresql.auto.conf"
        path.write_text(f"synchronous_standby_names = '{name or ''}'\n")
        os.chown(path, self._account.pw_uid, self._account.pw_gid)
        if self.is_running():
            assert self._process is not None
            self._process.send_signal(signal.SIGHUP)
            wanted = [(name or "",)]
            wait_for(lambda: self.query("show synchronous_standby_names", database="postgres") == wanted, "the setting", 15)

    def start(self) -> None:
        """Start it and wait until it answers."""
        settings = SETTINGS | {
            "port": str(self.port),
            "unix_socket_directories": str(self.folder),
            "cluster_name": self.name,
            "primary_conninfo": f"host=127.0.0.1 port={self.upstream_port} user=postgres application_name={self.name}",
        }
        command = [str(self._programs / "postgres"), "-D", str(self.data)]
        command += [f"--{name}={value}" for name, value in settings.items()]
        deadline = time.monotonic() + START_SECONDS
        while True:
            with self.log_path.open("ab") as log:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd="/",
                    preexec_fn=end_with_parent,
                    **self._as_account(),
                )
            while self._process.poll() is None:
                try:
                    self.query("select 1", database="postgres")
                    return
                except psycopg.Error:
                    assert time.monotonic() < deadline, f"{self.name} does not start: {self.log_path.read_text()[-2000:]}"
                    time.sleep(0.05)
            # Backends of the killed one may still be ending, and a full disk may be full.
            assert time.monotonic() < deadline, f"{self.name} does not start: {self.log_path.read_text()[-2000:]}"
            time.sleep(0.2)

    def is_running(self) -> bool:
        """Whether its postmaster lives."""
        return self._process is not None and self._process.poll() is None

    def _signal_all(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        for pid in self._children():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue

    def _children(self) -> list[int]:
        """Return the processes of it besides the postmaster; each is in a session of its own."""
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        return [int(pid) for pid in children.read_text().split()] if self.is_running() else []

    def kill(self) -> None:
        """SIGKILL all its processes, as when the machine goes; does nothing when it does not run."""
        if self.is_running():
            assert self._process is not None
            # Stopped first, so that none is born or told of the others' end meanwhile.
            self._signal_all(signal.SIGSTOP)
            children = self._children()
            for pid in children:
                os.kill(pid, signal.SIGKILL)
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        """Stop it as an operator does: what standbys are connected get everything."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()

    def pause(self) -> None:
        """SIGSTOP all its processes."""
        self._signal_all(signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT all its processes."""
        self._signal_all(signal.SIGCONT)

    def fill_disk(self) -> Callable[[], None]:
        """Leave no byte free on its file system; returns what frees it again."""
        ballast = self.folder / "ballast"
        with ballast.open("wb") as file:
            try:
                while True:
                    file.write(bytes(1 << 20))
                    file.flush()
            except OSError:
                pass
        return lambda: ballast.unlink()

    def remove(self) -> None:
        """Kill it and unmount its file system."""
        if self._process is not None:
            self.kill()
        forget_shared_memory(self.data)
        if self.is_mounted:
            subprocess.run(["umount", "--lazy", str(self.folder)], check=False)


class Pair:
    """The two nodes and who is primary."""

    def __init__(self, folder: Path, size: str | None) -> None:
        self.nodes = [Cluster("n1", folder / "n1", size), Cluster("n2", folder / "n2", size)]
        self.primary, self.standby = self.nodes

    def start(self) -> None:
        """Make and start both; the links between them are known."""
        self.primary.initialize()
        self.primary.start()
        self.primary.query(f"create database {DATABASE}", database="postgres")
        self.rejoin()

    def rejoin(self) -> None:
        """Make the other node a standby of the primary, from nothing, and let commits wait for it."""
        self.standby.kill()
        self.standby.copy_upstream()
        self.standby.start()
        self.wait_until_followed()
        self.primary.wait_for_standby(self.standby.name)
        self.primary.query("checkpoint", database="postgres")  # commits wait once the checkpointer has read it
        self.wait_until_followed("sync")

    def wait_until_followed(self, state: str | None = None) -> None:
        """Wait until the standby streams (and counts for commits, with "sync")."""
        wait_for(
            lambda: any(
                state in (None, row[0])
                for row in self.primary.query(
                    "select sync_state from pg_stat_replication where state = 'streaming'", database="postgres"
                )
            ),
            f"{self.standby.name} follows {self.primary.name}",
            60,
        )

    def promote(self) -> None:
        """Make the standby the primary, which waits for none until ``rejoin``. Fencing the old one is the caller's part."""
        self.standby.wait_for_standby(None)
        promoted = self.standby.query("select pg_promote(true, 30)", database="postgres")
        assert promoted == [(True,)], promoted
        self.primary, self.standby = self.standby, self.primary

    def remove(self) -> None:
        """Kill both and unmount their file systems."""
        for node in self.nodes:
            node.remove()
