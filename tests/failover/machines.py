"""Two machines on one: folders, ports and processes of a primary and of a standby, and a network between them that can be cut.

A machine that dies is SIGKILL to all its processes, a frozen one SIGSTOP, a cut network is one that swallows what it gets.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo

from postgear import schema
from postgear.postmaster import Postmaster
from tests.folders import forget_shared_memory
from tests.ports import free_port

PROGRAM = Path(sys.executable).with_name("postgear")
NAME = "postgear_b"
SECONDS = 20.0
"""How long a test waits for what must come."""


class Primary:
    """A PostgreSQL that somebody else set up, in a folder of its own, reached by TCP."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self.postmaster = Postmaster(folder, folder / "postgres", port)
        self.dsn = make_conninfo("", host="127.0.0.1", port=port, user="postgres", dbname="postgear")

    @classmethod
    def make(cls, folder: Path) -> Primary:
        """Make one with the schema, stopped; to be copied."""
        primary = cls(folder, free_port())
        postmaster = primary.postmaster
        postmaster.make_data_dir()
        cluster = postmaster.cluster
        cluster.mkdir(mode=0o700)
        postmaster.own(cluster)
        programs = postmaster.find(None)
        options = [
            "-U",
            "postgres",
            "-E",
            "UTF8",
            "--locale=C",
            "--auth-local=trust",
            "--auth-host=trust",
            "--no-sync",
            "--wal-segsize=1",
        ]
        postmaster.run([str(programs / "initdb"), "-D", str(cluster), *options])
        with (cluster / "postgresql.conf").open("a") as conf:
            # A machine here dies by SIGKILL of its processes, which takes no page from the kernel: fsync would only cost time.
            conf.write("fsync = off\nwal_log_hints = on\nshared_buffers = 32MB\n")
            # Else what is killed and never started again leaves a megabyte in /dev/shm.
            conf.write("dynamic_shared_memory_type = mmap\n")
        primary.start()
        with psycopg.connect(primary.dsn, dbname="postgres", autocommit=True) as connection:
            connection.execute("create database postgear")
        schema.upgrade(primary.dsn, queue="test")
        primary.stop()
        return primary

    def copy(self, folder: Path) -> Primary:
        """Make another like it."""
        other = Primary(folder, free_port())
        subprocess.run(["cp", "-a", self.folder, folder], check=True)
        return other

    def start(self, **settings: str) -> None:
        """Start it as its administrator would."""
        self.postmaster.start({"listen_addresses": "127.0.0.1", "port": str(self.port), **settings})

    def stop(self) -> None:
        """Stop it as its administrator would."""
        self.postmaster.stop()

    def kill(self) -> None:
        """The machine dies."""
        kill_postgres(self.postmaster.cluster)

    def freeze(self) -> None:
        """The machine hangs: nothing runs, connections stay."""
        for pid in postgres_pids(self.postmaster.cluster):
            os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on as if nothing had been."""
        for pid in postgres_pids(self.postmaster.cluster):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def postgres_pids(cluster: Path) -> list[int]:
    """Return the processes of a cluster, the postmaster first."""
    try:
        postmaster = int((cluster / "postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
    except (FileNotFoundError, IndexError, ValueError):
        return []
    return [postmaster, *map(int, children)]


def kill_postgres(cluster: Path) -> None:
    """Kill all processes of a cluster, and wait until they have ended."""
    waits = []
    for pid in postgres_pids(cluster):
        with suppress(ProcessLookupError):
            waits.append(os.pidfd_open(pid))
            os.kill(pid, signal.SIGKILL)
    for descriptor in waits:
        select.select([descriptor], [], [], 10)
        os.close(descriptor)


class Network:
    """A way to 127.0.0.1:*port* that can be cut: what is sent is swallowed then, and nobody is told."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._is_cut = False
        self._sockets: list[socket.socket] = []
        self._listen(0)
        self.port = int(self._listener.getsockname()[1])

    def cut(self) -> None:
        """Swallow everything from here on."""
        self._is_cut = True

    def refuse(self) -> None:
        """Swallow everything from here on, and take no new connections."""
        self.cut()
        self._close_listener()

    def heal(self) -> None:
        """Connections of before are gone, new ones work."""
        self._end_all()
        self._is_cut = False
        if self._listener.fileno() < 0:
            self._listen(self.port)

    def close(self) -> None:
        """End it."""
        self._close_listener()
        self._end_all()

    def _listen(self, port: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _close_listener(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept(), which a close would not
        self._listener.close()

    def _end_all(self) -> None:
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self._sockets.clear()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            self._sockets.append(near)
            if self._is_cut:
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self._to), timeout=5)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            self._sockets.append(far)
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._forward, args=(source, sink), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if not self._is_cut:
                    sink.sendall(data)
        if not self._is_cut:
            for end in (source, sink):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)


