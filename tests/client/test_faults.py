"""What clients do when servers do not do what they should: typed errors that name server, function and handle, and no hang."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from postgear import AsyncClient, Client, NewJob
from postgear.client import calls
from postgear.errors import (
    ConfigError,
    NotAllSubmitted,
    PostgearError,
    ServerError,
    ServerRefused,
    ServerTimeout,
    ServerUnreachable,
)
from tests.client.scripted import OPTION, ScriptedPeer, response
from tests.extension.python_worker import PythonWorker
from tests.server.bytes import Peer, until

CREATED = response("JOB_CREATED", b"H:x:1")
Scripted = Callable[..., ScriptedPeer]
Connect = Callable[..., Any]


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


@pytest.mark.parametrize("servers", ["", "a:b", "host:0", "two words", [], ["a", ""], ["a b"]])
def test_no_list_of_servers(servers: Any) -> None:
    if servers == ["a", ""]:
        assert [str(address) for address in Client(servers)._servers] == ["a:4730"]
        return
    with pytest.raises(ConfigError):
        Client(servers)


def test_unreachable_servers_are_all_named(connect: Connect, nobody: str) -> None:
    client = connect([nobody, "[::1]:1"])
    with pytest.raises(ServerUnreachable) as caught:
        client.submit("f", b"x")
    assert f"server {nobody}: cannot be reached: Connection refused" in str(caught.value)
    assert "server [::1]:1: cannot be reached" in str(caught.value)
    assert caught.value.function == "f"
    with pytest.raises(ServerUnreachable, match="cannot be found") as caught:
        connect("no.such.host.invalid").do("f", b"x")
    assert (caught.value.server, caught.value.function) == ("no.such.host.invalid:4730", "f")


def test_every_method_tells_that_no_server_is_there(connect: Connect, nobody: str, task_set: Any) -> None:
    client = connect(nobody)
    for act in (
        client.echo,
        lambda: client.status("H:x:1"),
        lambda: client.status_of_unique("u"),
        lambda: next(client.map("f", [b"1", b"2"])),
    ):
        with pytest.raises(ServerUnreachable, match="Connection refused"):
            act()
    with pytest.raises(NotAllSubmitted) as caught:
        client.submit_many([("f", b"1"), ("f", b"2")])
    assert [type(error) for error in caught.value.errors.values()] == [ServerUnreachable] * 2
    tasks = task_set(client, 1)
    made = [tasks.add("f", b"1"), tasks.add("f", b"2")]
    assert tasks.wait(5)
    assert [type(task.error) for task in made] == [ServerUnreachable] * 2


def test_the_next_server_is_asked_and_the_first_left_alone_for_a_while(
    connect: Connect, gearman_server: Any, worker: PythonWorker, nobody: str, scripted: Scripted
) -> None:
    silent = scripted(stay=False)
    client = connect(f"{nobody},{silent.address},{gearman_server.address}")
    for _ in range(3):
        assert client.do("echo", b"x") == b"x"
    assert silent.connections == 1


def test_a_server_lost_with_a_job_is_named_with_it(connect: Connect, scripted: Scripted) -> None:
    server = scripted(OPTION, CREATED, stay=False)
    other = scripted(OPTION, CREATED)
    client = connect([server.address, other.address])
    with pytest.raises(ServerError) as caught:
        client.do("f", b"x")
    error = caught.value
    assert (error.server, error.function, error.handle) == (server.address, "f", "H:x:1")
    # Nothing was sent a second time.
    assert other.received == []
    with pytest.raises(ServerError):
        connect(server.address).submit("f", b"x") and connect(scripted(OPTION, stay=False).address).submit("f", b"x")


def test_with_retries_a_lost_job_goes_to_another_server(
    connect: Connect, scripted: Scripted, gearman_server: Any, worker: PythonWorker, task_set: Any
) -> None:
    lost = scripted(OPTION, CREATED, stay=False)
    client = connect([lost.address, gearman_server.address])
    assert client.do("echo", b"x", retries=1) == b"x"
    tasks = task_set(connect([scripted(OPTION, CREATED, stay=False).address, gearman_server.address]))
    errors = []
    task = tasks.add("echo", b"y", retries=1, on_retry=lambda task, error: errors.append(error))
    given_up = tasks.add("echo", b"z")
    assert tasks.wait(5)
    assert (task.result, given_up.result) == (b"y", None)
    assert [error.handle for error in errors] == ["H:x:1"]
    assert type(given_up.error) is ServerError


def test_a_real_server_that_is_killed_with_jobs_under_way(
    connect: Connect, start_server: Any, start_gearmand: Any, task_set: Any
) -> None:
    first, second = start_gearmand(), start_server()
    with PythonWorker(first.host, first.port), PythonWorker(second.host, second.port):
        client = connect([first.address, second.address])
        results = client.map("echo", (str(number) for number in range(200)), in_flight=4, retries=1)
        seen = [next(results) for _ in range(20)]
        first.kill()
        assert [*seen, *results] == [b"%d" % number for number in range(200)]


def test_retries_wait_for_a_server_to_come_back(connect: Connect, start_gearmand: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    results = []
    client = connect(f"127.0.0.1:{port}")
    started = threading.Event()

    def come_back() -> None:
        started.wait()
        server = start_gearmand(port=port)
        with PythonWorker(server.host, server.port) as worker:
            done.wait(10)
            results.append(len(worker.workloads))

    done = threading.Event()
    thread = threading.Thread(target=come_back)
    thread.start()
    started.set()
    try:
        assert client.do("echo", b"x", retries=20, timeout=20) == b"x"
    finally:
        done.set()
        thread.join()
    assert results == [1]


GARBAGE = [
    b"HTTP/1.1 400 Bad Request\r\n\r\n",
    b"\0" * 100,
    b"\0REQ\0\0\0\x08\0\0\0\0",
    response("JOB_ASSIGN", b"h", b"f", b"x"),
    response("NOOP"),
    b"\0RES\0\0\0\x63\0\0\0\0",
    b"\0RES\0\0\0\x14\0\0\0\x01h",
    b"\0RES\0\0\0\x08\xff\xff\xff\xff",
]


@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_is_an_error_that_names_the_server(connect: Connect, scripted: Scripted, garbage: bytes, task_set: Any) -> None:
    def ask() -> Iterator[tuple[ScriptedPeer, Callable[[Any], Any]]]:
        yield scripted(garbage), lambda client: client.echo()
        yield scripted(OPTION, garbage), lambda client: client.echo()
        yield scripted(OPTION, garbage), lambda client: client.status("H:x:1")
        yield scripted(OPTION, garbage), lambda client: client.submit("f", b"x")
        yield scripted(OPTION, garbage), lambda client: client.do("f", b"x")
        yield scripted(OPTION, CREATED + garbage), lambda client: client.do("f", b"x")
        yield scripted(OPTION, garbage), lambda client: list(client.map("f", [b"x"]))

    for peer, act in ask():
        with pytest.raises(ServerError) as caught:
            act(connect(peer.address, timeout=5))
        assert not isinstance(caught.value, ServerTimeout)
        assert caught.value.server == peer.address
    peer = scripted(OPTION, garbage)
    with pytest.raises(NotAllSubmitted) as several:
        connect(peer.address).submit_many([("f", b"1")])
    assert several.value.errors[0].server == peer.address
    tasks = task_set(connect(scripted(OPTION, CREATED + garbage).address))
    task = tasks.add("f", b"x")
    assert tasks.wait(5)
    assert isinstance(task.error, ServerError)


@pytest.mark.parametrize(
    "answer",
    [
        CREATED + response("WORK_COMPLETE", b"H:other:1", b""),
        CREATED + response("WORK_FAIL", b"H:other:1"),
        CREATED + CREATED,
        response("WORK_COMPLETE", b"H:x:1", b"") + CREATED,
    ],
)
def test_words_about_a_job_that_nobody_asked_for_are_an_error(connect: Connect, scripted: Scripted, answer: bytes) -> None:
    with pytest.raises(ServerError) as caught:
        connect(scripted(OPTION, answer).address).do("f", b"x", timeout=5)
    assert not isinstance(caught.value, ServerTimeout)


def test_progress_that_is_no_number_is_not_told(connect: Connect, scripted: Scripted, task_set: Any) -> None:
    wrong = response("WORK_STATUS", b"H:x:1", b"half", b"") + response("WORK_STATUS", b"H:x:1", b"1" * 30, b"1")
    tasks = task_set(connect(scripted(OPTION, CREATED + wrong + response("WORK_COMPLETE", b"H:x:1", b"r")).address))
    calls_: list[Any] = []
    task = tasks.add("f", b"x", on_status=lambda *arguments: calls_.append(arguments))
    assert tasks.wait(5)
    assert (task.result, task.status, calls_) == (b"r", (0, 0), [])


def test_a_server_that_is_silent_from_the_start(connect: Connect, scripted: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "CONNECT_SECONDS", 0.1)
    peer = scripted()
    with pytest.raises(ServerUnreachable, match="did not answer in time") as caught:
        connect(peer.address).do("f", b"x")
    assert (caught.value.server, caught.value.function) == (peer.address, "f")


def test_a_server_that_falls_silent(connect: Connect, scripted: Scripted, task_set: Any) -> None:
    def ask() -> Iterator[tuple[ScriptedPeer, Callable[[Any], Any], str]]:
        yield scripted(OPTION), lambda client: client.submit("f", b"x"), ""
        yield scripted(OPTION), lambda client: client.echo(), ""
        yield scripted(OPTION, CREATED), lambda client: client.do("f", b"x", timeout=0.1), "H:x:1"
        yield scripted(OPTION, CREATED), lambda client: list(client.map("f", [b"x"], timeout=0.1)), "H:x:1"

    for peer, act, handle in ask():
        with pytest.raises(ServerTimeout) as caught:
            act(connect(peer.address, timeout=0.1))
        assert (caught.value.server, caught.value.handle) == (peer.address, handle)
    with pytest.raises(NotAllSubmitted) as several:
        connect(scripted(OPTION, CREATED).address, timeout=0.1).submit_many([("f", b"1"), ("f", b"2")])
    assert several.value.handles == ["H:x:1", None]
    assert isinstance(several.value.errors[1], ServerTimeout)


def test_a_connection_that_was_idle_for_long_must_echo(
    connect: Connect, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "FRESH_SECONDS", -1.0)
    monkeypatch.setattr(calls, "CONNECT_SECONDS", 0.2)
    echo = response("ECHO_RES", b"postgear")
    peer = scripted(OPTION, CREATED, echo, CREATED, None)
    client = connect(peer.address)
    assert [client.submit("f", b"%d" % number) for number in range(3)] == ["H:x:1"] * 3
    # The second echo on the first connection was not answered.
    assert peer.connections == 2


def test_a_restarted_server_is_connected_to_anew(connect: Connect, start_gearmand: Any) -> None:
    server = start_gearmand()
    client = connect(server.address)
    client.submit("f", b"x")
    server.kill()
    start_gearmand(port=server.port)
    assert client.submit("f", b"x").startswith("H:")


def test_a_slow_reader_loses_nothing(connect: Connect, gearman_server: Any, worker: PythonWorker) -> None:
    client = connect(gearman_server.address)
    big = b"x" * 1_000_000
    results = client.map("echo", [big] * 40, in_flight=20)
    first = next(results)
    # Meanwhile the worker has answered more than sockets hold.
    until(lambda: len(worker.workloads) >= 3, True)
    assert first == big
    assert [len(result) for result in results] == [len(big)] * 39


def test_what_was_asked_on_a_closed_connection_is_not_answered_to_another(
    connect: Connect, gearman_server: Any, worker: PythonWorker
) -> None:
    client = connect(gearman_server.address)
    results = client.map("echo", map(str, range(100)), in_flight=10)
    next(results)
    results.close()
    assert [client.do("echo", b"%d" % number) for number in (1000, 1001)] == [b"1000", b"1001"]
    with pytest.raises(ServerTimeout):
        client.do("never", b"x", timeout=0.05)
    assert client.do("echo", b"1002") == b"1002"


def test_a_payload_that_cannot_be_ends_a_map_and_its_connection(
    connect: Connect, gearman_server: Any, worker: PythonWorker
) -> None:
    client = connect(gearman_server.address)
    with pytest.raises(PostgearError, match="neither bytes nor str nor JSON"):
        list(client.map("echo", [b"1", object()]))
    assert client.do("echo", b"x") == b"x"


def test_a_cancelled_call_closes_its_connection(gearman_server: Any, worker: PythonWorker, peer: Peer) -> None:
    async def main() -> None:
        async with AsyncClient(gearman_server.address, max_connections=1) as client:
            task = asyncio.create_task(client.do("never", b"x"))
            while not worker.workloads:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await client.do("echo", b"y") == b"y"
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await client.do("never", b"z")
            assert await client.do("echo", b"y") == b"y"
            # The worker, this peer, the client's one connection.
            assert len(peer.command(b"workers")) == 3

    asyncio.run(main())


def test_more_calls_than_connections_take_turns(gearman_server: Any, worker: PythonWorker, peer: Peer) -> None:
    async def main() -> None:
        async with AsyncClient(gearman_server.address, max_connections=3) as client:
            results = await asyncio.gather(*(client.do("echo", b"%d" % number) for number in range(50)))
            assert results == [b"%d" % number for number in range(50)]
            assert len(peer.command(b"workers")) == 5
            # One that waits for its turn keeps to its time.
            waiting = [asyncio.create_task(client.do("never", b"x")) for _ in range(3)]
            await asyncio.sleep(0)
            with pytest.raises(ServerTimeout, match="before a connection was free"):
                await client.do("echo", b"x", timeout=0.05)
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    asyncio.run(main())


def test_a_client_outlives_its_event_loop(gearman_server: Any, worker: PythonWorker) -> None:
    client = AsyncClient(gearman_server.address)
    for _ in range(2):

        async def main() -> None:
            assert await client.do("echo", b"x") == b"x"
            await client.close()

        asyncio.run(main())


def test_threads_keep_their_answers_apart_when_a_server_goes_away(start_gearmand: Any, start_server: Any) -> None:
    first, second = start_gearmand(), start_server()
    wrong: list[Any] = []

    def ask(number: int) -> None:
        for turn in range(60):
            text = b"%d %d" % (number, turn)
            try:
                if client.do("echo", text, retries=3, timeout=20) != text:
                    wrong.append(text)
            except PostgearError as error:
                wrong.append(error)
            if (number, turn) == (0, 20):
                first.kill()

    with (
        PythonWorker(first.host, first.port),
        PythonWorker(second.host, second.port),
        Client([first.address, second.address]) as client,
    ):
        threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_a_refused_option_is_no_reason_to_hang(connect: Connect, scripted: Scripted) -> None:
    peer = scripted(response("ERROR", b"UNKNOWN_OPTION", b"no"))
    with pytest.raises(ServerUnreachable, match="UNKNOWN_OPTION"):
        connect(peer.address).echo()


def test_a_submit_that_is_refused_leaves_the_connection_usable(connect: Connect, scripted: Scripted) -> None:
    peer = scripted(OPTION, response("ERROR", b"QUEUE_ERROR", b"full"), CREATED)
    client = connect(peer.address)
    with pytest.raises(ServerRefused) as caught:
        client.submit("f", b"x")
    assert (caught.value.server, caught.value.function, caught.value.code) == (peer.address, "f", "QUEUE_ERROR")
    assert client.submit("f", b"x") == "H:x:1"
    assert peer.connections == 1


def test_time_is_up_at_once(connect: Connect, gearman_server: Any) -> None:
    client = connect(gearman_server.address)
    started = time.monotonic()
    with pytest.raises(ServerTimeout):
        client.do("never", b"x", timeout=0)
    with pytest.raises(ServerTimeout):
        next(client.map("never", [b"x"], timeout=-1))
    assert time.monotonic() - started < 5
    with pytest.raises(NotAllSubmitted):
        connect("127.0.0.1:1").submit_many([NewJob("f")])
