"""Triggers that put jobs into the outbox."""

from __future__ import annotations

import json
from typing import Any

import pytest

from postgear import cli
from postgear.errors import ConfigError, OutboxError
from postgear.outbox import schema, triggers
from postgear.outbox.connecting import Address
from postgear.outbox.triggers import Options
from tests.outbox.conftest import ask

MADE = "select trigger_name, action_statement from information_schema.triggers where trigger_schema = database() order by 1"


@pytest.fixture
def item(session: Any) -> None:
    ask(
        session,
        "create table item (id int primary key, title varchar(50), price decimal(8, 2), draft bool not null default false)",
    )


def queued(session: Any) -> list[Any]:
    """The workloads in the outbox."""
    return [json.loads(row[0]) for row in ask(session, "select workload from postgear_outbox order by id")]


def test_a_rolled_back_transaction_leaves_no_job(outbox: Address, session: Any, item: None) -> None:
    assert triggers.create(outbox, "item", "index", None, Options()) == "postgear_item_index"
    session.autocommit = False
    ask(session, "insert into item values (1, 'taken back', 1.50, false)")
    session.rollback()
    ask(session, "insert into item values (2, 'kept', 1.50, false)")
    session.commit()
    assert queued(session) == [{"id": 2, "title": "kept", "price": 1.5, "draft": 0}]


def test_events_and_payloads(outbox: Address, session: Any, item: None) -> None:
    events = ("insert", "update", "delete")
    triggers.create(outbox, "item", "f", "change", Options(events, payload="change"))
    triggers.create(outbox, "item", "f", "key", Options(events, payload="key"))
    triggers.create(outbox, "item", "f", "some", Options(events, payload="columns", payload_columns=("title", "id")))
    old = {"id": 1, "title": 'it\'s \\ "ü🐘"', "price": 2.25, "draft": 0}
    ask(session, "insert into item values (%s, %s, %s, %s)", *old.values())
    ask(session, "update item set id = 3, title = null")
    ask(session, "delete from item")
    new = old | {"id": 3, "title": None}
    assert queued(session) == [
        {"op": "insert", "table": "item", "old": None, "new": old},
        {"id": 1},
        {"title": old["title"], "id": 1},
        {"op": "update", "table": "item", "old": old, "new": new},
        {"id": 3},
        {"title": None, "id": 3},
        {"op": "delete", "table": "item", "old": new, "new": None},
        {"id": 3},
        {"title": None, "id": 3},
    ]


def test_types(outbox: Address, session: Any) -> None:
    ask(
        session,
        "create table kinds (id bigint unsigned primary key, latin varchar(9) character set latin1, bin varbinary(9),"
        " bits bit(9), doc json, day date, at datetime(3), place point, word enum('a', 'b'), number double)",
    )
    triggers.create(outbox, "kinds", "f", None, Options())
    ask(
        session,
        "insert into kinds values (18446744073709551615, 'süß', x'00ff', b'100000001', '{\"a\": [1, null]}', '2030-01-02',"
        " '2030-01-02 03:04:05.678', point(1, 2), 'b', 0.5)",
    )
    (found,) = queued(session)
    assert found == {
        "id": 18446744073709551615,
        "latin": "süß",
        "bin": "AP8=",
        "bits": 257,
        "doc": {"a": [1, None]},
        "day": "2030-01-02",
        "at": found["at"],
        "place": "POINT(1 2)",
        "word": "b",
        "number": 0.5,
    }
    assert found["at"].startswith("2030-01-02 03:04:05.678")


def test_conditions_columns_priority_and_delay(outbox: Address, session: Any, item: None) -> None:
    triggers.create(
        *(outbox, "item", "größe's", "t"),
        Options(
            ("insert", "update"),
            when="not new.draft and new.title <> 'it''s'",
            columns=("title",),
            priority="high",
            delay_seconds=60,
        ),
    )
    ask(session, "insert into item values (1, 'a', 1, true), (2, 'it''s', 1, false), (3, 'c', 1, false)")
    ask(session, "update item set price = 2")
    ask(session, "update item set title = 'd' where id = 3")
    assert [row["title"] for row in queued(session)] == ["c", "d"]
    delay = "run_at - unix_timestamp(created_at) between 59 and 61"
    rows = ask(session, f"select distinct `function`, priority, {delay} from postgear_outbox")
    assert rows == [("größe's", 0, 1)]


def test_keys(outbox: Address, session: Any, item: None) -> None:
    triggers.create(outbox, "item", "f", "a", Options(key=()))
    triggers.create(outbox, "item", "f", "b", Options(key=("title", "price")))
    ask(session, "insert into item values (1, 'x', 1, 0), (2, 'x', 1, 0), (3, null, 1, 0)")
    keys = [row[0] for row in ask(session, "select unique_key from postgear_outbox where until_claimed order by id")]
    assert len(keys) == 6
    assert keys[1] == keys[3] != keys[5]
    assert len({keys[0], keys[2], keys[4], *keys[1::2]}) == 5
    assert all(len(key) == 64 for key in keys)


