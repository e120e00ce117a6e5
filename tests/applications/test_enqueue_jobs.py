"""``postgear.enqueue_jobs`` as SQL calls it."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from tests.applications.kinds import Database


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("array[null::bytea], array['w'::bytea]", "function and workload must not be null"),
        ("array['f'::bytea], array[null::bytea]", "function and workload must not be null"),
        ("array['f', 'g']::bytea[], array['w']::bytea[]", "function and workload must not be null"),
        ("array[''::bytea], array['w'::bytea]", "a function name has 1 to 512 bytes"),
        ("array[convert_to(repeat('f', 513), 'UTF8')], array['w'::bytea]", "a function name has 1 to 512 bytes"),
        ("array['f'::bytea], array['w'::bytea], array[convert_to(repeat('u', 65), 'UTF8')]", "a unique at most 64"),
        (r"array['\x6600'::bytea], array['w'::bytea]", "must not contain NUL"),
        (r"array['f'::bytea], array['w'::bytea], array['\x00'::bytea]", "must not contain NUL"),
        ("array['f']::bytea[], array['w']::bytea[], null, array[-1]::smallint[]", "priority -1 is none of 0"),
        ("array['f']::bytea[], array['w']::bytea[], null, null, array[4000000000000]", "the year 9999"),
        ("array['f', 'g']::bytea[], array['w', 'w']::bytea[], null, array[1, 7]::smallint[]", "priority 7 is none of 0"),
    ],
)
def test_impossible_job_is_an_error(database: Database, arguments: str, message: str) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=message):
        database.look.execute(f"select * from postgear.enqueue_jobs({arguments})")
    assert database.jobs() == []


def call(database: Database, *arguments: Any) -> Any:
    marks = ", ".join(["%s::bytea[]", "%s::bytea[]", "%s::bytea[]", "%s::smallint[]", "%s::bigint[]"][: len(arguments)])
    return database.look.execute(f"select * from postgear.enqueue_jobs({marks})", arguments).fetchone()


def test_defaults_are_normal_jobs_without_uniques(database: Database) -> None:
    assert call(database, [b"f", b"g"], [b"1", b"2"]) == (["H:test:1", "H:test:2"], None)
    assert [(job.unique, job.priority) for job in database.jobs()] == [(None, 1), (None, 1)]


def test_place_of_the_first_job_too_many_is_told(database: Database) -> None:
    database.look.execute("insert into postgear.function (name, max_low) values ('g', 1)")
    assert call(database, [b"f", b"g", b"g", b"g"], [b"1"] * 4, None, [2, 2, 2, 2]) == (None, 3)
    assert database.jobs() == []
    assert call(database, [b"f", b"g", b"g"], [b"1"] * 3, None, [2, 2, 1])[1] is None


def test_servers_that_sleep_are_notified(database: Database) -> None:
    database.look.execute(
        "insert into postgear.server (lease, name, address, pid, version, lease_seconds, sleeping)"
        " values (1, 's', '', 1, '', 30, true)"
    )
    database.look.execute("listen postgear")
    call(database, [b"f"], [b"1"])
    assert [notify.payload for notify in database.look.notifies(timeout=5, stop_after=1)] == ["wake"]


def test_no_arrays_are_no_jobs(database: Database) -> None:
    assert call(database, None, None) == call(database, [], []) == ([], None)
