"""MariaDB for the measurements: a server of its own with an empty database, default settings, by its socket."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from .contestants import ROOT
from .process import BenchError, child, free_port, tail, wait_until

DATABASE: Final = "bench"
_UNPRIVILEGED: Final = "mysql"  # who runs it when the harness is root
_START_TIMEOUT_SECONDS: Final = 60.0
_PATH: Final = "/usr/sbin:/usr/bin"


def check() -> None:
    """Raise BenchError unless MariaDB and the driver are here."""
    if shutil.which("mariadbd", path=_PATH) is None:
        raise BenchError("no mariadbd here")
    try:
        import mysql.connector  # noqa: F401 - only whether it is there
    except ModuleNotFoundError:
        raise BenchError("no mysql-connector-python here") from None


class MariaDB:
    """A running server. *url*: of its database, for postgear."""

    def __init__(self, socket: Path, plugins: Path) -> None:
        self._socket = socket
        self._plugins = plugins
        self.url = f"mysql://root@localhost/{DATABASE}?unix_socket={socket}"

    def connect(self, **options: Any) -> Any:
        """Return a session in which every statement is a transaction."""
        import mysql.connector

        return mysql.connector.connect(unix_socket=str(self._socket), user="root", autocommit=True, use_pure=True, **options)

    def load_functions(self, gearman_port: int) -> None:
        """Build and load the functions of mysql_udf/, for a Gearman server on this host."""
        command = ["make", "-s", "-C", str(ROOT / "mysql_udf"), f"BUILD={self._plugins}"]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode != 0:
            raise BenchError(f"{' '.join(command)}: {done.stderr.strip()[-500:]}")
        with self.connect() as session, session.cursor() as cursor:
            cursor.execute("create function gman_do_background returns string soname 'gman_udf.so'")
            cursor.execute("create function gman_servers_set returns string soname 'gman_udf.so'")
            cursor.execute("select gman_servers_set(%s)", (f"127.0.0.1:{gearman_port}",))
            cursor.fetchall()


@contextlib.contextmanager
def temporary_mariadb(folder: Path) -> Iterator[MariaDB]:
    """Make and run a server below *folder*, for the time of the block."""
    user = _UNPRIVILEGED if os.geteuid() == 0 else None
    home, log = folder / f"mariadb-{free_port()}", folder / "mariadb.log"
    data, plugins = home / "data", home / "plugin"
    for path in (home, data, plugins):
        path.mkdir(mode=0o755)
        if user is not None:
            shutil.chown(path, user, user)
    install = ["mariadb-install-db", "--no-defaults", f"--datadir={data}", "--skip-test-db"]
    with child([*install, "--auth-root-authentication-method=normal"], log, user=user) as process:
        if process.wait(_START_TIMEOUT_SECONDS) != 0:
            raise BenchError(f"mariadb-install-db failed: {tail(log)}")
    server = MariaDB(home / "socket", plugins)
    options = {
        "datadir": data,
        "socket": home / "socket",
        "pid-file": home / "pid",
        "plugin-dir": plugins,
        "skip-networking": "ON",
    }
    command = [
        str(shutil.which("mariadbd", path=_PATH)),
        "--no-defaults",
        *(f"--{name}={value}" for name, value in options.items()),
    ]
    try:
        with child(command, log, user=user) as process:
            wait_until(
                lambda: _answers(server), f"start of MariaDB ({log})", timeout_seconds=_START_TIMEOUT_SECONDS, process=process
            )
            with server.connect() as session, session.cursor() as cursor:
                cursor.execute(f"create database {DATABASE} character set utf8mb4")
            yield server
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _answers(server: MariaDB) -> bool:
    import mysql.connector

    try:
        server.connect().close()
    except mysql.connector.Error:
        return False
    return True
