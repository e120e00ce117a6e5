"""Workers: grabbing, sleeping, results, losses."""

from __future__ import annotations

import pytest

from .desk import Desk, row


def test_high_goes_before_normal_before_low_over_all_functions() -> None:
    desk = Desk()
    worker, client = desk.worker(b"f", b"g"), desk.connect()
    for kind, name in [("SUBMIT_JOB_LOW", b"g"), ("SUBMIT_JOB", b"f"), ("SUBMIT_JOB_HIGH", b"f"), ("SUBMIT_JOB", b"g")]:
        desk.send(client, kind, name, b"", kind.encode())
    assert [desk.grab(worker) for _ in range(5)] == [
        b"SUBMIT_JOB_HIGH",
        b"SUBMIT_JOB",
        b"SUBMIT_JOB",
        b"SUBMIT_JOB_LOW",
        b"NO_JOB",
    ]


def test_inside_a_function_the_oldest_job_goes_first() -> None:
    desk = Desk()
    worker = desk.worker()
    desk.claim(row(1, b"a"), row(2, b"b"))
    assert [desk.grab(worker), desk.grab(worker)] == [b"a", b"b"]


def test_the_function_registered_last_is_looked_at_first() -> None:
    desk = Desk()
    worker, client = desk.worker(b"f", b"g"), desk.connect()
    for name in (b"f", b"g"):
        desk.send(client, "SUBMIT_JOB", name, b"", name)
    assert desk.grab(worker) == b"g"


def test_round_robin_takes_turns() -> None:
    desk = Desk(round_robin=True)
    worker, client = desk.worker(b"f", b"g"), desk.connect()
    for name in (b"f", b"f", b"g", b"g"):
        desk.send(client, "SUBMIT_JOB", name, b"", name)
    assert [desk.grab(worker) for _ in range(4)] == [b"g", b"f", b"g", b"f"]


def test_each_way_to_grab_has_its_own_answer() -> None:
    desk = Desk()
    worker = desk.worker()
    client = desk.connect()
    for _ in range(3):
        desk.send(client, "SUBMIT_JOB", b"f", b"", b"w")
    assert [desk.send(worker, kind)[0][0] for kind in ("GRAB_JOB", "GRAB_JOB_UNIQ", "GRAB_JOB_ALL")] == [
        "JOB_ASSIGN",
        "JOB_ASSIGN_UNIQ",
        "JOB_ASSIGN_UNIQ",
    ]


def test_a_worker_is_told_the_unique_dash_and_not_its_key() -> None:
    desk = Desk()
    worker, client = desk.worker(), desk.connect()
    desk.send(client, "SUBMIT_JOB", b"f", b"-", b"w")
    assert desk.send(worker, "GRAB_JOB_UNIQ") == [("JOB_ASSIGN_UNIQ", b"H:s:f1\0f\0-\0w")]


def test_a_worker_does_not_sleep_while_there_is_a_job() -> None:
    desk = Desk()
    worker = desk.worker()
    desk.claim(row(1))
    assert desk.send(worker, "PRE_SLEEP") == [("NOOP", b"")]
    assert not worker.sleeping


def test_a_sleeping_worker_is_woken_once() -> None:
    desk = Desk()
    worker, client = desk.worker(b"f", b"g", sleeping=True), desk.connect()
    desk.send(client, "SUBMIT_JOB", b"f", b"", b"w")
    desk.send(client, "SUBMIT_JOB", b"g", b"", b"w")
    assert desk.replies(worker) == [("NOOP", b"")]


def test_worker_wakeup_limits_who_is_woken() -> None:
    desk = Desk(worker_wakeup=1)
    workers = [desk.worker(sleeping=True) for _ in range(3)]
    desk.send(desk.connect(), "SUBMIT_JOB", b"f", b"", b"w")
    assert [len(desk.replies(worker)) for worker in workers] == [1, 0, 0]


