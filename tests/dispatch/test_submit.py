"""Background submits: what is stored, how it is acknowledged, and in which order."""

from __future__ import annotations

import pytest

from postgear.dispatch import clients as rules
from postgear.job import Durability
from postgear.wire.packet import PacketType, encode_request

from .desk import Desk, row


@pytest.mark.parametrize(("kind", "priority"), [("SUBMIT_JOB_HIGH_BG", 0), ("SUBMIT_JOB_BG", 1), ("SUBMIT_JOB_LOW_BG", 2)])
def test_a_background_job_is_acknowledged_after_its_commit(kind: str, priority: int) -> None:
    desk = Desk()
    client = desk.connect()
    assert desk.send(client, kind, b"f", b"u", b"a\0b") == []
    batch = desk.dispatcher.submits[0]
    assert (batch.functions, batch.priorities, batch.unique_keys, batch.workloads) == ([desk.f], [priority], [b"u"], [b"a\0b"])
    desk.store(7)
    assert desk.replies(client) == [("JOB_CREATED", b"H:q:7")]


def test_submits_of_all_connections_share_a_batch() -> None:
    desk = Desk()
    first, second = desk.connect(), desk.connect()
    for client in (first, second, first):
        desk.send(client, "SUBMIT_JOB_BG", b"f", b"", b"w")
    desk.store(1, 2, 3)
    assert desk.replies(first) == [("JOB_CREATED", b"H:q:1"), ("JOB_CREATED", b"H:q:3")]
    assert desk.replies(second) == [("JOB_CREATED", b"H:q:2")]


def test_a_coalesced_job_is_acknowledged_with_the_handle_it_joined() -> None:
    desk = Desk()
    client = desk.connect()
    desk.send(client, "SUBMIT_JOB_BG", b"f", b"u", b"w")
    desk.store(-7)
    assert desk.replies(client) == [("JOB_CREATED", b"H:q:7")]


def test_a_full_queue_is_an_error() -> None:
    desk = Desk()
    client = desk.connect()
    desk.send(client, "SUBMIT_JOB_BG", b"f", b"", b"w")
    desk.store(0)
    assert desk.replies(client) == [("ERROR", b"QUEUE_ERROR\0Job queue is full")]


def test_a_submit_that_may_not_be_stored_is_refused() -> None:
    desk = Desk()
    client = desk.connect()
    desk.send(client, "SUBMIT_JOB_BG", b"f", b"", b"w")
    desk.dispatcher.submit_failed(desk.dispatcher.submits.popleft(), "in doubt")
    assert desk.replies(client) == [("ERROR", b"QUEUE_ERROR\0in doubt")]
    assert desk.send(client, "ECHO_REQ", b"x") == [("ECHO_RES", b"x")]


def test_replies_come_in_the_order_of_packets() -> None:
    desk = Desk()
    client = desk.connect()
    assert desk.send(client, "SUBMIT_JOB_BG", b"f", b"", b"w") == []
    assert desk.send(client, "ECHO_REQ", b"first") == []
    assert desk.send(client, "ECHO_REQ", b"second") == []
    desk.store(1)
    assert [kind for kind, _ in desk.replies(client)] == ["JOB_CREATED", "ECHO_RES", "ECHO_RES"]


def test_a_bad_submit_is_refused_after_the_good_ones_before_it() -> None:
    desk = Desk()
    client = desk.connect()
    good = encode_request(PacketType.SUBMIT_JOB_BG, b"f", b"", b"w")
    bad = encode_request(PacketType.SUBMIT_JOB_BG, b"f", b"u" * 65, b"w")
    assert desk.send_bytes(client, good + bad + good) == []
    desk.store(1)
    assert [kind for kind, _ in desk.replies(client)] == ["JOB_CREATED", "ERROR"]
    desk.store(2)
    assert desk.replies(client) == [("JOB_CREATED", b"H:q:2")]


@pytest.mark.parametrize(("function", "unique"), [(b"f" * 513, b""), (b"f", b"u" * 65), (b"new", b"u" * 65)])
@pytest.mark.parametrize("kind", ["SUBMIT_JOB_BG", "SUBMIT_JOB"])
def test_a_long_name_or_unique_is_refused(kind: str, function: bytes, unique: bytes) -> None:
    desk = Desk()
    ((reply, body),) = desk.send(desk.connect(), kind, function, unique, b"w")
    assert (reply, body.split(b"\0")[0]) == ("ERROR", b"ARGUMENT_TOO_LARGE")


def test_a_batch_is_closed_when_it_has_many_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "BATCH_MAX_JOBS", 2)
    desk = Desk()
    client = desk.connect()
    for _ in range(3):
        desk.send(client, "SUBMIT_JOB_BG", b"f", b"", b"w")
    assert [len(batch) for batch in desk.dispatcher.submits] == [2, 1]


