"""Folders watched for changed Python files, by looking at them twice a second: it works in containers and on network folders."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Final

LOOK_SECONDS: Final = 0.5
"""How long to wait between two looks."""
_SKIPPED: Final = frozenset(("__pycache__", "node_modules", "site-packages"))


class Watch:
    """The Python files below some folders, as they were when it was made or last looked at."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders
        self._seen = self._find()
        self._changed: str | None = None

    def look(self) -> str | None:
        """Return the path of a file that has changed, come or gone, once nothing changes any more; None if there is none."""
        found = self._find()
        different = found.items() ^ self._seen.items()
        self._seen = found
        if different:
            self._changed = min(path for path, _ in different)
            return None
        changed, self._changed = self._changed, None
        return changed

    def _find(self) -> dict[str, tuple[int, int]]:
        return {path: state for folder in self._folders for path, state in _python_files(str(folder))}


def folders_of(module_name: str) -> list[Path]:
    """Return the folders that hold a module's code: the current one, and the package's where that is elsewhere."""
    here = Path.cwd()
    if module_name.endswith(".py"):
        return [Path(module_name).resolve().parent]
    package = PathFinder.find_spec(module_name.partition(".")[0], [str(here), *sys.path])
    places = [Path(place).resolve() for place in (package.submodule_search_locations if package else None) or ()]
    return [here, *(place for place in places if not place.is_relative_to(here))]


def _python_files(folder: str) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield each file and what changes with its content; folders of environments and hidden ones are left out."""
    try:
        entries = list(os.scandir(folder))
    except OSError:  # gone, or not ours to read
        return
    if any(entry.name == "pyvenv.cfg" for entry in entries):
        return
    for entry in entries:
        if entry.name.startswith(".") or entry.name in _SKIPPED:
            continue
        try:
            if entry.is_dir(follow_symlinks=False):
                yield from _python_files(entry.path)
            elif entry.name.endswith(".py"):
                state = entry.stat()
                yield entry.path, (state.st_mtime_ns, state.st_size)
        except OSError:  # gone meanwhile
            continue
