"""A database of a test's own, made and dropped with pytest-postgresql's janitor.

The cluster is not pytest-postgresql's: see ``conftest.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from psycopg.conninfo import conninfo_to_dict, make_conninfo
from pytest_postgresql.janitor import DatabaseJanitor


@contextmanager
def database(postgres_dsn: str, name: str, template: str | None = None) -> Iterator[str]:
    """Make the database, as a copy of *template* if given, and yield its DSN; at the end drop it, ending its connections."""
    server = conninfo_to_dict(postgres_dsn)
    janitor = DatabaseJanitor(
        user=str(server["user"]),
        host=str(server["host"]),
        port=str(server["port"]),
        dbname=name,
        template_dbname=template,
        connection_timeout=5,  # its own 60 seconds would be spent twice in every test after a cluster that died
    )
    with janitor:
        yield make_conninfo(postgres_dsn, dbname=name)
