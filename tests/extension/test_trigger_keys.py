"""The coalescing keys of triggers: the same for every session, whatever its settings."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from tests.extension.asking import Connection, create_trigger, workloads


@pytest.fixture
def session(dsn: str) -> Iterator[Connection]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection


VALUES = {
    "timestamptz": "2026-11-21 12:00:00.123456+00",
    "date": "2026-11-02",
    "timestamp": "2026-11-02 12:00",
    "timetz": "12:00+02",
    "interval": "1 year 2 days 03:04:05.6",
    "bytea": r"\x00ff",
    "float4": "0.1",
    "float8": "0.30000000000000004",
    "money": "1234.5",
    "point": "(0.1,0.30000000000000004)",
    "circle": "<(0.1,0.2),0.30000000000000004>",
    "tstzrange": "[2026-11-02 12:00+00,2026-11-03 12:00+00)",
    "daterange": "[2026-11-02,2026-11-05)",
    "datemultirange": "{[2026-11-02,2026-11-05)}",
    "timestamptz[]": "{2026-11-02 12:00+00}",
    "moment": "2026-11-02 12:00+00",
    "dated": '(2,"2026-11-02 12:00+00")',
    "text": "\u20ac",
    "texts": "[a,\u20ac)",
    "named": '(\u20ac,"{}")',
    "numeric(9, 2)": "0.30",
    "uuid": "00000000-0000-0000-0000-000000000001",
}
SETTINGS = """
set timezone = 'Asia/Tokyo'; set datestyle = 'SQL, DMY'; set intervalstyle = 'iso_8601'; set bytea_output = 'escape';
set extra_float_digits = -10; set client_encoding = 'latin9'
"""


@pytest.mark.parametrize("level", ["statement", "row"])
def test_a_key_does_not_depend_on_settings_of_the_session(session: Connection, dsn: str, level: str) -> None:
    session.execute("create domain moment as timestamptz; create type dated as (id integer, at timestamptz)")
    session.execute("create type texts as range (subtype = text); create type named as (name text, more jsonb)")
    session.execute("set timezone = 'UTC'; set extra_float_digits = 1")
    for number, (kind, text) in enumerate(VALUES.items()):
        session.execute(f"create table keyed_{number} (id {kind}, version integer)")
        create_trigger(session, f"keyed_{number}", level=level, events=["insert", "update", "delete"], key=["id"], payload="key")
        session.execute(f"insert into keyed_{number} values (%s, 1), (null, 1)", [text])
    with psycopg.connect(dsn, autocommit=True) as other:
        other.execute(SETTINGS)
        for number in range(len(VALUES)):
            other.execute(f"update keyed_{number} set version = 2")
    jobs = dict(session.execute("select trigger_id, count(*) from postgear.job group by trigger_id").fetchall())
    tables = session.execute("select id, name from postgear.trigger order by id").fetchall()
    assert [kind for kind, (trigger, _) in zip(VALUES, tables, strict=True) if jobs[trigger] != 2] == []


def test_keys_of_other_values_are_other_jobs(session: Connection) -> None:
    session.execute("create table moments (at timestamptz, size float8)")
    create_trigger(session, "moments", key=["at", "size"])
    session.execute("set extra_float_digits = -15")
    session.execute(
        "insert into moments values ('2026-11-21 12:00Z', 0.1), ('2026-11-21 12:00+01', 0.1), ('2026-11-21 12:00Z', 0.11)"
    )
    assert len(workloads(session)) == 3
