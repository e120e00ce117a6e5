"""Connections kept and servers passed over, by links.c: its clock goes forward at once, its names have the addresses wanted."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.udf.bad_server import BadServer, greeted, packet, read_packet
from tests.udf.conftest import SOURCES
from tests.udf.test_sanitizers import FLAGS

ECHO_REQUEST, ECHO_ANSWER = 16, 17
PARTS = ("connection", "client", "options", "resolve", "servers", "links")

Do = Callable[[str], str]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """links.c with what it tests, under the sanitizers."""
    program = tmp_path_factory.mktemp("links") / "links"
    sources = [*(SOURCES / f"gearman_{part}.c" for part in PARTS), Path(__file__).with_name("links.c")]
    subprocess.run(["gcc", *FLAGS, "-fsanitize=address,undefined", "-o", program, *sources], check=True)
    return program


@pytest.fixture
def do(program: Path) -> Iterator[Do]:
    """Give a command to the running program; returns what it says."""
    with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        stdin, stdout = running.stdin, running.stdout

        def say(command: str) -> str:
            stdin.write(command + "\n")
            stdin.flush()
            return stdout.readline().rstrip()

        try:
            yield say
        except BaseException:
            running.kill()
            raise
        stdin.close()
        assert running.wait(60) == 0


class Forgetful(BadServer):
    """Greets, and then answers an echo only if *is_good*; counts the echoes asked for."""

    def __init__(self, *, is_good: bool) -> None:
        self.echoes = 0
        self._is_good = is_good
        super().__init__(self._answer)

    def _answer(self, connection: socket.socket) -> None:
        greeted(connection)
        while True:
            kind, body = read_packet(connection)
            self.echoes += kind == ECHO_REQUEST
            if self._is_good:
                connection.sendall(packet(ECHO_ANSWER, body))


@contextmanager
def silent(host: str = "127.0.0.1", port: int = 0) -> Iterator[tuple[str, int]]:
    """A port where connections are neither accepted nor refused."""
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(0)
        for queued in (first, second):  # the queue of those to be accepted is full then
            queued.setblocking(False)
            queued.connect_ex(listener.getsockname())
        yield listener.getsockname()


def test_a_connection_that_was_forgotten_is_replaced_with_all_kept_ones(do: Do) -> None:
    with Forgetful(is_good=False) as server:
        do(f"set {server.address}")
        assert do("take 5 10") == "ok"
        do("later 30")
        assert do("take 1 10") == "ok"
        assert (server.connections, server.echoes) == (6, 1)
        assert do("take 2 10") == "ok"  # the new one, and one more: the other old ones are gone
        assert (server.connections, server.echoes) == (7, 1)


def test_a_connection_that_still_works_is_kept(do: Do) -> None:
    with Forgetful(is_good=True) as server:
        do(f"set {server.address}")
        for _ in range(4):
            assert do("take 1 10") == "ok"
            do("later 30")
        assert (server.connections, server.echoes) == (1, 3)


def test_a_connection_unused_for_a_minute_is_not_used(do: Do) -> None:
    with Forgetful(is_good=True) as server:
        do(f"set {server.address}")
        assert do("take 3 10") == "ok"
        do("later 61")
        assert do("take 3 10") == "ok"
        assert (server.connections, server.echoes) == (6, 0)


def test_a_call_with_little_time_does_not_take_a_server_from_others(do: Do) -> None:
    with Forgetful(is_good=True) as server:
        do(f"set {server.address}")
        assert "no connection in time" in do("take 1 0.000001")
        assert do("take 1 10") == "ok"
        do("later 30")
        assert do("take 1 0.000001") != "ok"
        assert do("take 1 10") == "ok"
    with silent() as (host, port):
        do(f"set {host}:{port}")
        for _ in range(3):  # each tries it
            assert do("take 1 0.1").endswith("no connection in time")


def test_a_call_with_little_time_may_be_the_one_that_tries_again(do: Do) -> None:
    with silent() as (host, port):
        do(f"set {host}:{port}")
        do("option connect_timeout 0.2")
        assert do("take 1 10").endswith("no connection in time")
        assert "tried again in" in do("take 1 10")
        do("later 11")
        assert do("take 1 0.000001").endswith("no connection in time")
        assert do("take 1 10").endswith("no connection in time")  # so it was tried
        assert "tried again in" in do("take 1 10")


def test_a_silent_server_is_passed_over_where_the_options_leave_less_than_connect_timeout(do: Do) -> None:
    with silent() as (host, port), Forgetful(is_good=True) as server:
        do(f"set {host}:{port},{server.address}")
        do("option connect_timeout 100")
        do("option background_timeout 0.3")
        assert do("take 1 0.3").endswith("no connection in time")
        assert do("take 1 10") == "ok"


def test_each_address_of_a_name_has_its_time(do: Do) -> None:
    with Forgetful(is_good=True) as server, silent("127.0.0.2", server.port):
        do(f"set name1:{server.port}")
        assert do("take 1 10") == "ok"


@pytest.mark.parametrize(("names", "threads"), [(1, 1), (3, 3), (200, 16)])
def test_all_names_are_looked_up_each_once_at_a_time(do: Do, names: int, threads: int) -> None:
    assert do(f"resolve 200 {names}") == f"most {threads} threads, 1 of a name"


def test_a_server_is_not_passed_over_because_no_thread_was_free(do: Do) -> None:
    with Forgetful(is_good=True) as server:
        do("option connect_timeout 0.1")
        do("hold")
        for number in range(16):
            do(f"set name{number}:{server.port}")
            assert do("take 1 10").endswith("the name was not looked up in time")
        do(f"set name16:{server.port}")
        assert do("take 1 10").endswith("no thread was free to look up the name")
        do("release")
        do("option connect_timeout 10")
        assert do("take 1 10") == "ok"
