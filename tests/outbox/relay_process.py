"""``postgear relay`` as tests see it: a process and a log."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

WAIT_SECONDS = 20.0
PROGRAM = Path(sys.executable).with_name("postgear")


class RelayProcess:
    """A started ``postgear relay``."""

    def __init__(self, *arguments: str, url: str, dsn: str, log_path: Path) -> None:
        self._log_path = log_path
        words = [str(PROGRAM), "relay", "--mysql", url, "--dsn", dsn, *arguments]
        with log_path.open("wb") as log:
            self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def log(self) -> str:
        """What it has logged so far."""
        return self._log_path.read_text(errors="replace")

    def wait_for_log(self, pattern: str) -> None:
        """Wait until a line of the log matches *pattern*."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not re.search(pattern, self.log()):
            assert time.monotonic() < deadline, f"no {pattern!r} in the log:\n{self.log()}"
            time.sleep(0.01)

    def end(self) -> int:
        """Send SIGTERM, wait for the end and return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(WAIT_SECONDS)

    def kill(self) -> None:
        """Send SIGKILL and wait for the end."""
        self.process.kill()
        self.process.wait(WAIT_SECONDS)
