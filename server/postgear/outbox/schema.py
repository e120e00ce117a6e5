"""``postgear mysql install|upgrade|uninstall``: the outbox's tables and functions in a database of MariaDB or MySQL.

Tables belong to the numbered files of ``sql/mysql/versions``, functions to those of ``sql/mysql/functions``, one a file,
which are made anew with each upgrade. There is no transaction around it: every statement can be run again, the version is written
last.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from postgear.errors import OutboxError, OutboxRefused
from postgear.schema import folder

from .connecting import Address, connection, is_mariadb

VERSION: Final = 1
"""The version of the outbox that this release works with: the last file of ``sql/mysql/versions``."""

_TABLES: Final = ("postgear_schema", "postgear_outbox", "postgear_outbox_failed")
_NO_TABLE: Final = 1146
_CANNOT_INITIALIZE: Final = 1123


class Outbox(NamedTuple):
    """What is installed. *source*: the outbox's identity for the queue."""

    version: int
    source: str


def install(address: Address) -> str:
    """Create or upgrade tables and functions; return what was done, for people. Raises OutboxRefused, OutboxError.

    Where functions of these names are loaded into the server (the UDF), those come first, which is told; MariaDB has none of ours
    beside them then, MySQL has, and takes them only where their database is named.
    """
    with connection(address, is_owner=True) as session:
        found = installed(session)
        if found is not None and found.version > VERSION:
            raise OutboxRefused(f"{address}: the outbox has version {found.version}, this older release makes {VERSION} only")
        with session.cursor() as cursor:
            for path in _files("versions"):
                if found is None or int(path.name[:4]) > found.version:
                    for statement in path.read_text(encoding="ascii").split(";\n"):
                        if statement.strip():
                            cursor.execute(statement)
            engine = _engine(cursor)
            if engine != "InnoDB":
                raise OutboxError(f"{address}: postgear_outbox has engine {engine}, which has no transactions; it must be InnoDB")
            names = [path.stem for path in _files("functions")]
            loaded = [name for name in names if _is_loaded(cursor, name)]
            _make_functions(cursor, () if not is_mariadb(session) else loaded, replaces=is_mariadb(session))
            cursor.execute(
                "insert into postgear_schema (version, source) values (%s, %s) on duplicate key update version = %s",
                (VERSION, str(uuid.uuid4()), VERSION),
            )
            calling = _calling(cursor) if is_mariadb(session) else []
        done = (
            "created"
            if found is None
            else "functions made anew"
            if found.version == VERSION
            else f"upgraded from {found.version}"
        )
        told = f"outbox in {address}: {done}, version {VERSION}"
        if calling and not loaded:
            told += (
                f"\ntriggers that call gman_ functions: {', '.join(calling)}; if these were loaded functions before, MariaDB "
                "fails such triggers with error 1122 until an administrator runs: flush tables"
            )
        if loaded:
            told += (
                f"\nloaded functions of the server come before the outbox's and submit at once: {', '.join(loaded)}; "
                "to have those of the outbox: mysql_udf/uninstall.sql, then `postgear mysql upgrade` (docs/mysql.md, step 4)"
            )
        return told


def uninstall(address: Address, *, force: bool = False) -> None:
    """Drop tables and functions. Raises OutboxError while rows or triggers need them, unless *force*: then rows are lost."""
    from .triggers import of_session

    with connection(address, is_owner=True) as session, session.cursor() as cursor:
        if not force and installed(session) is not None:
            if triggers := of_session(session):
                names = ", ".join(sorted({trigger.name for trigger in triggers}))
                raise OutboxError(f"{address}: triggers queue jobs here: {names}; `postgear mysql trigger drop` takes them away")
            cursor.execute("select (select count(*) from postgear_outbox) + (select count(*) from postgear_outbox_failed)")
            if rows := cursor.fetchone()[0]:
                raise OutboxError(f"{address}: {rows} rows are in the outbox or were set aside; --force drops them, too")
        for path in _files("functions"):
            cursor.execute(f"drop function if exists `{address.database}`.{path.stem}")
        cursor.execute(f"drop table if exists {', '.join(_TABLES)}")


def installed(session: Any) -> Outbox | None:
    """Return what is installed in the session's database; None: nothing."""
    import mysql.connector

    with session.cursor() as cursor:
        try:
            cursor.execute("select version, source from postgear_schema")
        except mysql.connector.Error as error:
            if error.errno == _NO_TABLE:
                return None
            raise
        row = cursor.fetchone()
        return None if row is None else Outbox(int(row[0]), str(row[1]))


def check(session: Any, address: Address) -> Outbox:
    """Return what is installed. Raises OutboxRefused if it is nothing, or older than this release."""
    found = installed(session)
    if found is None:
        raise OutboxRefused(f"{address} has no outbox (run: postgear mysql install --mysql mysql://…/{address.database})")
    if found.version < VERSION:
        raise OutboxRefused(
            f"{address}: the outbox has version {found.version}, this release needs {VERSION} "
            f"(run: postgear mysql upgrade --mysql mysql://…/{address.database})"
        )
    return found


def _is_loaded(cursor: Any, name: str) -> bool:
    """Whether a loaded function (the UDF) has the name: only such a one is asked at its start whether arguments suit it.

    The lists of loaded functions are for administrators, and are others in MariaDB and MySQL.
    """
    import mysql.connector

    try:
        cursor.execute(f"select {name}()")
        cursor.fetchall()  # that a stored one takes arguments is told here
    except mysql.connector.Error as error:
        return bool(error.errno == _CANNOT_INITIALIZE)
    return True


def _make_functions(cursor: Any, left_out: Collection[str], *, replaces: bool) -> None:
    for path in _files("functions"):
        if path.stem in left_out:
            continue
        text = path.read_text(encoding="ascii")
        if replaces:
            text = text.replace("create function", "create or replace function", 1)
        else:
            cursor.execute(f"drop function if exists {path.stem}")
        cursor.execute(text)


def _calling(cursor: Any) -> list[str]:
    """Return the triggers that name a gman_ function: MariaDB keeps what it has parsed, with the functions it found then."""
    cursor.execute(
        "select trigger_name from information_schema.triggers where trigger_schema = database()"
        r" and action_statement like '%gman\\_%' order by 1"
    )
    return [str(name) for (name,) in cursor.fetchall()]


def _engine(cursor: Any) -> str:
    cursor.execute(
        "select engine from information_schema.tables where table_schema = database() and table_name = 'postgear_outbox'"
    )
    return str(cursor.fetchone()[0])


def _files(name: str) -> Iterator[Path]:
    yield from sorted((folder("sql") / "mysql" / name).glob("*.sql"))
