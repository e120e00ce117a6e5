"""No name and no value can become SQL: tables, columns, functions, keys and payloads of any text."""

from __future__ import annotations

import json
from collections.abc import Iterator

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from psycopg import sql

from tests.extension.asking import Connection, create_trigger, rows, value

NASTY = [
    "'; drop table postgear.job; --",
    '"; drop table postgear.job; --',
    "$$",
    "$insert$",
    "%s%I%L%",
    "new",
    "old",
    "\\",
    "a\nb",
]
NASTY += ["function_id", "added", "enqueue", "place", "keyed", "unique_key", "select", "*/", "new_rows", "table_name", "version"]

fragments = st.sampled_from([*NASTY, "'", '"', "%", "$", "\\'", "--", "/*", ";", "é", "日"])
texts = st.one_of(
    fragments,
    st.lists(fragments, min_size=1, max_size=4).map("".join),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=15),
)
names = texts.filter(lambda text: len(text.encode()) <= 54)
VALUES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30) | fragments


@pytest.fixture
def session(dsn: str) -> Iterator[Connection]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("create table canary (id integer)")
        yield connection


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    table=names,
    columns=st.lists(names, min_size=2, max_size=3, unique=True),
    function=texts,
    name=names,
    level=st.sampled_from(["statement", "row"]),
    payload=st.sampled_from(["row", "change", "key", "columns"]),
    written=VALUES,
)
@example(table="new", columns=["new", "old"], function="'", name='"', level="statement", payload="change", written="'")
@example(
    table="old_rows", columns=["old_rows", "new_rows"], function="f", name="n", level="statement", payload="change", written="$$"
)
@example(table="job", columns=["function_id", "added"], function="f", name="n", level="row", payload="columns", written="\\")
def test_any_names_and_values(
    session: Connection, table: str, columns: list[str], function: str, name: str, level: str, payload: str, written: str
) -> None:
    relation = sql.Identifier("public", table)
    before = value(session, "select count(*) from pg_class") + value(session, "select count(*) from pg_proc")
    with session.transaction(force_rollback=True):
        session.execute(
            sql.SQL("create table {} ({})").format(
                relation, sql.SQL(", ").join(sql.SQL("{} text").format(sql.Identifier(column)) for column in columns)
            )
        )
        options: dict[str, object] = {"payload_columns": columns} if payload == "columns" else {}
        made = create_trigger(
            session,
            relation.as_string(session),
            function,
            name=name,
            level=level,
            payload=payload,
            events=["insert", "update", "delete"],
            columns=[columns[1]],
            key=[columns[0]],
            **options,
        )
        assert made == name
        row = [written, *columns[1:]]
        session.execute(sql.SQL("insert into {} values ({})").format(relation, sql.SQL(", ").join(map(sql.Literal, row))))
        session.execute(sql.SQL("update {} set {} = 'changed'").format(relation, sql.Identifier(columns[1])))
        ((name_bytes, workload),) = rows(
            session, "select function.name, workload from postgear.job join postgear.function on function.id = function_id"
        )
        row[1] = "changed"
        after = dict(zip(columns, row, strict=True))
        payload_of = {"row": after, "columns": after, "key": {columns[0]: written}}
        found = json.loads(workload)
        assert name_bytes == function.encode()
        assert (found["new"] if payload == "change" else found) == payload_of.get(payload, after)
        session.execute(sql.SQL("delete from {}").format(relation))
        session.execute("select postgear.drop_trigger(%s::regclass, %s)", (relation.as_string(session), name))
        assert rows(session, "select from pg_proc where pronamespace = 'postgear_trigger'::regnamespace") == []
    assert before == value(session, "select count(*) from pg_class") + value(session, "select count(*) from pg_proc")
    assert rows(session, "select from canary") == []


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(function=texts, key=VALUES, workload=st.binary(max_size=40), as_text=VALUES)
def test_any_function_key_and_workload(session: Connection, function: str, key: str, workload: bytes, as_text: str) -> None:
    with session.transaction(force_rollback=True):
        session.execute("select gman_do_background(%s, %s::bytea)", (function, workload))
        session.execute("select gman_do_background(%s, %s::text)", (function, as_text))
        session.execute("select postgear.submit_coalesced(%s, %s, %s)", (function.encode(), key, workload))
        assert rows(
            session, "select name, workload from postgear.job join postgear.function f on f.id = function_id order by job.id"
        ) == [
            (function.encode(), workload),
            (function.encode(), as_text.encode()),
            (function.encode(), workload),
        ]


def test_names_with_the_other_escape_rules(session: Connection) -> None:
    session.execute("set standard_conforming_strings = off")
    create_trigger(session, "canary", "\\'; drop table canary; --", name="\\' t", when="'\\\\' <> ''", payload="change")
    session.execute("insert into canary values (1)")
    assert value(session, "select name from postgear.function") == b"\\'; drop table canary; --"