def test_another_worker_is_woken_when_the_first_does_not_come() -> None:
    desk = Desk(worker_wakeup=1)
    workers = [desk.worker(sleeping=True) for _ in range(2)]
    desk.send(desk.connect(), "SUBMIT_JOB", b"f", b"", b"w")
    desk.tick()
    assert [len(desk.replies(worker)) for worker in workers] == [1, 1]


def test_another_worker_is_woken_when_the_first_leaves() -> None:
    desk = Desk(worker_wakeup=1)
    first, second = desk.worker(sleeping=True), desk.worker(sleeping=True)
    desk.send(desk.connect(), "SUBMIT_JOB", b"f", b"", b"w")
    desk.dispatcher.closed(first)
    assert desk.replies(second) == [("NOOP", b"")]


def test_a_grab_ends_the_sleep() -> None:
    desk = Desk()
    worker = desk.worker(sleeping=True)
    assert desk.grab(worker) == b"NO_JOB"
    desk.send(desk.connect(), "SUBMIT_JOB", b"f", b"", b"w")
    assert desk.replies(worker) == []


def test_an_ability_learned_asleep_wakes_for_its_job() -> None:
    desk = Desk()
    worker = desk.worker(b"g", sleeping=True)
    desk.send(desk.connect(), "SUBMIT_JOB", b"f", b"", b"w")
    assert desk.send(worker, "CAN_DO", b"f") == [("NOOP", b"")]
    desk.send(worker, "PRE_SLEEP")
    desk.replies(worker)
    other = desk.worker(b"g", sleeping=True)
    desk.send(desk.worker(), "GRAB_JOB")
    assert desk.send(other, "CAN_DO", b"f") == []


def test_pre_sleep_asks_for_a_claim_while_the_database_may_have_jobs() -> None:
    desk = Desk()
    desk.f.backlog[1] = True
    desk.dispatcher.claim_wanted = False
    desk.worker(sleeping=True)
    assert desk.dispatcher.claim_wanted


def test_a_function_name_of_513_bytes_is_refused() -> None:
    desk = Desk()
    ((kind, _),) = desk.send(desk.connect(), "CAN_DO", b"f" * 513)
    assert kind == "ERROR"


@pytest.mark.parametrize("kind", ["WORK_COMPLETE", "WORK_FAIL", "WORK_EXCEPTION"])
def test_any_result_finishes_a_background_job(kind: str) -> None:
    desk = Desk()
    worker = desk.worker()
    desk.claim(row(1))
    desk.grab(worker)
    assert desk.send(worker, kind, *((b"H:q:1",) if kind == "WORK_FAIL" else (b"H:q:1", b"x"))) == []
    assert desk.dispatcher.finishes == [1]
    assert (desk.f.running, desk.dispatcher.jobs) == (0, {})


@pytest.mark.parametrize("kind", ["WORK_COMPLETE", "WORK_DATA", "WORK_WARNING", "WORK_EXCEPTION", "WORK_FAIL", "WORK_STATUS"])
def test_a_result_for_a_job_that_the_worker_does_not_have_is_an_error(kind: str) -> None:
    desk = Desk()
    desk.claim(row(1))
    arguments = {"WORK_FAIL": (b"H:q:1",), "WORK_STATUS": (b"H:q:1", b"1", b"2")}.get(kind, (b"H:q:1", b"x"))
    ((reply, body),) = desk.send(desk.worker(), kind, *arguments)
    assert (reply, body.split(b"\0")[0]) == ("ERROR", b"JOB_NOT_FOUND")


def test_a_second_completion_is_an_error() -> None:
    desk = Desk()
    worker = desk.worker()
    desk.claim(row(1))
    desk.grab(worker)
    desk.send(worker, "WORK_COMPLETE", b"H:q:1", b"")
    ((kind, _),) = desk.send(worker, "WORK_COMPLETE", b"H:q:1", b"")
    assert (kind, desk.dispatcher.finishes) == ("ERROR", [1])


def test_progress_is_kept_until_the_job_ends() -> None:
    desk = Desk()
    worker = desk.worker()
    desk.claim(row(1))
    desk.grab(worker)
    desk.send(worker, "WORK_STATUS", b"H:q:1", b"3", b"-4")
    desk.send(worker, "WORK_DATA", b"H:q:1", b"x")
    assert desk.dispatcher.progress == {1: (3, 0)}
    desk.send(worker, "WORK_COMPLETE", b"H:q:1", b"")
    assert desk.dispatcher.progress == {}