def test_a_batch_is_closed_when_it_has_many_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "BATCH_MAX_BYTES", 10)
    desk = Desk()
    client = desk.connect()
    for _ in range(3):
        desk.send(client, "SUBMIT_JOB_BG", b"f", b"", b"w" * 6)
    assert [len(batch) for batch in desk.dispatcher.submits] == [2, 1]


def test_a_scheduled_job_carries_its_time() -> None:
    desk = Desk()
    desk.worker(sleeping=True)
    client = desk.connect()
    desk.send(client, "SUBMIT_JOB_EPOCH", b"f", b"", b"2000000000", b"w")
    assert desk.dispatcher.submits[0].run_ats == {0: 2000000000}
    assert desk.dispatcher.submits[0].claims == [False]


@pytest.mark.parametrize("epoch", [b"0", b"-5", b"soon", b""])
def test_a_time_that_is_no_future_means_at_once(epoch: bytes) -> None:
    desk = Desk()
    desk.send(desk.connect(), "SUBMIT_JOB_EPOCH", b"f", b"", epoch, b"w")
    assert desk.dispatcher.submits[0].run_ats == {}


def test_a_time_past_the_year_9999_is_refused() -> None:
    desk = Desk()
    ((kind, body),) = desk.send(desk.connect(), "SUBMIT_JOB_EPOCH", b"f", b"", b"253402300800", b"w")
    assert (kind, body) == ("ERROR", b"INVALID_ARGUMENT\0The epoch 253402300800 is past the year 9999")


def test_a_reduce_job_carries_its_reducer_to_the_worker() -> None:
    desk = Desk()
    worker = desk.worker(sleeping=True)
    client = desk.connect()
    desk.send(client, "SUBMIT_REDUCE_JOB_BACKGROUND", b"f", b"u", b"sum", b"", b"w")
    assert desk.dispatcher.submits[0].reducers == {0: b"sum"}
    desk.store(1)
    desk.replies(worker)
    assert desk.send(worker, "GRAB_JOB_ALL") == [("JOB_ASSIGN_ALL", b"H:q:1\0f\0u\0sum\0w")]


def test_the_unique_dash_is_a_key_of_the_workload() -> None:
    desk = Desk()
    client = desk.connect()
    for workload in (b"a", b"a", b"b", b""):
        desk.send(client, "SUBMIT_JOB_BG", b"f", b"-", workload)
    first, second, third, empty = desk.dispatcher.submits[0].unique_keys
    assert first == second != third
    assert (len(first), empty) == (65, b"")


def test_a_job_is_born_claimed_when_a_worker_waits() -> None:
    desk = Desk()
    worker = desk.worker(sleeping=True)
    client = desk.connect()
    desk.send(client, "SUBMIT_JOB_BG", b"f", b"", b"mine")
    desk.send(client, "SUBMIT_JOB_BG", b"f", b"", b"too many")
    assert desk.dispatcher.submits[0].claims == [True, False]
    desk.store(1, 2)
    assert desk.replies(worker) == [("NOOP", b"")]
    assert desk.grab(worker) == b"mine"
    assert desk.dispatcher.claim_wanted


def test_jobs_after_one_that_was_not_claimed_do_not_overtake_it() -> None:
    desk = Desk()
    desk.worker(sleeping=True)
    client = desk.connect()
    for _ in range(2):
        desk.send(client, "SUBMIT_JOB_BG", b"f", b"", b"w")
    desk.worker(sleeping=True)
    desk.send(client, "SUBMIT_JOB_BG", b"f", b"", b"w")
    assert desk.dispatcher.submits[0].claims == [True, False, False]


@pytest.mark.parametrize("answer", [-5, 0])
def test_a_born_claimed_job_that_was_not_added_leaves_no_trace(answer: int) -> None:
    desk = Desk()
    worker = desk.worker(sleeping=True)
    desk.send(desk.connect(), "SUBMIT_JOB_BG", b"f", b"u", b"w")
    desk.store(answer)
    assert (desk.f.claiming, desk.f.held, desk.replies(worker)) == ([0, 0, 0], [0, 0, 0], [])


def test_a_failed_submit_takes_its_reservation_back() -> None:
    desk = Desk()
    desk.worker(sleeping=True)
    desk.send(desk.connect(), "SUBMIT_JOB_BG", b"f", b"", b"w")
    desk.dispatcher.submit_failed(desk.dispatcher.submits.popleft(), "away")
    assert desk.f.claiming == [0, 0, 0]


def test_a_job_born_claimed_as_the_last_worker_leaves_goes_back() -> None:
    desk = Desk()
    worker = desk.worker(sleeping=True)
    desk.send(desk.connect(), "SUBMIT_JOB_BG", b"f", b"", b"w")
    desk.dispatcher.closed(worker)
    desk.store(1)
    assert (desk.dispatcher.unused, desk.f.held) == ([1], [0, 0, 0])


