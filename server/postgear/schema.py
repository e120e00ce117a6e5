"""The schema ``postgear``: create it, upgrade it, tell its version.

Tables, types and indexes belong to the migrations (Alembic); functions and views to the files of ``sql/``, which
are applied anew after each upgrade, in the same transaction. The functions ``gman_*`` are installed by ``gman_functions``.
This is not the place for queries: ``store`` has those.

Alembic and SQLAlchemy are imported only where something is changed, so that a server that only checks starts fast.
Every *dsn* is anything libpq takes: keywords, a URI, several hosts, a service, or "" for libpq's environment.

To add a migration:

1. write ``migrations/versions/NNNN_name.py`` with ``revision = "NNNN"``, both ways;
2. set ``VERSION`` to it;
3. where a function disappears or its arguments change, drop the old one in the migration.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import sql

from postgear import gman_functions
from postgear.connecting import failed_connection, options
from postgear.errors import SchemaError, StoreError

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import Connection

VERSION: Final = "0007"
"""The revision this release works with: Alembic's head, known without importing Alembic."""

_SQL_FILES: Final = ("functions/*.sql", "triggers/*.sql", "views.sql", "roles.sql")
"""What is applied after the migrations, in this order, under ``sql/``."""

_LOCK_KEY: Final = 0x706F737467656172
"""Advisory lock held while the schema changes: "postgear" in ASCII."""


def upgrade(dsn: str, *, queue: str | None = None, functions: str = "auto", tell: Callable[[str], None] | None = None) -> str:
    """Bring the schema of the database to this release's version and return that version; returns after commit.

    All or nothing, in one transaction; a second caller waits for the first. Creates the schema where there is none.
    queue: names the queue, the middle part of background job handles; None leaves the name it has.
    functions: which set of gman_* functions, one of ``gman_functions.KINDS``. tell: is told in a line which it was, and why,
    and before that of roles that could not be made.

    Raises StoreUnavailable without a connection, SchemaError where the database refuses (the message is the database's).
    """
    from alembic import command

    with _changing(dsn) as (connection, config):
        driver: Any = connection.connection.driver_connection
        if tell is not None:
            driver.add_notice_handler(partial(_pass_on, tell))
        connection.exec_driver_sql("create schema if not exists postgear")
        command.upgrade(config, "head")
        _apply_sql_files(connection)
        if queue is not None:
            connection.exec_driver_sql("update postgear.queue set name = %s", (queue,))
        chosen = gman_functions.install(driver, functions, folder)
    if tell is not None:
        tell(chosen)
    return VERSION


def script(found: str | None, *, queue: str | None = None, functions: str = "auto") -> str:
    """Return what ``upgrade`` would run on a database with version *found*, as SQL for psql; None: on one without the schema.

    functions: as for ``upgrade``, but "auto" is plain SQL. They go into schema ``public``.
    Left out is what ``upgrade`` finds out on its way: functions of another release that are to be dropped.
    Raises SchemaError for a version that this release does not know.
    """
    from alembic import command
    from alembic.util import CommandError

    config = _config()
    config.output_buffer = io.StringIO()
    try:
        command.upgrade(config, f"{found}:head" if found else "head", sql=True)
    except CommandError as error:
        raise SchemaError(str(error)) from error
    parts = [
        f"begin;\nselect pg_advisory_xact_lock({_LOCK_KEY});\ncreate schema if not exists postgear;\n",
        config.output_buffer.getvalue(),
        "set local check_function_bodies = off;\n",
        *(path.read_text(encoding="utf-8") for path in _sql_files()),
        gman_functions.script(functions, folder),
    ]
    if queue is not None:
        parts.append(f"update postgear.queue set name = {sql.Literal(queue).as_string(None)};\n")
    return "\n".join([*parts, "commit;\n"])


def downgrade(dsn: str, revision: str) -> None:
    """Take the schema back to *revision*, or with "base" to nothing but an empty schema; returns after commit.

    The functions of ``sql/`` stay as they are where the revision leaves them: ``upgrade`` of the older release brings its own.

    Raises as ``upgrade`` does.
    """
    from alembic import command

    with _changing(dsn) as (connection, config):
        if revision == "base":
            gman_functions.remove(connection.connection.driver_connection)
        command.downgrade(config, revision)


