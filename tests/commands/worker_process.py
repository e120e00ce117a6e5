"""``postgear worker`` as tests see it: a process, its children, a log."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

WAIT_SECONDS = 20.0
PROGRAM = Path(sys.executable).with_name("postgear")


class WorkerProcess:
    """A started ``postgear worker``; *folder* is where it runs. Not yet ready when the constructor returns."""

    def __init__(
        self,
        *arguments: str,
        folder: Path,
        log_path: Path,
        environment: Mapping[str, str] | None = None,
        command: str | None = None,
    ) -> None:
        self._log_path = log_path
        words = [command] if command else [str(PROGRAM), "worker"]
        with log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [*words, *arguments],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **(environment or {})},
            )

    def log(self) -> str:
        """What it and its children have logged so far."""
        return self._log_path.read_text(errors="replace")

    def wait_for_log(self, pattern: str, count: int = 1) -> list[str]:
        """Wait until *pattern* was logged *count* times; return its matches (of the group, if there is one)."""
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            found = re.findall(pattern, self.log(), re.MULTILINE)
            if len(found) >= count:
                return found
            assert time.monotonic() < deadline, f"no {pattern!r} in the log:\n{self.log()}"
            time.sleep(0.01)

    def children(self) -> list[int]:
        """The processes that became ready and have not ended, the oldest first."""
        ready = [int(pid) for pid in re.findall(r"process ready process=(\d+)", self.log())]
        return [pid for pid in ready if is_alive(pid)]

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        self.send(number)
        return self.process.wait(WAIT_SECONDS)

    def clean_up(self) -> None:
        """Kill all that is left."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for pid in self.children():
            os.killpg(pid, signal.SIGKILL)


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"