def test_a_client_that_left_is_not_answered_but_its_job_stays() -> None:
    desk = Desk()
    worker = desk.worker(sleeping=True)
    client = desk.connect()
    desk.send(client, "SUBMIT_JOB_BG", b"f", b"", b"w")
    desk.dispatcher.closed(client)
    desk.store(1)
    assert (client.out, desk.replies(worker)) == ([], [("NOOP", b"")])


def test_a_submit_waits_for_the_deletion_of_the_job_it_must_not_join() -> None:
    desk = Desk()
    worker, client = desk.worker(), desk.connect()
    desk.claim(row(1, key=b"u"))
    desk.grab(worker)
    desk.send(worker, "WORK_COMPLETE", b"H:q:1", b"")
    desk.send(client, "SUBMIT_JOB_BG", b"f", b"u", b"w")
    assert desk.dispatcher.submits[0].after_finishes
    desk.dispatcher.finished([1])
    assert desk.dispatcher.finishing == {}


def test_a_limit_counts_foreground_jobs_before_the_database_is_asked() -> None:
    desk = Desk()
    client = desk.connect()
    desk.resolve(limits=(None, 1, None))
    desk.send(client, "SUBMIT_JOB", b"f", b"u", b"w")
    assert desk.send(client, "SUBMIT_JOB_BG", b"f", b"", b"w") == [("ERROR", b"QUEUE_ERROR\0Job queue is full")]
    assert desk.send(client, "SUBMIT_JOB_BG", b"f", b"u", b"w") == []


def test_a_handle_prefix_replaces_the_queue_name() -> None:
    desk = Desk(handle_prefix="P")
    client = desk.connect()
    desk.send(client, "SUBMIT_JOB_BG", b"f", b"", b"w")
    desk.store(1)
    assert desk.replies(client) == [("JOB_CREATED", b"P:1")]
    assert (desk.dispatcher.background_id(b"P:1"), desk.dispatcher.background_id(b"H:q:1")) == (1, 1)


def test_the_first_job_of_a_function_has_its_id_asked() -> None:
    desk = Desk()
    desk.send(desk.connect(), "SUBMIT_JOB_BG", b"new", b"", b"w")
    assert [function.name for function in desk.dispatcher.unresolved] == [b"new"]


def test_a_born_job_that_was_claimed_before_its_answer_came_is_taken_once() -> None:
    desk = Desk()
    worker = desk.worker(sleeping=True)
    desk.send(desk.connect(), "SUBMIT_JOB_BG", b"f", b"", b"w")
    desk.dispatcher.claimed([], [row(1)])
    desk.store(1)
    assert desk.replies(worker) == [("NOOP", b"")]
    assert [desk.grab(worker), desk.grab(worker)] == [b"w", b"NO_JOB"]
    assert desk.f.held == [0, 0, 0]


def test_a_batch_whose_claims_are_gone_is_stored_as_if_it_had_none() -> None:
    desk = Desk()
    client, worker = desk.connect(), desk.worker(sleeping=True)
    desk.send(client, "SUBMIT_JOB_BG", b"f", b"", b"w")
    desk.send(client, "SUBMIT_JOB_BG", b"g", b"", b"w")
    batch = desk.dispatcher.submits[0]
    assert batch.claims == [True, False]
    desk.dispatcher.forget_claims(batch)
    assert (batch.claims, desk.f.claiming, desk.f.uncommitted) == ([False, False], [0, 0, 0], [0, 1, 0])
    desk.store(7, 8)
    assert desk.replies(client) == [("JOB_CREATED", b"H:q:7"), ("JOB_CREATED", b"H:q:8")]
    assert (desk.f.held, desk.f.uncommitted, desk.dispatcher.claim_wanted) == ([0, 0, 0], [0, 0, 0], True)
    assert desk.replies(worker) == []


def test_a_batch_is_as_durable_as_its_most_careful_function() -> None:
    desk = Desk()
    client = desk.connect()
    desk.f.durability, desk.g.durability = Durability.RELAXED, Durability.LOCAL
    desk.send(client, "SUBMIT_JOB_BG", b"f", b"", b"w")
    batch = desk.dispatcher.submits[0]
    assert batch.durability is Durability.RELAXED
    desk.send(client, "SUBMIT_JOB_BG", b"g", b"", b"w")
    desk.send(client, "SUBMIT_JOB_BG", b"f", b"", b"w")
    assert batch.durability is Durability.LOCAL
    desk.send(client, "SUBMIT_JOB_BG", b"new", b"", b"w")  # not asked for yet
    assert batch.durability is Durability.REPLICATED
