"""Several servers on one database: restarted one after the other under load, and of two releases."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from postgear import schema
from tests.ports import free_port
from tests.server.bytes import Peer
from tests.server.load import Runner, Submitter, drain, query, wait_for
from tests.server_process import ServerProcess

ROOT = Path(__file__).parents[2]
Start = Callable[..., ServerProcess]


@pytest.mark.timeout(180)
def test_a_rolling_restart_under_load_loses_nothing(start_server: Start, dsn: str) -> None:
    ports = [free_port(), free_port()]

    def start(number: int) -> ServerProcess:
        return start_server("--name", f"s{number}", "--listen", f"127.0.0.1:{ports[number]}")

    servers = [start(0), start(1)]
    submitters: list[Submitter] = []
    runners: list[Runner] = []

    def load(server: ServerProcess) -> None:
        submitters.append(Submitter(server, b"f"))
        runners.append(Runner(server, b"f"))
        submitters[-1].start()
        runners[-1].start()

    for server in servers:
        load(server)
    for number in (0, 1, 0):
        reached = len(submitters[-1].acked)
        wait_for(lambda reached=reached: len(submitters[-1].acked) > reached + 200, "progress")  # type: ignore[misc]
        assert servers[number].stop() == 0
        servers[number] = start(number)
        load(servers[number])
    for submitter in submitters:
        submitter.stop()
    for runner in runners:
        runner.stop()
    ran = {handle for runner in runners for handle in runner.ran} | set(drain(servers[0], dsn, [b"f"]))
    acked = {handle for submitter in submitters for handle in submitter.acked}
    assert acked <= ran
    assert not [body for submitter in submitters for body in submitter.refused]
    assert query(dsn, "select count(*) from postgear.server") == [(2,)]


class OldServer:
    """``postgear serve`` of the release before a migration, from the history."""

    def __init__(self, migration: str, folder: Path) -> None:
        files = _git(ROOT, "archive", release_before(ROOT, migration), "server", "migrations", "sql", "pg_extension")
        with tarfile.open(fileobj=io.BytesIO(files)) as archive:
            archive.extractall(folder / "old", filter="data")
        self.host, self.port = "127.0.0.1", free_port()
        self._log = folder / "old.log"
        self._environment = {**os.environ, "PYTHONPATH": str(folder / "old" / "server")}
        self._process: subprocess.Popen[bytes] | None = None

    def init(self, dsn: str) -> None:
        subprocess.run([sys.executable, "-m", "postgear", "init", "--dsn", dsn], env=self._environment, check=True)

    def start(self, dsn: str) -> None:
        starts = self.log().count(" ready ") if self._log.exists() else 0
        words = ["serve", "--dsn", dsn, "--name", "old", "--listen", f"{self.host}:{self.port}"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "postgear", *words],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait_for(lambda: self.log().count(" ready ") > starts, "the old server is ready")

    def log(self) -> str:
        return self._log.read_text()

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)


def release_before(root: Path, migration: str) -> str:
    """Return the commit before the one, perhaps a merge, that brought *migration* to this branch; skips where none is known."""
    path = f"migrations/versions/{migration}_*.py"
    try:
        parents = _git(
            root, "log", "-m", "--first-parent", "--no-renames", "--diff-filter=A", "--format=%P", "--reverse", "--", path
        )
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"the release before {migration} is taken from git's history, which cannot be read: {error}")
    if not parents:
        pytest.skip(f"git's history has no commit that added {path}")
    first = parents.decode().splitlines()[0].split()
    if not first:
        pytest.skip(f"git's history begins after {migration}: a shallow clone? `git fetch --unshallow` gets the rest")
    return first[0]


def _git(root: Path, *words: str) -> bytes:
    return subprocess.run(["git", *words], cwd=root, capture_output=True, check=True).stdout


@pytest.fixture(params=["0003", "0004", "0005", "0006", "0007"])
def old_server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OldServer]:
    server = OldServer(request.param, tmp_path)
    yield server
    server.stop()


@pytest.mark.timeout(120)
def test_a_server_of_the_release_before_goes_on_while_the_schema_is_upgraded_and_starts_again_on_it(
    old_server: OldServer, empty_dsn: str, start_server: Start
) -> None:
    old_server.init(empty_dsn)
    assert schema.current(empty_dsn) != schema.VERSION
    old_server.start(empty_dsn)
    client, worker = Peer("127.0.0.1", old_server.port), Peer("127.0.0.1", old_server.port)
    worker.can_do(b"f")

    def serves(name: bytes) -> None:
        handle = client.submit("SUBMIT_JOB_BG", b"f", name, name)
        assert worker.grab() == [handle, b"f", name]
        worker.send("WORK_COMPLETE", handle, b"")
        client.submit("SUBMIT_JOB_BG", b"function-" + name, b"", b"")
        assert client.status(b"function-" + name) == (1, 0, 0)

    serves(b"before")
    schema.upgrade(empty_dsn)
    serves(b"after")
    new = start_server(dsn=empty_dsn)
    beside = Peer(new.host, new.port)
    handle = beside.submit("SUBMIT_JOB_BG", b"f", b"", b"from the new")
    wait_for(lambda: _grabbed(worker) == [handle, b"f", b"from the new"], "the old server hands it out")
    worker.send("WORK_COMPLETE", handle, b"")
    for peer in (client, worker, beside):
        peer.close()
    old_server.stop()
    old_server.start(empty_dsn)
    client, worker = Peer("127.0.0.1", old_server.port), Peer("127.0.0.1", old_server.port)
    worker.can_do(b"f")
    serves(b"again")
    for peer in (client, worker):
        peer.close()
    assert "Traceback" not in old_server.log()
    assert "refused" not in old_server.log()


def _grabbed(worker: Peer) -> list[bytes]:
    worker.send("GRAB_JOB")
    packet = worker.packet()
    return packet.arguments(3) if packet.name == "JOB_ASSIGN" else []


@pytest.fixture
def history(tmp_path: Path) -> Path:
    """A repository where one migration was committed and another came by a merge."""
    folder = tmp_path / "history"
    (folder / "migrations" / "versions").mkdir(parents=True)
    _git(folder, "init", "--quiet", "--initial-branch=main")
    for key, value in (("user.name", "Test"), ("user.email", "test@example.org"), ("commit.gpgsign", "false")):
        _git(folder, "config", key, value)
    _git(folder, "commit", "--quiet", "--allow-empty", "--message=begun")
    _add(folder, "0001")
    _git(folder, "switch", "--quiet", "--create=branch")
    _add(folder, "0002")
    _git(folder, "switch", "--quiet", "main")
    _git(folder, "commit", "--quiet", "--allow-empty", "--message=beside")
    _git(folder, "merge", "--quiet", "--no-edit", "branch")
    return folder


def _add(folder: Path, migration: str) -> None:
    (folder / "migrations" / "versions" / f"{migration}_queue.py").touch()
    _git(folder, "add", ".")
    _git(folder, "commit", "--quiet", f"--message={migration}")


def test_the_release_before_a_migration_is_found_though_it_came_by_a_merge(history: Path) -> None:
    for migration, before in (("0001", "begun"), ("0002", "beside")):
        assert _git(history, "log", "-1", "--format=%s", release_before(history, migration)).decode().strip() == before


def test_where_the_history_does_not_tell_the_reason_is_told(history: Path, tmp_path: Path) -> None:
    shallow, none = tmp_path / "shallow", tmp_path / "none"
    _git(tmp_path, "clone", "--quiet", "--depth=1", f"file://{history}", str(shallow))
    none.mkdir()
    with pytest.raises(pytest.skip.Exception, match="a shallow clone"):
        release_before(shallow, "0002")
    with pytest.raises(pytest.skip.Exception, match="cannot be read"):
        release_before(none, "0002")
    with pytest.raises(pytest.skip.Exception, match="no commit that added"):
        release_before(history, "0003")
