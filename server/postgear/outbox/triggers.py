"""``postgear mysql trigger create|drop|list``: triggers that put jobs into the outbox.

MariaDB and MySQL have one trigger an event and no transition tables, so each event gets a row-level trigger of its own,
``<name>_<event>``. Its body is an INSERT into the outbox; a comment in it says what was asked for. It runs with the rights of
its maker: those who write the table need none on the outbox.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from postgear.errors import ConfigError, InvalidJob, OutboxError
from postgear.newjob import PRIORITIES, encode_function

from . import schema
from .connecting import Address, connection, is_mariadb

EVENTS: Final = ("insert", "update", "delete")
_MARK: Final = "postgear: "
_NAME_BYTES: Final = 64 - len("_insert")
_BINARY: Final = ("binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob")
_TEMPORAL: Final = ("date", "datetime", "time", "timestamp")
_SPATIAL: Final = (
    *("geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon"),
    *("geometrycollection", "geomcollection"),
)


class Options(NamedTuple):
    """What a trigger is to do. *when*: SQL over NEW and OLD. *columns*: queue for an update only if one of these changed.

    *payload*: row, change, key or columns. *key*: coalesce by these columns, () for the primary key, None not at all.
    *replace*: also where these triggers are there already, on this table and ours.
    """

    events: Sequence[str] = ("insert",)
    when: str | None = None
    columns: Sequence[str] = ()
    payload: str = "row"
    payload_columns: Sequence[str] = ()
    priority: str = "normal"
    delay_seconds: int = 0
    key: Sequence[str] | None = None
    replace: bool = False


class Trigger(NamedTuple):
    """A trigger of ours, one an event."""

    table: str
    name: str
    function: str
    event: str
    payload: str
    priority: str
    key: str
    when: str


class _Column(NamedTuple):
    name: str
    type: str
    is_utf8: bool
    is_json: bool
    is_primary: bool

    def value(self, row: str) -> str:
        """Return an expression whose value JSON_OBJECT takes as what it is."""
        name = f"{row}.{_quoted(self.name)}"
        if self.type in _BINARY:
            return f"to_base64({name})"
        if self.type in _SPATIAL:
            return f"st_astext({name})"
        if self.type == "bit":
            return f"{name} + 0"
        if self.type in _TEMPORAL:
            return f"cast({name} as char)"  # what JSON_OBJECT writes, in half the time
        if not self.is_utf8:
            name = f"convert({name} using utf8mb4)"  # else MariaDB's JSON_OBJECT has the bytes of the column's character set
        return f"json_extract({name}, '$')" if self.is_json else name


def create(address: Address, table: str, function: str, name: str | None, options: Options) -> str:
    """Make a trigger for each event; return its name.

    Raises ConfigError for what cannot be, OutboxRefused without a privilege, OutboxError where the server does not take the SQL.
    """
    _check(options)
    try:
        encode_function(function)
    except InvalidJob as error:
        raise ConfigError(str(error)) from None
    if name is None:
        name = _default_name(table, function)
    if not 1 <= len(name) <= _NAME_BYTES or not name.isprintable():
        raise ConfigError(f"a trigger's name has 1 to {_NAME_BYTES} characters, {name!r} given")
    with connection(address, is_owner=True) as session:
        schema.check(session, address)
        columns = _columns(session, address, table)
        bodies = {event: _body(event, table, name, function, columns, options) for event in options.events}
        there = _there(session, address, table, name, options)
        with session.cursor() as cursor:
            for event, body in bodies.items():
                _try(cursor, event, table, body)
            for event, body in bodies.items():
                trigger, replace = _quoted(f"{name}_{event}"), ""
                if event in there and is_mariadb(session):
                    replace = "or replace "
                elif event in there:
                    cursor.execute(f"drop trigger {trigger}")
                cursor.execute(f"create {replace}trigger {trigger} after {event} on {_quoted(table)} for each row\n{body}")
    return name


def _default_name(table: str, function: str) -> str:
    """Return a name of both, for triggers of one database have one space of names; what is too long ends with a digest."""
    name = f"postgear_{re.sub('[^A-Za-z0-9_]', '_', f'{table}_{function}')}"
    if len(name) <= _NAME_BYTES:
        return name
    return f"{name[: _NAME_BYTES - 9]}_{hashlib.sha256(f'{table}.{function}'.encode()).hexdigest()[:8]}"


def _there(session: Any, address: Address, table: str, name: str, options: Options) -> list[str]:
    """Return the events that have the trigger *name* already. Raises OutboxError where it may not be replaced."""
    ours = {(trigger.table, f"{trigger.name}_{trigger.event}") for trigger in of_session(session)}
    names = {f"{name}_{event}": event for event in options.events}
    with session.cursor() as cursor:
        cursor.execute(
            "select trigger_name, event_object_table from information_schema.triggers where trigger_schema = database()"
            f" and trigger_name in ({', '.join(['%s'] * len(names))})",
            list(names),
        )
        found = [(_text(trigger), _text(where)) for trigger, where in cursor.fetchall()]
    found = [(trigger, where) for trigger, where in found if trigger in names]  # the comparison took no notice of case
    for trigger, where in found:
        if where != table or (where, trigger) not in ours:
            made = "" if (where, trigger) in ours else ", not made by postgear"
            raise OutboxError(f"{address}: there is a trigger {trigger} on table {where}{made}; --name chooses another name")
        if not options.replace:
            raise OutboxError(f"{address}: trigger {trigger} already exists; --replace replaces it")
    return [names[trigger] for trigger, _ in found]


def _try(cursor: Any, event: str, table: str, body: str) -> None:
    """Let the server look at a body, in a trigger that does nothing: nothing is dropped for one that it does not take."""
    trigger = _quoted(f"postgear_try_{uuid.uuid4().hex}")
    body = body.replace(_MARK, "", 1)
    cursor.execute(
        f"create trigger {trigger} after {event} on {_quoted(table)} for each row\nbegin if false then\n{body};\nend if; end"
    )
    cursor.execute(f"drop trigger {trigger}")


def drop(address: Address, table: str, name: str) -> None:
    """Drop the triggers *name* of a table; rows in the outbox stay. Raises OutboxError where there is none."""
    with connection(address, is_owner=True) as session:
        found = [trigger for trigger in of_session(session) if (trigger.table, trigger.name) == (table, name)]
        if not found:
            raise OutboxError(f"{address}: table {table} has no trigger {name} of ours")
        with session.cursor() as cursor:
            for trigger in found:
                cursor.execute(f"drop trigger {_quoted(f'{name}_{trigger.event}')}")


def installed(address: Address) -> list[Trigger]:
    """Return our triggers, sorted by table and name."""
    with connection(address, is_owner=True) as session:
        return of_session(session)


def of_session(session: Any) -> list[Trigger]:
    """Return our triggers in the session's database, sorted by table and name."""
    with session.cursor() as cursor:
        cursor.execute(
            "select event_object_table, lower(event_manipulation), action_statement from information_schema.triggers"
            " where trigger_schema = database() and action_statement like %s order by 1, trigger_name",
            (f"%/* {_MARK}%",),
        )
        found = []
        for table, event, statement in cursor.fetchall():
            marked = re.search(rf"/\* {_MARK}(.*?) \*/", _text(statement))
            if marked is not None:
                said = json.loads(marked[1])
                found.append(
                    Trigger(_text(table), said["name"], said["function"], _text(event), *map(said.get, Trigger._fields[4:]))
                )
        return found


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes | bytearray) else str(value)


