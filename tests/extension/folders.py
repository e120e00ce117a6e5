"""Folders that a program run as PostgreSQL's account can enter, which pytest's are not."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def postgres_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="postgear-test-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
