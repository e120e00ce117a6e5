"""The rights that docs/operations.md grants are enough, for a server and for a producer."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from tests.server.bytes import Peer
from tests.server_process import ServerProcess

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"
Start = Callable[..., ServerProcess]
ConnectTo = Callable[[ServerProcess], Peer]
ROLES = ("gear_server", "gear_producer")


@pytest.fixture
def granted_dsn(dsn: str) -> Iterator[str]:
    """The test's database with both roles and what the page grants them; a DSN of its superuser."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        for role in ROLES:
            connection.execute(f"create role {role} login")
        for block in re.findall(r"```sql\n(.*?)```", OPERATIONS.read_text(encoding="utf-8"), re.DOTALL):
            connection.execute(block)
        yield dsn
        for role in ROLES:
            connection.execute(f"drop owned by {role}; drop role {role}")


def test_a_producer_queues_jobs_of_known_and_new_functions(granted_dsn: str) -> None:
    with psycopg.connect(make_conninfo(granted_dsn, user="gear_producer"), autocommit=True) as producer:
        for unique in ("k", "k", None):
            producer.execute("select gman_do_background('f', 'x', %s)", [unique])
        producer.execute("select gman_do_high_background('g', 'x')")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            producer.execute("select from postgear.job")
    with psycopg.connect(granted_dsn) as connection:
        assert connection.execute("select count(*) from postgear.job").fetchone() == (3,)


def test_a_server_needs_no_more_than_it_is_granted(granted_dsn: str, start_server: Start, connect_to: ConnectTo) -> None:
    dead, server = (
        start_server("--name", name, dsn=make_conninfo(granted_dsn, user="gear_server")) for name in ("dead", "alive")
    )
    client, worker, admin, holder = connect_to(server), connect_to(server), connect_to(server), connect_to(dead)
    handle = client.submit("SUBMIT_JOB_BG", b"f", b"k", b"")
    assert client.submit("SUBMIT_JOB_BG", b"f", b"k", b"") == handle
    assert client.submit("SUBMIT_JOB", b"f", b"k", b"") == handle
    worker.can_do(b"f")
    assert worker.grab()[0] == handle
    worker.send("WORK_STATUS", handle, b"1", b"2")
    client.expect("WORK_STATUS", handle, b"1", b"2")
    worker.send("WORK_COMPLETE", handle, b"")
    client.expect("WORK_COMPLETE", handle, b"")

    later = client.submit("SUBMIT_JOB_EPOCH", b"g", b"", b"4102444800", b"")
    assert admin.reply(b"maxqueue g 1\r") == b"OK\r\n"
    client.send("SUBMIT_JOB_BG", b"g", b"", b"")
    assert client.error() == "QUEUE_ERROR"
    assert admin.reply(b"cancel job " + later + b"\r") == b"OK\r\n"
    assert admin.reply(b"drop function g\r") == b"OK\r\n"
    assert admin.status(b"f") is not None

    holder.can_do(b"h")
    lost = client.submit("SUBMIT_JOB_BG", b"h", b"", b"")
    assert holder.grab()[0] == lost
    dead.kill()
    worker.can_do(b"h")
    assert worker.grab()[0] == lost
    server.wait_for_log("dead server reaped")
    assert "permission denied" not in server.log() + dead.log()
