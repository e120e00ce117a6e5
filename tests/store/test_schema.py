"""The schema: up, down, up again; two at once; and the version that the server checks without Alembic."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from postgear import schema
from postgear.errors import SchemaError, StoreUnavailable

_DESCRIBE = """
select format('%s %s', c.relkind, c.relname) from pg_class c
where c.relnamespace = 'postgear'::regnamespace
union all
select format('a %s.%s %s %s', a.attrelid::regclass, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull)
from pg_attribute a join pg_class c on c.oid = a.attrelid
where c.relnamespace = 'postgear'::regnamespace and a.attnum > 0 and not a.attisdropped
union all
select pg_get_functiondef(p.oid) from pg_proc p
where p.pronamespace in ('postgear'::regnamespace, 'public'::regnamespace) and p.prokind <> 'a'
order by 1
"""


def describe(dsn: str) -> list[object]:
    with psycopg.connect(dsn) as connection:
        return [row[0] for row in connection.execute(_DESCRIBE)]


def queue_name(dsn: str) -> object:
    with psycopg.connect(dsn) as connection:
        row = connection.execute("select name from postgear.queue").fetchone()
        return row and row[0]


def test_version_is_the_head_of_the_migrations() -> None:
    assert schema.head() == schema.VERSION


def test_upgrade_creates_the_schema(empty_dsn: str) -> None:
    assert schema.current(empty_dsn) is None
    assert schema.upgrade(empty_dsn) == schema.VERSION
    assert schema.current(empty_dsn) == schema.VERSION


def test_upgrade_again_changes_nothing(dsn: str) -> None:
    before = describe(dsn)
    schema.upgrade(dsn)
    assert describe(dsn) == before


def test_upgrade_restores_a_changed_function(dsn: str) -> None:
    before = describe(dsn)
    with psycopg.connect(dsn) as connection:
        connection.execute(
            "create or replace function postgear.lease_lock_class() returns integer language sql volatile as 'select 0'"
        )
    assert describe(dsn) != before
    schema.upgrade(dsn)
    assert describe(dsn) == before


def test_upgrade_replaces_a_function_of_another_result(dsn: str) -> None:
    before = describe(dsn)
    with psycopg.connect(dsn) as connection:
        connection.execute("drop function postgear.lease_lock_class()")
        connection.execute("create function postgear.lease_lock_class() returns text language sql as $$ select 'x' $$")
    schema.upgrade(dsn)
    assert describe(dsn) == before


def test_down_to_nothing_and_up_again_is_the_same_schema(dsn: str) -> None:
    before = describe(dsn)
    schema.downgrade(dsn, "base")
    assert schema.current(dsn) is None
    assert not [row for row in describe(dsn) if "alembic_version" not in str(row)]
    schema.upgrade(dsn)
    assert describe(dsn) == before


def test_two_upgrades_at_once_both_succeed(empty_dsn: str) -> None:
    with ThreadPoolExecutor() as pool:
        assert list(pool.map(schema.upgrade, [empty_dsn] * 4)) == [schema.VERSION] * 4


def test_the_script_does_what_upgrade_does(empty_dsn: str, dsn: str) -> None:
    due = describe(dsn)
    for found in (None, schema.VERSION):
        with psycopg.connect(empty_dsn, autocommit=True) as connection:
            connection.execute(sql.SQL(schema.script(found, queue="it's", functions="plpython")))  # type: ignore[arg-type]
        assert (schema.current(empty_dsn), queue_name(empty_dsn)) == (schema.VERSION, "it's")
        assert describe(empty_dsn) == due


def test_queue_name_is_set_and_kept(empty_dsn: str) -> None:
    schema.upgrade(empty_dsn, queue="orders")
    schema.upgrade(empty_dsn)
    assert queue_name(empty_dsn) == "orders"


def test_refused_queue_name_leaves_nothing_behind(empty_dsn: str) -> None:
    with pytest.raises(SchemaError, match="queue_name_check"):
        schema.upgrade(empty_dsn, queue="two words")
    assert schema.current(empty_dsn) is None


def test_a_server_refuses_a_missing_or_older_schema_and_names_the_version(empty_dsn: str, dsn: str) -> None:
    with pytest.raises(SchemaError, match="no schema postgear"):
        schema.check(schema.current(empty_dsn))
    with psycopg.connect(dsn) as connection:
        connection.execute("update postgear.alembic_version set version_num = '0000'")
    with pytest.raises(SchemaError, match=f"version 0000, this server needs {schema.VERSION}"):
        schema.check(schema.current(dsn))


def test_a_server_takes_its_own_and_a_newer_schema_but_init_does_not(dsn: str) -> None:
    schema.check(schema.current(dsn))
    with psycopg.connect(dsn) as connection:
        connection.execute("update postgear.alembic_version set version_num = '9999'")
    schema.check(schema.current(dsn))
    with pytest.raises(SchemaError, match="9999"):
        schema.upgrade(dsn)
    with pytest.raises(SchemaError, match="9999"):
        schema.script("9999")


def test_unreachable_database_is_store_unavailable() -> None:
    dsn = "host=/nonexistent"
    for ask in (schema.current, schema.upgrade):
        with pytest.raises(StoreUnavailable, match="nonexistent"):
            ask(dsn)


def test_asking_for_the_version_imports_neither_alembic_nor_sqlalchemy(dsn: str) -> None:
    program = "import sys; from postgear import schema; schema.check(schema.current(sys.argv[1])); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program, dsn], capture_output=True, text=True, check=True)
    assert not {"alembic", "sqlalchemy"} & set(done.stdout.split())


def test_sql_is_ascii() -> None:
    """It is stored in databases of any encoding, comments and all."""
    root = Path(__file__).parents[2]
    files = [path for folder in ("sql", "migrations/versions", "pg_extension/functions") for path in (root / folder).rglob("*.*")]
    assert [path.name for path in files if path.suffix in (".sql", ".py") and not path.read_bytes().isascii()] == []
