"""Foreground jobs: who gets results, who joins whom, and how one becomes durable."""

from __future__ import annotations

import logging

import pytest

from postgear.dispatch.messages import Request, RequestKind
from postgear.dispatch.peer import Peer
from postgear.job import JoinedJob
from postgear.wire.packet import PacketType, encode_request

from .desk import Desk, row


def test_the_client_gets_everything_its_worker_sends() -> None:
    desk = Desk()
    worker, client = desk.worker(), desk.connect()
    assert desk.send(client, "SUBMIT_JOB", b"f", b"", b"w") == [("JOB_CREATED", b"H:s:f1")]
    desk.grab(worker)
    desk.send(worker, "WORK_STATUS", b"H:s:f1", b"1", b"2")
    desk.send(worker, "WORK_DATA", b"H:s:f1", b"x")
    desk.send(worker, "WORK_WARNING", b"H:s:f1", b"y")
    desk.send(worker, "WORK_COMPLETE", b"H:s:f1", b"z")
    assert desk.replies(client) == [
        ("WORK_STATUS", b"H:s:f1\x001\x002"),
        ("WORK_DATA", b"H:s:f1\0x"),
        ("WORK_WARNING", b"H:s:f1\0y"),
        ("WORK_COMPLETE", b"H:s:f1\0z"),
    ]
    assert desk.dispatcher.jobs == {}


def test_an_exception_goes_only_to_clients_that_asked_for_it() -> None:
    desk = Desk()
    worker, plain, asking = desk.worker(), desk.connect(), desk.connect()
    assert desk.send(asking, "OPTION_REQ", b"Exceptions") == [("OPTION_RES", b"Exceptions")]
    for client in (plain, asking):
        desk.send(client, "SUBMIT_JOB", b"f", b"u", b"w")
    desk.grab(worker)
    desk.send(worker, "WORK_EXCEPTION", b"H:s:f1", b"oh")
    assert desk.replies(plain) == [("WORK_FAIL", b"H:s:f1")]
    assert desk.replies(asking) == [("WORK_EXCEPTION", b"H:s:f1\0oh")]


def test_clients_with_one_unique_share_a_job_and_each_submit_gets_its_result() -> None:
    desk = Desk()
    worker, first, second = desk.worker(), desk.connect(), desk.connect()
    for client in (first, second, second):
        assert desk.send(client, "SUBMIT_JOB", b"f", b"u", b"w") == [("JOB_CREATED", b"H:s:f1")]
    desk.grab(worker)
    assert desk.grab(worker) == b"NO_JOB"
    desk.send(worker, "WORK_COMPLETE", b"H:s:f1", b"z")
    assert [len(desk.replies(client)) for client in (first, second)] == [1, 2]


def test_a_job_that_nobody_waits_for_any_more_is_dropped() -> None:
    desk = Desk()
    client, other = desk.connect(), desk.connect()
    for each in (client, other):
        desk.send(each, "SUBMIT_JOB", b"f", b"u", b"w")
    desk.dispatcher.closed(client)
    assert list(desk.dispatcher.jobs) == [b"H:s:f1"]
    desk.dispatcher.closed(other)
    assert (desk.dispatcher.jobs, desk.f.foreground) == ({}, [0, 0, 0])
    assert desk.grab(desk.worker()) == b"NO_JOB"


def test_a_limit_is_asked_of_the_database_less_the_foreground_jobs_here() -> None:
    desk = Desk(up=True)
    client = desk.connect()
    desk.send(client, "SUBMIT_JOB", b"f", b"", b"w")
    desk.resolve(limits=(None, 5, None))
    assert desk.send(client, "SUBMIT_JOB", b"f", b"", b"w") == []
    (request,) = desk.dispatcher.requests
    assert desk.dispatcher.room_for(request) == 4
    desk.dispatcher.joined(request, None, is_full=True)
    assert desk.replies(client) == [("ERROR", b"QUEUE_ERROR\0Job queue is full")]


def test_without_a_limit_there_is_always_room() -> None:
    desk = Desk()
    _client, request = joining(desk)
    assert desk.dispatcher.room_for(request) is None


# -- joining durable jobs --------------------------------------------------------------------------------------------


def joining(desk: Desk) -> tuple[Peer, Request]:
    """Submit a foreground job to a function that has durable uniques; return its client and the request."""
    desk.dispatcher.store_is_up = True
    desk.resolve(has_uniques=True)
    client = desk.connect()
    assert desk.send(client, "SUBMIT_JOB", b"f", b"u", b"mine") == []
    (request,) = desk.dispatcher.requests
    assert request.kind is RequestKind.JOIN
    desk.dispatcher.requests.clear()
    return client, request


