"""Fixtures of the failover tests: a primary with the schema, a standby beside it, a network between them."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from psycopg.conninfo import make_conninfo

from tests.failover.machines import Network, Primary, Standby, remove
from tests.server.load import query
from tests.server_process import ServerProcess


@pytest.fixture(scope="session")
def primary_template() -> Iterator[Primary]:
    """A stopped primary with the schema."""
    # Not pytest's tmp_path: only root may enter that, and PostgreSQL does not run as root.
    folder = Path(tempfile.mkdtemp(prefix="postgear-test-"))
    folder.chmod(0o755)
    try:
        yield Primary.make(folder)
    finally:
        remove(folder)


@pytest.fixture(scope="session")
def pair_template(primary_template: Primary) -> Iterator[tuple[Primary, Path]]:
    """A stopped primary, and the folder of a stopped standby that followed it."""
    folder = Path(tempfile.mkdtemp(prefix="postgear-test-"))
    folder.chmod(0o755)
    a = primary_template.copy(folder / "a")
    a.start()
    b = Standby(folder / "b", a.dsn)
    try:
        b.start()
        assert b.stop() == 0
        a.stop()
        yield a, b.folder
    finally:
        b.kill_machine()
        a.kill()
        remove(folder)


@dataclass
class Pair:
    """Machine A with the primary and a server on it, machine B with the standby, and the network between them."""

    folder: Path
    a: Primary
    network: Network
    b: Standby
    servers: list[ServerProcess] = field(default_factory=list)

    def serve(self, dsn: str | None = None, *arguments: str) -> ServerProcess:
        """Start a server; by default on machine A."""
        log_path = self.folder / f"serve-{len(self.servers)}.log"
        self.servers.append(ServerProcess(*arguments, dsn=dsn or self.a.dsn, log_path=log_path))
        return self.servers[-1]

    def start_synchronous(self, *arguments: str) -> None:
        """Start the standby and wait until commits wait for it, and it knows."""
        self.b.start("--synchronous", *arguments)
        self.b.wait_for_log("synchronous: the primary's commits wait")

    def names(self) -> str:
        """Return the primary's synchronous_standby_names."""
        return str(query(self.a.dsn, "show synchronous_standby_names")[0][0])


@pytest.fixture
def pair(pair_template: tuple[Primary, Path], request: pytest.FixtureRequest) -> Iterator[Pair]:
    """A running primary, and a standby that is not started, but has been there before."""
    yield from _pair(pair_template[0], pair_template[1], request)


@pytest.fixture
def new_pair(primary_template: Primary, request: pytest.FixtureRequest) -> Iterator[Pair]:
    """A running primary, and a standby whose folder does not exist yet."""
    yield from _pair(primary_template, None, request)


def _pair(primary: Primary, standby: Path | None, request: pytest.FixtureRequest) -> Iterator[Pair]:
    folder = Path(tempfile.mkdtemp(prefix="postgear-test-"))
    folder.chmod(0o755)
    a = primary.copy(folder / "a")
    network = Network(a.port)
    b = Standby(folder / "b", make_conninfo(a.dsn, port=network.port))
    if standby is not None:
        subprocess.run(["cp", "-a", standby, b.folder], check=True)
    made = Pair(folder, a, network, b)
    try:
        a.start()
        yield made
    finally:
        request.node.add_report_section("teardown", "standby", b.log())
        for server in made.servers:
            request.node.add_report_section("teardown", server.address, server.log())
            server.kill()
        b.kill_machine()
        a.thaw()
        a.kill()
        network.close()
        remove(folder)
