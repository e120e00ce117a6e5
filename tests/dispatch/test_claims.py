"""The claim-ahead window, releases, and what a lost connection or lease changes."""

from __future__ import annotations

import pytest

from postgear.dispatch.peer import WINDOW_MAX_JOBS
from postgear.job import FunctionRow, JoinedJob, Lane

from .desk import Desk, row


def test_nothing_is_claimed_without_workers() -> None:
    desk = Desk()
    assert desk.dispatcher.demands(poll=True) == []
    assert not desk.dispatcher.has_workers
    desk.worker(sleeping=True)
    assert desk.dispatcher.has_workers


def test_nothing_is_claimed_for_a_function_whose_id_is_not_known() -> None:
    desk = Desk()
    desk.worker(b"new", sleeping=True)
    assert desk.dispatcher.demands(poll=True) == []


def test_a_sleeping_worker_wants_a_job_of_each_priority() -> None:
    desk = Desk()
    desk.worker(sleeping=True)
    assert desk.dispatcher.demands(poll=True) == [Lane(1, 0, 1), Lane(1, 1, 1), Lane(1, 2, 1)]


def test_without_a_poll_only_known_backlogs_are_claimed() -> None:
    desk = Desk()
    desk.worker(sleeping=True)
    desk.f.backlog[2] = True
    assert desk.dispatcher.demands(poll=False) == [Lane(1, 2, 1)]


def test_claims_under_way_count_for_the_window() -> None:
    desk = Desk()
    desk.worker(sleeping=True)
    first = desk.dispatcher.demands(poll=True)
    assert desk.dispatcher.demands(poll=True) == []
    desk.dispatcher.claim_failed(first)
    assert desk.dispatcher.demands(poll=False) == first


def test_the_window_doubles_while_workers_keep_up() -> None:
    desk = Desk()
    worker = desk.worker(sleeping=True)
    wanted = []
    for number in range(5):
        lanes = desk.dispatcher.demands(poll=True)
        wanted.append(lanes[1].wanted)
        desk.claim(*(row(number * 100 + place + 1) for place in range(lanes[1].wanted)), lanes=lanes)
        desk.replies(worker)  # NOOP
        for _ in range(lanes[1].wanted):
            desk.grab(worker)
    assert wanted == [1, 2, 4, 8, 16]


def test_the_window_has_an_end() -> None:
    desk = Desk()
    desk.f.rate = 1e9
    assert desk.f.window() == WINDOW_MAX_JOBS


def test_a_full_lane_means_that_there_may_be_more() -> None:
    desk = Desk()
    desk.worker(sleeping=True)
    desk.claim(row(1))
    assert desk.f.backlog == [False, True, False]


def test_a_claim_cut_at_its_bytes_says_nothing_about_a_short_lane() -> None:
    desk = Desk()
    desk.worker(sleeping=True)
    desk.dispatcher.claimed(desk.dispatcher.demands(poll=True), [row(1)], cut=True)
    assert desk.f.backlog == [True, True, True]


def test_a_claim_is_asked_for_when_half_of_the_window_is_gone() -> None:
    desk = Desk()
    worker = desk.worker()
    desk.f.rate = 16.0
    desk.claim(*(row(number) for number in range(1, 5)))
    desk.dispatcher.claim_wanted = False
    desk.grab(worker)
    assert not desk.dispatcher.claim_wanted
    desk.grab(worker)
    assert desk.dispatcher.claim_wanted


def test_a_job_that_is_here_already_is_not_taken_twice() -> None:
    desk = Desk()
    worker = desk.worker()
    desk.claim(row(1), row(1))
    assert [desk.grab(worker), desk.grab(worker)] == [b"w", b"NO_JOB"]


def test_a_possible_duplicate_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    desk = Desk()
    desk.worker()
    desk.claim(row(1, attempt=2))
    assert "possible duplicate" in caplog.text


def test_worker_lost_while_claim_in_flight_releases_job() -> None:
    desk = Desk()
    worker = desk.worker(sleeping=True)
    lanes = desk.dispatcher.demands(poll=True)
    desk.dispatcher.closed(worker)
    desk.claim(row(1), lanes=lanes)
    assert (desk.dispatcher.unused, desk.f.held, desk.f.claiming) == ([1], [0, 0, 0], [0, 0, 0])


