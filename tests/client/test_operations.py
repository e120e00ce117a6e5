"""The client's operations: plain values in and out."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

import pytest

from postgear.client import jobs, operations
from postgear.client.jobs import JobEnded, JobEvent, JobRetried
from postgear.client.operations import CLOSE, HIGH, LOW, WHERE, Pause, Status, Submission
from postgear.errors import (
    JobFailed,
    NotAllSubmitted,
    ServerError,
    ServerRefused,
    ServerTimeout,
    ServerUnreachable,
    UnknownJob,
)
from postgear.wire.connection import FATAL, TEXT
from postgear.wire.packet import PacketType, encode_request

JOB = Submission(b"f", b"work", b"u")


def end(operation: Generator[Any, Any, Any], *messages: tuple[int, tuple[bytes, ...]]) -> Any:
    """Feed messages to an operation that is started; return its answer."""
    for message in messages[:-1]:
        operation.send(message)
    with pytest.raises(StopIteration) as stopped:
        operation.send(messages[-1])
    return stopped.value.value


def no_warning(text: bytes) -> None:
    raise AssertionError(text)


@pytest.mark.parametrize(
    ("job", "packet"),
    [
        (JOB, encode_request(PacketType.SUBMIT_JOB_BG, b"f", b"u", b"work")),
        (JOB._replace(priority=HIGH), encode_request(PacketType.SUBMIT_JOB_HIGH_BG, b"f", b"u", b"work")),
        (JOB._replace(priority=LOW), encode_request(PacketType.SUBMIT_JOB_LOW_BG, b"f", b"u", b"work")),
        (JOB._replace(run_at=12), encode_request(PacketType.SUBMIT_JOB_EPOCH, b"f", b"u", b"12", b"work")),
    ],
)
def test_submit_returns_the_handle(job: Submission, packet: bytes) -> None:
    operation = operations.submit(job)
    assert next(operation) == packet
    assert end(operation, (PacketType.JOB_CREATED, (b"H:x:1",))) == b"H:x:1"


def test_a_refused_submit_raises_what_the_server_said() -> None:
    operation = operations.submit(JOB)
    next(operation)
    with pytest.raises(ServerRefused, match="QUEUE_ERROR: Job queue is full") as caught:
        operation.send((PacketType.ERROR, (b"QUEUE_ERROR", b"Job queue is full")))
    assert caught.value.code == "QUEUE_ERROR"


def test_an_answer_to_something_else_is_an_error() -> None:
    operation = operations.submit(JOB)
    next(operation)
    with pytest.raises(ServerError, match="type 17 that answers nothing"):
        operation.send((PacketType.ECHO_RES, (b"x",)))


def test_what_is_no_packet_is_an_error() -> None:
    operation = operations.submit(JOB)
    next(operation)
    with pytest.raises(ServerError, match="no Gearman packet: INVALID_MAGIC"):
        operation.send((FATAL, (b"INVALID_MAGIC", b"x")))


def test_status_reads_numbers_and_their_absence() -> None:
    operation = operations.get_status(b"H:x:1")
    assert next(operation) == encode_request(PacketType.GET_STATUS, b"H:x:1")
    assert end(operation, (PacketType.STATUS_RES, (b"H:x:1", b"1", b"0", b"3", b""))) == Status(True, False, 3, 0)


def test_an_admin_line_is_returned_as_it_is() -> None:
    operation = operations.admin_line(b"version")
    assert next(operation) == b"version\r\n"
    assert end(operation, (TEXT, (b"OK 1.1",))) == b"OK 1.1"
    operation = operations.admin_line(b"version")
    next(operation)
    with pytest.raises(ServerError):
        operation.send((PacketType.NOOP, ()))


def test_another_echo_is_an_error() -> None:
    operation = operations.echo()
    next(operation)
    with pytest.raises(ServerError, match="another text"):
        operation.send((PacketType.ECHO_RES, (b"other",)))


def test_do_puts_data_together_and_tells_warnings() -> None:
    warnings: list[bytes] = []
    operation = jobs.do(JOB, warnings.append)
    assert next(operation) == encode_request(PacketType.SUBMIT_JOB, b"f", b"u", b"work")
    result = end(
        operation,
        (PacketType.JOB_CREATED, (b"h",)),
        (PacketType.WORK_STATUS, (b"h", b"1", b"2")),
        (PacketType.WORK_DATA, (b"h", b"a")),
        (PacketType.WORK_WARNING, (b"h", b"careful")),
        (PacketType.WORK_COMPLETE, (b"h", b"b")),
    )
    assert result == JobEnded(0, b"ab", None, "h")
    assert warnings == [b"careful"]


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ((PacketType.WORK_FAIL, (b"h",)), r"^job h failed \(function f\)$"),
        ((PacketType.WORK_FAIL, (b"h\0",)), r"^job h failed \(function f\)$"),
        ((PacketType.WORK_EXCEPTION, (b"h", b"\xffwhy")), r"^job h failed \(function f\): \\xffwhy$"),
    ],
)
def test_do_raises_for_a_failed_job(message: tuple[int, tuple[bytes, ...]], text: str) -> None:
    operation = jobs.do(JOB, no_warning)
    next(operation)
    operation.send((PacketType.JOB_CREATED, (b"h",)))
    with pytest.raises(JobFailed, match=text):
        operation.send(message)


def test_do_raises_for_a_refused_job() -> None:
    operation = jobs.do(JOB, no_warning)
    next(operation)
    with pytest.raises(ServerRefused):
        operation.send((PacketType.ERROR, (b"QUEUE_ERROR", b"full")))


def created(handle: bytes) -> tuple[int, tuple[bytes, ...]]:
    return PacketType.JOB_CREATED, (handle,)


def packet(workload: bytes, unique: bytes = b"") -> bytes:
    return encode_request(PacketType.SUBMIT_JOB, b"f", unique, workload)


def test_many_keeps_to_its_bound_and_ends_in_the_order_of_the_results() -> None:
    operation = jobs.do_many([Submission(b"f", b"%d" % number) for number in range(3)], 2)
    assert next(operation) == packet(b"0") + packet(b"1")
    assert operation.send(created(b"h0")) == b""
    assert operation.send(created(b"h1")) == b""
    assert operation.send((PacketType.WORK_COMPLETE, (b"h1", b"one"))) == JobEnded(1, b"one", None, "h1")
    assert next(operation) == packet(b"2")
    ended = operation.send((PacketType.ERROR, (b"QUEUE_ERROR", b"full")))
    assert isinstance(ended, JobEnded)
    assert ended.position == 2
    assert isinstance(ended.error, ServerRefused)
    assert next(operation) == b""
    assert operation.send((PacketType.WORK_COMPLETE, (b"h0", b"zero"))) == JobEnded(0, b"zero", None, "h0")
    assert next(operation, None) is None


def test_many_sends_jobs_of_one_unique_once_and_ends_them_together() -> None:
    operation = jobs.do_many([JOB, JOB], 2)
    assert next(operation) == packet(b"work", b"u")
    operation.send(created(b"h"))
    assert operation.send((PacketType.WORK_COMPLETE, (b"h", b"r"))) == JobEnded(0, b"r", None, "h")
    assert next(operation) == JobEnded(1, b"r", None, "h")
    assert next(operation, None) is None


def test_empty_workloads_of_unique_dash_are_jobs_of_their_own() -> None:
    operation = jobs.do_many([Submission(b"f", b"", b"-")] * 2, 2)
    assert next(operation) == packet(b"", b"-") * 2


def test_many_of_none_sends_nothing() -> None:
    assert next(jobs.do_many([], 5), None) is None


def test_many_takes_up_what_came_later() -> None:
    coming = iter([Submission(b"f", b"1")])
    later: list[Submission] = []

    class Jobs:
        def __iter__(self) -> Jobs:
            return self

        def __next__(self) -> Submission:
            return next(coming) if not later else later.pop()

    operation = jobs.do_many(Jobs(), 5)
    assert next(operation) == packet(b"1")
    later.append(Submission(b"f", b"2"))
    assert operation.send(None) == packet(b"2")


def test_many_tells_what_is_wanted_and_leaves_data_out_then() -> None:
    operation = jobs.do_many([JOB], 1, (PacketType.JOB_CREATED, PacketType.WORK_DATA, PacketType.WORK_STATUS))
    next(operation)
    assert operation.send(created(b"h")) == JobEvent(0, PacketType.JOB_CREATED, (b"h",))
    assert next(operation) == b""
    assert operation.send((PacketType.WORK_DATA, (b"h", b"part"))) == JobEvent(0, PacketType.WORK_DATA, (b"part",))
    assert next(operation) == b""
    assert operation.send((PacketType.WORK_WARNING, (b"h", b"careful"))) == b""
    status = operation.send((PacketType.WORK_STATUS, (b"h", b"1", b"2")))
    assert status == JobEvent(0, PacketType.WORK_STATUS, (b"1", b"2"))
    assert next(operation) == b""
    assert operation.send((PacketType.WORK_COMPLETE, (b"h", b"end"))) == JobEnded(0, b"end", None, "h")


def test_a_lost_job_ends_and_those_not_sent_go_on() -> None:
    operation = jobs.do_many([Submission(b"f", b"1"), Submission(b"f", b"2", retries=1), Submission(b"f", b"3")], 2)
    next(operation)
    operation.send(created(b"h1"))
    assert operation.throw(ServerError("gone")) is CLOSE
    ended = next(operation)
    assert (ended.position, str(ended.error)) == (0, "gone (function f, job h1)")
    retried = next(operation)
    assert isinstance(retried, JobRetried)
    assert (retried.position, str(retried.error)) == (1, "gone (function f)")
    assert next(operation) == packet(b"2") + packet(b"3")
    assert operation.throw(ServerError("gone")) is CLOSE
    assert [next(operation).position, next(operation).position] == [1, 2]
    assert next(operation, None) is None


def test_with_no_server_left_all_jobs_end() -> None:
    operation = jobs.do_many([Submission(b"f", b"%d" % number) for number in range(4)], 2)
    next(operation)
    first = operation.throw(ServerUnreachable("nobody"))
    assert [type(each.error) for each in (first, *operation)] == [ServerUnreachable] * 4


def test_retries_wait_longer_and_longer_for_a_server() -> None:
    operation = jobs.do_many([Submission(b"f", b"1", retries=3)], 1)
    assert next(operation) == packet(b"1")
    pauses = []
    for _ in range(3):
        assert isinstance(operation.throw(ServerUnreachable("nobody")), JobRetried)
        pauses.append(next(operation))
        assert next(operation) == packet(b"1")
    assert pauses == [Pause(0.1), Pause(0.2), Pause(0.4)]
    assert isinstance(operation.throw(ServerUnreachable("nobody")), JobEnded)
    assert next(operation, None) is None


def test_when_time_is_up_no_job_is_sent_again() -> None:
    operation = jobs.do_many([Submission(b"f", b"1", retries=3), Submission(b"f", b"2", retries=3)], 1)
    next(operation)
    operation.send(created(b"h"))
    first = operation.throw(ServerTimeout("late"))
    assert [str(each.error) for each in (first, *operation)] == ["late (function f, job h)", "late (function f)"]


@pytest.mark.parametrize(
    "message",
    [
        (PacketType.WORK_COMPLETE, (b"other", b"")),
        (PacketType.WORK_FAIL, (b"other",)),
        (PacketType.WORK_DATA, (b"other", b"")),
        (PacketType.JOB_CREATED, (b"again",)),
        (PacketType.NOOP, ()),
        (PacketType.ERROR, (b"QUEUE_ERROR", b"")),
        (FATAL, (b"INVALID_MAGIC", b"x")),
        (99, ()),
    ],
)
def test_what_makes_no_sense_ends_the_job_and_the_connection(message: tuple[int, tuple[bytes, ...]]) -> None:
    operation = jobs.do_many([JOB], 1)
    next(operation)
    operation.send(created(b"h"))
    assert operation.send(message) is CLOSE
    ended = next(operation)
    assert type(ended.error) is ServerError
    assert next(operation, None) is None


def test_perls_second_word_about_a_failed_job_is_no_error() -> None:
    operation = jobs.do_many([JOB, JOB._replace(unique=b"v")], 2)
    next(operation)
    operation.send(created(b"h"))
    operation.send(created(b"i"))
    assert isinstance(operation.send((PacketType.WORK_EXCEPTION, (b"h", b"why"))), JobEnded)
    assert next(operation) == b""
    assert operation.send((PacketType.WORK_FAIL, (b"h",))) == b""


def background(workload: bytes) -> bytes:
    return encode_request(PacketType.SUBMIT_JOB_BG, b"f", b"", workload)


def test_submit_many_knows_what_was_refused_lost_and_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "CHUNK_JOBS", 2)
    operation = operations.submit_many([Submission(b"f", b"%d" % number) for number in range(7)])
    assert next(operation) == background(b"0") + background(b"1")
    assert operation.send(created(b"h0")) == background(b"2") + background(b"3")
    assert operation.send((PacketType.ERROR, (b"QUEUE_ERROR", b"full"))) is WHERE
    assert operation.send("server:1") == b""
    assert operation.throw(ServerError("gone")) is WHERE
    assert operation.send("server:1") is CLOSE
    assert next(operation) == background(b"4") + background(b"5")
    with pytest.raises(NotAllSubmitted) as caught:
        operation.throw(ServerUnreachable("nobody"))
    assert caught.value.handles == ["h0", *[None] * 6]
    kinds = [type(caught.value.errors[position]) for position in range(1, 7)]
    assert kinds == [ServerRefused, ServerError, ServerError, *[ServerUnreachable] * 3]


def jobs_that_raise(after: int) -> Iterator[Submission]:
    for number in range(after):
        yield Submission(b"f", b"%d" % number)
    raise LookupError("no more rows")


def test_what_ends_the_jobs_of_submit_many_is_told_with_the_handles_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "CHUNK_JOBS", 2)
    operation = operations.submit_many(jobs_that_raise(after=3))
    assert next(operation) == background(b"0") + background(b"1")
    assert operation.send(created(b"h0")) == background(b"2")
    assert operation.send((PacketType.ERROR, (b"QUEUE_ERROR", b"full"))) is WHERE
    assert operation.send("server:1") == b""
    with pytest.raises(NotAllSubmitted, match=r"1 of 3 .* number 1: .*full.*number 3 raised LookupError: no more rows") as caught:
        operation.send(created(b"h2"))
    assert caught.value.handles == ["h0", None, "h2"]
    assert list(caught.value.errors) == [1]
    assert isinstance(caught.value.raised, LookupError)
    assert caught.value.__cause__ is caught.value.raised


def test_what_ends_the_jobs_of_submit_many_is_told_also_when_the_server_has_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "CHUNK_JOBS", 2)
    operation = operations.submit_many(jobs_that_raise(after=5))
    next(operation)
    with pytest.raises(NotAllSubmitted) as caught:
        operation.throw(ServerUnreachable("nobody"))
    assert (caught.value.handles, sorted(caught.value.errors)) == ([None] * 5, [0, 1, 2, 3, 4])
    assert isinstance(caught.value.raised, LookupError)


def test_what_submit_many_cannot_begin_with_is_raised_and_nothing_is_sent() -> None:
    with pytest.raises(LookupError):
        next(operations.submit_many(jobs_that_raise(after=3)))


def test_an_admin_command_returns_its_lines() -> None:
    operation = operations.admin_command(b"status")
    assert next(operation) == b"status\r\n"
    assert operation.send((TEXT, (b"f\t0",))) == b""
    assert end(operation, (TEXT, (b"\xff",)), (TEXT, (b".",))) == ["f\t0", "\\xff"]


@pytest.mark.parametrize(
    ("line", "kind", "text"),
    [
        (b"ERR UNKNOWN_JOB", UnknownJob, "there is no job H:x:1: it has ended, or never was"),
        (b"ERR UNKNOWN_COMMAND Unknown+server+commandx", ServerRefused, "UNKNOWN_COMMAND: Unknown server commandx"),
    ],
)
def test_an_admin_error_is_raised(line: bytes, kind: type[ServerError], text: str) -> None:
    operation = operations.admin_command(b"cancel job H:x:1")
    next(operation)
    with pytest.raises(kind) as caught:
        operation.send((TEXT, (line,)))
    assert str(caught.value) == text


@pytest.mark.parametrize("word", [b"x", b"1" * 30, b"-1"])
def test_numbers_that_are_none_are_errors(word: bytes) -> None:
    operation = operations.get_status(b"h")
    next(operation)
    with pytest.raises(ServerError, match="no number"):
        operation.send((PacketType.STATUS_RES, (b"h", b"1", b"1", word, b"1")))
