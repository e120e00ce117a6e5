"""What is said to a server: literal packets in and out, no socket and no clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from postgear.errors import ProtocolError
from postgear.functions import Handler
from postgear.wire.connection import PacketReader
from postgear.wire.packet import RESPONSE_MAGIC, PacketType
from postgear.worker.job import Job
from postgear.worker.wire_session import CONFIRM_BYTES, FRUITLESS_MAX, WireSession
from tests.server.bytes import request

GRAB = request("GRAB_JOB_ALL")
PRE_SLEEP = request("PRE_SLEEP")
ECHO = request("ECHO_REQ", b"postgear")


def response(name: str, *arguments: bytes) -> bytes:
    return b"\0RES" + request(name, *arguments)[4:]


READY = response("ECHO_RES", b"postgear")
NO_JOB = response("NO_JOB")
NOOP = response("NOOP")


def job_assign(handle: bytes, function: bytes = b"f", workload: bytes = b"") -> bytes:
    return response("JOB_ASSIGN_UNIQ", handle, function, b"", workload)


def handler(name: str, **options: Any) -> Handler[Any, Any, Any, Any]:
    def call(payload: bytes) -> bytes:
        return payload

    return Handler(call, name, **options)


class Table:
    """Slots that only count, and the session beside them: bytes in, bytes out."""

    name = "server:4730"
    is_congested = False

    def __init__(self, free: int, *handlers: Handler[Any, Any, Any, Any]) -> None:
        self.handlers = {each.name: each for each in handlers}
        self.free = free
        self.jobs: list[Job] = []
        self.lost: list[str] = []
        self.is_ready = False
        self.outputs = 0
        self.reader = PacketReader(RESPONSE_MAGIC)
        self.session = WireSession(self, self, b"me", self.count)  # type: ignore[arg-type]

    def reserve(self, wanted: int) -> int:
        count = min(wanted, self.free)
        self.free -= count
        return count

    def release(self, count: int) -> None:
        self.free += count
        self.session.pull()

    def assign(self, job: Job) -> None:
        self.jobs.append(job)

    def lose(self, job: Job) -> None:
        job.is_ended = True
        self.lost.append(job.handle)

    def ready(self) -> None:
        self.is_ready = True

    def report(self, job: Job, kind: PacketType, arguments: tuple[bytes, ...]) -> None:
        self.session.report(job, kind, arguments)

    def count(self) -> None:
        self.outputs += 1

    def sent(self) -> bytes:
        out, self.session.out = b"".join(self.session.out), []
        return out

    def says(self, *packets: bytes) -> bytes:
        """Let the server say this, and return what is said to it then."""
        self.session.receive(self.reader.feed(b"".join(packets)))
        return self.sent()

    def complete(self, job: Job, result: bytes = b"") -> bytes:
        """End a job as its slot would, and return what is said."""
        job.is_ended = True
        self.session.complete(job, result)
        self.free += 1
        self.session.pull()
        return self.sent()


def awake(free: int = 1, *handlers: Handler[Any, Any, Any, Any]) -> Table:
    """A session that has begun and has its first grab open."""
    table = Table(free, *(handlers or (handler("f"),)))
    table.session.start()
    table.sent()
    assert table.says(READY) == GRAB
    return table


def test_it_introduces_itself_and_grabs_when_the_server_has_answered() -> None:
    table = Table(1, handler("f"), handler("g"))

    table.session.start()

    assert table.sent() == request("SET_CLIENT_ID", b"me") + request("CAN_DO", b"f") + request("CAN_DO", b"g") + ECHO
    assert not table.is_ready
    assert table.says(READY) == GRAB
    assert table.is_ready


def test_a_timeout_is_told_in_milliseconds_and_later_than_the_workers_own() -> None:
    table = Table(1, handler("f", timeout=1.5))
    table.session.start()

    assert request("CAN_DO_TIMEOUT", b"f", b"11500") in table.sent()


def test_a_result_and_the_next_grab_are_one_write() -> None:
    table = awake()
    assert table.says(job_assign(b"H:1", workload=b"abc")) == b""
    assert table.jobs[0].workload == b"abc"
    table.outputs = 0

    assert table.complete(table.jobs[0], b"\0x") == request("WORK_COMPLETE", b"H:1", b"\0x") + GRAB
    assert table.outputs == 1


def test_grabs_are_pipelined_and_grow_with_the_jobs_that_come() -> None:
    table = awake(10)

    assert table.says(job_assign(b"H:1")) == GRAB * 2
    assert table.says(job_assign(b"H:2"), job_assign(b"H:3")) == GRAB * 4
    assert table.free == 10 - 7


def test_no_more_is_grabbed_than_slots_are_free() -> None:
    table = awake(2)

    assert table.says(job_assign(b"H:1")) == GRAB
    assert table.says(job_assign(b"H:2")) == b""
    assert table.free == 0


def test_it_sleeps_only_when_no_grab_is_open() -> None:
    table = awake(10)
    table.says(job_assign(b"H:1"))

    assert table.says(NO_JOB) == b""
    assert table.says(NO_JOB) == PRE_SLEEP
    assert table.free == 9


def test_a_job_after_no_job_keeps_it_awake() -> None:
    table = awake(10)
    table.says(job_assign(b"H:1"))

    assert table.says(NO_JOB, job_assign(b"H:2")) == GRAB * 2


def test_it_wakes_with_one_grab() -> None:
    table = awake(10)
    assert table.says(NO_JOB) == PRE_SLEEP

    assert table.says(NOOP) == GRAB


def test_a_wake_up_without_a_free_slot_is_remembered() -> None:
    table = awake(1)
    table.says(NO_JOB)
    table.free = 0
    assert table.says(NOOP) == b""

    table.free = 1
    table.session.pull()

    assert table.sent() == GRAB


def test_wake_ups_for_nothing_are_answered_slower_after_some_time() -> None:
    table = awake()
    table.says(NO_JOB)
    for _ in range(FRUITLESS_MAX):
        assert table.says(NOOP) == GRAB
        assert table.says(NO_JOB) == PRE_SLEEP

    assert table.says(NOOP) == b""
    assert table.session.is_pausing
    table.session.resume()
    assert table.sent() == GRAB
    table.says(job_assign(b"H:1"))
    table.complete(table.jobs[0])
    assert table.says(NO_JOB, NOOP) == PRE_SLEEP + GRAB


def test_a_reduce_job_has_its_reducer() -> None:
    table = awake()

    table.says(response("JOB_ASSIGN_ALL", b"H:1", b"f", b"u", b"r", b"\0d"))

    (job,) = table.jobs
    assert (job.handle, job.unique, job.reducer, job.workload) == ("H:1", "u", "r", b"\0d")


def test_names_of_any_bytes_come_back_as_they_were() -> None:
    table = awake()
    table.says(response("JOB_ASSIGN_UNIQ", b"H:\xff", b"f", b"\xfe", b""))

    assert table.complete(table.jobs[0]).startswith(request("WORK_COMPLETE", b"H:\xff", b""))


@pytest.mark.parametrize(
    ("exception", "said"), [(b"oops", request("WORK_EXCEPTION", b"H:1", b"oops")), (b"", request("WORK_FAIL", b"H:1"))]
)
def test_a_failure_is_said_once(exception: bytes, said: bytes) -> None:
    table = awake()
    table.says(job_assign(b"H:1"))

    table.session.fail(table.jobs[0], exception)
    table.session.fail(table.jobs[0], exception)

    assert table.sent() == said


def test_reports_of_a_job_that_has_ended_are_dropped() -> None:
    table = awake()
    table.says(job_assign(b"H:1"))
    job = table.jobs[0]
    job.status(1, 2)
    job.data("part")
    job.warning("careful")
    assert table.sent() == (
        request("WORK_STATUS", b"H:1", b"1", b"2")
        + request("WORK_DATA", b"H:1", b"part")
        + request("WORK_WARNING", b"H:1", b"careful")
    )
    table.complete(job)

    job.data("more")
    table.session.complete(job, b"again")
    table.session.fail(job, b"")

    assert table.sent() == b""


def test_a_late_completion_that_the_server_refuses_does_no_harm() -> None:
    table = awake()
    table.says(job_assign(b"H:1"))
    table.complete(table.jobs[0])

    assert table.says(response("ERROR", b"JOB_NOT_FOUND", b"Job given in work result not found")) == b""


def test_a_job_that_comes_again_replaces_the_run_that_the_server_gave_up() -> None:
    table = awake(2)
    table.says(job_assign(b"H:1"))
    table.says(job_assign(b"H:1"))
    old, new = table.jobs

    assert table.lost == ["H:1"]
    table.session.complete(old, b"old")
    assert table.sent() == b""
    table.session.complete(new, b"new")
    assert table.sent() == request("WORK_COMPLETE", b"H:1", b"new")


def test_a_lost_connection_frees_its_slots_and_loses_its_jobs() -> None:
    table = awake(10)
    table.says(job_assign(b"H:1"))

    table.session.lost()

    assert (table.free, table.lost, table.sent()) == (9, ["H:1"], b"")
    table.session.pull()
    assert table.sent() == b""


def test_after_stop_taking_what_is_on_its_way_still_runs() -> None:
    table = awake(3)
    table.session.is_taking = False

    assert table.says(job_assign(b"H:1")) == b""
    assert table.complete(table.jobs[0], b"r") == request("WORK_COMPLETE", b"H:1", b"r")


def test_no_grab_while_the_server_is_slow_to_take_results() -> None:
    table = awake(3)
    table.session.is_congested = True
    assert table.says(job_assign(b"H:1")) == b""

    table.session.is_congested = False
    table.session.resume()

    assert table.sent() == GRAB * 2


def test_a_quiet_server_is_asked_for_jobs_while_the_worker_sleeps() -> None:
    table = awake()
    table.says(NO_JOB)

    table.session.probe()

    assert table.sent() == GRAB


def test_a_quiet_server_is_asked_to_echo_while_jobs_run() -> None:
    table = awake()
    table.says(job_assign(b"H:1"))

    table.session.probe()

    assert table.sent() == ECHO
    assert table.says(READY) == b""


def test_an_ability_added_in_sleep_is_told_and_jobs_looked_for() -> None:
    table = awake()
    table.says(NO_JOB)
    table.handlers = {**table.handlers, "g": handler("g")}

    assert table.session.change_abilities()

    assert table.sent() == request("CAN_DO", b"g") + GRAB


def test_an_ability_removed_is_told_and_a_job_that_crosses_it_left_to_others() -> None:
    table = awake(1, handler("f"), handler("g"))
    table.handlers = {"g": table.handlers["g"]}

    assert table.session.change_abilities()

    assert table.sent() == request("CANT_DO", b"f")
    assert table.says(job_assign(b"H:1", b"f")) == GRAB
    assert table.jobs == []


def test_an_ability_whose_job_runs_is_not_removed_for_the_server_would_take_the_job_back() -> None:
    table = awake(2, handler("f"))
    table.says(job_assign(b"H:1"))
    table.sent()
    table.handlers = {}

    assert not table.session.change_abilities()
    assert table.sent() == b""


def test_a_changed_timeout_is_told_anew() -> None:
    table = awake(1)
    table.says(NO_JOB)
    table.handlers = {"f": handler("f", timeout=1)}

    assert table.session.change_abilities()

    assert table.sent() == request("CANT_DO", b"f") + request("CAN_DO_TIMEOUT", b"f", b"11000")


def test_another_handler_of_a_function_takes_over_without_a_word() -> None:
    table = awake(1)
    other = handler("f")
    table.handlers = {"f": other}

    assert table.session.change_abilities()
    assert table.sent() == b""
    table.says(job_assign(b"H:1"))
    assert table.jobs[0].handler is other


def test_transactional_functions_are_not_offered_to_servers() -> None:
    table = Table(1, handler("f"), handler("g", transactional=True))

    table.session.start()

    assert request("CAN_DO", b"g") not in table.sent()


def test_a_large_result_that_is_refused_fails_its_job() -> None:
    table = awake()
    table.says(job_assign(b"H:1"))
    data = bytes(CONFIRM_BYTES)
    assert table.complete(table.jobs[0], data) == request("WORK_COMPLETE", b"H:1", data) + ECHO + GRAB

    said = table.says(response("ERROR", b"ARGUMENT_TOO_LARGE", b"A packet may have 9 bytes"), READY)

    assert said.startswith(request("WORK_EXCEPTION", b"H:1", b"")[:4])
    assert (
        b"H:1\0PayloadError: job H:1: the result of 1048576 bytes was refused by server:4730: A packet may have 9 bytes" in said
    )


def test_a_large_result_that_is_taken_is_forgotten() -> None:
    table = awake()
    table.says(job_assign(b"H:1"))
    table.complete(table.jobs[0], bytes(CONFIRM_BYTES))
    table.says(READY)

    with pytest.raises(ProtocolError, match="ARGUMENT_TOO_LARGE"):
        table.says(response("ERROR", b"ARGUMENT_TOO_LARGE", b"something else"))


def _busy() -> Table:
    table = awake()
    table.says(job_assign(b"H:1"))
    return table


@pytest.mark.parametrize(
    ("situation", "packet"),
    [
        (_busy, job_assign(b"H:2")),
        (_busy, NO_JOB),
        (_busy, READY),
        (awake, job_assign(b"H:1", b"other")),
        (awake, response("JOB_CREATED", b"H:1")),
        (awake, response("ERROR", b"INVALID_COMMAND", b"Command not expected")),
        (awake, response("JOB_ASSIGN_UNIQ", b"H:1", b"f")),
        (awake, b"HTTP/1.1 400 Bad Request\r\n"),
        (awake, b"\0FOO" + bytes(8)),
        (awake, b"\0RES\0\0\0\x63\0\0\0\0"),
    ],
    ids=[
        "job not asked for",
        "no job unasked",
        "echo unasked",
        "function not offered",
        "for clients",
        "error",
        "too short",
        "text",
        "magic",
        "no such type",
    ],
)
def test_what_no_server_may_say_is_an_error(situation: Callable[[], Table], packet: bytes) -> None:
    table = situation()
    running = len(table.jobs)
    with pytest.raises(ProtocolError):
        table.says(packet)

    table.session.lost()
    assert table.free == 1 - running
