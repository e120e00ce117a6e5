"""The code of docs/applications.md and of the example runs as it stands there."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import django.db.models
import pytest
import sqlalchemy
from alembic.migration import MigrationContext
from alembic.operations import Operations
from django.apps import apps
from sqlalchemy import orm

from examples import publish
from tests.applications.kinds import Database, Django

PAGE = Path(__file__).parents[2] / "docs" / "applications.md"


def code(heading: str) -> list[str]:
    """Return the Python blocks of a section."""
    sections = re.split(r"^#+ (.*)\n", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return re.findall(r"```python\n(.*?)```", sections[sections.index(heading) + 1], re.DOTALL)


def run(heading: str, **names: Any) -> dict[str, Any]:
    blocks = code(heading)
    assert blocks
    for block in blocks:
        exec(compile(block, f"{PAGE.name}, {heading}", "exec"), names)
    return names


def test_first_lines_and_the_four_functions(database: Database) -> None:
    names = run("Queue jobs from an application", DSN=database.dsn)
    assert database.articles() == [1]
    assert [job.handle for job in database.jobs()] == [names["handle"]]
    run("The four functions", **names)
    assert len(database.jobs()) == 1001


def test_sqlalchemy(database: Database) -> None:
    class Base(orm.DeclarativeBase):
        pass

    class Article(Base):
        __tablename__ = "article"
        id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
        title: orm.Mapped[str]

    database.look.execute("alter table article alter id add generated always as identity")
    names = run("SQLAlchemy", URL=database.url("psycopg"), Article=Article)

    async def story() -> None:
        await names["publish"]("three")
        await names["async_engine"].dispose()

    asyncio.run(story())
    assert [job.workload for job in database.jobs()] == [b'{"id":1}', b"three"]
    names["engine"].dispose()


def test_django(database: Database) -> None:
    application = Django(database)
    database.look.execute("alter table article alter id add generated always as identity")
    if "articles" not in apps.all_models or not apps.all_models["articles"]:
        meta = type("Meta", (), {"app_label": "articles", "db_table": "article"})
        fields = {"__module__": __name__, "Meta": meta, "title": django.db.models.TextField()}
        type("Article", (django.db.models.Model,), fields | {"id": django.db.models.AutoField(primary_key=True)})
    names = run("Django", Article=apps.all_models["articles"]["article"])
    names["publish"]("four")
    assert (database.articles(), [job.workload for job in database.jobs()]) == ([1], [b"four"])
    application.close()


def test_coalescing_with_queued_jobs(database: Database) -> None:
    import psycopg

    run("Uniques and transactions", DSN=database.dsn, psycopg=psycopg)
    assert [job.workload for job in database.jobs()] == [b'{"id":1}']


def test_migration(database: Database) -> None:
    engine = sqlalchemy.create_engine(database.url("psycopg"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        operations = Operations(MigrationContext.configure(connection))
        names = run("Triggers in the application's migrations", op=operations, sa=sqlalchemy)
        names["upgrade"]()
        database.look.execute("insert into note values (1, 'a')")
        database.look.execute("update note set title = title")
        assert [job.workload for job in database.jobs()] == [b'{"id":1}']
        names["downgrade"]()
    engine.dispose()
    assert names["include_name"]("postgear", "schema", {}) is False


def test_example_publishes_what_commits(database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    publish.main(database.url("psycopg").render_as_string(hide_password=False))
    assert capsys.readouterr().out == "Gears: H:test:1\nGears: the title is taken, no job\nLevers: H:test:4\n"
    assert [job.function for job in database.jobs()] == [b"publish", b"index"] * 2
