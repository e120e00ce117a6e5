"""G3 at least once, fenced: a lost worker's job is run by another, and what the first still says changes nothing."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from tests.server.bytes import Peer, until
from tests.server.load import query, wait_for
from tests.server_process import ServerProcess

Start = Callable[..., ServerProcess]
ConnectTo = Callable[[ServerProcess], Peer]


@pytest.fixture
def deletions(dsn: str) -> Callable[[], list[tuple[int, int]]]:
    """What is deleted from the queue: (id, attempt) of each row."""
    query(dsn, "create table deletion (id bigint, attempt smallint)")
    query(
        dsn,
        "create function note_deletion() returns trigger language plpgsql as"
        " $$ begin insert into public.deletion values (old.id, old.attempt); return null; end $$",
    )
    query(dsn, "create trigger note after delete on postgear.job for each row execute function note_deletion()")
    return lambda: query(dsn, "select id, attempt from deletion order by id")


def job_id(handle: bytes) -> int:
    return int(handle.rpartition(b":")[2])


def test_g3_a_dead_worker_s_job_is_at_once_another_s(
    server: ServerProcess, connect_to: ConnectTo, deletions: Callable[[], list[tuple[int, int]]]
) -> None:
    loser, winner, client = connect_to(server), connect_to(server), connect_to(server)
    loser.can_do(b"f")
    handle = client.submit("SUBMIT_JOB_BG", b"f", b"", b"")
    assert loser.grab()[0] == handle
    winner.can_do(b"f")
    winner.sleep()
    loser.close()
    winner.socket.settimeout(1)

    winner.expect("NOOP")
    assert winner.grab()[0] == handle
    winner.send("WORK_COMPLETE", handle, b"")
    until(deletions, [(job_id(handle), 2)])


def test_g3_a_completion_after_the_time_limit_changes_no_row(
    server: ServerProcess, connect_to: ConnectTo, dsn: str, deletions: Callable[[], list[tuple[int, int]]]
) -> None:
    slow, quick, client = connect_to(server), connect_to(server), connect_to(server)
    slow.send("CAN_DO_TIMEOUT", b"f", b"1000")
    slow.silent()
    handle = client.submit("SUBMIT_JOB_BG", b"f", b"", b"")
    assert slow.grab()[0] == handle
    quick.can_do(b"f")
    assert quick.grab()[0] == handle
    slow.send("WORK_COMPLETE", handle, b"late")

    assert slow.error() == "JOB_NOT_FOUND"
    assert query(dsn, "select id, attempt from postgear.job") == [(job_id(handle), 2)]
    assert deletions() == []
    quick.send("WORK_COMPLETE", handle, b"")
    until(deletions, [(job_id(handle), 2)])


@pytest.mark.parametrize("end", ["WORK_COMPLETE", "WORK_FAIL"])
def test_g3_a_completion_through_a_server_that_lost_its_lease_changes_no_row(
    end: str, start_server: Start, connect_to: ConnectTo, dsn: str, deletions: Callable[[], list[tuple[int, int]]]
) -> None:
    first = start_server("--name", "first", "--lease-seconds", "2")
    second = start_server("--name", "second", "--lease-seconds", "2")
    late, client, other = connect_to(first), connect_to(first), connect_to(second)
    late.can_do(b"f")
    handle = client.submit("SUBMIT_JOB_BG", b"f", b"", b"")
    assert late.grab()[0] == handle
    first.process.send_signal(signal.SIGSTOP)

    other.socket.settimeout(10)
    other.can_do(b"f")
    assert other.grab()[0] == handle
    second.wait_for_log(rf"possible duplicate handle={handle.decode()} .*attempt=2")
    late.send(end, handle, *([b"late"] if end == "WORK_COMPLETE" else []))
    first.process.send_signal(signal.SIGCONT)
    first.wait_for_log(r"stale completions ignored|job lost with its lease")
    first.wait_for_log(r"lease lost")
    first.wait_for_log(r"database connected")

    holder = "select job.id, job.attempt, server.name from postgear.job left join postgear.server using (lease)"
    assert query(dsn, holder) == [(job_id(handle), 2, "second")]
    assert deletions() == []
    other.send("WORK_COMPLETE", handle, b"")
    until(deletions, [(job_id(handle), 2)])
    # The server that was away serves again, with a new lease.
    again = client.submit("SUBMIT_JOB_BG", b"g", b"", b"")
    late.can_do(b"g")
    assert late.grab()[0] == again
    late.send("WORK_COMPLETE", again, b"")
    wait_for(lambda: query(dsn, "select count(*) from postgear.job") == [(0,)], "the job's end")


def test_g3_a_server_that_stood_still_gives_out_nothing_that_others_have_done(
    start_server: Start, connect_to: ConnectTo, dsn: str
) -> None:
    hung = start_server("--name", "hung", "--lease-seconds", "2")
    other = start_server("--name", "other", "--lease-seconds", "2")
    workers = [connect_to(hung) for _ in range(10)]
    for worker in workers:
        worker.can_do(b"f")
    client, second = connect_to(hung), connect_to(other)
    for number in range(40):
        client.submit("SUBMIT_JOB_BG", b"f", b"", b"%d" % number)
    for _ in range(20):  # so fast that jobs are claimed ahead
        workers[0].send("WORK_COMPLETE", workers[0].grab()[0], b"")
    wait_for(lambda: query(dsn, "select count(lease) > 0 from postgear.job") == [(True,)], "some are held for the workers")
    hung.process.send_signal(signal.SIGSTOP)
    for worker in workers:
        worker.send("GRAB_JOB")  # all of them are in its sockets when it goes on
    second.socket.settimeout(10)
    second.can_do(b"f")
    for _ in query(dsn, "select id from postgear.job"):
        second.send("WORK_COMPLETE", second.grab()[0], b"")
    wait_for(lambda: query(dsn, "select count(*) from postgear.job") == [(0,)], "all are done")
    hung.process.send_signal(signal.SIGCONT)
    assert {worker.packet().name for worker in workers} == {"NO_JOB"}