def _check(options: Options) -> None:
    if not options.events or set(options.events) - set(EVENTS):
        raise ConfigError(f"--events: {','.join(options.events)} given, must be of {','.join(EVENTS)}")
    if (options.payload == "columns") != bool(options.payload_columns):
        raise ConfigError("--payload columns and --payload-columns need each other")
    if options.columns and "update" not in options.events:
        raise ConfigError("--columns is for updates")
    for event in options.events:
        wrong = {"insert": "old", "delete": "new"}.get(event)
        if wrong and options.when and re.search(rf"\b{wrong}\s*\.", options.when, re.IGNORECASE):
            raise ConfigError(f"--when: a trigger for {event} has no {wrong.upper()}; make one for each event")


def _columns(session: Any, address: Address, table: str) -> dict[str, _Column]:
    query = (
        "select column_name, data_type, character_set_name, column_key = 'PRI' from information_schema.columns"
        " where table_schema = database() and table_name = %s order by ordinal_position"
    )
    # MariaDB's json is longtext with a check of this form.
    checks = (
        "select lower(check_clause) from information_schema.check_constraints"
        " where constraint_schema = database() and table_name = %s and check_clause like 'json_valid%'"
    )
    with session.cursor() as cursor:
        cursor.execute(query, (table,))
        found = cursor.fetchall()
        if not found:
            raise OutboxError(f"{address} has no table {table}")
        valid = set()
        if is_mariadb(session):
            cursor.execute(checks, (table,))
            valid = {_text(clause) for (clause,) in cursor.fetchall()}
    columns = {}
    for name, kind, charset, is_primary in found:
        name, kind = _text(name), _text(kind).lower()
        is_json = f"json_valid({_quoted(name).lower()})" in valid
        is_utf8 = charset is None or _text(charset).startswith("utf8")
        columns[name] = _Column(name, kind, is_utf8, is_json, bool(is_primary))
    return columns


