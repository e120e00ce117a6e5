"""What a member of postgear_producer may do, and everybody else."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import errors

from postgear import schema
from tests.extension.conftest import Connection
from tests.extension.python_worker import PythonWorker


@pytest.fixture(params=["extension", "plpython"])
def producer(dsn: str, session: Connection, request: pytest.FixtureRequest) -> Connection:
    """A session as postgear_producer."""
    for role in ("postgear_producer", "postgear_admin"):
        session.execute(f"do $$ begin if to_regrole('{role}') is null then create role {role} nologin; end if; end $$")
    schema.upgrade(dsn, functions=request.param)
    session.execute("set role postgear_producer")
    return session


def test_a_producer_queues_asks_and_waits(producer: Connection, worker: PythonWorker) -> None:
    (handle,) = producer.execute("select gman_do_background('later', 'x', 'k', now() + interval '1 hour')").fetchone() or ()
    assert producer.execute("select * from gman_status(%s)", [handle]).fetchone() == (True, False, 0, 0)
    assert producer.execute("select gman_do('echo', 'x')").fetchone() == ("x",)
    assert producer.execute("select result from gman_do_many('echo', '{x}')").fetchone() == ("x",)
    assert producer.execute("select gman_sum('echo', '1')").fetchone() == (1,)
    assert len(producer.execute("select * from gman_servers_check()").fetchall()) == 1


@pytest.mark.parametrize(
    "statement",
    [
        "select * from postgear.job",
        "delete from postgear.job",
        "insert into postgear.function (name) values ('f')",
        "select * from postgear.server",
        "select gman_cancel('H:test:1')",
    ],
)
def test_a_producer_may_do_nothing_else(producer: Connection, statement: str) -> None:
    with pytest.raises(errors.InsufficientPrivilege):
        producer.execute(statement)


def test_others_may_call_nothing(producer: Connection) -> None:
    name = f"nobody_{producer.info.backend_pid}"
    producer.execute(f"reset role; create role {name}; set role {name}")
    for call in ("gman_do_background('f', 'x')", "gman_do('f', 'x')", "gman_runtime()", "postgear.queue_job('f', 'x')"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            producer.execute(f"select {call}")
    producer.execute(f"reset role; drop role {name}")
