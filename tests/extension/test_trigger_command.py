"""``postgear trigger create|drop|list``."""

from __future__ import annotations

import json
from collections.abc import Iterator

import psycopg
import pytest

from postgear import cli
from tests.extension.asking import Connection, payloads, rows


@pytest.fixture
def session(dsn: str) -> Iterator[Connection]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute('create table "Odd; item" (id integer primary key, title text)')
        yield connection


TABLE = '"Odd; item"'


def test_create_list_drop(dsn: str, session: Connection, capsys: pytest.CaptureFixture[str]) -> None:
    options = "--name t --events insert,update --level row --columns title --payload columns --payload-columns id,title"
    more = ["--priority", "high", "--delay", "1 hour", "--key", "--when", "new.id > 0", "--enable", "always"]
    assert cli.main(["trigger", "create", "--dsn", dsn, TABLE, "f", *options.split(), *more]) == 0
    assert capsys.readouterr().out == "t\n"
    session.execute("insert into \"Odd; item\" values (1, 'a'), (0, 'b')")
    assert payloads(session) == [{"id": 1, "title": "a"}]
    assert rows(session, "select priority, state from postgear.jobs") == [("high", "scheduled")]
    assert rows(session, 'select key, columns, delay::text, "when" from postgear.triggers') == [
        (["id"], ["title"], "01:00:00", "new.id > 0")
    ]
    assert cli.main(["trigger", "list", "--dsn", dsn, "--json"]) == 0
    (shown,) = json.loads(capsys.readouterr().out)
    assert shown == {
        "table": TABLE,
        "name": "t",
        "function": "f",
        "events": ["insert", "update"],
        "level": "row",
        "payload": "columns",
        "state": "always",
        "jobs": 1,
    }
    assert cli.main(["trigger", "drop", "--dsn", dsn, TABLE, "t"]) == 0
    assert cli.main(["trigger", "list", "--dsn", dsn]) == 0
    assert capsys.readouterr().out.split() == list(shown)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["create", "nope", "f"], 'relation "nope" does not exist'),
        (["create", TABLE, "f", "--key", "nope"], "has no column 'nope'"),
        (["create", TABLE, "f", "--events", "insert,"], "must be one of"),
        (["create", TABLE, "f", "--when", "nope(new.id)"], "nope(integer) does not exist"),
        (["create", TABLE, "f", "--delay", "soon"], "interval"),
        (["drop", TABLE, "t"], "has no trigger t of postgear (The view postgear.triggers lists them)"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(
    dsn: str, session: Connection, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert cli.main(["trigger", words[0], "--dsn", dsn, *words[1:]]) == 4
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1


def test_a_database_without_the_schema(empty_dsn: str, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["list"], ["create", "pg_class", "f"], ["drop", "pg_class", "t"]):
        assert cli.main(["trigger", words[0], "--dsn", empty_dsn, *words[1:]]) == 3
        assert "postgear init" in capsys.readouterr().err


def test_a_database_that_is_away(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["trigger", "list", "--dsn", "host=/nonexistent"]) == 4
    assert "nonexistent" in capsys.readouterr().err
