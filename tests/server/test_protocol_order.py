"""The order of assignment: priority over all functions first, then age."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.server.bytes import Peer, until

Connect = Callable[[], Peer]
PRIORITIES = {"foreground": ("SUBMIT_JOB_HIGH", "SUBMIT_JOB", "SUBMIT_JOB_LOW")}
PRIORITIES["background"] = ("SUBMIT_JOB_HIGH_BG", "SUBMIT_JOB_BG", "SUBMIT_JOB_LOW_BG")


def drain(worker: Peer, count: int) -> list[bytes]:
    """Grab *count* jobs and return their payloads in the order they came."""
    return [worker.grab()[-1] for _ in range(count)]


@pytest.mark.parametrize("kind", PRIORITIES)
def test_inside_a_function_the_oldest_comes_first(kind: str, client: Peer, worker: Peer, function: bytes) -> None:
    for number in range(20):
        client.submit(PRIORITIES[kind][1], function, b"", b"%d" % number)
    worker.can_do(function)

    assert drain(worker, 20) == [b"%d" % number for number in range(20)]


@pytest.mark.parametrize("kind", PRIORITIES)
def test_inside_a_function_high_comes_before_normal_before_low(kind: str, client: Peer, worker: Peer, function: bytes) -> None:
    high, normal, low = PRIORITIES[kind]
    for submit in (low, normal, high, low, normal, high):
        client.submit(submit, function, b"", submit.encode())
    worker.can_do(function)

    assert drain(worker, 6) == [name.encode() for name in (high, high, normal, normal, low, low)]


@pytest.mark.difference("takes the function registered last first, whatever the priority")
@pytest.mark.parametrize("kind", PRIORITIES)
@pytest.mark.parametrize("registered", [(0, 1), (1, 0)])
def test_a_high_job_comes_first_whatever_its_function(
    kind: str, registered: tuple[int, int], client: Peer, worker: Peer, function: bytes
) -> None:
    names = (function, function + b"'")
    high, normal, low = PRIORITIES[kind]
    for submit in (low, normal, high):
        for name in names:
            client.submit(submit, name, b"", submit.encode())
    worker.can_do(*(names[index] for index in registered))

    assert drain(worker, 6) == [name.encode() for name in (high, high, normal, normal, low, low)]


@pytest.mark.parametrize("kind", PRIORITIES)
def test_a_high_job_overtakes_those_that_wait_already(kind: str, client: Peer, worker: Peer, function: bytes) -> None:
    worker.can_do(function)
    high, normal, low = PRIORITIES[kind]
    for number in range(3):
        client.submit(normal, function, b"", b"normal %d" % number)
    assert drain(worker, 1) == [b"normal 0"]
    client.submit(low, function, b"", b"low")
    client.submit(high, function, b"", b"high")

    assert drain(worker, 4) == [b"high", b"normal 1", b"normal 2", b"low"]


def test_foreground_and_background_jobs_share_one_order(client: Peer, worker: Peer, function: bytes) -> None:
    worker.can_do(function)
    order = ("SUBMIT_JOB_LOW_BG", "SUBMIT_JOB_LOW", "SUBMIT_JOB", "SUBMIT_JOB_BG", "SUBMIT_JOB_HIGH", "SUBMIT_JOB_HIGH_BG")
    for submit in order:
        client.submit(submit, function, b"", submit.encode())

    got = drain(worker, 6)
    assert {got[0], got[1]} == {b"SUBMIT_JOB_HIGH", b"SUBMIT_JOB_HIGH_BG"}
    assert {got[2], got[3]} == {b"SUBMIT_JOB", b"SUBMIT_JOB_BG"}
    assert {got[4], got[5]} == {b"SUBMIT_JOB_LOW", b"SUBMIT_JOB_LOW_BG"}


@pytest.mark.difference("puts a requeued job at the end of its priority")
@pytest.mark.parametrize("kind", PRIORITIES)
def test_a_requeued_job_keeps_its_place(kind: str, connect: Connect, client: Peer, worker: Peer, function: bytes) -> None:
    loser = connect()
    loser.can_do(function)
    for number in range(4):
        client.submit(PRIORITIES[kind][1], function, b"", b"%d" % number)
    assert drain(loser, 2) == [b"0", b"1"]
    loser.close()
    worker.can_do(function)
    until(lambda: client.status(function), (4, 0, 1))

    assert drain(worker, 4) == [b"0", b"1", b"2", b"3"]


def test_the_option_round_robin_takes_functions_in_turn(
    start_server: Callable[..., Any], connect_to: Callable[[Any], Peer], function: bytes
) -> None:
    server = start_server("--round-robin")
    client, worker = connect_to(server), connect_to(server)
    names = [function + letter for letter in (b"p", b"q", b"r")]
    for name in names:
        for _ in range(3):
            client.submit("SUBMIT_JOB", name, b"", name[-1:])
    worker.can_do(*names)

    got = drain(worker, 9)
    for turn in (got[0:3], got[3:6], got[6:9]):
        assert sorted(turn) == [b"p", b"q", b"r"]