class Standby:
    """``postgear standby`` with a folder of its own; started by ``start``."""

    def __init__(self, folder: Path, primary: str, *, name: str = NAME, postgres_port: int = 0) -> None:
        self.folder = folder
        self.primary = primary
        self.name = name
        self.cluster = folder / "postgres"
        self.postgres_port = postgres_port or free_port()
        self.host, self.port = "127.0.0.1", free_port()
        self.dsn = make_conninfo("", host="127.0.0.1", port=self.postgres_port, user="postgres", dbname="postgear")
        self._process: subprocess.Popen[bytes] | None = None
        self._log_path = folder.with_name(folder.name + ".log")
        self._from = 0

    def options(self) -> list[str]:
        """Return what every start says."""
        return [
            *("--primary", self.primary, "--data-dir", str(self.folder), "--standby-name", self.name),
            *("--postgres-listen", f"127.0.0.1:{self.postgres_port}", "--listen", f"{self.host}:{self.port}"),
        ]

    def start(self, *arguments: str, command: str = "standby", until: str = "standby ready") -> None:
        """Start the process and wait for a line of its log."""
        self._from = len(self.log())
        with self._log_path.open("ab") as log:
            words = [str(PROGRAM), command, *self.options(), *arguments]
            self._process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.wait_for_log(until)

    def log(self) -> str:
        """What all its processes have logged."""
        return self._log_path.read_text(errors="replace") if self._log_path.exists() else ""

    def said(self) -> str:
        """What was logged since the last start."""
        return self.log()[self._from :]

    def wait_for_log(self, pattern: str, seconds: float = SECONDS) -> re.Match[str]:
        """Wait until a line since the last start matches."""
        deadline = time.monotonic() + seconds
        while not (found := re.search(pattern, self.said(), re.MULTILINE)):
            assert self._process is not None
            ended = self._process.poll()
            assert ended is None, f"it ended with {ended} before it logged {pattern!r}:\n{self.said()}"
            assert time.monotonic() < deadline, f"no {pattern!r} in the log after {seconds} s:\n{self.said()}"
            time.sleep(0.01)
        return found

    def wait(self) -> int:
        """Wait for the end of the process."""
        assert self._process is not None
        return self._process.wait(SECONDS)

    def stop(self) -> int:
        """SIGTERM."""
        assert self._process is not None
        self._process.terminate()
        return self.wait()

    def kill(self) -> None:
        """SIGKILL to the process alone; its PostgreSQL and server go on."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(SECONDS)

    def kill_machine(self) -> None:
        """Everything on it dies."""
        if self._process is not None and self._process.poll() is None:
            self.kill()
        with suppress(OSError, ValueError):
            os.kill(int((self.folder / "serve.pid").read_text()), signal.SIGKILL)
        kill_postgres(self.cluster)

    def run(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the administrator's."""
        words = [str(PROGRAM), command, "--data-dir", str(self.folder), *arguments]
        return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)


def remove(folder: Path) -> None:
    """Delete a folder that processes may have used until just now."""
    for cluster in folder.glob("*/postgres"):
        forget_shared_memory(cluster)
    shutil.rmtree(folder, ignore_errors=True)