FOUND = JoinedJob(7, True, 1, 1, None, b"durable")
ELSEWHERE = JoinedJob(7, False, 0, 0, None, b"")


def test_a_foreground_client_joins_a_durable_job() -> None:
    desk = Desk()
    worker = desk.worker(sleeping=True)
    client, request = joining(desk)
    desk.dispatcher.joined(request, FOUND)
    assert desk.replies(client) == [("JOB_CREATED", b"H:q:7")]
    assert desk.replies(worker) == [("NOOP", b"")]
    assert desk.grab(worker) == b"durable"
    desk.send(worker, "WORK_COMPLETE", b"H:q:7", b"z")
    assert desk.replies(client) == [("WORK_COMPLETE", b"H:q:7\0z")]
    assert desk.dispatcher.finishes == [7]


@pytest.mark.parametrize("found", [None, ELSEWHERE])
def test_a_foreground_client_that_finds_no_job_to_join_gets_its_own(found: JoinedJob | None) -> None:
    desk = Desk()
    client, request = joining(desk)
    desk.dispatcher.joined(request, found)
    assert desk.replies(client) == [("JOB_CREATED", b"H:s:f1")]


def test_a_durable_job_is_kept_when_another_foreground_job_was_quicker() -> None:
    desk = Desk()
    worker = desk.worker()
    client, first = joining(desk)
    other, second = joining(desk)
    desk.dispatcher.joined(first, None)
    desk.dispatcher.joined(second, FOUND)
    assert desk.replies(client) == desk.replies(other) == [("JOB_CREATED", b"H:s:f1")]
    assert [desk.grab(worker), desk.grab(worker)] == [b"mine", b"durable"]


def test_a_durable_job_found_for_a_client_that_left_stays() -> None:
    desk = Desk()
    worker = desk.worker()
    client, request = joining(desk)
    desk.dispatcher.closed(client)
    desk.dispatcher.joined(request, FOUND)
    desk.dispatcher.answered(client)
    assert desk.grab(worker) == b"durable"


def test_a_joined_durable_job_of_a_lost_worker_stays_here(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "postgear.dispatch")
    desk = Desk()
    first, second = desk.worker(), desk.worker()
    _client, request = joining(desk)
    desk.dispatcher.joined(request, FOUND)
    desk.grab(first)
    desk.dispatcher.closed(first)
    assert desk.dispatcher.releases == []
    assert desk.grab(second) == b"durable"
    assert desk.dispatcher.attempts == {7: 2}
    flagged = [record.fields["attempt"] for record in caplog.records if record.message == "possible duplicate"]  # type: ignore[attr-defined]
    assert flagged == [2]


def test_a_job_that_was_given_out_is_never_released_as_unused() -> None:
    desk = Desk()
    worker = desk.worker()
    client, request = joining(desk)
    desk.dispatcher.joined(request, FOUND)
    desk.grab(worker)
    desk.send(worker, "CANT_DO", b"f")
    desk.dispatcher.closed(client)
    desk.tick(times=20)
    assert (desk.dispatcher.releases, desk.dispatcher.unused) == ([7], [])


def test_functions_with_foreground_submits_are_asked_for_uniques_again() -> None:
    desk = Desk()
    desk.send(desk.connect(), "SUBMIT_JOB", b"f", b"u", b"w")
    desk.dispatcher.ask_for_uniques()
    assert desk.dispatcher.unresolved == [desk.f]
    desk.dispatcher.unresolved.clear()
    desk.dispatcher.ask_for_uniques()
    assert desk.dispatcher.unresolved == []


# -- becoming durable ------------------------------------------------------------------------------------------------


def test_a_background_submit_makes_the_foreground_job_durable_before_its_ack() -> None:
    desk = Desk()
    worker, client, other = desk.worker(), desk.connect(), desk.connect()
    desk.send(client, "SUBMIT_JOB", b"f", b"u", b"w")
    assert desk.send(other, "SUBMIT_JOB_BG", b"f", b"u", b"w") == []
    assert desk.dispatcher.submits[0].claims == [True]
    desk.store(7)
    assert desk.replies(other) == [("JOB_CREATED", b"H:q:7")]
    desk.dispatcher.closed(client)
    assert desk.grab(worker) == b"w"
    desk.send(worker, "WORK_COMPLETE", b"H:s:f1", b"")
    assert (desk.dispatcher.finishes, desk.dispatcher.jobs) == ([7], {})


