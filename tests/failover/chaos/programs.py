"""Processes that the harness may kill, stop and start again, and that end with it."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent.parent
_libc = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1
_CLONE_NEWNS = 0x00020000


def end_with_parent() -> None:
    """Be killed when the harness ends, however it ends (prctl(2), PR_SET_PDEATHSIG)."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def hide_mounts() -> bool:
    """Let what is mounted from here on be seen by this process and its children only, and go with them; False: not allowed to."""
    if os.geteuid() != 0 or _libc.unshare(_CLONE_NEWNS):
        return False
    return subprocess.run(["mount", "--make-rprivate", "/"], capture_output=True).returncode == 0


@dataclass
class Program:
    """One process and how it was started."""

    name: str
    command: Sequence[str]
    log_path: Path
    environment: Mapping[str, str]
    user: int | None = None
    process: subprocess.Popen[bytes] = field(init=False)

    def start(self) -> None:
        """Start it, or start it again; its output is appended to its log."""
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env=os.environ | dict(self.environment),
                user=self.user,
                preexec_fn=end_with_parent,
            )

    def log(self) -> str:
        """Return what it has printed, all its starts together."""
        return self.log_path.read_text(errors="replace")

    def kill(self) -> None:
        """SIGKILL, and wait for the end; does nothing once it has ended."""
        self.process.kill()
        self.process.wait()

    def pause(self) -> None:
        """SIGSTOP."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT."""
        self.process.send_signal(signal.SIGCONT)

    def finish(self, seconds: float) -> None:
        """SIGTERM, and wait for the end; killed if it takes longer."""
        self.process.terminate()
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()


def start(
    name: str,
    command: Sequence[str],
    log_path: Path,
    environment: Mapping[str, str] | None = None,
    user: int | None = None,
) -> Program:
    """Start a program, as another user if one is given."""
    program = Program(name, command, log_path, environment or {}, user)
    program.start()
    return program
