"""Installing the gman_* functions: the extension, its regression tests and upgrades, and what `postgear init` chooses."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from postgear import schema
from postgear.errors import SchemaError
from tests.extension import postgres_tree

SIGNATURES = """
select proname, pg_get_function_identity_arguments(oid), pg_get_function_result(oid), prokind::text, proisstrict
from pg_proc where proname like 'gman\\_%' and proname <> 'gman_runtime' order by 1, 2
"""
COMMENTS = (
    "select count(*) from pg_proc where proname like 'gman\\_%' and coalesce(obj_description(oid), '') not like 'postgear: %'"
)


def ask(dsn: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn, autocommit=True) as session:
        return session.execute(query).fetchall()


def install(dsn: str, functions: str) -> str:
    notes: list[str] = []
    schema.upgrade(dsn, queue="test", functions=functions, tell=notes.append)
    return "\n".join(notes)


def language(dsn: str) -> Any:
    return ask(dsn, "select lanname from pg_proc join pg_language on pg_language.oid = prolang where proname = 'gman_wait'")[0][0]


def is_extension(dsn: str) -> bool:
    return bool(ask(dsn, "select 1 from pg_extension where extname = 'postgear'"))


def build_module() -> Any:
    spec = importlib.util.spec_from_file_location("build", postgres_tree.SOURCE / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_installcheck_passes(config: str, extension_postgres: str, tmp_path: Path) -> None:
    where = conninfo_to_dict(extension_postgres)
    environment = {"PGHOST": str(where["host"]), "PGPORT": str(where["port"]), "PGUSER": str(where["user"])}
    try:
        postgres_tree.make(config, "installcheck", f"EXTRA_REGRESS_OPTS=--outputdir={tmp_path}", **environment)
    except AssertionError:
        print((tmp_path / "regression.diffs").read_text())
        raise


def test_the_script_is_up_to_date() -> None:
    for path, text in build_module().scripts().items():
        assert path.read_text() == text, "run pg_extension/build.py"


def test_embedded_modules_need_only_the_standard_library_of_python_3_9() -> None:
    import ast
    import sys

    for name in build_module().MODULES:
        source = (postgres_tree.ROOT / "server" / "postgear" / f"{name}.py").read_text()
        for node in ast.walk(ast.parse(source, feature_version=(3, 9))):
            if isinstance(node, ast.ImportFrom) and not node.level:
                assert str(node.module).split(".")[0] in sys.stdlib_module_names
            elif isinstance(node, ast.Import):
                assert all(alias.name in sys.stdlib_module_names for alias in node.names)


def test_an_older_version_is_upgraded(programs: Path, config: str, empty_dsn: str) -> None:
    build = build_module()
    found = subprocess.run([config, "--sharedir"], capture_output=True, text=True, check=True).stdout.strip()
    tree = str(programs).removesuffix(str(Path(subprocess.check_output([config, "--bindir"], text=True).strip())))
    folder = Path(f"{tree}{found}") / "extension"
    (folder / "postgear--0.9.sql").write_text(
        "create function gman_gone() returns integer language sql as 'select 1';\n"
        "create function gman_do(function_name text, workload text, unique_key text default null, timeout interval default null)"
        " returns text language sql as $$ select 'old' $$;"
    )
    (folder / "postgear--0.9--1.0.sql").write_text(build.upgrade_script("1.0", "drop function gman_gone();\n"))
    with psycopg.connect(empty_dsn, autocommit=True) as session:
        session.execute("create extension postgear version '0.9' cascade")
        assert session.execute("select gman_do('f', 'x')").fetchone() == ("old",)
    assert install(empty_dsn, "auto") == "gman_* functions: the extension postgear"
    assert ask(empty_dsn, "select extversion from pg_extension where extname = 'postgear'") == [("1.0",)]
    fresh = make_conninfo(empty_dsn, dbname="postgear")
    install(fresh, "extension")
    assert ask(empty_dsn, SIGNATURES) == ask(fresh, SIGNATURES)


def test_the_extension_may_be_in_an_odd_schema(empty_dsn: str) -> None:
    with psycopg.connect(empty_dsn, autocommit=True) as session:
        session.execute('create schema "Odd schema"')
        session.execute('create extension postgear schema "Odd schema" cascade')
        session.execute('set search_path = "Odd schema"')
        schema.upgrade(empty_dsn, queue="test")
        assert session.execute("select gman_do_background('f', 'x')").fetchone() == ("H:test:1",)
        assert session.execute("select gman_servers_set('127.0.0.1:1')").fetchone() == (True,)
        with pytest.raises(psycopg.errors.SqlclientUnableToEstablishSqlconnection):
            session.execute("select gman_do('f', 'x')")


def test_dump_and_restore_keep_the_extension(dsn: str, empty_dsn: str, programs: Path) -> None:
    dump = subprocess.run([programs / "pg_dump", dsn], capture_output=True, text=True, check=True).stdout
    assert "gman_wait" not in dump.replace("ON FUNCTION", "").split("CREATE EXTENSION")[0]
    restored = subprocess.run(
        [programs / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", empty_dsn],
        input=dump,
        capture_output=True,
        text=True,
        check=False,
    )
    assert restored.returncode == 0, restored.stderr
    assert ask(empty_dsn, "select gman_do_background('f', 'x')") == [("H:test:1",)]


@pytest.mark.parametrize("kind", ["extension", "plpython", "sql"])
def test_all_kinds_have_the_same_signatures(dsn: str, kind: str) -> None:
    before = ask(dsn, SIGNATURES)
    install(dsn, kind)
    assert ask(dsn, SIGNATURES) == before
    assert ask(dsn, COMMENTS) == [(0,)]
    assert ask(dsn, "select gman_do_background('f', 'x')") == [("H:test:1",)]


@pytest.mark.parametrize(
    ("before", "after"), [(a, b) for a in schema.gman_functions.KINDS[1:] for b in schema.gman_functions.KINDS[1:]]
)
def test_one_kind_becomes_another(empty_dsn: str, before: str, after: str) -> None:
    assert "as asked" in install(empty_dsn, before)
    assert "as asked" in install(empty_dsn, after)
    assert is_extension(empty_dsn) == (after == "extension")
    assert language(empty_dsn) == ("plpgsql" if after == "sql" else "plpython3u")
    ask(empty_dsn, "select gman_do_background('f', 'x')")


def test_auto_takes_the_extension(empty_dsn: str) -> None:
    assert install(empty_dsn, "auto") == "gman_* functions: the extension postgear"
    assert is_extension(empty_dsn)


def test_what_an_older_release_had_is_replaced_and_other_functions_stay(empty_dsn: str) -> None:
    with psycopg.connect(empty_dsn, autocommit=True) as session:
        session.execute("""
            create function gman_do_background(f text, w text, u text default null) returns text language sql as 'select 1::text';
            comment on function gman_do_background(text, text, text) is 'postgear: queue a job';
            create function gman_mine() returns integer language sql as 'select 1';
        """)
    for kind in ("sql", "plpython", "extension"):
        install(empty_dsn, kind)
        assert ask(empty_dsn, "select gman_mine()") == [(1,)]
        ask(empty_dsn, "select gman_do_background('f', 'x')")


def test_without_the_right_plain_sql_is_taken_and_what_is_there_is_left(empty_dsn: str, dsn: str) -> None:
    name = conninfo_to_dict(empty_dsn)["dbname"]
    with psycopg.connect(empty_dsn, autocommit=True) as session:
        session.execute(f'create role "owner_{name}" login')
        session.execute(f'alter database "{name}" owner to "owner_{name}"')
        session.execute(f'alter schema public owner to "owner_{name}"')
    mine = make_conninfo(empty_dsn, user=f"owner_{name}")
    note = install(mine, "auto")
    assert note == "gman_* functions: plain SQL, which cannot wait for results: only a superuser may install PL/Python functions"
    assert ask(mine, "select gman_do_background('f', 'x')") == [("H:test:1",)]
    for kind in ("plpython", "extension"):
        with pytest.raises(SchemaError, match=f"--functions {kind}: only a superuser"):
            install(mine, kind)
    install(empty_dsn, "sql")
    with psycopg.connect(empty_dsn, autocommit=True) as session:
        session.execute(f'drop owned by "owner_{name}" cascade')


def test_removed_with_the_schema(dsn: str) -> None:
    schema.downgrade(dsn, "base")
    assert ask(dsn, SIGNATURES) == []


def test_init_says_what_it_chose(empty_dsn: str) -> None:
    import sys

    command = [str(Path(sys.executable).with_name("postgear")), "init", "--dsn", empty_dsn, "--functions", "sql"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    created, chosen = done.stdout.splitlines()
    assert created.startswith(f"schema postgear: created, version {schema.VERSION}, queue ")
    assert chosen == "gman_* functions: plain SQL, as asked"
