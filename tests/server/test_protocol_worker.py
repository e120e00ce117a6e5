"""Workers: abilities, the three grabs, sleeping and waking."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.server.bytes import Peer, until

Connect = Callable[[], Peer]
ASSIGNMENTS = {
    "GRAB_JOB": lambda handle, function: ("JOB_ASSIGN", handle, function, b"data\0"),
    "GRAB_JOB_UNIQ": lambda handle, function: ("JOB_ASSIGN_UNIQ", handle, function, function, b"data\0"),
    "GRAB_JOB_ALL": lambda handle, function: ("JOB_ASSIGN_UNIQ", handle, function, function, b"data\0"),
}


@pytest.mark.parametrize("grab", ASSIGNMENTS)
def test_a_grab_without_abilities_finds_no_job(grab: str, client: Peer, worker: Peer, function: bytes) -> None:
    client.submit("SUBMIT_JOB", function, b"", b"")

    worker.send(grab)
    worker.expect("NO_JOB")


@pytest.mark.parametrize("grab", ASSIGNMENTS)
def test_a_grab_answers_in_its_own_form(grab: str, client: Peer, worker: Peer, function: bytes) -> None:
    worker.can_do(function)
    handle = client.submit("SUBMIT_JOB", function, function, b"data\0")

    worker.send(grab)
    worker.expect(*ASSIGNMENTS[grab](handle, function))


def test_a_job_goes_to_one_worker(connect: Connect, client: Peer, function: bytes) -> None:
    first, second = connect(), connect()
    for submit in ("SUBMIT_JOB", "SUBMIT_JOB_BG"):
        first.can_do(function)
        second.can_do(function)
        client.submit(submit, function, b"", b"")
        first.grab()

        second.send("GRAB_JOB")
        second.expect("NO_JOB")


def test_a_worker_may_hold_several_jobs_and_finish_them_in_any_order(client: Peer, worker: Peer, function: bytes) -> None:
    worker.can_do(function)
    handles = [client.submit("SUBMIT_JOB", function, b"", b"%d" % number) for number in range(3)]
    assert [worker.grab()[0] for _ in handles] == handles

    for handle in reversed(handles):
        worker.send("WORK_COMPLETE", handle, b"done")
        client.expect("WORK_COMPLETE", handle, b"done")


def test_an_ability_dropped_is_an_ability_gone(client: Peer, worker: Peer, function: bytes) -> None:
    worker.can_do(function)
    worker.send("CANT_DO", function)
    client.submit("SUBMIT_JOB", function, b"", b"")

    worker.send("GRAB_JOB")
    worker.expect("NO_JOB")


def test_dropping_an_ability_never_had_does_nothing(worker: Peer, function: bytes) -> None:
    worker.send("CANT_DO", function)
    worker.silent()


def test_one_cant_do_drops_an_ability_registered_twice(client: Peer, worker: Peer, function: bytes) -> None:
    worker.send("CAN_DO", function)
    worker.send("CAN_DO_TIMEOUT", function, b"5000")
    worker.send("CANT_DO", function)
    client.submit("SUBMIT_JOB", function, b"", b"")

    worker.send("GRAB_JOB")
    worker.expect("NO_JOB")


def test_reset_abilities_drops_them_all(client: Peer, worker: Peer, function: bytes) -> None:
    worker.can_do(function, function + b"'")
    worker.send("RESET_ABILITIES")
    client.submit("SUBMIT_JOB", function, b"", b"")
    client.submit("SUBMIT_JOB", function + b"'", b"", b"")

    worker.send("GRAB_JOB")
    worker.expect("NO_JOB")


@pytest.mark.parametrize("submit", ["SUBMIT_JOB", "SUBMIT_JOB_BG"])
@pytest.mark.parametrize("drop", ["CANT_DO", "RESET_ABILITIES"])
def test_dropping_the_ability_gives_a_running_job_to_another_worker(
    drop: str, submit: str, connect: Connect, client: Peer, function: bytes
) -> None:
    loser, winner = connect(), connect()
    loser.can_do(function)
    winner.can_do(function)
    handle = client.submit(submit, function, b"", b"test")
    loser.grab()
    loser.send("WORK_STATUS", handle, b"1", b"2")
    winner.sleep()

    loser.send(drop, *([function] if drop == "CANT_DO" else []))
    winner.expect("NOOP")
    assert winner.grab() == [handle, function, b"test"]
    loser.send("WORK_COMPLETE", handle, b"late")
    assert loser.error() == "JOB_NOT_FOUND"
    assert connect().status_of(handle) == [b"1", b"1", b"0", b"0"]


@pytest.mark.difference("counts each CAN_DO")
def test_an_ability_registered_twice_counts_once(worker: Peer, admin: Peer, function: bytes) -> None:
    worker.send("CAN_DO", function)
    worker.send("CAN_DO", function)
    worker.send("CAN_DO_TIMEOUT", function, b"5000")
    worker.send("SET_CLIENT_ID", function)
    worker.silent()

    assert admin.status(function) == (0, 0, 1)
    (line,) = [line for line in admin.command(b"workers") if b" " + function + b" :" in line]
    assert line.endswith(b" " + function + b" : " + function + b"\n")


def test_a_sleeping_worker_is_woken_by_a_job(client: Peer, worker: Peer, function: bytes) -> None:
    worker.can_do(function)
    for submit in ("SUBMIT_JOB", "SUBMIT_JOB_BG"):
        worker.sleep()
        handle = client.submit(submit, function, b"", b"")

        worker.expect("NOOP")
        assert worker.grab() == [handle, function, b""]
        worker.send("WORK_COMPLETE", handle, b"")
        if submit == "SUBMIT_JOB":
            client.expect("WORK_COMPLETE", handle, b"")


def test_all_sleeping_workers_are_woken(connect: Connect, client: Peer, function: bytes) -> None:
    workers = [connect() for _ in range(4)]
    for worker in workers:
        worker.can_do(function)
        worker.sleep()
    client.submit("SUBMIT_JOB", function, b"", b"")

    for worker in workers:
        worker.expect("NOOP")
        worker.silent()


def test_a_worker_that_does_not_sleep_gets_no_noop(client: Peer, worker: Peer, function: bytes) -> None:
    worker.can_do(function)
    client.submit("SUBMIT_JOB", function, b"", b"")
    client.submit("SUBMIT_JOB_BG", function, b"", b"")
    worker.silent()


def test_a_sleeping_worker_of_another_function_gets_no_noop(client: Peer, worker: Peer, function: bytes) -> None:
    worker.can_do(function + b"'")
    worker.sleep()
    client.submit("SUBMIT_JOB", function, b"", b"")
    client.submit("SUBMIT_JOB_BG", function, b"", b"")
    worker.silent()


def test_a_sleeping_worker_gets_one_noop_for_many_jobs(client: Peer, worker: Peer, function: bytes) -> None:
    worker.can_do(function)
    worker.sleep()
    for _ in range(5):
        client.submit("SUBMIT_JOB", function, b"", b"")

    worker.expect("NOOP")
    worker.silent()


def test_pre_sleep_is_answered_at_once_when_a_job_waits(client: Peer, worker: Peer, function: bytes) -> None:
    for submit in ("SUBMIT_JOB", "SUBMIT_JOB_BG"):
        client.submit(submit, function, b"", b"")
    worker.can_do(function)
    for _ in range(2):
        worker.send("PRE_SLEEP")
        worker.expect("NOOP")
        worker.grab()


def test_a_grab_wakes_the_connection_itself(client: Peer, worker: Peer, function: bytes) -> None:
    worker.can_do(function)
    worker.sleep()
    worker.send("GRAB_JOB")
    worker.expect("NO_JOB")

    client.submit("SUBMIT_JOB", function, b"", b"")
    worker.silent()


@pytest.mark.difference("stays silent until the worker grabs")
def test_pre_sleep_after_a_noop_makes_the_worker_wakeable_again(connect: Connect, client: Peer, function: bytes) -> None:
    sleeper, rival = connect(), connect()
    sleeper.can_do(function)
    rival.can_do(function)
    sleeper.sleep()
    client.submit("SUBMIT_JOB", function, b"", b"")
    sleeper.expect("NOOP")
    rival.grab()
    sleeper.sleep()

    client.submit("SUBMIT_JOB", function, b"", b"")
    sleeper.expect("NOOP")


@pytest.mark.difference("lets the worker sleep beside the job")
@pytest.mark.parametrize("submit", ["SUBMIT_JOB", "SUBMIT_JOB_BG"])
@pytest.mark.parametrize("ability", [("CAN_DO",), ("CAN_DO_TIMEOUT", b"5000")])
def test_an_ability_added_in_sleep_wakes_the_worker_if_a_job_waits(
    ability: tuple[str, bytes], submit: str, client: Peer, worker: Peer, function: bytes
) -> None:
    client.submit(submit, function, b"", b"")
    worker.sleep()

    worker.send(ability[0], function, *ability[1:])
    worker.expect("NOOP")


def test_a_grab_packet_with_a_body_is_a_grab(worker: Peer) -> None:
    worker.write(b"\0REQ\0\0\0\x09\0\0\0\3abc")
    worker.expect("NO_JOB")
    worker.silent()


def test_the_client_id_is_listed_with_its_spaces(worker: Peer, admin: Peer, function: bytes) -> None:
    worker.send("SET_CLIENT_ID", b"worker of " + function)
    worker.can_do(function)

    (line,) = [line for line in admin.command(b"workers") if function in line]
    number, address, rest = line.split(b" ", 2)
    assert number.isdigit()
    assert address == b"127.0.0.1"
    assert rest == b"worker of " + function + b" : " + function + b"\n"


def test_a_client_id_is_cut_at_127_bytes(worker: Peer, admin: Peer, function: bytes) -> None:
    worker.send("SET_CLIENT_ID", function.ljust(200, b"x"))
    worker.can_do(function)

    (line,) = [line for line in admin.command(b"workers") if function in line]
    assert line.split(b" ")[2] == function.ljust(127, b"x")


def test_a_worker_that_leaves_is_no_longer_counted(connect: Connect, admin: Peer, function: bytes) -> None:
    worker = connect()
    worker.can_do(function)
    assert admin.status(function) == (0, 0, 1)
    worker.close()
    until(lambda: admin.status(function), (0, 0, 0))


def test_the_option_worker_wakeup_wakes_that_many(start_server: object, connect_to: object, function: bytes) -> None:
    server = start_server("--worker-wakeup=1")  # type: ignore[operator]
    client, workers = connect_to(server), [connect_to(server) for _ in range(3)]  # type: ignore[operator]
    for worker in workers:
        worker.can_do(function)
        worker.sleep()
    client.submit("SUBMIT_JOB", function, b"", b"")

    woken = 0
    for worker in workers:
        worker.send("ECHO_REQ", b"")
        if worker.packet().name == "NOOP":
            woken += 1
            worker.expect("ECHO_RES", b"")
    assert woken == 1