def test_listing_replacing_and_dropping(outbox: Address, session: Any, item: None, mysql_url: str, capsys: Any) -> None:
    words = ["mysql", "trigger", "create", "item", "index", "--mysql", mysql_url, "--events", "insert,delete", "--payload", "key"]
    words += ["--when", "1 = 1 /* so */ or 'x' like '%*%'", "--key"]
    assert cli.main(["mysql", "trigger", "create", "item", "index", "--mysql", mysql_url, "--key", "--payload", "key"]) == 0
    assert cli.main(words) == OutboxError.exit_code
    assert "already exists" in capsys.readouterr().err
    assert cli.main([*words, "--replace"]) == 0
    assert capsys.readouterr().out == "postgear_item_index\n"
    assert cli.main(["mysql", "trigger", "list", "--mysql", mysql_url, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["event"], row["function"], row["key"], row["when"]) for row in rows] == [
        ("delete", "index", "id", "1 = 1 /* so */ or 'x' like '%*%'"),
        ("insert", "index", "id", "1 = 1 /* so */ or 'x' like '%*%'"),
    ]
    with pytest.raises(OutboxError, match="triggers queue jobs here: postgear_item_index"):
        schema.uninstall(outbox)
    triggers.drop(outbox, "item", "postgear_item_index")
    assert triggers.installed(outbox) == []
    with pytest.raises(OutboxError, match="table item has no trigger postgear_item_index of ours"):
        triggers.drop(outbox, "item", "postgear_item_index")


def test_only_what_is_ours_on_this_table_is_replaced(outbox: Address, session: Any, item: None) -> None:
    """Triggers of a database have one space of names."""
    ask(session, "create table other (id int primary key)")
    ask(session, "create trigger audit_insert after insert on item for each row set @seen = new.id")
    triggers.create(outbox, "item", "index", "ours", Options(("insert", "update")))
    for name, said in (("audit", "audit_insert on table item, not made by postgear"), ("ours", "ours_insert on table item;")):
        with pytest.raises(OutboxError, match=f"there is a trigger {said}"):
            triggers.create(outbox, "other", "index", name, Options(replace=True))
    with pytest.raises(OutboxError, match="not made by postgear"):
        triggers.create(outbox, "item", "index", "audit", Options(replace=True))
    assert triggers.create(outbox, "other", "index", None, Options()) == "postgear_other_index"
    with pytest.raises(OutboxError, match="trigger ours_update already exists; --replace replaces it"):
        triggers.create(outbox, "item", "index", "ours", Options(("delete", "update")))
    found = [row[0] for row in ask(session, MADE)]
    assert found == ["audit_insert", "ours_insert", "ours_update", "postgear_other_index_insert"]


def test_what_the_server_does_not_take_leaves_the_old_triggers(outbox: Address, session: Any, item: None) -> None:
    events = ("insert", "update", "delete")
    triggers.create(outbox, "item", "index", None, Options(events))
    before = ask(session, MADE)
    for when in ("new.nonsense = 1", "new.id = )"):
        with pytest.raises(OutboxError):
            triggers.create(outbox, "item", "index", None, Options(("insert", "update"), when=when, replace=True))
        with pytest.raises(OutboxError):
            triggers.create(outbox, "item", "another", None, Options(("insert", "update"), when=when))
    # Of several events the last is wrong.
    with pytest.raises(OutboxError):
        triggers.create(outbox, "item", "index", None, Options(("insert", "delete"), when="`new`.id = 1", replace=True))
    assert ask(session, MADE) == before
    triggers.create(outbox, "item", "index", None, Options(events, payload="key", replace=True))
    ask(session, "insert into item values (1, 'a', 1, 0)")
    assert queued(session) == [{"id": 1}]


@pytest.mark.parametrize("charset", ["latin1", "utf16", "cp1251"])
@pytest.mark.parametrize("payload", ["row", "change"])
def test_workloads_are_utf8_whatever_the_text_is(outbox: Address, session: Any, charset: str, payload: str) -> None:
    word = "слово" if charset == "cp1251" else "süß"
    ask(
        session,
        f"create table words (word varchar(9) character set {charset}, again text character set {charset},"
        f" choice enum('{word}', 'a') character set {charset})",
    )
    triggers.create(outbox, "words", "f", None, Options(payload=payload))
    ask(session, "insert into words values (%s, %s, %s)", word, word, word)
    row = {"word": word, "again": word, "choice": word}
    assert queued(session) == [row if payload == "row" else {"op": "insert", "table": "words", "old": None, "new": row}]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (Options(("truncate",)), "must be of insert,update,delete"),
        (Options(payload="columns"), "need each other"),
        (Options(columns=("title",)), "--columns is for updates"),
        (Options(("insert", "update"), when="old.id = 1"), "a trigger for insert has no OLD"),
        (Options(key=("no", "title")), "no column no"),
    ],
)
def test_what_cannot_be_is_refused(outbox: Address, session: Any, item: None, options: Options, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        triggers.create(outbox, "item", "f", None, options)


def test_other_refusals(outbox: Address, session: Any, item: None) -> None:
    with pytest.raises(OutboxError, match="has no table nothing"):
        triggers.create(outbox, "nothing", "f", None, Options())
    with pytest.raises(ConfigError, match="1 to 512 bytes"):
        triggers.create(outbox, "item", "f" * 513, "t", Options())
    with pytest.raises(ConfigError, match="a trigger's name"):
        triggers.create(outbox, "item", "f", "n" * 58, Options())
    ask(session, "create table bare (a int)")
    with pytest.raises(ConfigError, match="no primary key"):
        triggers.create(outbox, "bare", "f", None, Options(payload="key"))
    long = [triggers.create(outbox, "item", "f" * length, None, Options()) for length in (511, 512)]
    assert [name[:48] for name in long] == ["postgear_item_" + "f" * 34] * 2
    assert len(set(long)) == 2


def test_who_writes_needs_no_right_on_the_outbox(outbox: Address, session: Any, item: None, mariadb: Any) -> None:
    triggers.create(outbox, "item", "f", None, Options())
    ask(session, "drop user if exists app@localhost")
    ask(session, "create user app@localhost identified by 'p'")
    ask(session, f"grant insert on {outbox.database}.item to app@localhost")
    with mariadb.connect(user="app", password="p", database=outbox.database) as other:
        ask(other, "insert into item values (1, 'a', 1, 0)")
    ask(session, "drop user app@localhost")
    assert len(queued(session)) == 1
