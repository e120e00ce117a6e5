"""Folders that a program run as another account can enter, as PostgreSQL and MariaDB are, which pytest's are not.

Where there is room they are in memory. A run makes and drops thousands of databases, each of hundreds of files, and ext4 makes
a file only after it has looked at every one that was deleted in the last seconds: that took more time than the tests.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_MEMORY: Final = Path("/dev/shm")
_ROOM_BYTES: Final = 6 * 2**30
"""Several times what a whole run has in it at a time."""


def use_memory() -> None:
    """Let this process and those it starts make their folders in memory; pytest's own, which stay after the run, where they were.

    Nothing changes without room, where programs may not run (some are built there), or where TMPDIR says what is wanted.
    """
    if "TMPDIR" in os.environ or not os.access(_MEMORY, os.W_OK):
        return
    filesystem = os.statvfs(_MEMORY)
    may_run = not filesystem.f_flag & os.ST_NOEXEC
    if may_run and min(filesystem.f_bavail * filesystem.f_frsize, _available_bytes()) >= _ROOM_BYTES:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
        os.environ["TMPDIR"] = tempfile.tempdir = str(_MEMORY)


def _available_bytes() -> int:
    """Return how much memory programs can get; the file system's own size may be more than there is."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))


@contextmanager
def open_folder() -> Iterator[Path]:
    """Make a folder that anybody may enter, and delete it with all that is in it."""
    folder = Path(tempfile.mkdtemp(prefix="postgear-test-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def forget_shared_memory(cluster: Path) -> None:
    """Remove the System V segment of a PostgreSQL that was killed: it would stay, and the kernel gives out 4096 of them."""
    with suppress(FileNotFoundError, IndexError):
        segment = (cluster / "postmaster.pid").read_text().splitlines()[6].split()[1]
        subprocess.run(["ipcrm", "--shmem-id", segment], stderr=subprocess.DEVNULL, check=False)
