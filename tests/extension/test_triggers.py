"""What postgear.create_trigger makes: which rows become jobs, and what is in them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import psycopg
import pytest

from postgear import schema
from tests.extension.asking import Connection, claim, create_trigger, payloads, rows, start_server, value, workloads

LEVELS = pytest.mark.parametrize("level", ["statement", "row"])


@pytest.fixture
def session(dsn: str) -> Iterator[Connection]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("create table item (id integer primary key, title text, price integer)")
        yield connection


# -- events and payloads -----------------------------------------------------------------------------------------------


@LEVELS
def test_inserted_rows_become_jobs(session: Connection, level: str) -> None:
    assert create_trigger(session, "item", level=level) == "postgear_f"
    session.execute("insert into item values (1, 'ä', 5), (2, null, null)")
    session.execute("update item set price = 6; delete from item")
    assert workloads(session) == ['{"id":1,"title":"ä","price":5}'.encode(), b'{"id":2,"title":null,"price":null}']


@LEVELS
def test_every_event_with_old_and_new(session: Connection, level: str) -> None:
    create_trigger(session, "item", level=level, events=["delete", "insert", "update"], payload="change")
    session.execute("insert into item values (1, 'a', 5); update item set price = 6; delete from item")
    before, after = {"id": 1, "title": "a", "price": 5}, {"id": 1, "title": "a", "price": 6}
    assert payloads(session) == [
        {"op": "insert", "table": "public.item", "old": None, "new": before},
        {"op": "update", "table": "public.item", "old": before, "new": after},
        {"op": "delete", "table": "public.item", "old": after, "new": None},
    ]


@LEVELS
def test_payload_row_of_an_update_is_new_and_of_a_delete_old(session: Connection, level: str) -> None:
    create_trigger(session, "item", level=level, events=["update", "delete"])
    session.execute("insert into item values (1, 'a', 5); update item set price = 6; delete from item")
    assert [each["price"] for each in payloads(session)] == [6, 6]


@LEVELS
def test_payload_key_is_the_primary_key(session: Connection, level: str) -> None:
    session.execute('create table pair (b integer, a integer, "c""d" text, primary key ("c""d", a))')
    create_trigger(session, "pair", level=level, payload="key")
    session.execute("insert into pair values (1, 2, 'x')")
    assert workloads(session) == [b'{"c\\"d":"x","a":2}']


@LEVELS
def test_payload_of_chosen_columns(session: Connection, level: str) -> None:
    create_trigger(session, "item", level=level, payload="columns", payload_columns=["price", "id"])
    session.execute("insert into item values (1, 'a', 5)")
    assert workloads(session) == [b'{"price":5,"id":1}']


def test_a_payload_may_have_more_columns_than_a_function_arguments(session: Connection) -> None:
    names = [f"c{number}" for number in range(300)]
    session.execute("create table wide (" + ", ".join(f"{name} integer default 1" for name in names) + ")")
    create_trigger(session, "wide", payload="columns", payload_columns=names)
    session.execute("insert into wide default values")
    assert payloads(session) == [dict.fromkeys(names, 1)]


def test_columns_added_later_are_in_the_payload(session: Connection) -> None:
    create_trigger(session, "item")
    session.execute("insert into item values (1); alter table item add later integer default 9, drop title")
    session.execute("insert into item values (2)")
    assert payloads(session)[1] == {"id": 2, "price": None, "later": 9}


def test_truncate_becomes_one_job(session: Connection) -> None:
    create_trigger(session, "item", events=["truncate"], payload="change")
    session.execute("insert into item values (1), (2); truncate item")
    assert payloads(session) == [{"op": "truncate", "table": "public.item", "old": None, "new": None}]


@LEVELS
def test_a_condition_over_new_and_old(session: Connection, level: str) -> None:
    create_trigger(session, "item", level=level, events=["update"], when="new.price > old.price or new.title ~ '%' -- end")
    session.execute("insert into item values (1, 'a', 5), (2, 'b', 5), (3, '%', 5)")
    session.execute("update item set price = price + case when id = 1 then 1 else 0 end")
    assert sorted(each["id"] for each in payloads(session)) == [1, 3]


@LEVELS
def test_columns_that_must_change(session: Connection, level: str) -> None:
    session.execute("alter table item add data json")
    create_trigger(session, "item", level=level, events=["insert", "update"], columns=["title", "data"])
    session.execute("insert into item values (1, 'a', 5, '{}')")
    session.execute("update item set price = 6, title = 'a'")
    session.execute("""update item set data = '{"a": 1}'""")
    session.execute("update item set title = null")
    session.execute("update item set title = null")
    assert [(each["title"], each["data"]) for each in payloads(session)] == [("a", {}), ("a", {"a": 1}), (None, {"a": 1})]


def test_old_and_new_are_paired_in_a_plan_made_for_one_row(session: Connection) -> None:
    session.execute("create table old_job (like postgear.job)")
    create_trigger(session, "item", events=["update"], payload="change", when="new.price > old.price")
    session.execute("insert into item select n, n::text, n from generate_series(1, 20000) n")
    session.execute("update item set price = price + 1 where id = 1; update item set id = id + 100000, price = price + id % 2")
    changes = payloads(session)[1:]
    assert len(changes) == 10000
    assert all(each["new"]["id"] == each["old"]["id"] + 100000 and each["old"]["id"] % 2 for each in changes)


@LEVELS
def test_priority_and_delay(session: Connection, level: str) -> None:
    create_trigger(session, "item", level=level, priority="high", delay="1 hour")
    session.execute("insert into item values (1)")
    assert rows(session, "select priority, state, run_at > now() + interval '59 minutes' from postgear.jobs") == [
        ("high", "scheduled", True)
    ]


@LEVELS
def test_a_limited_queue_refuses_the_statement(session: Connection, level: str) -> None:
    create_trigger(session, "item", level=level)
    session.execute("insert into item values (1); update postgear.function set max_normal = 2; insert into item values (2)")
    with pytest.raises(psycopg.errors.ConfigurationLimitExceeded, match='"f" is full'):
        session.execute("insert into item values (3)")
    assert (len(workloads(session)), value(session, "select count(*) from item")) == (2, 2)


def test_jobs_are_counted_only_for_a_limit(session: Connection) -> None:
    create_trigger(session, "item", level="row")
    session.execute("set track_functions = 'all'; begin; insert into item select n from generate_series(1, 10) n")
    called = "select coalesce(sum(calls), 0) from pg_stat_xact_user_functions where funcname = 'is_full'"
    assert value(session, called) == 0
    session.execute("rollback")


def test_a_dropped_function_is_there_again(session: Connection) -> None:
    create_trigger(session, "item")
    session.execute("select postgear.drop_function('f')")
    session.execute("insert into item values (2)")
    assert value(session, "select dropped from postgear.function") is False


def test_a_statement_without_rows_queues_nothing(session: Connection) -> None:
    create_trigger(session, "item", events=["insert", "update", "delete"], key=["id"])
    session.execute("insert into item select 1 where false; update item set price = 1; delete from item")
    assert workloads(session) == []


# -- ways to write -------------------------------------------------------------------------------------------------------


@LEVELS
def test_copy(session: Connection, level: str) -> None:
    create_trigger(session, "item", level=level)
    with session.cursor().copy("copy item from stdin") as copy:
        copy.write("1\ta\t5\n2\t\\N\t\\N\n")
    assert [each["id"] for each in payloads(session)] == [1, 2]


@LEVELS
def test_on_conflict_inserts_and_updates(session: Connection, level: str) -> None:
    create_trigger(session, "item", level=level, events=["insert", "update"], payload="change")
    session.execute("insert into item values (1, 'a')")
    session.execute("insert into item values (1, 'b'), (2, 'b') on conflict (id) do update set title = excluded.title")
    session.execute("insert into item values (1, 'c') on conflict do nothing")
    assert sorted((each["op"], each["new"]["id"]) for each in payloads(session)) == [("insert", 1), ("insert", 2), ("update", 1)]


@LEVELS
def test_partitioned_tables_with_rows_that_move(session: Connection, level: str) -> None:
    session.execute(
        "create table part (id integer, title text) partition by range (id);"
        "create table part1 partition of part for values from (0) to (10);"
        "create table part2 (title text, id integer); alter table part attach partition part2 for values from (10) to (20)"
    )
    create_trigger(session, "part", level=level, events=["insert", "update"], payload="change", columns=["id"])
    session.execute("insert into part values (1, 'a'), (2, 'b'), (11, 'c'); update part set id = id + 8")
    assert {(each["new"]["id"], each["new"]["title"]) for each in payloads(session) if each["op"] == "insert"} >= {
        (1, "a"),
        (2, "b"),
        (11, "c"),
    }
    if level == "statement":
        moved = {(each["old"]["id"], each["new"]["id"]) for each in payloads(session) if each["op"] == "update"}
        assert moved == {(1, 9), (2, 10), (11, 19)}


def test_a_row_lost_between_partitions_is_an_error(session: Connection) -> None:
    session.execute(
        "create table part (id integer) partition by range (id);"
        "create table part1 partition of part for values from (0) to (10);"
        "create table part2 partition of part for values from (10) to (20);"
        "create function refuse() returns trigger language plpgsql as 'begin return null; end';"
        "create trigger refuse before insert on part2 for each row execute function refuse()"
    )
    create_trigger(session, "part", events=["update"], payload="change")
    session.execute("insert into part values (1), (2)")
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="lost on its way"):
        session.execute("update part set id = id + 8")


def test_a_row_level_trigger_on_one_partition(session: Connection) -> None:
    session.execute(
        "create table part (id integer) partition by range (id); create table part1 partition of part for values from (0) to (9)"
    )
    create_trigger(session, "part1", level="row")
    session.execute("insert into part values (1)")
    assert payloads(session) == [{"id": 1}]


def test_rows_written_by_apply_need_enable_replica_or_always(session: Connection) -> None:
    for enable in ("origin", "replica", "always"):
        create_trigger(session, "item", enable, name=enable, level="row", enable=enable)
    assert rows(session, "select name, state from postgear.triggers order by 1") == [
        ("always", "always"),
        ("origin", "origin"),
        ("replica", "replica"),
    ]
    session.execute("insert into item values (1); set session_replication_role = replica; insert into item values (2)")
    found = [[each["id"] for each in payloads(session, function)] for function in ("origin", "replica", "always")]
    assert found == [[1], [2], [1, 2]]


# -- coalescing ------------------------------------------------------------------------------------------------------------


@LEVELS
def test_a_thousand_updates_of_a_row_leave_one_job_with_the_last_payload(session: Connection, level: str) -> None:
    create_trigger(session, "item", level=level, events=["insert", "update"], key=[])
    session.execute("insert into item values (1, 'a', 0), (2, 'b', 0)")
    session.execute("do $$ begin for i in 1..1000 loop update item set price = i where id = 1; end loop; end $$")
    assert sorted((each["id"], each["price"]) for each in payloads(session)) == [(1, 1000), (2, 0)]


@LEVELS
def test_an_update_while_the_job_runs_gets_a_job_of_its_own(session: Connection, level: str) -> None:
    create_trigger(session, "item", level=level, events=["insert", "update"], key=["id"])
    session.execute("insert into item values (1, 'a', 0)")
    lease = start_server(session)
    first = claim(session, lease)
    session.execute("update item set price = 1; update item set price = 2")
    second = claim(session, lease)
    assert (len(first), len(second)) == (1, 1)
    assert [each["price"] for each in payloads(session)] == [0, 2]
    session.execute("select postgear.release_jobs(%s, %s, true)", (lease, first))
    session.execute("update item set price = 3")
    assert sorted(each["price"] for each in payloads(session)) == [0, 2, 3]


def test_the_last_row_of_a_statement_wins(session: Connection) -> None:
    create_trigger(session, "item", key=["title"])
    session.execute("insert into item values (1, 'a'), (2, 'b'), (3, 'a'), (4, null), (5, null)")
    assert sorted(each["id"] for each in payloads(session)) == [2, 3, 5]


def test_keys_of_two_tables_are_two_jobs(session: Connection) -> None:
    session.execute("create table other_item (id integer primary key)")
    create_trigger(session, "item", key=[])
    create_trigger(session, "other_item", key=[])
    session.execute("insert into item values (1); insert into other_item values (1)")
    assert len(workloads(session)) == 2


def test_a_scheduled_job_keeps_its_time(session: Connection) -> None:
    create_trigger(session, "item", events=["insert", "update"], key=[], delay="1 hour")
    session.execute("insert into item values (1, 'a', 0)")
    due = value(session, "select run_at from postgear.job")
    session.execute("update item set price = 1")
    assert (value(session, "select run_at from postgear.job"), payloads(session)[0]["price"]) == (due, 1)


def test_a_limit_counts_new_jobs_only(session: Connection) -> None:
    create_trigger(session, "item", events=["insert", "update"], key=[])
    session.execute("insert into item values (1), (2); update postgear.function set max_normal = 1; update item set price = 1")
    with pytest.raises(psycopg.errors.ConfigurationLimitExceeded):
        session.execute("insert into item values (3)")


def test_submit_coalesced(session: Connection) -> None:
    submit = "select postgear.submit_coalesced('f', %s, %s, %s::smallint, now() + %s::interval)"
    first = value(session, submit, "k", b"a", 1, "1 hour")
    assert value(session, submit, "k", b"b", 0, "2 hours") == first
    assert value(session, submit, "other", b"c", 1, None) != first
    assert value(session, submit, None, b"d", 1, None) != value(session, submit, None, b"e", 1, None)
    assert rows(
        session, "select workload, priority, run_at < now() + interval '61 minutes' from postgear.job where id = %s", first
    ) == [(b"b", 0, True)]
    assert value(session, submit, "k", b"z", 2, None) == first
    assert rows(session, "select workload, priority, run_at from postgear.job where id = %s", first) == [(b"z", 0, None)]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ("null, 'k', 'x'", psycopg.errors.NullValueNotAllowed),
        ("'f', 'k', null", psycopg.errors.NullValueNotAllowed),
        ("convert_to(repeat('f', 513), 'UTF8'), 'k', 'x'", psycopg.errors.StringDataRightTruncation),
        ("'f', 'k', 'x', 3::smallint", psycopg.errors.InvalidParameterValue),
        ("'f', 'k', 'x', run_at => 'infinity'", psycopg.errors.DatetimeFieldOverflow),
        ("'f', 'k', 'x', run_at => to_timestamp(4e12)", psycopg.errors.DatetimeFieldOverflow),
    ],
)
def test_submit_coalesced_refuses(session: Connection, arguments: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        session.execute(f"select postgear.submit_coalesced({arguments})")


def test_submit_coalesced_respects_the_limit(session: Connection) -> None:
    session.execute("select postgear.submit_coalesced('f', 'k', 'x'); update postgear.function set max_normal = 1")
    session.execute("select postgear.submit_coalesced('f', 'k', 'y')")
    with pytest.raises(psycopg.errors.ConfigurationLimitExceeded):
        session.execute("select postgear.submit_coalesced('f', 'l', 'x')")
    assert workloads(session) == [b"y"]


# -- drop, list ------------------------------------------------------------------------------------------------------------


def test_drop_trigger_leaves_the_jobs_and_nothing_else(session: Connection) -> None:
    create_trigger(session, "item", name="t", events=["insert", "update"], key=[])
    session.execute("insert into item values (1); select postgear.drop_trigger('item', 't'); insert into item values (2)")
    assert len(workloads(session)) == 1
    assert rows(session, "select from pg_proc where pronamespace = 'postgear_trigger'::regnamespace") == []
    assert rows(session, "select from pg_trigger where tgrelid = 'item'::regclass") == []
    with pytest.raises(psycopg.errors.UndefinedObject, match="no trigger t "):
        session.execute("select postgear.drop_trigger('item', 't')")


def test_the_view_shows_state_and_jobs(session: Connection) -> None:
    create_trigger(session, "item", name="t", events=["insert", "update"])
    session.execute("insert into item values (1), (2)")

    def shown() -> object:
        return rows(session, 'select "table"::text, name, function, state, jobs, owner from postgear.triggers')

    assert shown() == [("item", "t", "f", "origin", 2, "postgres")]
    assert value(session, "select distinct trigger from postgear.jobs") == "t"
    session.execute("alter table item disable trigger t_insert")
    assert value(session, "select state from postgear.triggers") == "mixed"
    session.execute("alter table item disable trigger t_update")
    assert value(session, "select state from postgear.triggers") == "disabled"
    session.execute("drop trigger t_update on item")
    assert value(session, "select state from postgear.triggers") == "missing"
    session.execute("drop table item")
    assert value(session, "select state from postgear.triggers") == "no table"
    number = value(session, 'select "table"::oid::text from postgear.triggers')
    session.execute("select postgear.drop_trigger(%s::regclass, 't')", (number,))
    assert shown() == []


# -- refusals --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"function": ""}, psycopg.errors.StringDataRightTruncation, "1 to 512 bytes"),
        ({"function": "f" * 513}, psycopg.errors.StringDataRightTruncation, "513"),
        ({"function": None}, psycopg.errors.NullValueNotAllowed, "must not be null"),
        ({"name": "ä" * 28}, psycopg.errors.StringDataRightTruncation, "this one has 56"),
        ({"name": ""}, psycopg.errors.StringDataRightTruncation, "1 to 54"),
        ({"events": []}, psycopg.errors.InvalidParameterValue, "must not be empty"),
        ({"events": ["INSERT OR DELETE"]}, psycopg.errors.InvalidParameterValue, "must be one of insert, update"),
        ({"events": [None]}, psycopg.errors.InvalidParameterValue, "events"),
        ({"level": "table"}, psycopg.errors.InvalidParameterValue, "statement, row"),
        ({"payload": "all"}, psycopg.errors.InvalidParameterValue, "row, change, key, columns"),
        ({"priority": "1"}, psycopg.errors.InvalidParameterValue, "high, normal, low"),
        ({"enable": "yes"}, psycopg.errors.InvalidParameterValue, "origin, replica, always"),
        ({"delay": "-1 s"}, psycopg.errors.InvalidParameterValue, "negative"),
        ({"delay": "300000 years"}, psycopg.errors.InvalidParameterValue, "more than 1000 years"),
        ({"payload": "columns"}, psycopg.errors.InvalidParameterValue, "needs payload_columns"),
        ({"payload_columns": ["id"]}, psycopg.errors.InvalidParameterValue, "needs payload_columns"),
        ({"payload": "key", "payload_columns": ["id"]}, psycopg.errors.InvalidParameterValue, "are for payload"),
        ({"payload": "columns", "payload_columns": ["nope"]}, psycopg.errors.UndefinedColumn, "nope"),
        ({"payload": "columns", "payload_columns": ["id", "id"]}, psycopg.errors.DuplicateColumn, "twice"),
        ({"key": ["ctid"]}, psycopg.errors.UndefinedColumn, "ctid"),
        ({"key": [None]}, psycopg.errors.UndefinedColumn, "key"),
        ({"columns": ["price"]}, psycopg.errors.InvalidParameterValue, "events must have update"),
        ({"columns": [], "events": ["update"]}, psycopg.errors.InvalidParameterValue, "columns a name"),
        ({"columns": ["Price"], "events": ["update"]}, psycopg.errors.UndefinedColumn, "Price"),
        ({"events": ["truncate"]}, psycopg.errors.InvalidParameterValue, "no rows"),
        ({"events": ["truncate"], "payload": "change", "level": "row"}, psycopg.errors.InvalidParameterValue, "no rows"),
        ({"events": ["truncate"], "payload": "change", "key": []}, psycopg.errors.InvalidParameterValue, "no rows"),
        ({"enable": "always"}, psycopg.errors.FeatureNotSupported, "logical replication"),
        ({"when": "old.price = 1"}, psycopg.errors.UndefinedTable, "old"),
        ({"when": "new.price"}, psycopg.errors.DatatypeMismatch, "boolean"),
        ({"when": "true); drop table item; --"}, psycopg.errors.SyntaxError, None),
        ({"when": "true) from pg_class where (true\n)) x; select (("}, psycopg.Error, None),
        ({"when": "new.price = 1", "events": ["delete"]}, psycopg.errors.UndefinedTable, "new"),
        ({"when": "old.price = 1", "level": "row"}, psycopg.errors.UndefinedTable, "old"),
    ],
)
def test_create_trigger_refuses(session: Connection, options: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        create_trigger(session, "item", **options)  # type: ignore[arg-type]
    assert rows(session, "select from postgear.trigger") == []
    assert rows(session, "select from pg_proc where pronamespace = 'postgear_trigger'::regnamespace") == []


def test_a_key_or_payload_of_the_primary_key_needs_one(session: Connection) -> None:
    session.execute("create table bare (id integer)")
    for options in ({"key": []}, {"payload": "key"}):
        with pytest.raises(psycopg.errors.UndefinedObject, match="no primary key"):
            create_trigger(session, "bare", **options)
    create_trigger(session, "bare", key=["id"], payload="key")


@pytest.mark.parametrize(
    ("make", "name", "options", "message"),
    [
        ("create view v as select * from item", "v", {}, "is a view"),
        ("create view v as select * from item", "v", {"level": "row"}, "is a view"),
        ("create materialized view v as select * from item", "v", {}, "is a view"),
        ("create sequence s", "s", {}, "not a table"),
        ("create temporary table t (id integer)", "t", {}, "temporary"),
        ("select", "postgear.job", {}, "the queue itself"),
        (
            "create table p (i integer) partition by list (i); create table p1 partition of p default",
            "p1",
            {},
            "is a partition",
        ),
        (
            "create foreign data wrapper w; create server s foreign data wrapper w; create foreign table ft (i integer) server s",
            "ft",
            {},
            "foreign table",
        ),
    ],
)
def test_relations_that_cannot_have_one(
    session: Connection, make: str, name: str, options: dict[str, object], message: str
) -> None:
    session.execute(make)
    with pytest.raises(psycopg.errors.WrongObjectType, match=message):
        create_trigger(session, name, **options)


def test_two_of_one_name_are_refused(session: Connection) -> None:
    create_trigger(session, "item")
    with pytest.raises(psycopg.errors.DuplicateObject, match="has a trigger postgear_f of postgear already"):
        create_trigger(session, "item")
    session.execute(
        "drop trigger postgear_f on item;"
        "create trigger x before update on item for each row execute function suppress_redundant_updates_trigger()"
    )
    with pytest.raises(psycopg.errors.DuplicateObject):
        create_trigger(session, "item", name="x")


def test_merge(session: Connection) -> None:
    if session.info.server_version < 150000:
        pytest.skip("MERGE came with PostgreSQL 15")
    create_trigger(session, "item", events=["insert", "update", "delete"], payload="change")
    session.execute(
        "alter table item disable trigger user; insert into item values (1), (2); alter table item enable trigger user"
    )
    session.execute(
        "merge into item using (values (1), (2), (3)) as wanted (id) on wanted.id = item.id"
        " when matched and item.id = 1 then delete when matched then update set price = 1"
        " when not matched then insert values (wanted.id)"
    )
    ids = {(each["op"], (each["new"] or each["old"])["id"]) for each in payloads(session)}
    assert ids == {("delete", 1), ("update", 2), ("insert", 3)}


def test_dump_and_restore(session: Connection, dsn: str, empty_dsn: str) -> None:
    create_trigger(session, "item", level="row", events=["update"], columns=["title"], name="t")
    create_trigger(session, "item", key=[], payload="change", when="new.price > 0")
    session.execute("alter table item rename to renamed; insert into renamed values (1, 'a', 1)")
    dump = subprocess.run(["pg_dump", dsn], capture_output=True, check=True).stdout
    subprocess.run(["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", empty_dsn], input=dump, check=True, capture_output=True)
    with psycopg.connect(empty_dsn, autocommit=True) as restored:
        restored.execute("insert into renamed values (1, 'b', 2) on conflict (id) do nothing; update renamed set title = 'b'")
        restored.execute("delete from renamed; insert into renamed values (1, 'c', 3)")
        assert [each.get("new", each)["title"] for each in payloads(restored)] == ["c", "b"]
        restored.execute("select postgear.drop_trigger('renamed', 't'), postgear.drop_trigger('renamed', 'postgear_f')")


def test_downgrade_takes_the_triggers_along_and_leaves_the_jobs(session: Connection, dsn: str) -> None:
    create_trigger(session, "item", events=["insert", "update"], key=[])
    session.execute("insert into item values (1)")
    schema.downgrade(dsn, "0001")
    session.execute("insert into item values (2)")
    assert len(workloads(session)) == 1
    schema.upgrade(dsn)
    create_trigger(session, "item")
    session.execute("insert into item values (3)")
    assert len(workloads(session)) == 2
