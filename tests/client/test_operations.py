"""The client's operations: plain values in and out."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from postgear.client import operations
from postgear.client.operations import HIGH, LOW, JobEnded, Status, Submission
from postgear.errors import JobFailed, ServerError, ServerRefused
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
    ("job", "epoch", "packet"),
    [
        (JOB, None, encode_request(PacketType.SUBMIT_JOB_BG, b"f", b"u", b"work")),
        (JOB._replace(priority=HIGH), None, encode_request(PacketType.SUBMIT_JOB_HIGH_BG, b"f", b"u", b"work")),
        (JOB._replace(priority=LOW), None, encode_request(PacketType.SUBMIT_JOB_LOW_BG, b"f", b"u", b"work")),
        (JOB, 12, encode_request(PacketType.SUBMIT_JOB_EPOCH, b"f", b"u", b"12", b"work")),
    ],
)
def test_submit_returns_the_handle(job: Submission, epoch: int | None, packet: bytes) -> None:
    operation = operations.submit(job, epoch)
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
    operation = operations.do(JOB, warnings.append)
    assert next(operation) == encode_request(PacketType.SUBMIT_JOB, b"f", b"u", b"work")
    result = end(
        operation,
        (PacketType.JOB_CREATED, (b"h",)),
        (PacketType.WORK_STATUS, (b"h", b"1", b"2")),
        (PacketType.WORK_DATA, (b"h", b"a")),
        (PacketType.WORK_WARNING, (b"h", b"careful")),
        (PacketType.WORK_COMPLETE, (b"h", b"b")),
    )
    assert result == b"ab"
    assert warnings == [b"careful"]


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ((PacketType.WORK_FAIL, (b"h",)), "^job h failed$"),
        ((PacketType.WORK_FAIL, (b"h\0",)), "^job h failed$"),
        ((PacketType.WORK_EXCEPTION, (b"h", b"\xffwhy")), r"^job h failed: \\xffwhy$"),
    ],
)
def test_do_raises_for_a_failed_job(message: tuple[int, tuple[bytes, ...]], text: str) -> None:
    operation = operations.do(JOB, no_warning)
    next(operation)
    operation.send((PacketType.JOB_CREATED, (b"h",)))
    with pytest.raises(JobFailed, match=text):
        operation.send(message)


def test_do_raises_for_a_refused_job() -> None:
    operation = operations.do(JOB, no_warning)
    next(operation)
    with pytest.raises(ServerRefused):
        operation.send((PacketType.ERROR, (b"QUEUE_ERROR", b"full")))


def test_many_keeps_to_its_bound_and_ends_in_the_order_of_the_results() -> None:
    jobs = [Submission(b"f", b"%d" % number) for number in range(3)]
    operation = operations.do_many(jobs, 2, no_warning)

    def submit(workload: bytes) -> bytes:
        return encode_request(PacketType.SUBMIT_JOB, b"f", b"", workload)

    assert next(operation) == submit(b"0") + submit(b"1")
    assert operation.send((PacketType.JOB_CREATED, (b"h0",))) == b""
    assert operation.send((PacketType.JOB_CREATED, (b"h1",))) == b""
    assert operation.send((PacketType.WORK_COMPLETE, (b"h1", b"one"))) == JobEnded(1, b"one", None)
    assert next(operation) == submit(b"2")
    ended = operation.send((PacketType.ERROR, (b"QUEUE_ERROR", b"full")))
    assert isinstance(ended, JobEnded)
    assert ended.position == 2
    assert isinstance(ended.error, ServerRefused)
    assert next(operation) == b""
    assert operation.send((PacketType.WORK_COMPLETE, (b"h0", b"zero"))) == JobEnded(0, b"zero", None)
    assert next(operation, None) is None


def test_many_ends_all_jobs_of_one_handle_together() -> None:
    operation = operations.do_many([JOB, JOB], 2, no_warning)
    next(operation)
    operation.send((PacketType.JOB_CREATED, (b"h",)))
    operation.send((PacketType.JOB_CREATED, (b"h",)))
    assert operation.send((PacketType.WORK_COMPLETE, (b"h", b"r"))) == JobEnded(0, b"r", None)
    assert next(operation) == JobEnded(1, b"r", None)
    assert next(operation, None) is None


def test_many_of_none_sends_nothing() -> None:
    assert next(operations.do_many([], 5, no_warning), None) is None
