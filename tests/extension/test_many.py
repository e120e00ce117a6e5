"""gman_do_many and gman_sum: many jobs at a time."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from psycopg import errors

from tests.extension.conftest import Connection
from tests.extension.python_worker import PythonWorker
from tests.server_process import ServerProcess


@pytest.mark.parametrize("workloads", ["'{a,b,c}'", "array['a', 'b', 'c']", "array['a','b','c']::varchar[]"])
def test_each_workload_has_a_row(session: Connection, worker: PythonWorker, workloads: str) -> None:
    rows = session.execute(f"select * from gman_do_many('maybe', {workloads})").fetchall()
    assert sorted(rows) == [(1, "A", None), (2, "B", None), (3, "C", None)]


@pytest.mark.parametrize("kind", ["text", "json", "jsonb", "bytea"])
def test_each_type_of_array(session: Connection, worker: PythonWorker, kind: str) -> None:
    rows = session.execute(f"select * from gman_do_many('echo', array['1', '22']::{kind}[]) order by 1").fetchall()
    assert [row[1] for row in rows] == ([b"1", b"22"] if kind == "bytea" else ["1", "22"])


def test_a_failed_job_is_a_row_with_an_error(session: Connection, worker: PythonWorker) -> None:
    rows = session.execute("select * from gman_do_many('maybe', array['a', 'bad', 'c']) order by 1").fetchall()
    assert [row[1] for row in rows] == ["A", None, "C"]
    assert str(rows[1][2]).endswith("): it was bad")


@pytest.mark.parametrize("workloads", ["'{}'", "null", "array[]::text[]"])
def test_no_workloads_no_rows(session: Connection, workloads: str) -> None:
    assert session.execute(f"select * from gman_do_many('echo', {workloads})").fetchall() == []


def test_more_jobs_than_may_be_in_flight_all_end(session: Connection, stock_worker: Callable[..., None]) -> None:
    for _ in range(2):
        stock_worker("count", "wc", "-c")
    rows = session.execute(
        "select ordinality, result::integer from gman_do_many('count',"
        " (select array_agg(repeat('x', n)) from generate_series(1, 30) as n), in_flight => 3)"
    ).fetchall()
    assert sorted(rows) == [(number, number) for number in range(1, 31)]


def test_large_workloads_do_not_block_each_other(session: Connection, worker: PythonWorker) -> None:
    count = session.execute(
        "select count(*) from gman_do_many('echo', array_fill(repeat('x', 2000000), array[20])) where length(result) = 2000000"
    ).fetchone()
    assert count == (20,)


def test_null_workloads_are_empty_and_uniques_are_one_each(session: Connection, worker: PythonWorker) -> None:
    rows = session.execute("select * from gman_do_many('length', array['ab', null], array['k1', 'k2']) order by 1").fetchall()
    assert rows == [(1, "2 bytes", None), (2, "0 bytes", None)]
    with pytest.raises(errors.InvalidParameterValue, match="2 workloads, but 1 uniques"):
        session.execute("select * from gman_do_many('length', array['ab', null], array['k1'])")


def test_jobs_of_one_unique_each_have_a_row(session: Connection, worker: PythonWorker) -> None:
    rows = session.execute("select * from gman_do_many('echo', array_fill('x'::text, array[9]), array_fill('k'::text, array[9]))")
    assert sorted(row[0] for row in rows.fetchall()) == list(range(1, 10))


@pytest.mark.parametrize("in_flight", [0, -1, 10_001])
def test_in_flight_has_bounds(session: Connection, worker: PythonWorker, in_flight: int) -> None:
    with pytest.raises(errors.InvalidParameterValue, match="in_flight must be between 1 and 10000"):
        session.execute("select * from gman_do_many('echo', '{a}', in_flight => %s)", [in_flight])


def test_what_has_not_ended_in_time_is_a_row_with_an_error(session: Connection, worker: PythonWorker) -> None:
    rows = session.execute("select * from gman_do_many('never', '{a,b}', timeout => '200 ms')").fetchall()
    assert [row[0] for row in rows] == [1, 2]
    assert all("did not answer in time" in str(row[2]) for row in rows)
    assert session.execute("select gman_do('echo', 'x')").fetchone() == ("x",)


def test_rows_come_as_jobs_end_and_need_not_all_be_read(session: Connection, worker: PythonWorker) -> None:
    with session.transaction(), session.cursor("rows") as cursor:
        # A function in FROM would run all jobs first.
        cursor.execute("select gman_do_many('maybe', '{a,b,c}', in_flight => 1)")
        assert len(cursor.fetchmany(1)) == 1
        assert worker.workloads == [b"a"]
    assert session.execute("select gman_do('echo', 'x')").fetchone() == ("x",)


def test_cancel_takes_effect_in_the_middle(session: Connection, worker: PythonWorker) -> None:
    session.execute("set statement_timeout = '300ms'")
    with pytest.raises(errors.QueryCanceled):
        session.execute("select * from gman_do_many('never', '{a,b,c}')")


# -- gman_sum --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["text", "json", "jsonb", "bytea"])
def test_sum_adds_up_the_results(session: Connection, worker: PythonWorker, kind: str) -> None:
    row = session.execute(f"select gman_sum('length', n::text::{kind}) from generate_series(1, 12) n").fetchone()
    assert row == (15,)


def test_sum_with_uniques_groups_and_filter(session: Connection, worker: PythonWorker) -> None:
    rows = session.execute(
        "select n % 2, gman_sum('echo', n::text, 'key' || n) filter (where n > 2)"
        " from generate_series(1, 6) n group by 1 order by 1"
    )
    assert rows.fetchall() == [(0, 10), (1, 8)]


def test_sum_of_no_rows_is_null(session: Connection, worker: PythonWorker) -> None:
    assert session.execute("select gman_sum('echo', 'x') where false").fetchone() == (None,)


def test_sum_of_a_failed_job_is_an_error(session: Connection, worker: PythonWorker) -> None:
    with pytest.raises(errors.ExternalRoutineException, match="it was bad"):
        session.execute("select gman_sum('maybe', 'bad')")


@pytest.mark.parametrize("result", ["none", "", "-", "x1"])
def test_sum_of_what_is_no_integer_is_an_error(session: Connection, worker: PythonWorker, result: str) -> None:
    with pytest.raises(errors.InvalidTextRepresentation, match="is no integer"):
        session.execute("select gman_sum('echo', %s::text)", [result])


def test_sum_is_no_window_function(session: Connection, server: ServerProcess) -> None:
    with pytest.raises(errors.FeatureNotSupported):
        session.execute("select gman_sum('echo', '1') over () from generate_series(1, 2)")
