"""The functions against postgear and gearmand: arguments, results, what goes wrong at the worker."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.extension.python_worker import PythonWorker
from tests.udf.asking import Session

EVERY_BYTE = bytes(range(256))
BACKGROUND = ("gman_do_background", "gman_do_high_background", "gman_do_low_background")


@pytest.mark.parametrize("function", ["gman_do", "gman_do_high", "gman_do_low"])
def test_a_job_is_run_and_its_result_returned(asked: Session, worker: PythonWorker, function: str) -> None:
    assert asked.value(f"select {function}('echo', 'hello')") == b"hello"
    assert asked.warnings == []


@pytest.mark.parametrize("workload", [b"", b"\0", EVERY_BYTE, b"x" * 255, b"x" * 256, EVERY_BYTE * 2000])
def test_results_are_binary_safe_and_large(asked: Session, worker: PythonWorker, workload: bytes) -> None:
    assert asked.value("select gman_do('echo', %s)", workload) == workload


def test_a_result_comes_up_to_max_allowed_packet(asked: Session, worker: PythonWorker) -> None:
    length = 16 * 1024 * 1024 - 100
    assert asked.value("select length(gman_do('echo', repeat('x', %s)))", length) == length


def test_a_result_over_the_limit_is_null(asked: Session, worker: PythonWorker) -> None:
    asked.value("select gman_option_set('result_max', 1000)")
    assert asked.value("select gman_do('echo', repeat('x', 1000))") == b"x" * 1000
    assert asked.value("select gman_do('echo', repeat('x', 1001))") is None
    assert "the result has more than 1000 bytes" in asked.warning()
    assert asked.value("select gman_do('chunks', repeat('x', 1001))") is None


@pytest.mark.parametrize(
    ("value", "workload"),
    [("12", b"12"), ("-1.50", b"-1.50"), ("1e3", b"1000"), ("null", b""), ("true", b"1"), ("date'2026-01-02'", b"2026-01-02")],
)
def test_a_workload_of_any_type_goes_as_text(asked: Session, worker: PythonWorker, value: str, workload: bytes) -> None:
    assert asked.value(f"select gman_do('echo', {value})") == workload


def test_a_call_is_made_for_each_row(asked: Session, worker: PythonWorker) -> None:
    asked.rows("create table numbers (number int)")
    asked.rows("insert into numbers values (1), (2), (3)")
    found = asked.rows("select number, gman_do('length', repeat('x', number)) from numbers order by number")
    assert found == [(1, b"1 bytes"), (2, b"2 bytes"), (3, b"3 bytes")]
    worker.workloads.clear()
    assert len(asked.rows("select gman_do('echo', 'the same') from numbers")) == 3
    assert worker.workloads == [b"the same"] * 3


def test_partial_data_is_joined(asked: Session, worker: PythonWorker) -> None:
    assert asked.value("select gman_do('chunks', 'abcde')") == b"abcde!"


def test_a_failed_job_is_null_and_a_warning(asked: Session, worker: PythonWorker) -> None:
    assert asked.value("select gman_do('fail', '')") is None
    assert asked.warning().startswith("gman_do: ")
    assert asked.warning().endswith(" failed")
    assert asked.value("select gman_do('raise', %s)", "it was ü☹") is None
    assert asked.warning().endswith(" failed: it was ü☹")
    assert asked.value("select gman_do('raise', x'ff0a41')") is None
    assert asked.warning().endswith(" failed: ? A")
    assert asked.value("select gman_do('echo', 'next')") == b"next"


def test_a_workers_warning_is_a_note(asked: Session, worker: PythonWorker) -> None:
    assert asked.value("select gman_do('warn', 'take care')") == b"done"
    assert asked.warnings == [("Note", 1105, "take care")]


def test_errors_can_be_sql_errors(asked: Session, worker: PythonWorker) -> None:
    assert asked.value("select gman_option_set('errors', 'error')") == b"error"
    assert "failed: bad luck" in asked.error("select gman_do('raise', 'bad luck')")
    asked.rows("create table t (a int)")
    asked.rows("create trigger t after insert on t for each row set @result = gman_do('raise', new.a)")
    assert "failed: 7" in asked.error("insert into t values (7)")
    assert asked.rows("select * from t") == []


def test_a_trigger_that_gets_null_lets_the_row_in(asked: Session, worker: PythonWorker) -> None:
    asked.rows("create table t (a int)")
    asked.rows("create trigger t after insert on t for each row set @result = gman_do('raise', new.a)")
    asked.rows("insert into t values (7)")
    assert asked.rows("select a, @result from t") == [(7, None)]


def test_a_trigger_can_catch_what_went_wrong(asked: Session, worker: PythonWorker) -> None:
    asked.rows("create table t (a int)")
    asked.rows("create table failed (a int, text varchar(500))")
    asked.rows(
        """create trigger t after insert on t for each row begin
            declare continue handler for sqlwarning begin
                get diagnostics condition 1 @text = message_text;
                insert into failed values (new.a, @text);
            end;
            set @result = gman_do('raise', new.a);
        end"""
    )
    asked.rows("insert into t values (7), (8)")
    assert [(a, text[-9:]) for a, text in asked.rows("select * from failed")] == [(7, "failed: 7"), (8, "failed: 8")]


@pytest.mark.parametrize("function", BACKGROUND)
def test_background_jobs_are_queued_and_run(asked: Session, job_server: Any, function: str) -> None:
    handle = asked.value(f"select {function}('echo', 'later')").decode()
    assert handle.startswith("H:")
    assert status(asked, handle) == (True, False)
    with PythonWorker(job_server.host, job_server.port) as worker:
        assert worker.taken.acquire(timeout=5)
        assert worker.workloads == [b"later"]
        # Not left to the tests that follow.
        deadline = time.monotonic() + 5
        while status(asked, handle) != (False, False):
            assert time.monotonic() < deadline


def test_uniques_coalesce(asked: Session, job_server: Any) -> None:
    query = "select gman_do_background('unique', %s, %s)"
    first = asked.value(query, "one", "key")
    assert asked.value(query, "two", "key") == first
    assert asked.value(query, "one", "other") != first
    assert asked.value(query, "one", None) != asked.value(query, "one", None)
    assert asked.value(query, "one", "") != asked.value(query, "one", "")
    assert asked.value(query, "one", 17) == asked.value(query, "one", "17")
    assert asked.value(query, "same", "-") == asked.value(query, "same", "-")


def test_a_job_can_be_scheduled(asked: Session) -> None:
    query = "select gman_do_epoch('scheduled', 'far', unix_timestamp() + 3600, 'key')"
    handle = asked.value(query)
    assert status(asked, handle.decode()) == (True, False)
    assert asked.value(query) == handle


@pytest.mark.parametrize("epoch", ["0", "null", "-5", "1"])
def test_a_time_that_has_passed_is_at_once(asked: Session, worker: PythonWorker, epoch: str) -> None:
    asked.value(f"select gman_do_epoch('echo', 'now', {epoch})")
    assert worker.taken.acquire(timeout=5)
    assert worker.workloads == [b"now"]


def status(session: Session, handle: object) -> tuple[bool, bool]:
    """known and running."""
    found = json.loads(session.value("select gman_status(%s)", handle))
    assert list(found) == ["known", "running", "numerator", "denominator"]
    return found["known"], found["running"]


@pytest.mark.parametrize("handle", ["H:nobody:1", "", "x y", "x\ny", "x" * 64, "ü", "H:a\0b"])
def test_an_unknown_handle_is_not_known(asked: Session, handle: str) -> None:
    assert status(asked, handle) == (False, False)


def test_the_status_of_null_is_null(asked: Session) -> None:
    assert asked.value("select gman_status(null)") is None
    assert asked.warnings == []


def test_status_shows_progress(asked: Session, job_server: Any) -> None:
    with PythonWorker(job_server.host, job_server.port) as worker:
        handle = asked.value("select gman_do_background('never', '')").decode()
        assert worker.taken.acquire(timeout=5)
        worker._send("WORK_STATUS", handle.encode(), b"3", b"7")
        deadline = time.monotonic() + 5
        while (found := json.loads(asked.value("select gman_status(%s)", handle)))["numerator"] != 3:
            assert time.monotonic() < deadline, found
    assert found == {"known": True, "running": True, "numerator": 3, "denominator": 7}


def test_sum_runs_a_job_for_each_row(asked: Session, worker: PythonWorker) -> None:
    asked.rows("create table numbers (number int, kind int, word varchar(70))")
    values = ", ".join(f"({number}, {number % 3}, 'w{number}')" for number in range(1000))
    asked.rows(f"insert into numbers values {values}")
    assert asked.value("select gman_sum('echo', number) from numbers") == sum(range(1000))
    assert asked.value("select gman_sum('length', repeat('x', number), word) from numbers") == sum(range(1000))
    assert asked.value("select gman_sum('echo', 1, 'the same') from numbers") == 1000
    groups = asked.rows("select kind, gman_sum('echo', number) from numbers group by kind order by kind")
    assert groups == [(kind, sum(range(kind, 1000, 3))) for kind in range(3)]
    assert asked.value("select gman_sum('echo', number) from numbers where number < 0") is None
    assert asked.warnings == []


@pytest.mark.parametrize(
    ("call", "text"),
    [
        ("gman_sum('echo', 'x')", "is no integer: x"),
        ("gman_sum('echo', '')", "is no integer"),
        ("gman_sum('fail', 1)", "failed"),
        ("gman_sum('raise', 'no')", "failed: no"),
        ("gman_sum('echo', '9223372036854775808')", "out of range"),
        ("gman_sum(null, 1)", "the function must not be null"),
        ("gman_sum('echo', 1, repeat('x', 65))", "a unique may have 64 bytes, this one has 65"),
    ],
)
def test_a_sum_that_cannot_be_is_null(asked: Session, worker: PythonWorker, call: str, text: str) -> None:
    assert asked.value(f"select {call}") is None
    assert text in asked.warning()
    assert asked.value("select gman_sum('echo', 1)") == 1


def test_a_sum_of_large_workloads_does_not_block_itself(asked: Session, worker: PythonWorker) -> None:
    asked.rows("create table numbers (number int)")
    asked.rows("insert into numbers values " + ", ".join(f"({number})" for number in range(60)))
    assert asked.value("select gman_sum('echo', concat(number, repeat('x', 300000))) from numbers") == sum(range(60))


@pytest.mark.parametrize(
    ("call", "text"),
    [
        ("gman_do('f')", "Must give two, three or four arguments."),
        ("gman_do('f', '', '', 1, 1)", "Must give two, three or four arguments."),
        ("gman_do(1, '')", "First argument must be a string."),
        ("gman_do_background('f')", "Must give two or three arguments."),
        ("gman_do_background(1.5, '')", "First argument must be a string."),
        ("gman_do_epoch('f', '')", "Must give three or four arguments."),
        ("gman_sum('f')", "Must give two or three arguments."),
        ("gman_status()", "Must give one argument."),
        ("gman_status(1)", "First argument must be a string."),
        ("gman_servers_set()", "Must give one or two arguments."),
        ("gman_servers_set(4730)", "First argument must be a string."),
        ("gman_servers_check('a', 'b')", "Must give no argument or one."),
        ("gman_option_set()", "Must give one or two arguments."),
    ],
)
def test_wrong_arguments_are_sql_errors(session: Session, call: str, text: str) -> None:
    assert text in session.error(f"select {call}")


@pytest.mark.parametrize(
    ("call", "text"),
    [
        ("gman_do(null, '')", "the function must not be null"),
        ("gman_do(repeat('f', 513), '')", "a function name may have 512 bytes, this one has 513"),
        ("gman_do(concat('f', char(0)), '')", "a function name may not hold a NUL byte"),
        ("gman_do('f', '', repeat('u', 65))", "a unique may have 64 bytes, this one has 65"),
        ("gman_do_background('f', '', concat('u', char(0)))", "a unique may not hold a NUL byte"),
        ("gman_do('f', '', null, 0)", "a timeout is more than 0 and at most 86400 seconds, not 0"),
        ("gman_do('f', '', null, 1e300)", "a timeout is more than 0"),
    ],
)
def test_values_that_cannot_be_sent_are_null(asked: Session, call: str, text: str) -> None:
    assert asked.value(f"select {call}") is None
    assert text in asked.warning()


def test_a_call_is_not_made_by_explain(asked: Session, worker: PythonWorker) -> None:
    asked.rows("explain select gman_do_background('echo', 'explained')")
    assert asked.value("select gman_do('echo', 'run')") == b"run"
    assert b"explained" not in worker.workloads
