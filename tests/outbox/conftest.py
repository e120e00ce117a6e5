"""Fixtures: a database with an outbox in MariaDB, relays from it to the test's queue."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest

from postgear.outbox import schema
from postgear.outbox.connecting import Address, parse
from tests.mariadb import MariaDB, mariadb, mysql_database, mysql_session, start_mariadb  # noqa: F401
from tests.outbox.relay_process import RelayProcess

WAIT_SECONDS = 20.0
_numbers = itertools.count(1)


def url_of(server: MariaDB, database: str, user: str = "root", password: str = "") -> str:
    """The URL of a database of the tests' server."""
    return f"mysql://{quote(user)}:{quote(password)}@localhost/{database}?unix_socket={quote(server.socket)}"


@pytest.fixture
def mysql_url(mariadb: MariaDB, mysql_database: str) -> str:  # noqa: F811
    """The URL of the test's database."""
    return url_of(mariadb, mysql_database)


@pytest.fixture
def outbox(mysql_url: str) -> Address:
    """The test's database, with an outbox."""
    address = parse(mysql_url)
    schema.install(address)
    return address


@pytest.fixture
def session(outbox: Address, mysql_session: Any) -> Any:  # noqa: F811
    """A session in the database with the outbox."""
    return mysql_session


@pytest.fixture
def start_relay(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., RelayProcess]]:
    """Start relays, by default from the test's outbox to the test's queue; all are ended after the test."""
    started: list[RelayProcess] = []

    def start(*arguments: str, url: str | None = None, dsn: str | None = None) -> RelayProcess:
        relay = RelayProcess(
            *arguments,
            url=url or request.getfixturevalue("mysql_url"),
            dsn=dsn or request.getfixturevalue("dsn"),
            log_path=tmp_path / f"relay-{next(_numbers)}.log",
        )
        started.append(relay)
        return relay

    # Before this fixture, so that the databases outlive the relays.
    for name in ("dsn", "mysql_url"):
        if name in request.fixturenames:
            request.getfixturevalue(name)
    yield start
    for relay in started:
        relay.kill()
        request.node.add_report_section("teardown", "relay", relay.log())


@pytest.fixture
def queue(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    """A session with the test's queue."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection


def ask(session: Any, query: str, *parameters: object) -> list[tuple[Any, ...]]:
    """Run a statement in MariaDB and return its rows."""
    with session.cursor() as cursor:
        cursor.execute(query, parameters)
        return list(cursor.fetchall()) if cursor.with_rows else []


def jobs(queue: psycopg.Connection[Any]) -> list[tuple[str, bytes]]:
    """Function and workload of each job in the queue, in the order of their ids."""
    query = (
        "select encode(function.name, 'escape'), workload from postgear.job join postgear.function on function.id = function_id"
    )
    return queue.execute(query + " order by job.id").fetchall()


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait until *condition* holds."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.01)
