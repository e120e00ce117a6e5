"""A PostgreSQL with the extension in it that touches no system folder: copies of Debian's programs in a tree of their own.

PostgreSQL finds its share folder relative to its programs, so that ``make install DESTDIR=tree`` is all it takes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from postgear.embedded import EmbeddedPostgres

ROOT = Path(__file__).parent.parent.parent
SOURCE = ROOT / "pg_extension"
PROGRAMS = ("initdb", "pg_ctl", "postgres", "psql", "pg_dump", "pg_basebackup")


def pg_config() -> str | None:
    """Return the pg_config of the newest Debian PostgreSQL that has PL/Python and PGXS; None: there is none."""
    for folder in sorted(Path("/usr/lib/postgresql").glob("*"), key=lambda path: -float(path.name)):
        extensions = Path("/usr/share/postgresql") / folder.name / "extension"
        if (extensions / "plpython3u.control").exists() and (folder / "lib/pgxs/src/makefiles/pgxs.mk").exists():
            return str(folder / "bin/pg_config")
    return None


def make(config: str, *arguments: str, **environment: str) -> str:
    """Run make in pg_extension/ and return what it printed; fails with that."""
    command = ["make", "-C", str(SOURCE), f"PG_CONFIG={config}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def plant(tree: Path, config: str) -> Path:
    """Copy PostgreSQL into *tree*, install the extension there, return the folder of the programs."""
    bin_dir, share_dir, lib_dir = (
        Path(subprocess.run([config, option], capture_output=True, text=True, check=True).stdout.strip())
        for option in ("--bindir", "--sharedir", "--pkglibdir")
    )
    here = {path: Path(f"{tree}{path}") for path in (bin_dir, share_dir, lib_dir)}
    here[bin_dir].mkdir(parents=True)
    for program in PROGRAMS:
        shutil.copy2(bin_dir / program, here[bin_dir] / program)
    here[lib_dir].symlink_to(lib_dir)
    here[share_dir].mkdir(parents=True)
    for path in share_dir.iterdir():
        if path.name != "extension":
            (here[share_dir] / path.name).symlink_to(path)
    shutil.copytree(share_dir / "extension", here[share_dir] / "extension")
    make(config)
    make(config, "install", f"DESTDIR={tree}")
    return here[bin_dir]


@contextmanager
def running(folder: Path, programs: Path) -> Iterator[str]:
    """Start a new PostgreSQL of *programs* in *folder* and give its DSN."""
    postgres = EmbeddedPostgres(folder)
    path = os.environ["PATH"]
    os.environ["PATH"] = f"{programs}{os.pathsep}{path}"
    try:
        yield postgres.start()
    finally:
        postgres.stop()
        os.environ["PATH"] = path
