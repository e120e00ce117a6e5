"""The functions ``gman_*`` of a database: of the extension, loose with PL/Python, or loose in plain SQL.

All three have the same signatures. Loose functions carry a comment that begins with "postgear:"; nothing else is touched.
Everything happens in the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg import sql

from postgear.errors import SchemaError

KINDS: Final = ("auto", "extension", "plpython", "sql")
SCRIPT: Final = "postgear--1.0.sql"
"""The extension's script: also what is run where there is no extension."""

_LOOSE: Final = """
select p.oid::regprocedure::text from pg_proc p
where p.proname like 'gman\\_%' and obj_description(p.oid, 'pg_proc') like 'postgear:%'
    and not exists (select from pg_depend d where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e')
order by p.prokind <> 'a'
"""
"""Aggregates first: they depend on the others."""
DROP_PYTHON_PARTS: Final = "drop function if exists gman_runtime();\n"
_STALE: Final = "postgear: stale"
_NOT_LOADED: Final = ("58", "0A", "XX")
"""Classes of SQLSTATE with which PostgreSQL refuses a library or an interpreter (PG source, dfmgr.c)."""


def install(connection: psycopg.Connection, wanted: str, folder: Callable[[str], Path]) -> str:
    """Install the functions of the kind *wanted* and return a line that says which they are and why.

    folder: finds ``sql`` and ``pg_extension``. Raises SchemaError where the database refuses or has not what is wanted.
    """
    kind, reason = _choose(connection, wanted)
    try:
        if kind == "extension":
            _install_extension(connection)
        elif kind is not None:
            _install_loose(connection, kind, folder)
        if kind is not None:
            _run(connection, (folder("sql") / "gman_rights.sql").read_text(encoding="utf-8"), _schema(connection))
    except psycopg.Error as error:
        raise SchemaError(f"gman_* functions ({kind}): {str(error).strip()}") from error
    return f"gman_* functions: {reason}"


def script(kind: str, folder: Callable[[str], Path]) -> str:
    """Return SQL that installs the functions in schema ``public``; "auto" is plain SQL."""
    if kind == "extension":
        return "create extension if not exists postgear schema public cascade;\n"
    if kind == "plpython":
        text = "create extension if not exists plpython3u;\n" + _python_script(folder)
    else:
        text = "".join(path.read_text(encoding="utf-8") for path in _plain_files(folder)) + DROP_PYTHON_PARTS
    return (text + (folder("sql") / "gman_rights.sql").read_text(encoding="utf-8")).replace("@extschema@", "public")


def remove(connection: Any) -> None:
    """Drop the functions, of whatever kind they are."""
    connection.execute("drop extension if exists postgear")
    _drop_loose(connection, "postgear:%")


def _choose(connection: psycopg.Connection, wanted: str) -> tuple[str | None, str]:
    """Return the kind to install, None to leave what is there, and a text that says why."""
    row = connection.execute(
        """
        select current_setting('is_superuser') = 'on',
            exists (select from pg_available_extensions where name = 'plpython3u'),
            exists (select from pg_available_extensions where name = 'postgear'),
            exists (select from pg_extension where extname = 'postgear'),
            exists (select from pg_proc p join pg_language l on l.oid = p.prolang
                    where p.proname = 'gman_runtime' and l.lanname = 'plpython3u')
        """
    ).fetchone()
    assert row is not None
    is_superuser, has_python, has_files, is_extension, is_python = row
    no_python = "the database server has no plpython3u (Debian: postgresql-plpython3-…)"
    no_right = "only a superuser may install PL/Python functions"
    no_files = "the database server has no files of the extension postgear (make install in pg_extension/)"
    if not is_superuser and wanted == "auto" and (is_extension or is_python):
        found = "the extension postgear" if is_extension else "PL/Python"
        return None, f"{found}, left as it is, for {no_right}"
    if wanted == "sql":
        return "sql", "plain SQL, as asked"
    problem = no_python if not has_python else no_right if not is_superuser else None
    if problem is None and not (is_extension or is_python):  # else it has run here, and is not given up for a passing fault
        problem = _python_problem(connection)
    if wanted == "plpython":
        if problem:
            raise SchemaError(f"--functions plpython: {problem}")
        return "plpython", "PL/Python, as asked"
    if wanted == "extension":
        if problem or not has_files:
            raise SchemaError(f"--functions extension: {problem or no_files}")
        return "extension", "the extension postgear, as asked"
    if problem:
        return "sql", f"plain SQL, which cannot wait for results: {problem}"
    if has_files:
        return "extension", "the extension postgear"
    return "plpython", f"PL/Python without the extension: {no_files}"


