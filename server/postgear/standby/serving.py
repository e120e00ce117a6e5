"""The server on the promoted replica: a child process, or one that an earlier process of ours left.

A killed ``postgear standby`` leaves its server at work; the next one finds it by its pid file and goes on with it.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from postgear.config_values import listen, parse_address
from postgear.logs import event

log = logging.getLogger("postgear.standby")

PID_FILE: Final = "serve.pid"
_AGAIN_SECONDS: Final = (0.5, 30.0)
"""After how long a server that ended is started again: at first, and at most."""
_STOP_SECONDS: Final = 30
_LONG_SECONDS: Final = 60
"""A server that ran for so long and ended starts again at once."""


def taken_address(addresses: Sequence[str]) -> str | None:
    """Return the first of the addresses to listen on that somebody has, or that is none of this machine's; None: all are free."""
    for address in listen(" ".join(addresses)) if addresses else ():
        host, port = parse_address(address)
        try:
            socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
        except OSError:
            return address
    return None


class Serving:
    """One `postgear serve` with *arguments*, kept alive."""

    def __init__(self, data_dir: Path, arguments: Sequence[str]) -> None:
        self._pid_file = data_dir / PID_FILE
        self._command = [sys.executable, "-m", "postgear", "serve", *arguments, "--pid-file", str(self._pid_file)]
        self._process: subprocess.Popen[bytes] | None = None
        self._adopted: int | None = None
        self._started_at = 0.0
        self._again_at = 0.0
        self._pause = _AGAIN_SECONDS[0]

    @property
    def is_running(self) -> bool:
        """Whether the process is there."""
        if self._adopted is not None:
            if self._is_ours(self._adopted):
                return True
            self._adopted = None
        return self._process is not None and self._process.poll() is None

    def keep(self, now: float) -> None:
        """Start the server if it does not run; to be called again and again."""
        if self.is_running:
            return
        if self._process is not None:
            event(log, logging.ERROR, "server ended", exit_code=self._process.returncode, again_seconds=self._pause)
            self._process = None
            self._again_at = now + (self._pause if now - self._started_at < _LONG_SECONDS else 0)
            self._pause = min(self._pause * 2, _AGAIN_SECONDS[1]) if now - self._started_at < _LONG_SECONDS else _AGAIN_SECONDS[0]
        if now < self._again_at:
            return
        if (pid := self._left_behind()) is not None:
            self._adopted = pid
            event(log, logging.INFO, "server found", pid=pid)
            return
        self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL)
        self._started_at = now
        event(log, logging.INFO, "server started", pid=self._process.pid)

    def stop(self) -> None:
        """End the server with SIGTERM, as an operator would, and wait; also one that was left behind."""
        pid = self._process.pid if self._process is not None else self._adopted or self._left_behind()
        if pid is None or (self._process is not None and self._process.poll() is not None):
            return
        try:
            os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + _STOP_SECONDS
        while time.monotonic() < deadline:
            if self._process is not None:
                if self._process.poll() is not None:
                    return
            elif not self._is_ours(pid):
                return
            time.sleep(0.05)
        event(log, logging.WARNING, "server killed, it did not end", pid=pid)
        os.kill(pid, signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    def _left_behind(self) -> int | None:
        try:
            pid = int(self._pid_file.read_text())
        except (OSError, ValueError):
            return None
        return pid if self._is_ours(pid) else None

    def _is_ours(self, pid: int) -> bool:
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return False
        return b"serve" in words and str(self._pid_file).encode() in words
