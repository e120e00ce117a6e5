"""Clients and workers that go on until something breaks, and a PostgreSQL that may be stopped; for tests of faults.

Like ``bytes``, this knows nothing of the server's own code but the SQL names.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import psycopg

from postgear.embedded import EmbeddedPostgres
from tests.ports import free_port
from tests.server.bytes import Peer, request

PROGRAM = Path(sys.executable).with_name("postgear")


class Address(Protocol):
    """Where a server listens."""

    host: str
    port: int


class Submitter(threading.Thread):
    """A client that pipelines background submits, a burst at a time, until it is told to stop or its connection breaks."""

    def __init__(self, server: Address, function: bytes, burst: int = 50) -> None:
        super().__init__()
        self._peer = Peer(server.host, server.port)
        self._peer.socket.settimeout(60)
        self._function = function
        self._burst = burst
        self._stopping = False
        self.acked: list[bytes] = []
        """The handles that came back."""
        self.sent = 0
        """How many were sent."""
        self.refused: list[bytes] = []
        """The bodies of the ERRORs that came back instead."""

    def run(self) -> None:
        number = 0
        try:
            while not self._stopping:
                numbers = range(number, number + self._burst)
                number = self.sent = number + self._burst
                self._peer.write(b"".join(request("SUBMIT_JOB_BG", self._function, b"", b"%d" % each) for each in numbers))
                for _ in numbers:
                    packet = self._peer.packet()
                    assert packet.name in ("JOB_CREATED", "ERROR"), packet
                    (self.acked if packet.name == "JOB_CREATED" else self.refused).append(packet.body)
        except OSError:
            pass
        finally:
            self._peer.close()

    def stop(self) -> None:
        """Finish the burst and end."""
        self._stopping = True
        self.join(60)
        assert not self.is_alive()


class Runner(threading.Thread):
    """A worker that runs every job it can get, until it is told to stop or its connection breaks."""

    def __init__(self, server: Address, *functions: bytes) -> None:
        super().__init__()
        self._peer = Peer(server.host, server.port)
        self._functions = functions
        self._stopping = False
        self.ran: list[bytes] = []
        """The handles of the jobs it was given."""

    def run(self) -> None:
        peer = self._peer
        try:
            peer.can_do(*self._functions)
            peer.socket.settimeout(0.1)
            peer.send("GRAB_JOB")
            while not self._stopping:
                try:
                    # A packet is never read in parts: the time limit is for its first byte.
                    select.select([peer.socket], [], [], 0.1)
                    if not select.select([peer.socket], [], [], 0)[0]:
                        continue
                    peer.socket.settimeout(10)
                    packet = peer.packet()
                except TimeoutError:
                    continue
                if packet.name == "JOB_ASSIGN":
                    handle = packet.arguments(3)[0]
                    self.ran.append(handle)
                    peer.write(request("WORK_COMPLETE", handle, b"") + request("GRAB_JOB"))
                elif packet.name == "NO_JOB":
                    peer.send("PRE_SLEEP")
                elif packet.name == "NOOP":
                    peer.send("GRAB_JOB")
        except OSError:
            pass
        finally:
            peer.close()

    def stop(self) -> None:
        """End as soon as nothing comes, or before the next grab."""
        self._stopping = True
        self.join(60)
        assert not self.is_alive()


class PrivatePostgres:
    """A PostgreSQL that one test module may stop, break off and start."""

    def __init__(self) -> None:
        # Not pytest's tmp_path: only root may enter that, and PostgreSQL does not run as root.
        self.folder = Path(tempfile.mkdtemp(prefix="postgear-test-"))
        self.folder.chmod(0o755)
        self._postgres = EmbeddedPostgres(self.folder)
        self.dsn = self._postgres.start()

    def start(self) -> None:
        """Start it again; does nothing while it runs."""
        self._postgres.start()

    def stop(self) -> None:
        """Stop it, ending its connections; does nothing when it is stopped."""
        self._postgres.stop()

    def break_off(self) -> None:
        """Stop it as a crash does: no checkpoint, no farewell to its clients."""
        pid = int((self.folder / "postgres" / "postmaster.pid").read_text().split()[0])
        descriptor = os.pidfd_open(pid)
        os.kill(pid, signal.SIGQUIT)
        select.select([descriptor], [], [], 20)
        os.close(descriptor)
        self._postgres.stop()

    def remove(self) -> None:
        """Stop it and remove its folder."""
        self._postgres.stop()
        shutil.rmtree(self.folder)


class UnreadyServer:
    """A server that need not become ready: started without waiting for its ``ready`` line."""

    def __init__(self, *arguments: str, dsn: str, log_path: Path) -> None:
        self.host, self.port = "127.0.0.1", free_port()
        self._log_path = log_path
        command = [str(PROGRAM), "serve", "--dsn", dsn, "--name", "test", "--listen", f"{self.host}:{self.port}", *arguments]
        with log_path.open("wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def log(self) -> str:
        """What it has logged so far."""
        return self._log_path.read_text(errors="replace")

    def listens(self) -> bool:
        """Whether it takes connections."""
        try:
            socket.create_connection((self.host, self.port), timeout=1).close()
        except OSError:
            return False
        return True


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 15.0) -> float:
    """Ask until *condition()* is true; returns the seconds that took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() < started + seconds, f"not after {seconds} s: {what}"
        time.sleep(0.01)
    return time.monotonic() - started


def query(dsn: str, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
    """Run one statement and return its rows."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(sql, parameters)  # type: ignore[arg-type]
        return cursor.fetchall() if cursor.description else []


def stored(dsn: str) -> set[bytes]:
    """Return the handles of all jobs in the database."""
    return {row[0].encode() for row in query(dsn, "select handle from postgear.jobs")}


def count(dsn: str, condition: str = "true") -> int:
    """Return how many jobs in the database meet a condition."""
    return int(query(dsn, f"select count(*) from postgear.job where {condition}")[0][0])


def enqueue(dsn: str, function: bytes, jobs: int, size_bytes: int = 100) -> None:
    """Put many jobs into the database at once."""
    query(
        dsn,
        "insert into postgear.job (function_id, priority, workload)"
        " select postgear.function_id(%s), 1, convert_to(rpad(n::text, %s, '.'), 'UTF8') from generate_series(1, %s) n",
        function,
        size_bytes,
        jobs,
    )


def drain(server: Address, dsn: str, functions: Sequence[bytes], seconds: float = 30.0) -> list[bytes]:
    """Run jobs until none is in the database; returns the handles in the order they were given out."""
    runner = Runner(server, *functions)
    runner.start()
    try:
        wait_for(lambda: count(dsn) == 0, "an empty queue", seconds)
    finally:
        runner.stop()
    return runner.ran


def resident_bytes(pid: int) -> int:
    """Return how much memory a process has."""
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


def open_files(pid: int) -> int:
    """Return how many file descriptors a process has."""
    return len(os.listdir(f"/proc/{pid}/fd"))
