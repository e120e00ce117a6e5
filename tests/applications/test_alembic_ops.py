"""Triggers in an application's own migrations."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from alembic import command
from alembic.autogenerate import render_python_code
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.operations.ops import UpgradeOps

from postgear.alembic_ops import CreateGmanTriggerOp, DropGmanTriggerOp
from tests.applications.kinds import Database

ENV = """
from alembic import context
from sqlalchemy import Column, Integer, MetaData, Table, Text, create_engine

from postgear.alembic_ops import CreateGmanTriggerOp

metadata = MetaData()
Table("note", metadata, Column("id", Integer, primary_key=True), Column("title", Text))


def add_trigger(migration, revision, directives):
    script = directives[0]
    script.upgrade_ops.ops.append(CreateGmanTriggerOp("note", "index", "note_index", events=["insert", "update"], payload="key"))
    script.upgrade_ops.reverse_into(script.downgrade_ops)


if context.is_offline_mode():
    context.configure(dialect_name="postgresql", literal_binds=True, dialect_opts={"paramstyle": "named"})
    with context.begin_transaction():
        context.run_migrations()
else:
    engine = create_engine(context.config.attributes["url"])
    with engine.connect() as connection:
        context.configure(
            connection=connection,
            target_metadata=metadata,
            process_revision_directives=add_trigger,
            include_name=lambda name, kind, parents: kind != "table" or name != "article",
        )
        with context.begin_transaction():
            context.run_migrations()
    engine.dispose()
"""
TEMPLATE = """
from alembic import op
import sqlalchemy as sa
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade():
    ${upgrades}


def downgrade():
    ${downgrades}
"""


@pytest.fixture
def connection(database: Database) -> Iterator[sqlalchemy.Connection]:
    engine = sqlalchemy.create_engine(database.url("psycopg"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        yield connection
    engine.dispose()


@pytest.fixture
def op(connection: sqlalchemy.Connection) -> Any:
    return Operations(MigrationContext.configure(connection))


def triggers(database: Database) -> list[tuple[Any, ...]]:
    return database.look.execute("select name, function, events, state from postgear.triggers order by name").fetchall()


def test_created_trigger_queues_jobs_and_dropped_does_not(op: Any, database: Database) -> None:
    op.create_gman_trigger("article", "index", "article_index")
    database.look.execute("insert into article values (1, 'one')")
    op.drop_gman_trigger("article", "article_index")
    database.look.execute("insert into article values (2, 'two')")
    assert [(job.function, job.workload) for job in database.jobs()] == [(b"index", b'{"id":1,"title":"one"}')]
    assert triggers(database) == []


def test_every_parameter_arrives(op: Any, database: Database) -> None:
    op.create_gman_trigger(
        "article",
        "index",
        "article_index",
        events=["update", "insert"],
        level="row",
        when="new.title <> 'it''s 100% :done \\' and new.id::text <> 'x'",
        columns=["title"],
        payload="columns",
        payload_columns=["id", "title"],
        priority="low",
        delay=timedelta(days=1, minutes=1, microseconds=5),
        key=[],
        enable="always",
    )
    row = database.look.execute(
        'select events, level, "when", columns, payload, payload_columns, priority, delay, key, state from postgear.triggers'
    ).fetchone()
    assert row == (
        ["insert", "update"],
        "row",
        "new.title <> 'it''s 100% :done \\' and new.id::text <> 'x'",
        ["title"],
        "columns",
        ["id", "title"],
        "low",
        timedelta(days=1, minutes=1, microseconds=5),
        ["id"],
        "always",
    )


def test_odd_names_and_schemas_are_quoted(op: Any, database: Database) -> None:
    database.look.execute("""create schema "o'dd\\ Schema"; create table "o'dd\\ Schema"."T:a""ble" (id integer)""")
    op.create_gman_trigger('T:a"ble', "f'un\\c:tion", "tri'g\\ger", schema="o'dd\\ Schema")
    assert triggers(database) == [("tri'g\\ger", "f'un\\c:tion", ["insert"], "origin")]
    op.drop_gman_trigger('T:a"ble', "tri'g\\ger", schema="o'dd\\ Schema")
    assert triggers(database) == []


def test_each_operation_reverses_into_the_other() -> None:
    create = CreateGmanTriggerOp(
        "article", "index", "article_index", schema="shop", events=["delete"], payload="change", level="row"
    )
    drop = create.reverse()
    assert isinstance(drop, DropGmanTriggerOp)
    again = drop.reverse()
    assert again.to_diff_tuple() == create.to_diff_tuple()
    assert drop.to_diff_tuple() == ("drop_gman_trigger", "shop", "article", "article_index")
    with pytest.raises(ValueError, match="cannot be reversed"):
        DropGmanTriggerOp("article", "article_index").reverse()


def test_renderer_writes_what_differs_from_the_defaults() -> None:
    create = CreateGmanTriggerOp(
        "article", "index", "article_index", schema="shop", events=("insert",), level="row", delay=timedelta(seconds=2), key=()
    )
    plain = CreateGmanTriggerOp("article", "index", "article_index", events=["insert"], level="statement", when=None)
    code = render_python_code(UpgradeOps(ops=[create, plain, create.reverse()]))
    assert [line.strip() for line in code.splitlines() if "op." in line] == [
        "op.create_gman_trigger('article', 'index', 'article_index',"
        " schema='shop', level='row', delay='2000000 microseconds', key=[])",
        "op.create_gman_trigger('article', 'index', 'article_index')",
        "op.drop_gman_trigger('article', 'article_index', schema='shop')",
    ]


@pytest.mark.parametrize(
    ("definition", "message"),
    [({"event": ["insert"]}, "a trigger has no event"), ({"events": "insert"}, "events is a list of names, 'insert' given")],
)
def test_wrong_definition_is_an_error(definition: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        CreateGmanTriggerOp("article", "index", "article_index", **definition)


@pytest.fixture
def alembic(tmp_path: Path, database: Database) -> Callable[..., str]:
    """Run a command of Alembic in an environment of the application's, and return what it wrote."""
    (tmp_path / "versions").mkdir()
    (tmp_path / "env.py").write_text(ENV)
    (tmp_path / "script.py.mako").write_text(TEMPLATE)

    def run(name: str, *arguments: Any, **options: Any) -> str:
        output = io.StringIO()
        config = Config(output_buffer=output, stdout=output)
        config.set_main_option("script_location", str(tmp_path).replace("%", "%%"))
        config.set_main_option("path_separator", "os")
        config.attributes["url"] = database.url("psycopg")
        getattr(command, name)(config, *arguments, **options)
        return output.getvalue()

    return run


