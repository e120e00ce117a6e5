"""Three machines with etcd and Patroni, from the files of ``examples/patroni``: each machine is an address of this one.

The files are taken as they are; only the network's prefix and the folders in them are replaced.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import tomllib
import urllib.request
from pathlib import Path
from typing import Any

import psycopg
import pytest

from postgear import schema

EXAMPLES = Path(__file__).parents[2] / "examples" / "patroni"
PREFIX = "10.0.0."
NAMES = ("a", "b", "c")
PORTS = (2379, 2380, 5432, 8008)
START_SECONDS = 60.0
PROGRAMS = ("patroni", "patronictl", "etcd")


def why_not() -> str | None:
    """Say why no cluster can be made here; None: it can."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    if not Path(_bin_dir()).is_dir():
        return f"the recipe's PostgreSQL is not installed: {_bin_dir()}"
    if os.geteuid() == 0:
        try:
            pwd.getpwnam("postgres")
        except KeyError:
            return "root runs the tests, and there is no account postgres to run PostgreSQL"
    return None


def _bin_dir() -> str:
    lines = (EXAMPLES / "patroni.yml").read_text().splitlines()
    (line,) = [line for line in lines if line.strip().startswith("bin_dir:")]
    return line.split(":")[1].strip()


class Node:
    """One machine: an address, a folder, etcd and Patroni with its PostgreSQL."""

    def __init__(self, folder: Path, prefix: str, number: int) -> None:
        self.name = NAMES[number]
        self.address = f"{prefix}{11 + number}"
        self._prefix = prefix
        self.folder = folder / self.name
        self.folder.mkdir()
        self._own(self.folder)
        (self.folder / "socket").mkdir()
        self._own(self.folder / "socket")
        self.config = self.folder / "patroni.yml"
        self.config.write_text(self._replaced((EXAMPLES / "patroni.yml").read_text()))
        self.environment = self._read_environment("patroni.env")
        self._etcd_environment = self._read_environment("etcd.env")
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def _own(self, path: Path) -> None:
        if os.geteuid() == 0:
            shutil.chown(path, "postgres", "postgres")

    def _replaced(self, text: str) -> str:
        folders = {
            "/var/lib/postgresql/15/postgear": self.folder / "data",
            "/var/lib/postgresql/patroni.pgpass": self.folder / "pgpass",
            "/var/run/postgresql": self.folder / "socket",
            "/var/lib/etcd/postgear": self.folder / "etcd",
            PREFIX: self._prefix,
        }
        for path, ours in folders.items():
            text = text.replace(path, str(ours))
        return text

    def _read_environment(self, name: str) -> dict[str, str]:
        lines = (EXAMPLES / name).read_text().splitlines()
        found = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
        for key, value in found.items():
            if key != "ETCD_INITIAL_CLUSTER":
                value = self.name if key.endswith("_NAME") and value == NAMES[0] else value.replace(f"{PREFIX}11", self.address)
            found[key] = self._replaced(value)
        return found

    def _run(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        as_postgres = "postgres" if os.geteuid() == 0 else None
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("PG", "LC_", "ETCD", "PATRONI"))}
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env={**kept, **environment, "HOME": str(self.folder), "LC_ALL": "C.UTF-8"},
                user=as_postgres,
                group=as_postgres,
                extra_groups=None if as_postgres is None else [],
                start_new_session=True,
            )

    def start_etcd(self) -> None:
        self._run("etcd", [str(shutil.which("etcd"))], self._etcd_environment)

    def start_patroni(self) -> None:
        self._run("patroni", [str(shutil.which("patroni")), str(self.config)], self.environment)

    def log(self, name: str) -> str:
        path = self.folder / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def asks(self, path: str) -> Any:
        """What Patroni's REST API answers; None: nothing."""
        try:
            with urllib.request.urlopen(f"http://{self.address}:8008/{path}", timeout=2) as answer:
                return json.load(answer)
        except (OSError, ValueError):
            return None

    def postmaster(self) -> int | None:
        """The process id of its PostgreSQL."""
        try:
            pid = int((self.folder / "data" / "postmaster.pid").read_text().split()[0])
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError, IndexError):
            return None
        return pid if str(self.folder).encode() in command else None

    def kill_machine(self, *, etcd: bool = True) -> None:
        """End all of its processes at once, as a power cut does."""
        for name, process in self._processes.items():
            if etcd or name != "etcd":
                process.kill()
                process.wait()
        pid = self.postmaster()
        if pid is not None:
            # The children first: a postmaster that is killed leaves them to notice for themselves.
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            os.kill(pid, signal.SIGKILL)
            for child in children:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(child), signal.SIGKILL)


