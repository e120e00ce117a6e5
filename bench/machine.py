"""What the figures were measured on and with: machine, versions, commit."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

from . import contestants, peers
from .contestants import ROOT


def facts(data_folder: Path) -> dict[str, object]:
    """Describe the machine; *data_folder* is where the cluster's files are. Names no host, user or path."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", platform.system()),
        "file_system": _output("stat", "--file-system", "--format=%T", str(data_folder)),
        "load_average_at_start": os.getloadavg()[0],
    }


def versions() -> dict[str, str]:
    """Return the versions of everything that may take part, except PostgreSQL's, which is among its settings."""
    found = contestants.versions() | peers.versions()
    found["libgearman"] = _libgearman_version()
    found["python"] = platform.python_version()
    found["psycopg"] = importlib.metadata.version("psycopg")
    return found


def commit() -> str:
    """Return the commit of the tree, with a `+` if files that are tracked differ from it."""
    head = _output("git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD")
    changed = _output("git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no")
    return head + ("+" if changed else "")


def _libgearman_version() -> str:
    library = ctypes.CDLL("libgearman.so.8")
    library.gearman_version.restype = ctypes.c_char_p
    return str(library.gearman_version().decode())


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(": ")[2]
    return platform.machine()


def _output(*command: str) -> str:
    """Return what a command prints; empty if it cannot be run."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10).stdout.strip()
    except FileNotFoundError:
        return ""
