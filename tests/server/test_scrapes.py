"""``/metrics`` while the database is slow: Prometheus always gets a page, and it tells."""

from __future__ import annotations

import http.client
import os
import signal
from collections.abc import Callable

import psycopg

from tests.server.bytes import Peer
from tests.server.load import query, wait_for
from tests.server_process import ServerProcess

Start = Callable[..., ServerProcess]
ConnectTo = Callable[[ServerProcess], Peer]


def scrape(server: ServerProcess) -> list[str]:
    """Return the lines of the page; none where the connection was cut."""
    host, _, port = server.wait_for_log(r"http listens address=(\S+)")[1].rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode().splitlines()
    except http.client.RemoteDisconnected:
        return []
    finally:
        connection.close()


def test_a_slow_count_is_shown_by_a_later_scrape_and_begun_once(start_server: Start, connect_to: ConnectTo, dsn: str) -> None:
    server = start_server("--http", "127.0.0.1:0")
    connect_to(server).submit("SUBMIT_JOB_BG", b"f", b"", b"")
    columns, source = query(
        dsn,
        "select pg_get_function_result(oid), pg_get_functiondef(oid) from pg_proc"
        " where oid = 'postgear.count_jobs(bigint)'::regprocedure",
    )[0]
    query(dsn, source.replace("count_jobs", "count_quickly", 1))
    query(dsn, "create sequence postgear.begun")
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("select pg_advisory_lock(42)")
        query(
            dsn,
            f"create or replace function postgear.count_jobs(holder bigint) returns {columns} language sql as $$"
            " select nextval('postgear.begun'); select pg_advisory_xact_lock_shared(42);"
            " select * from postgear.count_quickly($1) $$",
        )
        for _ in range(2):
            page = scrape(server)
            assert "postgear_database_up 1" in page
            assert not [line for line in page if line.startswith("postgear_queue_jobs")]
        connection.execute("select pg_advisory_unlock(42)")
    wait_for(lambda: 'postgear_queue_jobs{function="f",state="normal"} 1' in scrape(server), "the count is shown", 30)
    assert query(dsn, "select last_value from postgear.begun") == [(1,)]


def test_a_database_that_hangs_is_not_up(start_server: Start, dsn: str) -> None:
    server = start_server("--http", "127.0.0.1:0", "--lease-seconds", "600")
    assert "postgear_database_up 1" in scrape(server)
    named = "application_name like 'postgear test %%' and datname = current_database() and state = 'idle'"
    backends = [pid for (pid,) in query(dsn, f"select pid from pg_stat_activity where {named}")]
    for pid in backends:
        os.kill(pid, signal.SIGSTOP)
    try:
        wait_for(lambda: "postgear_database_up 0" in scrape(server), "it is told", 60)
    finally:
        for pid in backends:
            os.kill(pid, signal.SIGCONT)
    wait_for(lambda: "postgear_database_up 1" in scrape(server), "it is told", 60)
