"""Stock clients of each language, with a libgearman worker on the other side."""

from __future__ import annotations

import time

import pytest

from tests.interop.conftest import Programs
from tests.server.bytes import Peer

LANGUAGES = ["c", "pl", "php", "py", "js"]
EVERY = pytest.mark.parametrize("language", LANGUAGES, indirect=True)
BYTES = bytes(range(256))

TALK = {
    "c": ["created 1", "data part", "warning careful", "status 1/2", "complete whole", "run ok"],
    "php": ["created 1", "data part", "warning careful", "status 1/2", "complete whole"],
    "pl": ["data part", "warning careful", "status 1/2", "complete whole"],
    "py": ["data part", "warning careful", "status 1/2", "complete whole"],
    "js": ["data part", "data whole", "end"],
}


@EVERY
@pytest.mark.parametrize("workload", [BYTES, BYTES * 12 * 1024], ids=["256 bytes", "3 MB"])
def test_a_client_sends_and_gets_every_byte(language: str, programs: Programs, workload: bytes) -> None:
    programs.worker("worker.c")

    assert programs.client(f"client.{language}", "reverse", data=workload) == workload[::-1]


@EVERY
def test_a_client_s_callbacks_see_data_warning_status_and_result(language: str, programs: Programs) -> None:
    programs.worker("worker.c", "all")

    assert programs.client(f"client.{language}", "tasks", "talk").decode().splitlines() == TALK[language]


@EVERY
def test_a_client_learns_of_a_failure(language: str, programs: Programs) -> None:
    programs.worker("worker.c")

    assert "fail" in programs.client(f"client.{language}", "tasks", "fail").decode().splitlines()


@pytest.mark.difference("sends a NUL after the handle, which these clients do not understand")
@pytest.mark.parametrize("language", ["c", "pl", "py", "js"], indirect=True)  # PHP's always asks for exceptions
def test_a_client_without_the_option_takes_an_exception_for_a_failure(language: str, programs: Programs) -> None:
    programs.worker("worker.c")
    lines = programs.client(f"client.{language}", "tasks", "throw").decode().splitlines()

    assert "fail" in lines
    assert not any(line.startswith("exception") for line in lines)


@pytest.mark.parametrize("language", ["c", "pl", "php"], indirect=True)
def test_a_client_with_the_option_sees_the_exception(language: str, programs: Programs) -> None:
    programs.worker("worker.c")
    lines = programs.client(f"client.{language}", "exceptions", "throw").decode().splitlines()

    assert "exception oops" in lines


@pytest.mark.parametrize("language", ["c", "pl", "php", "py"], indirect=True)
def test_a_client_queues_background_jobs_of_each_priority_and_asks_for_them(
    language: str, programs: Programs, peer: Peer
) -> None:
    lines = programs.client(f"client.{language}", "background").decode().splitlines()

    assert b"later\t1\t1\t1\t0\n" in peer.command(b"prioritystatus")
    assert (
        lines
        == {
            "c": ["by handle 1 0 0/0", "by unique 1 0", "by another unique 0 0"],
            "pl": ["joined 1", "status 1 0"],
            "php": ["joined 1", "status [true,false,0,0]", "by unique [true,false,0,0]"],
            "py": ["status 1 0"],
        }[language]
    )


@pytest.mark.parametrize("language", ["pl"], indirect=True)
def test_a_perl_task_set_runs_its_tasks(language: str, programs: Programs) -> None:
    programs.worker("worker.pl")

    assert programs.client("client.pl", "set").decode().split() == ["1n", "2n", "3n", "4n", "5n"]


@pytest.mark.parametrize("language", ["php"], indirect=True)
@pytest.mark.parametrize("what", ["reverse-high", "reverse-low"])
def test_a_php_client_does_jobs_of_high_and_low_priority(language: str, what: str, programs: Programs) -> None:
    programs.worker("worker.php")

    assert programs.client("client.php", what, data=b"abc") == b"cba"


@pytest.mark.parametrize("language", ["c", "php"], indirect=True)
def test_a_client_pings_the_server(language: str, programs: Programs) -> None:
    programs.client(f"client.{language}", "echo" if language == "c" else "ping")


@pytest.mark.parametrize("language", ["c"], indirect=True)
def test_a_libgearman_client_schedules_a_job(language: str, programs: Programs, peer: Peer) -> None:
    epoch = int(time.time()) + 1
    assert programs.client("client.c", "epoch", str(epoch)) == b"created 1\n"
    assert programs.client("client.c", "epoch", "4102444800") == b"created 1\n"
    assert b"later\t0\t2\t0\t0\n" in peer.command(b"prioritystatus")

    peer.can_do(b"later")
    deadline = time.monotonic() + 5
    while True:
        peer.send("GRAB_JOB")
        packet = peer.packet()
        if packet.name == "JOB_ASSIGN":
            break
        assert time.monotonic() < deadline
    assert packet.body.endswith(b"\0later\0later")
    assert time.time() >= epoch - 0.01