def test_jobs_go_back_with_the_last_worker() -> None:
    desk = Desk()
    first, second = desk.worker(), desk.worker()
    desk.claim(row(1), row(2))
    desk.dispatcher.closed(first)
    assert desk.dispatcher.unused == []
    desk.dispatcher.closed(second)
    assert desk.dispatcher.unused == [2, 1]


def test_held_jobs_go_back_with_an_older_one_so_that_it_stays_the_first() -> None:
    desk = Desk()
    first = desk.worker()
    desk.worker()
    desk.claim(row(1), row(2), row(3))
    desk.grab(first)
    desk.dispatcher.closed(first)
    assert (desk.dispatcher.releases, sorted(desk.dispatcher.unused)) == ([1], [2, 3])
    assert (desk.f.held, desk.f.backlog[1]) == ([0, 0, 0], True)


def test_jobs_claimed_while_an_older_one_went_back_follow_it() -> None:
    desk = Desk()
    first, second = desk.worker(), desk.worker(sleeping=True)
    desk.claim(row(2))
    desk.grab(first)
    desk.f.rate = 16.0
    lanes = desk.dispatcher.demands(poll=True)
    desk.dispatcher.closed(first)
    desk.claim(row(1, b"older"), row(3, b"younger"), lanes=lanes)
    assert (desk.dispatcher.releases, desk.dispatcher.unused) == ([2], [3])
    desk.replies(second)  # NOOP
    assert [desk.grab(second), desk.grab(second)] == [b"older", b"NO_JOB"]


def test_foreground_jobs_and_joined_ones_stay_when_the_others_go_back() -> None:
    desk = Desk()
    worker, client = desk.worker(), desk.connect()
    desk.claim(row(1, b"one"), row(2, b"two", key=b"u"), row(3, b"three"))
    desk.send(client, "SUBMIT_JOB", b"f", b"u", b"w")
    desk.send(client, "SUBMIT_JOB", b"f", b"", b"foreground")
    desk.send(worker, "CANT_DO", b"f")
    assert desk.dispatcher.unused == [3, 1]
    other = desk.worker()
    assert [desk.grab(other), desk.grab(other)] == [b"two", b"foreground"]


def test_what_no_worker_asked_for_goes_back_after_two_seconds() -> None:
    desk = Desk()
    desk.worker()
    desk.claim(row(1), row(2))
    desk.tick(times=19)
    assert desk.dispatcher.unused == []
    desk.tick()
    assert desk.dispatcher.unused == [2, 1]


def test_what_workers_drain_stays_until_they_stop() -> None:
    desk = Desk()
    worker = desk.worker()
    desk.claim(*(row(number) for number in range(1, 5)))
    desk.grab(worker)
    desk.grab(worker)
    desk.dispatcher.cancel(b"H:q:3")
    desk.tick(times=20)
    assert desk.dispatcher.unused == []
    desk.dispatcher.demands(poll=True)
    desk.tick(times=20)
    assert (desk.dispatcher.unused, desk.f.rate) == ([4], 0.0)


def test_a_stopped_server_claims_nothing() -> None:
    desk = Desk()
    desk.worker(sleeping=True)
    desk.dispatcher.stop_claims()
    assert desk.dispatcher.demands(poll=True) == []


def test_a_server_whose_lease_is_in_doubt_claims_nothing() -> None:
    desk = Desk()
    desk.worker(sleeping=True)
    desk.dispatcher.suspended = True
    assert desk.dispatcher.demands(poll=True) == []


def test_a_function_is_forgotten_and_starts_anew() -> None:
    desk = Desk()
    old = desk.f
    desk.dispatcher.forget_function(old)
    desk.dispatcher.resolved([FunctionRow(b"f", 1, (None, None, None), False)])
    assert desk.dispatcher.functions_by_id.keys() == {2}
    assert desk.dispatcher.function(b"f") is not old


def test_a_function_is_not_forgotten_while_a_claim_for_it_is_under_way() -> None:
    desk = Desk()
    worker = desk.worker(sleeping=True)
    lanes = desk.dispatcher.demands(poll=True)
    desk.dispatcher.closed(worker)
    desk.dispatcher.forget_function(desk.f)
    desk.claim(row(1), lanes=lanes)
    assert desk.dispatcher.unused == [1]