def test_autogenerated_migration_goes_up_and_down(alembic: Callable[..., str], database: Database, tmp_path: Path) -> None:
    alembic("revision", "notes", autogenerate=True, rev_id="1")
    (path,) = (tmp_path / "versions").glob("1_*.py")
    assert "op.create_gman_trigger('note', 'index', 'note_index', events=['insert', 'update'], payload='key')" in path.read_text()
    alembic("upgrade", "head")
    database.look.execute("insert into note values (7, 'seven')")
    assert [job.workload for job in database.jobs()] == [b'{"id":7}']
    alembic("downgrade", "base")
    assert triggers(database) == []
    assert database.look.execute("select to_regclass('note') is null").fetchone() == (True,)


def test_offline_migration_is_sql_that_runs(alembic: Callable[..., str], database: Database, tmp_path: Path) -> None:
    title = "it's 50% :x \\"
    condition = "new.title = 'it''s 50% :x \\' and new.id::text <> 'x'"
    (tmp_path / "versions" / "1_notes.py").write_text(
        "from alembic import op\nrevision, down_revision = '1', None\n"
        f"def upgrade():\n    op.create_gman_trigger('article', 'index', 'a:b', level='row', when={condition!r})\n"
        "def downgrade():\n    op.drop_gman_trigger('article', 'a:b')\n"
    )
    database.look.execute(alembic("upgrade", "head", sql=True).encode())
    database.look.execute("insert into article values (1, %s), (2, 'other')", (title,))
    assert len(database.jobs()) == 1
    assert triggers(database) == [("a:b", "index", ["insert"], "origin")]
    database.look.execute(alembic("downgrade", "1:base", sql=True).encode())
    assert triggers(database) == []
