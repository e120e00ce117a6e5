"""Folders that a program run as another account can enter, as PostgreSQL and MariaDB are, which pytest's are not."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def open_folder() -> Iterator[Path]:
    """Make a folder that anybody may enter, and delete it with all that is in it."""
    folder = Path(tempfile.mkdtemp(prefix="postgear-test-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