def current(dsn: str) -> str | None:
    """Return the version of the database's schema; None: there is none. Raises StoreUnavailable."""
    try:
        # In a database of encoding SQL_ASCII text would else be bytes.
        with psycopg.connect(**options(dsn, autocommit=True, client_encoding="utf8")) as connection:
            row = connection.execute("select to_regclass('postgear.alembic_version') is not null").fetchone()
            if row is None or not row[0]:
                return None
            row = connection.execute("select version_num from postgear.alembic_version").fetchone()
            return None if row is None else str(row[0])
    except psycopg.OperationalError as error:
        raise failed_connection(error) from error


def queue_name(dsn: str) -> str:
    """Return the name of the queue in a database that has the schema. Raises as ``upgrade`` does."""
    try:
        with psycopg.connect(**options(dsn, autocommit=True, client_encoding="utf8")) as connection:
            row = connection.execute("select name from postgear.queue").fetchone()
            return str(row[0]) if row else ""
    except psycopg.Error as error:
        raise _translate(error) from error


def check(found: str | None) -> None:
    """Raise SchemaError unless a server of this release can work with a schema of version *found*; None: there is none.

    A newer schema is taken: during an upgrade old servers run on it for a while, and they may start again meanwhile.
    """
    if found is None:
        raise SchemaError("the database has no schema postgear")
    if found < VERSION:
        raise SchemaError(f"the database's schema postgear has version {found}, this server needs {VERSION}")


def head() -> str:
    """Return the newest revision in ``migrations/``, asking Alembic. A test proves that ``VERSION`` equals it."""
    from alembic.script import ScriptDirectory

    return str(ScriptDirectory.from_config(_config()).get_current_head())


@contextmanager
def _changing(dsn: str) -> Iterator[tuple[Connection, Config]]:
    """Give a connection in a transaction that no other ``upgrade`` or ``downgrade`` is in; commit at the end."""
    from alembic.util import CommandError
    from sqlalchemy import NullPool, create_engine
    from sqlalchemy.exc import DBAPIError

    engine = create_engine(
        "postgresql+psycopg://", creator=lambda: psycopg.connect(**options(dsn, client_encoding="utf8")), poolclass=NullPool
    )
    try:
        with engine.begin() as connection:
            connection.exec_driver_sql(f"select pg_advisory_xact_lock({_LOCK_KEY})")
            config = _config()
            config.attributes["connection"] = connection
            yield connection, config
    except DBAPIError as error:
        raise _translate(error.orig or error) from error
    except psycopg.Error as error:
        raise _translate(error) from error
    except CommandError as error:
        raise SchemaError(str(error)) from error


def _pass_on(tell: Callable[[str], None], notice: psycopg.errors.Diagnostic) -> None:
    text, hint = notice.message_primary or "", notice.message_hint
    if text.startswith("postgear: "):  # PostgreSQL's own are of no use to people
        tell(text.removeprefix("postgear: ") + (f" ({hint.rstrip('.')})" if hint else ""))


def _translate(error: BaseException) -> StoreError | SchemaError:
    return failed_connection(error) if isinstance(error, psycopg.OperationalError) else SchemaError(str(error).strip())


def _apply_sql_files(connection: Connection) -> None:
    driver: Any = connection.connection.driver_connection
    # Bodies may name functions of files that come later in the alphabet.
    driver.execute("set local check_function_bodies = off")
    for path in _sql_files():
        try:
            _apply_sql_file(driver, path)
        except psycopg.Error as error:
            raise SchemaError(f"{path.relative_to(folder('sql').parent)}: {str(error).strip()}") from error


def _sql_files() -> Iterator[Path]:
    for pattern in _SQL_FILES:
        for path in sorted(folder("sql").glob(pattern)):
            if not path.name.startswith("gman_"):  # those are for gman_functions
                yield path


def _apply_sql_file(driver: psycopg.Connection, path: Path) -> None:
    # Without parameters psycopg sends the text as it is: a file may hold several statements and any %.
    statements = sql.SQL(path.read_text(encoding="utf-8"))
    try:
        with driver.transaction():
            driver.execute(statements)
    except psycopg.errors.InvalidFunctionDefinition:
        # Its result has another type now. Only then is it dropped: `create or replace` keeps what others were granted.
        driver.execute(sql.SQL("drop routine {}").format(sql.Identifier("postgear", path.stem)))
        driver.execute(statements)


def _config() -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(folder("migrations")).replace("%", "%%"))
    return config


def folder(name: str) -> Path:
    """Return the folder *name*, inside the installed package, else at the root of the repository. Raises SchemaError."""
    package = Path(__file__).parent
    for found in (package / name, package.parent.parent / name):
        if found.is_dir():
            return found
    raise SchemaError(f"{name}/ is neither in {package} nor in {package.parent.parent}")