def test_jobs_that_others_took_are_dropped_and_their_clients_told() -> None:
    desk = Desk()
    worker, client = desk.worker(), desk.connect()
    desk.claim(row(1, key=b"u"), row(2))
    desk.send(client, "SUBMIT_JOB", b"f", b"u", b"w")
    assert sorted(desk.dispatcher.held_ids()) == [1, 2]
    desk.dispatcher.drop_held([1, 99])
    assert desk.replies(client) == [("WORK_FAIL", b"H:q:1")]
    assert [desk.grab(worker), desk.grab(worker)] == [b"w", b"NO_JOB"]


def test_a_lost_lease_takes_every_durable_job_and_no_other() -> None:
    desk = Desk()
    worker, client = desk.worker(), desk.connect()
    desk.claim(row(1), row(2))
    desk.grab(worker)
    desk.send(client, "SUBMIT_JOB", b"f", b"", b"foreground")
    desk.send(client, "SUBMIT_JOB", b"f", b"u", b"durable")
    desk.send(desk.connect(), "SUBMIT_JOB_BG", b"f", b"u", b"durable")
    desk.store(7)
    desk.dispatcher.forget_lease()
    assert desk.replies(client) == [("WORK_FAIL", b"H:s:f2")]
    assert (desk.f.held, desk.f.running, desk.f.backlog) == ([0, 0, 0], 0, [True, True, True])
    ((kind, _),) = desk.send(worker, "WORK_COMPLETE", b"H:q:1", b"")
    assert (kind, desk.dispatcher.finishes) == ("ERROR", [])
    assert desk.grab(worker) == b"foreground"


def test_deletions_are_noted_though_no_unique_waits_for_them() -> None:
    desk = Desk()
    desk.dispatcher.finished([1])
    assert desk.dispatcher.finishing == {}


def test_jobs_that_ended_while_they_waited_are_passed_over() -> None:
    desk = Desk()
    worker = desk.worker()
    desk.claim(row(1), row(2), row(3))
    for handle in (b"H:q:1", b"H:q:3"):
        desk.dispatcher.cancel(handle)
    assert desk.send(worker, "PRE_SLEEP") == [("NOOP", b"")]
    desk.dispatcher.closed(worker)
    assert (desk.dispatcher.unused, desk.f.held) == ([2], [0, 0, 0])


def test_a_worker_that_leaves_others_without_jobs_changes_nothing() -> None:
    desk = Desk()
    first, second = desk.worker(), desk.worker(sleeping=True)
    desk.dispatcher.closed(first)
    assert (desk.replies(second), list(desk.f.workers)) == ([], [second])


def test_only_functions_with_workers_or_held_jobs_are_looked_at() -> None:
    desk = Desk(up=True)
    assert list(desk.dispatcher.active) == []
    worker = desk.worker()
    desk.claim(row(1))
    desk.grab(worker)
    desk.send(worker, "WORK_COMPLETE", b"H:q:1", b"")
    assert list(desk.dispatcher.active) == [desk.f]
    desk.dispatcher.closed(worker)
    desk.tick(times=100)
    assert (list(desk.dispatcher.active), desk.f.rate) == ([], 0.0)


def test_a_joined_job_without_workers_goes_back_when_its_client_left() -> None:
    desk = Desk(up=True)
    desk.resolve(has_uniques=True)
    client = desk.connect()
    desk.send(client, "SUBMIT_JOB", b"f", b"u", b"mine")
    (request,) = desk.dispatcher.requests
    desk.dispatcher.joined(request, JoinedJob(7, True, 1, 1, None, b"durable"))
    desk.dispatcher.closed(client)
    desk.tick(times=40)
    assert (desk.dispatcher.unused, list(desk.dispatcher.active)) == ([7], [])


def test_what_a_claim_brings_after_the_claims_were_stopped_goes_back() -> None:
    desk = Desk()
    desk.worker(sleeping=True)
    lanes = desk.dispatcher.demands(poll=True)
    desk.dispatcher.stop_claims()
    desk.claim(row(1), lanes=lanes)
    assert desk.dispatcher.unused == [1]
    assert desk.dispatcher.held_ids() == []


def test_a_dropped_function_is_not_asked_for() -> None:
    desk = Desk()
    asked = desk.dispatcher.function(b"asked")
    dropped = desk.dispatcher.function(b"dropped")
    assert desk.dispatcher.unresolved == [asked, dropped]
    desk.dispatcher.forget_function(dropped)
    assert desk.dispatcher.unresolved == [asked]
