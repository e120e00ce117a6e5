"""Child processes: start them in sessions of their own, look at them in /proc, and end them without fail."""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")


class BenchError(Exception):
    """A measurement cannot go on; the message says why."""


@contextlib.contextmanager
def child(
    command: Sequence[str],
    log: Path,
    *,
    pipes: bool = False,
    user: str | None = None,
    stop_signal: int = signal.SIGTERM,
    grace_seconds: float = 10.0,
    environment: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run *command* for the time of the block; its output is appended to *log*.

    pipes: stdin and stdout are pipes instead of nothing and the log.
    user: the user to become, which needs root. On leaving, the process gets *stop_signal* and, after *grace_seconds*,
    its whole group gets SIGKILL. environment: added to this process's. A session of its own keeps the terminal's Ctrl-C from it.
    """
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
            stdout=subprocess.PIPE if pipes else output,
            stderr=output,
            start_new_session=True,
            env=None if environment is None else {**os.environ, **environment},
            user=user,
            group=pwd.getpwnam(user).pw_gid if user else None,
            extra_groups=[] if user else None,
        )
    try:
        yield process
    finally:
        _end(process, stop_signal, grace_seconds)


def _end(process: subprocess.Popen[bytes], stop_signal: int, grace_seconds: float) -> None:
    if process.poll() is None:
        process.send_signal(stop_signal)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace_seconds)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(grace_seconds)
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def wait_until(
    condition: Callable[[], bool],
    what: str,
    *,
    timeout_seconds: float,
    interval_seconds: float = 0.02,
    process: subprocess.Popen[bytes] | None = None,
) -> None:
    """Poll until *condition* is true. Raises BenchError after *timeout_seconds* or as soon as *process* has ended."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if process is not None and process.poll() is not None:
            raise BenchError(f"{what}: the process ended with status {process.returncode}")
        if time.monotonic() > deadline:
            raise BenchError(f"{what}: not within {timeout_seconds:g} s")
        time.sleep(interval_seconds)


def free_port() -> int:
    """Return a TCP port on 127.0.0.1 that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def resident_bytes(pid: int) -> int:
    """Return the resident memory of one process, without its children."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of one process and of its children that have ended."""
    return _stat(pid)[1]


def parent(pid: int) -> int:
    """Return the process id of the parent."""
    return _stat(pid)[0]


def tree_cpu_seconds(root: int) -> float:
    """Return the CPU time of *root* and of its children, living and ended. PostgreSQL has no grandchildren."""
    total = cpu_seconds(root)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                parent_pid, seconds = _stat(int(entry.name))
                total += seconds if parent_pid == root else 0.0
    return total


def _stat(pid: int) -> tuple[int, float]:
    """Return the parent and the CPU seconds with those of ended children: proc(5), stat, fields 4, 14–17."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return int(fields[1]), sum(map(int, fields[11:15])) / _TICKS_PER_SECOND


def tail(log: Path, lines: int = 5) -> str:
    """Return the last lines of a log, to be put into an error message."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else ""