def test_a_running_foreground_job_becomes_durable() -> None:
    desk = Desk()
    worker, client, other = desk.worker(), desk.connect(), desk.connect()
    desk.send(client, "SUBMIT_JOB", b"f", b"u", b"w")
    desk.grab(worker)
    desk.send(other, "SUBMIT_JOB_BG", b"f", b"u", b"w")
    desk.store(7)
    assert (desk.f.running, desk.f.running_foreground) == (1, 0)
    assert desk.replies(other) == [("JOB_CREATED", b"H:q:7")]
    assert desk.send(other, "GET_STATUS", b"H:q:7") == [("STATUS_RES", b"H:q:7\x001\x001\x000\x000")]


def test_a_redelivered_foreground_job_that_becomes_durable_is_marked() -> None:
    desk = Desk()
    worker, client = desk.worker(), desk.connect()
    desk.send(client, "SUBMIT_JOB", b"f", b"u", b"w")
    desk.grab(worker)
    desk.dispatcher.closed(worker)
    desk.send(desk.connect(), "SUBMIT_JOB_BG", b"f", b"u", b"w")
    desk.store(7)
    assert desk.dispatcher.jobs[b"H:q:7"].attempt == 2


def test_a_joined_foreground_job_stays_while_its_row_is_written() -> None:
    desk = Desk()
    worker, client = desk.worker(), desk.connect()
    desk.send(client, "SUBMIT_JOB", b"f", b"u", b"w")
    desk.send(desk.connect(), "SUBMIT_JOB_BG", b"f", b"u", b"w")
    desk.dispatcher.closed(client)
    desk.store(7)
    assert desk.grab(worker) == b"w"


def test_a_joined_foreground_job_waits_for_the_second_row_when_the_first_is_refused() -> None:
    desk = Desk()
    worker, client, other = desk.worker(), desk.connect(), desk.connect()
    desk.send(client, "SUBMIT_JOB", b"f", b"u", b"w")
    for _ in range(2):
        desk.send(other, "SUBMIT_JOB_BG", b"f", b"u", b"w")
    desk.dispatcher.closed(client)
    desk.store(-5, 7)
    assert desk.grab(worker) == b"w"


def test_a_joined_foreground_job_that_nobody_wants_any_more_ends_with_a_failed_submit() -> None:
    desk = Desk()
    client = desk.connect()
    desk.send(client, "SUBMIT_JOB", b"f", b"u", b"w")
    desk.send(desk.connect(), "SUBMIT_JOB_BG", b"f", b"u", b"w")
    desk.dispatcher.closed(client)
    desk.dispatcher.submit_failed(desk.dispatcher.submits.popleft(), "away")
    assert desk.dispatcher.jobs == {}


def test_the_row_of_a_job_that_ended_meanwhile_is_deleted() -> None:
    desk = Desk()
    worker = desk.worker()
    desk.send(desk.connect(), "SUBMIT_JOB", b"f", b"u", b"w")
    desk.grab(worker)
    desk.send(desk.connect(), "SUBMIT_JOB_BG", b"f", b"u", b"w")
    desk.send(worker, "WORK_COMPLETE", b"H:s:f1", b"")
    desk.store(7)
    assert (desk.dispatcher.finishes, desk.dispatcher.jobs) == ([7], {})


def test_a_late_row_of_a_job_lost_with_its_lease_is_a_job_of_its_own() -> None:
    desk = Desk()
    worker, client = desk.worker(), desk.connect()
    desk.send(desk.connect(), "SUBMIT_JOB", b"f", b"u", b"w")
    desk.send(client, "SUBMIT_JOB_BG", b"f", b"u", b"w")
    first = desk.dispatcher.submits.popleft()
    desk.send(client, "SUBMIT_JOB_BG", b"f", b"u", b"again")
    desk.dispatcher.submitted(first, [7])
    desk.dispatcher.forget_lease()
    desk.store(9)
    assert desk.grab(worker) == b"again"
    assert desk.f.claiming == [0, 0, 0]


def test_a_scheduled_submit_that_joins_a_foreground_job_runs_with_it() -> None:
    desk = Desk()
    desk.send(desk.connect(), "SUBMIT_JOB", b"f", b"u", b"w")
    desk.send(desk.connect(), "SUBMIT_JOB_EPOCH", b"f", b"u", b"2000000000", b"w")
    assert (desk.dispatcher.submits[0].claims, desk.dispatcher.submits[0].run_ats) == ([True], {})