def test_the_job_of_a_lost_worker_is_released() -> None:
    desk = Desk()
    worker = desk.worker()
    desk.claim(row(1))
    desk.grab(worker)
    desk.dispatcher.closed(worker)
    assert (desk.dispatcher.releases, desk.f.running) == ([1], 0)


@pytest.mark.parametrize("kind", ["CANT_DO", "RESET_ABILITIES"])
def test_a_worker_that_drops_the_ability_loses_its_job(kind: str) -> None:
    desk = Desk()
    worker = desk.worker()
    desk.claim(row(1))
    desk.grab(worker)
    desk.send(worker, kind, *((b"f",) if kind == "CANT_DO" else ()))
    assert (desk.dispatcher.releases, worker.abilities) == ([1], {})


@pytest.mark.parametrize("name", [b"g", b"unknown"])
def test_cant_do_of_what_it_never_could_changes_nothing(name: bytes) -> None:
    desk = Desk()
    worker = desk.worker()
    assert desk.send(worker, "CANT_DO", name) == []
    assert list(worker.abilities) == [desk.f]


def test_a_job_that_runs_too_long_is_taken_from_its_worker() -> None:
    desk = Desk()
    worker = desk.connect()
    desk.send(worker, "CAN_DO_TIMEOUT", b"f", b"1500")
    desk.claim(row(1), row(2))
    desk.grab(worker)
    desk.grab(worker)
    desk.send(worker, "WORK_COMPLETE", b"H:q:2", b"")
    desk.tick(1.4)
    assert desk.dispatcher.releases == []
    desk.tick(0.2)
    assert desk.dispatcher.releases == [1]


@pytest.mark.parametrize(("milliseconds", "seconds"), [(b"100", 1.0), (b"2500", 2.5), (b"0", 0.0), (b"-1", 0.0), (b"x", 0.0)])
def test_a_timeout_below_a_second_is_raised_and_zero_is_none(milliseconds: bytes, seconds: float) -> None:
    desk = Desk()
    worker = desk.connect()
    desk.send(worker, "CAN_DO_TIMEOUT", b"f", milliseconds)
    assert worker.abilities == {desk.f: seconds}


def test_a_foreground_job_of_a_lost_worker_goes_to_the_next_one() -> None:
    desk = Desk()
    first, second = desk.worker(), desk.worker(sleeping=True)
    desk.send(desk.connect(), "SUBMIT_JOB", b"f", b"", b"w")
    desk.replies(second)
    desk.grab(first)
    desk.send(second, "PRE_SLEEP")
    desk.dispatcher.closed(first)
    assert desk.replies(second) == [("NOOP", b"")]
    assert desk.grab(second) == b"w"


def test_a_foreground_job_of_a_lost_worker_ends_when_nobody_waits_for_it() -> None:
    desk = Desk()
    worker, client = desk.worker(), desk.connect()
    desk.send(client, "SUBMIT_JOB", b"f", b"", b"w")
    desk.grab(worker)
    desk.dispatcher.closed(client)
    desk.dispatcher.closed(worker)
    assert desk.dispatcher.jobs == {}


@pytest.mark.parametrize("retries", [0, 1])
def test_a_job_whose_retries_are_used_up_fails(retries: int) -> None:
    desk = Desk(job_retries=retries)
    worker, client = desk.worker(), desk.connect()
    desk.send(client, "SUBMIT_JOB", b"f", b"", b"w")
    desk.claim(row(1))
    desk.grab(worker)
    desk.grab(worker)
    desk.dispatcher.closed(worker)
    assert desk.replies(client) == [("WORK_FAIL", b"H:s:f1")]
    assert (desk.dispatcher.finishes, desk.dispatcher.releases) == ([1], [])