def _body(event: str, table: str, name: str, function: str, columns: dict[str, _Column], options: Options) -> str:
    row = "old" if event == "delete" else "new"
    key = None if options.key is None else _named(options.key, columns)
    values = [
        _literal(function),
        _payload(event, row, table, columns, options),
        str(PRIORITIES[options.priority]),
        f"unix_timestamp() + {options.delay_seconds}" if options.delay_seconds else "null",
        # With the trigger's name, so that two for one function do not meet; as a digest, for a key may be longer than the column.
        "null"
        if key is None
        else f"sha2(json_array({', '.join([_literal(name), *(column.value(row) for column in key)])}), 256)",
        "0" if key is None else "1",
    ]
    into = "(`function`, workload, priority, run_at, unique_key, until_claimed)"
    insert = f"insert into postgear_outbox {into}\n    values ({', '.join(values)});"
    conditions = [f"({options.when})"] if options.when else []
    if options.columns and event == "update":
        same = " and ".join(f"new.{_quoted(each.name)} <=> old.{_quoted(each.name)}" for each in _named(options.columns, columns))
        conditions.append(f"not ({same})")
    said = {
        "name": name,
        "function": function,
        "payload": options.payload,
        "priority": options.priority,
        "key": "" if key is None else ",".join(column.name for column in key),
        "when": options.when or "",
    }
    mark = json.dumps(said).replace("*/", "*\\/")
    body = f"if {' and '.join(conditions)} then\n    {insert}\nend if;" if conditions else insert
    return f"begin\n/* {_MARK}{mark} */\n{body}\nend"


def _payload(event: str, row: str, table: str, columns: dict[str, _Column], options: Options) -> str:
    def whole(of: str, some: Sequence[_Column]) -> str:
        return f"json_object({', '.join(f'{_literal(column.name)}, {column.value(of)}' for column in some)})"

    if options.payload == "row":
        return whole(row, list(columns.values()))
    if options.payload == "columns":
        return whole(row, _named(options.payload_columns, columns))
    if options.payload == "key":
        return whole(row, _named(options.key or (), columns))
    both = [("old", event != "insert"), ("new", event != "delete")]
    rows = ", ".join(f"'{of}', {whole(of, list(columns.values())) if is_there else 'null'}" for of, is_there in both)
    return f"json_object('op', '{event}', 'table', {_literal(table)}, {rows})"


def _named(names: Sequence[str], columns: dict[str, _Column]) -> list[_Column]:
    """Return these columns; without names those of the primary key."""
    if not names:
        primary = [column for column in columns.values() if column.is_primary]
        if not primary:
            raise ConfigError("the table has no primary key: name columns")
        return primary
    if missing := [name for name in names if name not in columns]:
        raise ConfigError(f"the table has no column {', '.join(missing)}")
    return [columns[name] for name in names]


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def _literal(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"
