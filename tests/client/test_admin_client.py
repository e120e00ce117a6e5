"""The admin commands with typed answers, at postgear and at genuine gearmand, blocking and awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from postgear import AdminClient, AsyncAdminClient
from postgear.client.admin import FunctionStatus, JobStatus
from postgear.errors import ConfigError, InvalidJob, ServerError, ServerRefused, UnknownJob
from tests.client.scripted import ScriptedPeer
from tests.server.bytes import Peer, until


class Awaited:
    """An AsyncAdminClient with the methods of AdminClient."""

    def __init__(self, server: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._admin = AsyncAdminClient(server)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._admin, name)
        return lambda *arguments, **options: self._loop.run_until_complete(method(*arguments, **options))

    def close(self) -> None:
        self._loop.run_until_complete(self._admin.close())
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()


@pytest.fixture(params=[AdminClient, Awaited], ids=["AdminClient", "AsyncAdminClient"])
def connect_admin(request: pytest.FixtureRequest) -> Iterator[Callable[[str], Any]]:
    """Make admin clients of one kind; all are closed after the test."""
    made: list[Any] = []

    def make(address: str) -> Any:
        made.append(request.param(address))
        return made[-1]

    yield make
    for admin in made:
        admin.close()


@pytest.fixture
def admin(connect_admin: Callable[[str], Any], gearman_server: Any) -> Any:
    return connect_admin(gearman_server.address)


def test_words_about_the_server(admin: Any, gearman_server: Any) -> None:
    assert admin.version()[0].isdigit()
    assert admin.log_level().isalpha()
    assert admin.process_id() == gearman_server.process.pid


def test_functions_with_their_jobs_and_workers(admin: Any, peer: Peer, function: str) -> None:
    name = function.encode()
    peer.can_do(name)
    for kind in ("SUBMIT_JOB_HIGH_BG", "SUBMIT_JOB_BG", "SUBMIT_JOB_LOW_BG", "SUBMIT_JOB_LOW_BG"):
        peer.submit(kind, name, b"", b"")
    peer.grab()
    wanted = FunctionStatus(function, high=0, normal=1, low=2, running=1, workers=1, total=4)
    # A job that is on its way from the database to the server at that moment is not told right.
    until(lambda: [row for row in admin.status() if row.function == function], [wanted])


def test_connections_with_their_abilities(admin: Any, peer: Peer, function: str) -> None:
    peer.send("SET_CLIENT_ID", b"my worker")
    peer.can_do(function.encode())
    (found,) = [row for row in admin.workers() if function in row.functions]
    assert (found.address, found.client_id, found.functions) == ("127.0.0.1", "my worker", [function])


def test_a_worker_of_more_functions_than_a_line_of_a_command_could_name(admin: Any, peer: Peer, function: str) -> None:
    names = [f"{function}-{number:0>100}" for number in range(200)]
    peer.can_do(*(name.encode() for name in names))
    (found,) = [row for row in admin.workers() if names[0] in row.functions]
    assert sorted(found.functions) == names


def test_jobs_and_uniques_and_cancel(admin: Any, peer: Peer, function: str) -> None:
    handle = peer.submit("SUBMIT_JOB_BG", function.encode(), function.encode(), b"").decode()
    (found,) = [row for row in admin.jobs() if row.handle == handle]
    assert (found.retries, found.ignored, found.queued) == (0, False, True)
    assert isinstance(found, JobStatus)
    assert function in admin.uniques()
    admin.cancel(handle)
    peer.can_do(function.encode())
    peer.send("GRAB_JOB")
    peer.expect("NO_JOB")
    with pytest.raises(UnknownJob, match="there is no job H:none:1"):
        admin.cancel("H:none:1")


def test_functions_are_made_and_dropped_and_limited(admin: Any, peer: Peer, function: str) -> None:
    admin.create_function(function)
    assert peer.status(function.encode()) == (0, 0, 0)
    admin.set_limits(function, 1)
    peer.submit("SUBMIT_JOB_BG", function.encode(), b"", b"")
    peer.send("SUBMIT_JOB_BG", function.encode(), b"", b"")
    assert peer.error() == "QUEUE_ERROR"
    admin.set_limits(function, 5, 5, 5)
    peer.submit("SUBMIT_JOB_BG", function.encode(), b"", b"")
    admin.create_function(f"{function}x")
    admin.drop_function(f"{function}x")
    with pytest.raises(ServerRefused, match="function not found"):
        admin.drop_function(f"{function}x")


def test_any_command(admin: Any) -> None:
    assert admin.command("version")[0].startswith("OK ")
    with pytest.raises(ServerRefused, match="UNKNOWN_COMMAND"):
        admin.command("nonsense")
    assert admin.command("getpid")


def test_shutdown(connect_admin: Callable[[str], Any], start_server: Any, start_gearmand: Any) -> None:
    server = start_server()
    connect_admin(server.address).shutdown(graceful=True)
    assert server.process.wait(10) == 0
    # gearmand has no such command.
    with pytest.raises(ServerRefused, match="UNKNOWN_COMMAND"):
        connect_admin(start_gearmand().address).shutdown()


@pytest.mark.parametrize("word", ["", "two words", "line\nbreak", "tab\tbed"])
def test_words_that_would_be_another_command_are_not_sent(word: str, scripted: Any) -> None:
    peer: ScriptedPeer = scripted()
    with AdminClient(peer.address) as admin:
        for act in (admin.cancel, admin.create_function, admin.drop_function):
            with pytest.raises(InvalidJob):
                act(word)
        with pytest.raises(InvalidJob):
            admin.command(f"version\r\n{word}")
    assert peer.received == []


@pytest.mark.parametrize("server", ["", "a:b", "one,two"])
def test_an_admin_client_is_for_one_server(server: str) -> None:
    with pytest.raises(ConfigError):
        AdminClient(server)


def test_an_answer_that_is_none_is_an_error(scripted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket
    import threading

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            with listener.accept()[0] as connection:
                connection.recv(100)
                connection.sendall(b"no columns\n.\n" * 2)
                connection.recv(100)

        thread = threading.Thread(target=answer)
        thread.start()
        with AdminClient(f"127.0.0.1:{listener.getsockname()[1]}") as admin, pytest.raises(ServerError, match="not a line"):
            admin.status()
        thread.join()