def test_a_draining_server_gives_out_nothing() -> None:
    desk = Desk()
    worker, client = desk.worker(), desk.connect()
    desk.send(client, "SUBMIT_JOB", b"f", b"", b"w")
    desk.claim(row(1))
    desk.dispatcher.drain()
    assert desk.dispatcher.unused == [1]
    assert desk.send(worker, "PRE_SLEEP") == []
    desk.send(client, "SUBMIT_JOB", b"f", b"", b"w")
    assert desk.replies(worker) == []
    assert desk.grab(worker) == b"NO_JOB"


def test_is_running_says_whether_a_worker_has_a_job() -> None:
    desk = Desk()
    worker = desk.worker()
    desk.claim(row(1))
    assert not desk.dispatcher.is_running
    desk.grab(worker)
    assert desk.dispatcher.is_running


def test_background_jobs_are_held_back_while_the_lease_is_in_doubt() -> None:
    desk = Desk()
    worker, client = desk.worker(), desk.connect()
    desk.claim(row(1))
    desk.dispatcher.suspended = True
    desk.send(client, "SUBMIT_JOB_HIGH", b"f", b"", b"foreground")
    assert [desk.grab(worker), desk.grab(worker)] == [b"foreground", b"NO_JOB"]
    assert desk.send(worker, "PRE_SLEEP") == []
    desk.tick()
    assert desk.replies(worker) == []
    desk.dispatcher.suspended = False
    desk.tick()
    assert desk.replies(worker) == [("NOOP", b"")]


def test_a_server_that_stood_still_gives_out_no_background_job() -> None:
    desk = Desk()
    worker, client = desk.worker(), desk.connect()
    desk.claim(row(1))
    desk.dispatcher.is_lease_in_doubt = lambda: True  # though no tick has come that would say so
    desk.send(client, "SUBMIT_JOB_LOW", b"f", b"", b"foreground")
    assert [desk.grab(worker), desk.grab(worker)] == [b"foreground", b"NO_JOB"]
    assert desk.send(worker, "PRE_SLEEP") == []


def test_a_grab_waits_for_the_claim_that_may_bring_its_job() -> None:
    desk = Desk(up=True)
    worker = desk.worker()
    desk.f.backlog[1] = True
    assert desk.send(worker, "GRAB_JOB_UNIQ") == []
    assert desk.dispatcher.claim_wanted
    desk.claim(row(1, b"w", key=b"u"))
    assert desk.replies(worker) == [("JOB_ASSIGN_UNIQ", b"H:q:1\0f\0u\0w")]


def test_a_grab_that_waited_in_vain_gets_no_job() -> None:
    desk = Desk(up=True)
    worker = desk.worker()
    desk.f.backlog[1] = True
    desk.send(worker, "GRAB_JOB")
    desk.claim()
    assert desk.replies(worker) == [("NO_JOB", b"")]


def test_a_grab_goes_on_waiting_while_the_database_may_have_more() -> None:
    desk = Desk(up=True)
    worker = desk.worker()
    desk.f.backlog[1] = True
    desk.send(worker, "GRAB_JOB")
    desk.dispatcher.claim_failed(desk.dispatcher.demands(poll=False))
    assert desk.replies(worker) == []
    desk.dispatcher.store_is_up = False
    desk.dispatcher.serve_waiting()
    assert desk.replies(worker) == [("NO_JOB", b"")]


def test_a_low_job_waits_while_the_database_may_have_a_high_one() -> None:
    desk = Desk(up=True)
    worker = desk.worker()
    desk.send(desk.connect(), "SUBMIT_JOB_LOW", b"f", b"", b"low")
    desk.f.backlog[0] = True
    assert desk.send(worker, "GRAB_JOB") == []
    desk.claim(row(1, b"high", priority=0))
    assert desk.replies(worker) == [("JOB_ASSIGN", b"H:q:1\0f\0high")]


def test_a_waiting_worker_that_left_is_forgotten() -> None:
    desk = Desk(up=True)
    worker = desk.worker()
    desk.f.backlog[1] = True
    desk.send(worker, "GRAB_JOB")
    desk.dispatcher.closed(worker)
    assert desk.dispatcher.waiting == {}