def _python_problem(connection: psycopg.Connection) -> str | None:
    """Return why PL/Python does not run though its files are there, None: it does. Changes nothing."""
    try:
        with connection.transaction(force_rollback=True):
            connection.execute("create extension if not exists plpython3u")
            connection.execute("do 'pass' language plpython3u")
    except psycopg.Error as error:
        if not (error.sqlstate or "").startswith(_NOT_LOADED):
            raise SchemaError(f"gman_* functions: {str(error).strip()}") from error
        return f"the database server's plpython3u does not run: {str(error).strip().splitlines()[0]}"
    return None


def _install_extension(connection: psycopg.Connection) -> None:
    _drop_loose(connection, "postgear:%")
    row = connection.execute("select extversion from pg_extension where extname = 'postgear'").fetchone()
    connection.execute("alter extension postgear update" if row else "create extension postgear cascade")


def _install_loose(connection: psycopg.Connection, kind: str, folder: Callable[[str], Path]) -> None:
    connection.execute("drop extension if exists postgear")
    for (routine,) in connection.execute(_LOOSE).fetchall():
        connection.execute(sql.SQL("comment on routine {} is {}").format(sql.SQL(routine), _STALE))
    schema = _schema(connection)
    connection.execute("set local check_function_bodies = off")
    if kind == "plpython":
        connection.execute("create extension if not exists plpython3u")
        _run(connection, _python_script(folder), schema)
    else:
        for path in _plain_files(folder):
            _run(connection, path.read_text(encoding="utf-8"), schema)
        connection.execute(DROP_PYTHON_PARTS)
    # What an older release had and this one has not, or has with other arguments.
    _drop_loose(connection, _STALE)


def _python_script(folder: Callable[[str], Path]) -> str:
    text = (folder("pg_extension") / SCRIPT).read_text(encoding="utf-8")
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith("\\echo"))


def _plain_files(folder: Callable[[str], Path]) -> list[Path]:
    # What others call comes first: the aggregate's definition looks for its parts.
    functions = sorted((folder("sql") / "functions").glob("gman_*.sql"))
    return [folder("sql") / "without_python" / "gman_internal.sql", *functions]


def _drop_loose(connection: psycopg.Connection, comment: str) -> None:
    for (routine,) in connection.execute(_LOOSE).fetchall():
        row = connection.execute("select obj_description(%s::regprocedure, 'pg_proc') like %s", (routine, comment)).fetchone()
        if row is not None and row[0]:
            connection.execute(sql.SQL("drop routine {}").format(sql.SQL(routine)))


def _schema(connection: psycopg.Connection) -> str:
    """Return the schema of the functions, quoted: the extension's, else the first of the search path."""
    row = connection.execute(
        """
        select quote_ident(coalesce(
            (select nspname from pg_extension join pg_namespace on pg_namespace.oid = extnamespace where extname = 'postgear'),
            current_schema()
        ))
        """
    ).fetchone()
    if row is None or row[0] is None:
        raise SchemaError("the search_path names no schema for the gman_* functions")
    return str(row[0])


def _run(connection: psycopg.Connection, script: str, schema: str) -> None:
    # Without parameters psycopg sends the text as it is: it may hold several statements and any %.
    connection.execute(sql.SQL(script.replace("@extschema@", schema)))