class Cluster:
    """The three machines."""

    def __init__(self) -> None:
        # Not pytest's tmp_path: only root may enter that, and PostgreSQL does not run as root.
        self.folder = Path(tempfile.mkdtemp(prefix="postgear-test-"))
        self.folder.chmod(0o755)
        self.prefix = _free_prefix()
        self.nodes = [Node(self.folder, self.prefix, number) for number in range(len(NAMES))]
        password = self.nodes[0].environment["PATRONI_SUPERUSER_PASSWORD"]
        hosts = ",".join(node.address for node in self.nodes)
        self._dsn = f"host={hosts} user=postgres password={password} target_session_attrs=read-write connect_timeout=3"
        self.owner_dsn = f"{self._dsn} dbname=postgear"

    def start(self) -> None:
        for node in self.nodes:
            node.start_etcd()
        for node in self.nodes:
            node.start_patroni()
        self.wait_for_standbys(len(NAMES) - 1)

    def set_up(self) -> str:
        """Make the queue as the recipe says, and return the DSN of its ``postgear.toml``."""
        with psycopg.connect(self._dsn, dbname="postgres", autocommit=True) as connection:
            connection.execute("create database postgear")
        schema.upgrade(self.owner_dsn, queue="test")
        with psycopg.connect(self.owner_dsn, autocommit=True) as connection:
            connection.execute((EXAMPLES / "setup.sql").read_text())  # type: ignore[arg-type]
        settings = tomllib.loads((EXAMPLES / "postgear.toml").read_text().replace(PREFIX, self.prefix))
        return str(settings["dsn"])

    def members(self) -> list[dict[str, Any]]:
        """Patroni's list of members, from whichever node answers."""
        for node in self.nodes:
            answer = node.asks("cluster")
            if answer is not None:
                return list(answer["members"])
        return []

    def names(self, role: str) -> list[str]:
        """The names of the members that run in a role: leader, sync_standby, replica."""
        return [member["name"] for member in self.members() if member["role"] == role and member["state"] == "running"]

    def leader(self) -> Node | None:
        """The node that Patroni runs as leader."""
        names = self.names("leader")
        return next((node for node in self.nodes if [node.name] == names), None)

    def wait_for_standbys(self, count: int) -> None:
        """Wait until there is a leader, so many standbys stream from it, and one of them is synchronous."""
        deadline = time.monotonic() + START_SECONDS
        states: Any = None
        while time.monotonic() < deadline:
            try:
                with psycopg.connect(self._dsn, dbname="postgres") as connection:
                    rows = connection.execute("select state, sync_state from pg_stat_replication").fetchall()
                states = rows
                roles = [member["role"] for member in self.members()]
                if sum(row[0] == "streaming" for row in rows) >= count and "sync_standby" in roles:
                    return
            except psycopg.OperationalError as error:
                states = error
            time.sleep(0.1)
        raise AssertionError(f"no leader with {count} standbys after {START_SECONDS} s: {states}\n{self.logs()}")

    def switch_over(self, leader: Node, candidate: Node) -> None:
        """Ask for a planned change of leader, as an operator does."""
        command = ["patronictl", "-c", str(leader.config), "switchover", "--force"]
        command += ["--master", leader.name, "--candidate", candidate.name]
        run = subprocess.run(
            command, capture_output=True, text=True, timeout=60, env=os.environ | leader.environment, check=False
        )
        assert "Successfully switched over" in run.stdout, run.stdout + run.stderr + self.logs()

    def logs(self) -> str:
        return "\n".join(
            f"== {node.name} {name}\n{node.log(name)[-3000:]}" for node in self.nodes for name in ("patroni", "etcd")
        )

    def stop(self) -> None:
        """End everything at once and remove the folder."""
        for node in self.nodes:
            node.kill_machine()
        deadline = time.monotonic() + 10
        while any(node.postmaster() for node in self.nodes):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        shutil.rmtree(self.folder)


def _free_prefix() -> str:
    """Return the first three bytes of a loopback network on which nobody has the recipe's ports."""
    for _ in range(20):
        prefix = f"127.{random.randint(1, 250)}.{random.randint(1, 250)}."
        try:
            for number in range(len(NAMES)):
                for port in PORTS:
                    socket.create_server((f"{prefix}{11 + number}", port)).close()
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                pytest.skip(f"no address {prefix}11 here: 127.0.0.0/8 is not the loopback network")
            if error.errno != errno.EADDRINUSE:
                raise
        else:
            return prefix
    pytest.skip(f"one of the ports {PORTS} is taken on all addresses")
