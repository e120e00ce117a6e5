"""What is kept of ended background jobs, where their function keeps results."""

from __future__ import annotations

import pytest

from postgear.job import Ending, FunctionRow
from tests.dispatch.desk import Desk, row


def keeping(**settings: object) -> Desk:
    """A desk whose function f keeps results."""
    desk = Desk(**settings)
    desk.dispatcher.resolved([FunctionRow(b"f", 1, (None, None, None), False, keeps_results=True)])
    return desk


@pytest.mark.parametrize(
    ("kind", "arguments", "result"),
    [
        ("WORK_COMPLETE", (b"done\0twice",), Ending(True, b"done\0twice")),
        ("WORK_COMPLETE", (b"",), Ending(True, b"")),
        ("WORK_EXCEPTION", (b"why",), Ending(False, b"why")),
        ("WORK_FAIL", (), Ending(False, None)),
    ],
)
def test_how_a_job_has_ended_is_kept(kind: str, arguments: tuple[bytes, ...], result: Ending) -> None:
    desk = keeping()
    worker = desk.worker()
    desk.claim(row(1, key=b"u"))
    desk.grab(worker)
    assert desk.send(worker, kind, b"H:q:1", *arguments) == []
    assert (desk.dispatcher.finishes, desk.dispatcher.results) == ([], {1: result})
    desk.send(desk.connect(), "SUBMIT_JOB_BG", b"f", b"u", b"w")
    assert desk.dispatcher.submits[0].after_finishes
    desk.dispatcher.finished({1: result})
    assert desk.dispatcher.finishing == {}


def test_nothing_is_kept_for_other_functions_and_from_when_a_function_keeps_no_more() -> None:
    desk = keeping()
    desk.resolve()
    worker = desk.worker()
    desk.claim(row(1))
    desk.grab(worker)
    desk.send(worker, "WORK_COMPLETE", b"H:q:1", b"x")
    assert (desk.dispatcher.finishes, desk.dispatcher.results) == ([1], {})


def test_parts_of_a_result_are_not_kept() -> None:
    desk = keeping()
    worker = desk.worker()
    desk.claim(row(1))
    desk.grab(worker)
    desk.send(worker, "WORK_DATA", b"H:q:1", b"a part")
    desk.send(worker, "WORK_COMPLETE", b"H:q:1", b"the end")
    assert desk.dispatcher.results == {1: Ending(True, b"the end")}


def test_a_job_whose_retries_are_used_up_has_failed() -> None:
    desk = keeping(job_retries=1)
    worker = desk.worker()
    desk.claim(row(1))
    desk.grab(worker)
    desk.dispatcher.closed(worker)
    assert (desk.dispatcher.finishes, desk.dispatcher.results) == ([], {1: Ending(False, None)})


def test_the_result_of_a_foreground_job_is_not_kept() -> None:
    desk = keeping()
    worker = desk.worker()
    desk.send(desk.connect(), "SUBMIT_JOB", b"f", b"", b"w")
    desk.grab(worker)
    desk.send(worker, "WORK_COMPLETE", b"H:s:f1", b"x")
    assert desk.dispatcher.results == {}


def test_the_result_of_a_foreground_job_that_became_durable_is_kept_under_the_durable_handle() -> None:
    desk = keeping()
    worker = desk.worker()
    desk.send(desk.connect(), "SUBMIT_JOB", b"f", b"u", b"w")
    desk.send(desk.connect(), "SUBMIT_JOB_BG", b"f", b"u", b"w")
    desk.store(7)
    desk.grab(worker)
    desk.send(worker, "WORK_COMPLETE", b"H:s:f1", b"x")
    assert desk.dispatcher.results == {7: Ending(True, b"x")}


def test_the_result_of_a_foreground_job_that_ended_while_its_row_was_written_is_kept() -> None:
    desk = Desk()
    worker = desk.worker()
    desk.send(desk.connect(), "SUBMIT_JOB", b"f", b"u", b"w")
    desk.grab(worker)
    desk.send(desk.connect(), "SUBMIT_JOB_BG", b"f", b"u", b"w")
    desk.send(worker, "WORK_COMPLETE", b"H:s:f1", b"x")
    assert desk.dispatcher.results == {}
    desk.dispatcher.function(b"f").keeps_results = True  # it was asked for by the submit
    desk.store(7)
    assert (desk.dispatcher.finishes, desk.dispatcher.results) == ([], {7: Ending(True, b"x")})


def test_nothing_is_kept_of_a_cancelled_job() -> None:
    desk = keeping()
    worker = desk.worker()
    desk.claim(row(1))
    desk.grab(worker)
    desk.dispatcher.cancel(b"H:q:1")
    desk.send(worker, "WORK_COMPLETE", b"H:q:1", b"x")
    assert (desk.dispatcher.finishes, desk.dispatcher.results) == ([], {})


def test_nothing_is_kept_of_a_cancelled_job_that_completes_while_its_row_is_written() -> None:
    desk = keeping()
    worker = desk.worker()
    desk.send(desk.connect(), "SUBMIT_JOB", b"f", b"u", b"w")
    desk.grab(worker)
    desk.send(desk.connect(), "SUBMIT_JOB_BG", b"f", b"u", b"w")
    desk.dispatcher.cancel(b"H:s:f1")
    desk.send(worker, "WORK_COMPLETE", b"H:s:f1", b"x")
    desk.store(7)
    assert (desk.dispatcher.finishes, desk.dispatcher.results) == ([7], {})


def test_results_are_forgotten_with_the_lease() -> None:
    desk = keeping()
    worker = desk.worker()
    desk.claim(row(1))
    desk.grab(worker)
    desk.send(worker, "WORK_COMPLETE", b"H:q:1", b"x")
    desk.dispatcher.forget_lease()
    assert desk.dispatcher.results == {}


def test_nothing_is_taken_from_the_database_while_too_many_results_wait() -> None:
    desk = keeping()
    desk.worker(sleeping=True)
    desk.dispatcher.is_behind = True
    assert desk.dispatcher.demands(poll=True) == []
    desk.send(desk.connect(), "SUBMIT_JOB_BG", b"f", b"", b"w")
    assert desk.dispatcher.submits[0].claims == [False]
    desk.store(7)
    desk.dispatcher.is_behind = False
    desk.dispatcher.reopen_backlogs()
    assert [lane.function_id for lane in desk.dispatcher.demands(poll=False)] == [1] * 3
