"""A postgear server as tests see it: a process, an address, a log."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

START_SECONDS = 15
STOP_SECONDS = 15
_PROGRAM = Path(sys.executable).with_name("postgear")


class ServerProcess:
    """``postgear serve`` on a free port of 127.0.0.1, ready when the constructor returns.

    *arguments* go to ``postgear serve`` and win over the defaults. *log_path* takes the server's stderr.
    """

    def __init__(self, *arguments: str, dsn: str, log_path: Path) -> None:
        self.dsn = dsn
        self._log_path = log_path
        command = [str(_PROGRAM), "serve", "--dsn", dsn]
        for name, default in (("--listen", "127.0.0.1:0"), ("--name", "test")):
            if name not in arguments:
                command += [name, default]
        with log_path.open("wb") as log:
            self.process = subprocess.Popen([*command, *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.address = self._wait_for_address()
        """HOST:PORT of the first --listen."""
        self.host, _, port = self.address.rpartition(":")
        self.port = int(port)

    def log(self) -> str:
        """What the server has logged so far."""
        return self._log_path.read_text(errors="replace")

    def wait_for_log(self, pattern: str, seconds: float = START_SECONDS) -> re.Match[str]:
        """Wait until a log line matches *pattern* and return the match."""
        deadline = time.monotonic() + seconds
        while True:
            ended = self.process.poll()
            if match := re.search(pattern, self.log(), re.MULTILINE):
                return match
            assert ended is None, f"the server ended with {ended} before it logged {pattern!r}:\n{self.log()}"
            assert time.monotonic() < deadline, f"no {pattern!r} in the log after {seconds} s:\n{self.log()}"
            time.sleep(0.01)

    def stop(self) -> int:
        """Send SIGTERM, wait for the end and return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_SECONDS)

    def kill(self) -> None:
        """Send SIGKILL and wait for the end."""
        self.process.kill()
        self.process.wait(STOP_SECONDS)

    def _wait_for_address(self) -> str:
        try:
            return self.wait_for_log(r"\bready\b.*\blisten=\"?([^\s,\"]+:\d+)")[1]
        except AssertionError:
            self.kill()
            raise