# -- cancel ----------------------------------------------------------------------------------------------------------


def test_a_cancelled_waiting_job_fails_and_is_not_given_out() -> None:
    desk = Desk()
    client = desk.connect()
    desk.send(client, "SUBMIT_JOB", b"f", b"", b"w")
    assert desk.dispatcher.cancel(b"H:s:f1")
    assert desk.replies(client) == [("WORK_FAIL", b"H:s:f1")]
    assert desk.grab(desk.worker()) == b"NO_JOB"
    assert not desk.dispatcher.cancel(b"H:s:f1")


def test_the_result_of_a_cancelled_running_job_is_dropped() -> None:
    desk = Desk()
    worker = desk.worker()
    desk.claim(row(1))
    desk.grab(worker)
    assert desk.dispatcher.cancel(b"", 1)
    assert desk.send(worker, "WORK_COMPLETE", b"H:q:1", b"") == []
    assert (desk.dispatcher.finishes, desk.dispatcher.jobs) == ([], {})


def test_a_cancelled_job_of_a_lost_worker_is_not_released() -> None:
    desk = Desk()
    worker = desk.worker()
    desk.claim(row(1))
    desk.grab(worker)
    desk.dispatcher.cancel(b"", 1)
    desk.dispatcher.closed(worker)
    assert (desk.dispatcher.releases, desk.dispatcher.jobs) == ([], {})


def test_what_is_submitted_after_a_cancel_does_not_join_the_cancelled_job() -> None:
    desk = Desk()
    worker, client = desk.worker(), desk.connect()
    desk.send(client, "SUBMIT_JOB", b"f", b"u", b"w")
    desk.grab(worker)
    desk.dispatcher.cancel(b"H:s:f1")
    desk.send(desk.connect(), "SUBMIT_JOB_BG", b"f", b"u", b"w")
    assert desk.dispatcher.submits[0].joins == {}


def test_the_row_of_a_cancelled_joined_job_is_deleted() -> None:
    desk = Desk()
    desk.send(desk.connect(), "SUBMIT_JOB", b"f", b"u", b"w")
    desk.send(desk.connect(), "SUBMIT_JOB_BG", b"f", b"u", b"w")
    desk.store(7)
    desk.dispatcher.cancel(b"H:s:f1")
    assert (desk.dispatcher.finishes, desk.dispatcher.jobs) == ([7], {})


def test_a_client_that_waits_gets_its_handle_with_the_result() -> None:
    desk = Desk()
    client = desk.connect()
    client.is_waiting_client = True
    desk.send(client, "SUBMIT_JOB", b"f", b"", b"x")
    assert (desk.dispatcher.dirty, desk.dispatcher.late) == ([], [client])


def test_a_handle_waits_for_no_result_where_a_reply_goes_out_anyway() -> None:
    desk = Desk()
    client = desk.connect()
    client.is_waiting_client = True
    packets = encode_request(PacketType.ECHO_REQ, b"x") + encode_request(PacketType.SUBMIT_JOB, b"f", b"", b"w")
    assert desk.send_bytes(client, packets) == [("ECHO_RES", b"x"), ("JOB_CREATED", b"H:s:f1")]
    assert (desk.dispatcher.dirty, desk.dispatcher.late) == ([client], [])


def test_the_end_of_its_only_job_makes_a_waiting_client() -> None:
    desk = Desk()
    client, worker = desk.connect(), desk.connect()
    desk.send(worker, "CAN_DO", b"f")
    desk.send(client, "SUBMIT_JOB", b"f", b"", b"x")
    desk.send(worker, "GRAB_JOB")
    assert not client.is_waiting_client
    desk.send(worker, "WORK_COMPLETE", b"H:s:f1", b"")
    assert client.is_waiting_client


def test_deliveries_before_a_foreground_job_became_durable_count() -> None:
    desk = Desk()
    first, second = desk.worker(), desk.worker()
    client, other = desk.connect(), desk.connect()
    desk.send(client, "SUBMIT_JOB", b"f", b"u", b"w")
    desk.grab(first)
    desk.dispatcher.closed(first)
    desk.grab(second)
    desk.send(other, "SUBMIT_JOB_BG", b"f", b"u", b"w")
    desk.dispatcher.submitted(desk.dispatcher.submits.popleft(), [7])
    assert desk.dispatcher.attempts == {7: 2}
