"""The other queues in PostgreSQL whose SQL functions are measured: their pinned packages, and their schemas.

The packages are installed as `pinned/` says into `build/peers`, which git ignores, the first time they are needed: of
graphile-worker and of the Python ones all that they need to run, but psycopg, which is this environment's.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from .cluster import Cluster
from .process import BenchError

_PINNED: Final = Path(__file__).resolve().parent / "pinned"
_BUILD: Final = Path(__file__).resolve().parent / "build" / "peers"
_INSTALL_TIMEOUT_SECONDS: Final = 180.0
_SCHEMA_TIMEOUT_SECONDS: Final = 60.0
_ENVIRONMENT: Final = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD", "dbname": "PGDATABASE"}


@functools.cache
def python_folder() -> Path:
    """Return the folder of the Python packages, installing them first if need be. Raises BenchError where that fails."""
    requirements = _PINNED / "requirements.txt"
    target = _BUILD / "python"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes"]
    _install([*pip, "--requirement", str(requirements), "--target", str(target)], target, [requirements])
    return target


@functools.cache
def graphile_folder() -> Path:
    """Return the folder of the installed package, installing it first if need be. Raises BenchError where that fails."""
    files = [_PINNED / "package.json", _PINNED / "package-lock.json"]
    target = _BUILD / "graphile"
    npm = ["npm", "ci", "--prefix", str(target), "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
    _install(npm, target, files)
    return target / "node_modules" / "graphile-worker"


def versions() -> dict[str, str]:
    """Return the versions of the peers that are installed."""
    found = {}
    for name in ("procrastinate", "pgqueuer"):
        for metadata in (_BUILD / "python").glob(f"{name}-*.dist-info"):
            found[name] = metadata.stem.partition("-")[2]
    package = _BUILD / "graphile" / "node_modules" / "graphile-worker" / "package.json"
    if package.exists():
        found["graphile-worker"] = str(json.loads(package.read_text())["version"])
    return found


def make_procrastinate_schema(cluster: Cluster, dsn: str) -> None:
    """Apply the schema that the package brings."""
    schema = (python_folder() / "procrastinate" / "sql" / "schema.sql").read_text()
    with cluster.connect(dsn) as connection:
        connection.execute(sql.SQL(schema))


def make_graphile_schema(cluster: Cluster, dsn: str) -> None:
    """Run graphile-worker's migrations by its command."""
    command = ["node", str(graphile_folder() / "dist" / "cli.js"), "--schema-only"]
    _run(command, _SCHEMA_TIMEOUT_SECONDS, os.environ | libpq_environment(dsn))


def make_pgqueuer_schema(_: Cluster, dsn: str) -> None:
    """Run pgqueuer's command for it."""
    environment = os.environ | libpq_environment(dsn) | {"PYTHONPATH": str(python_folder())}
    _run([sys.executable, "-m", "pgqueuer", "install"], _SCHEMA_TIMEOUT_SECONDS, environment)


def libpq_environment(dsn: str) -> dict[str, str]:
    """Return the variables that libpq, and its imitations, read instead of a DSN."""
    parameters = conninfo_to_dict(dsn)
    return {name: str(parameters[key]) for key, name in _ENVIRONMENT.items() if parameters.get(key) is not None}


def _install(command: list[str], target: Path, files: list[Path]) -> None:
    """Run *command*, which fills *target* as *files* say, unless it has been done for just these files."""
    stamp = target / "installed"
    wanted = "".join(file.read_text() for file in files)
    if stamp.exists() and stamp.read_text() == wanted:
        return
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for file in files:
        shutil.copy(file, target)
    _run(command, _INSTALL_TIMEOUT_SECONDS)
    stamp.write_text(wanted)


def _run(command: list[str], timeout_seconds: float, environment: dict[str, str] | None = None) -> None:
    name = Path(command[0]).name
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_seconds, env=environment
        )
    except FileNotFoundError as error:
        raise BenchError(f"{name}: not installed") from error
    if done.returncode != 0:
        raise BenchError(f"{name}: {(done.stderr or done.stdout).strip()[-500:]}")
