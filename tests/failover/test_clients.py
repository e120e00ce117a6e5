"""Stock clients and workers with a list of servers: one of them is killed. ``docs/failover-clients.md`` says what they do."""

from __future__ import annotations

import select
import shutil
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.failover import stock
from tests.ports import free_port
from tests.server.bytes import Peer, until
from tests.server.load import Runner, query, wait_for
from tests.server_process import ServerProcess

TIMEOUT_MILLISECONDS = "3000"
MOST_ERRORS = 2
"""One for the connection that broke. Perl may have kept a second one; libgearman with two may wait at the wrong one first."""
EVERY = pytest.mark.parametrize(
    "language",
    [
        pytest.param(name, marks=pytest.mark.skipif(reason is not None, reason=str(reason)))
        for name, reason in ((name, stock.why_not(name)) for name in stock.LANGUAGES)
    ],
)
Servers = dict[str, ServerProcess]


@pytest.fixture
def servers(start_server: Callable[..., ServerProcess]) -> Servers:
    """Servers "a" and "b" on one database."""
    return {name: start_server("--name", name) for name in ("a", "b")}


@pytest.fixture
def start_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., stock.Client]]:
    """Start clients of a language with a list of servers."""
    clients: list[stock.Client] = []

    def start(language: str, *addresses: str) -> stock.Client:
        command = stock.command("client", language, tmp_path_factory.getbasetemp())
        clients.append(stock.Client([*command, ",".join(addresses), TIMEOUT_MILLISECONDS]))
        return clients[-1]

    yield start
    for client in clients:
        client.kill()


@pytest.fixture
def start_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., None]]:
    """Start workers of a language with a list of servers."""
    workers: list[subprocess.Popen[bytes]] = []

    def start(language: str, *addresses: str) -> None:
        command = stock.command("worker", language, tmp_path_factory.getbasetemp())
        workers.append(subprocess.Popen([*command, ",".join(addresses)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL))

    yield start
    for worker in workers:
        worker.kill()
        worker.wait()


StartClient = Callable[..., stock.Client]


def asks_by(servers: Servers, client: stock.Client, line: str) -> str:
    """Let the client ask for a job in the foreground, and return the name of the server that has it; nobody answers."""
    peers = {name: Peer(server.host, server.port) for name, server in servers.items()}
    try:
        for peer in peers.values():
            peer.can_do(b"reverse")
            peer.sleep()
        client.ask(line)
        ready, _, _ = select.select([peer.socket for peer in peers.values()], [], [], 10)
        (name,) = [name for name, peer in peers.items() if peer.socket in ready]
        assert peers[name].packet().name == "NOOP"
        return name
    finally:
        for peer in peers.values():
            peer.close()


def goes_on(servers: Servers, client: stock.Client, what: str, dsn: str) -> None:
    """Check that the client, after an error or two, does jobs in the foreground and queues them at what is left."""
    (left,) = [server for server in servers.values() if server.process.poll() is None]
    runner = Runner(left, b"reverse")
    runner.start()
    try:
        _, errors, seconds = client.until_ok("do two")
        print(f"\n{what}: errors {errors}, {seconds:.2f} s")
        assert len(errors) <= MOST_ERRORS, errors
        _, errors, _ = client.until_ok("bg three")
        assert len(errors) <= MOST_ERRORS, errors
        wait_for(lambda: query(dsn, "select count(*) from postgear.job") == [(0,)], "an empty queue")
    finally:
        runner.stop()


@EVERY
def test_a_client_that_starts_passes_over_a_dead_server(
    language: str, servers: Servers, start_client: StartClient, dsn: str
) -> None:
    for dead in ("a", "b"):
        # Which of the list a client tries first is its own business.
        addresses = [server.address if name != dead else f"127.0.0.1:{free_port()}" for name, server in servers.items()]
        client = start_client(language, *addresses)
        live = {name: server for name, server in servers.items() if name != dead}
        goes_on(live, client, f"{language}, {dead} is dead", dsn)


@EVERY
@pytest.mark.parametrize("what", ["do", "bg"])
def test_a_client_between_two_jobs_moves_to_the_next_server(
    language: str, what: str, servers: Servers, start_client: StartClient, dsn: str
) -> None:
    client = start_client(language, *(server.address for server in servers.values()))
    runners = [Runner(server, b"reverse") for server in servers.values()]
    for runner in runners:
        runner.start()
    client.until_ok("do one")
    (name,) = {handle.split(b":")[1].decode() for runner in runners for handle in runner.ran[-1:]}
    servers[name].kill()

    _, errors, seconds = client.until_ok(f"{what} two")
    for runner in runners:
        runner.stop()
    print(f"\n{language}, {what}: errors {errors}, {seconds:.2f} s")
    assert len(errors) <= MOST_ERRORS, errors
    goes_on(servers, client, language, dsn)


@EVERY
def test_a_client_whose_job_runs_hears_that_its_server_died(
    language: str, servers: Servers, start_client: StartClient, dsn: str
) -> None:
    client = start_client(language, *(server.address for server in servers.values()))
    name = asks_by(servers, client, "do one")
    servers[name].kill()

    assert client.answer().startswith("error "), "the job ended with its server"
    goes_on(servers, client, language, dsn)


@EVERY
def test_a_worker_goes_on_at_the_other_server_and_comes_back(
    language: str,
    servers: Servers,
    start_worker: Callable[..., None],
    start_client: StartClient,
    start_server: Callable[..., ServerProcess],
) -> None:
    a, b = servers.values()
    start_worker(language, a.address, b.address)
    for server in servers.values():
        workers_at(server, 1)
    a.kill()

    with Peer(b.host, b.port) as peer:
        handle = peer.submit("SUBMIT_JOB", b"reverse", b"", b"abc")
        peer.expect("WORK_COMPLETE", handle, b"cba")

    back = start_server("--name", "a", "--listen", a.address)
    seconds = workers_at(back, 1)
    print(f"\n{language}: worker back after {seconds:.1f} s")
    with Peer(back.host, back.port) as peer:
        handle = peer.submit("SUBMIT_JOB", b"reverse", b"", b"abc")
        peer.expect("WORK_COMPLETE", handle, b"cba")


def workers_at(server: ServerProcess, count: int) -> float:
    """Wait until a server has so many workers; returns the seconds that took."""
    with Peer(server.host, server.port) as peer:
        return wait_for(lambda: (peer.status(b"reverse") or (0, 0, 0))[2] == count, "a worker", 40)


@pytest.mark.skipif(shutil.which("gearman") is None, reason="the gearman command is not installed")
def test_the_gearman_command_says_that_its_server_is_dead_but_exits_with_0(servers: Servers, dsn: str) -> None:
    a, b = servers.values()
    a.kill()
    runs = [
        subprocess.run(
            ["gearman", "-t", "3000", "-h", server.host, "-p", str(server.port), "-b", "-f", "reverse", "abc"],
            capture_output=True,
            timeout=20,
            check=True,
        )
        for server in (a, b)
    ]

    assert b"COULD_NOT_CONNECT" in runs[0].stderr
    assert runs[1].stderr == b""
    with Peer(b.host, b.port) as peer:
        until(lambda: peer.status(b"reverse"), (1, 0, 0))
