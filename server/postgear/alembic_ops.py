"""Alembic operations for the triggers of an application's tables: ``op.create_gman_trigger``, ``op.drop_gman_trigger``.

``import postgear.alembic_ops`` in the application's ``env.py`` adds them to ``alembic.op``, in online and offline mode, and
teaches autogenerate's renderer to write them. This is not how postgear migrates its own schema: ``postgear init`` is.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Literal

from alembic.autogenerate import renderers
from alembic.operations import MigrateOperation, Operations
from sqlalchemy import text

if TYPE_CHECKING:
    from alembic.autogenerate.api import AutogenContext

Events = Sequence[Literal["insert", "update", "delete", "truncate"]]

_LISTS: Final = {"events", "columns", "payload_columns", "key"}
_DEFAULTS: Final[dict[str, Any]] = {
    "events": ["insert"],
    "level": "statement",
    "when": None,
    "columns": None,
    "payload": "row",
    "payload_columns": None,
    "priority": "normal",
    "delay": None,
    "key": None,
    "enable": "origin",
}
"""The parameters of postgear.create_trigger after table, function and name, with its defaults."""


@Operations.register_operation("create_gman_trigger")
class CreateGmanTriggerOp(MigrateOperation):
    """Make a trigger that queues jobs; *definition* holds the parameters of _DEFAULTS that differ from them."""

    def __init__(self, table_name: str, function: str, name: str, *, schema: str | None = None, **definition: Any) -> None:
        self.table_name = table_name
        self.function = function
        self.name = name
        self.schema = schema
        self.definition = _plain(definition)

    @classmethod
    def create_gman_trigger(
        cls,
        operations: Operations,
        table_name: str,
        function: str,
        name: str,
        *,
        schema: str | None = None,
        events: Events = ("insert",),
        level: Literal["statement", "row"] = "statement",
        when: str | None = None,
        columns: Sequence[str] | None = None,
        payload: Literal["row", "change", "key", "columns"] = "row",
        payload_columns: Sequence[str] | None = None,
        priority: Literal["high", "normal", "low"] = "normal",
        delay: timedelta | str | None = None,
        key: Sequence[str] | None = None,
        enable: Literal["origin", "replica", "always"] = "origin",
    ) -> None:
        """Make a trigger on a table that queues jobs of a function: ``postgear.create_trigger`` in a migration.

        table_name, schema: of a table that exists at this point of the migration. name: of the trigger, to drop it by.
        delay: a timedelta or what PostgreSQL reads as an interval. The others as in the SQL function.
        """
        operations.invoke(
            cls(
                table_name,
                function,
                name,
                schema=schema,
                events=events,
                level=level,
                when=when,
                columns=columns,
                payload=payload,
                payload_columns=payload_columns,
                priority=priority,
                delay=delay,
                key=key,
                enable=enable,
            )
        )

    def reverse(self) -> DropGmanTriggerOp:
        """Return the operation that drops the trigger, itself reversible."""
        return DropGmanTriggerOp(self.table_name, self.name, schema=self.schema, function=self.function, **self.definition)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Return what `alembic check` and compare_metadata() tell."""
        return ("create_gman_trigger", self.schema, self.table_name, self.name, self.function, self.definition)


@Operations.register_operation("drop_gman_trigger")
class DropGmanTriggerOp(MigrateOperation):
    """Drop a trigger; with the *function* and the *definition* it had it can be reversed."""

    def __init__(
        self, table_name: str, name: str, *, schema: str | None = None, function: str | None = None, **definition: Any
    ) -> None:
        self.table_name = table_name
        self.name = name
        self.schema = schema
        self.function = function
        self.definition = _plain(definition)

    @classmethod
    def drop_gman_trigger(cls, operations: Operations, table_name: str, name: str, *, schema: str | None = None) -> None:
        """Drop a trigger that ``create_gman_trigger`` made: ``postgear.drop_trigger`` in a migration. Its jobs stay.

        To be called before the table is dropped.
        """
        operations.invoke(cls(table_name, name, schema=schema))

    def reverse(self) -> CreateGmanTriggerOp:
        """Return the operation that makes the trigger again. Raises ValueError when its function is not known."""
        if self.function is None:
            raise ValueError(f"drop_gman_trigger({self.table_name!r}, {self.name!r}) cannot be reversed: it has no function")
        return CreateGmanTriggerOp(self.table_name, self.function, self.name, schema=self.schema, **self.definition)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Return what `alembic check` and compare_metadata() tell."""
        return ("drop_gman_trigger", self.schema, self.table_name, self.name)


@Operations.implementation_for(CreateGmanTriggerOp)
def _create(operations: Operations, operation: CreateGmanTriggerOp) -> None:
    arguments = [
        f'"table" => {_literal(_relation(operations, operation))}',
        f"function => {_literal(operation.function)}",
        f"name => {_literal(operation.name)}",
        *(f'"{name}" => {_literal(value)}' for name, value in operation.definition.items()),
    ]
    _execute(operations, f"select postgear.create_trigger({', '.join(arguments)})")


@Operations.implementation_for(DropGmanTriggerOp)
def _drop(operations: Operations, operation: DropGmanTriggerOp) -> None:
    relation = _literal(_relation(operations, operation))
    _execute(operations, f'select postgear.drop_trigger("table" => {relation}, name => {_literal(operation.name)})')


@renderers.dispatch_for(CreateGmanTriggerOp)
def _render_create(context: AutogenContext, operation: CreateGmanTriggerOp) -> str:
    names = [operation.table_name, operation.function, operation.name]
    return _render(context, "create_gman_trigger", names, operation.schema, operation.definition)


@renderers.dispatch_for(DropGmanTriggerOp)
def _render_drop(context: AutogenContext, operation: DropGmanTriggerOp) -> str:
    return _render(context, "drop_gman_trigger", [operation.table_name, operation.name], operation.schema, {})


def _render(context: AutogenContext, name: str, names: list[str], schema: str | None, definition: dict[str, Any]) -> str:
    arguments = [repr(argument) for argument in names]
    keywords = ({"schema": schema} if schema else {}) | definition
    arguments += [f"{key}={value!r}" for key, value in keywords.items()]
    return f"{context.opts['alembic_module_prefix']}{name}({', '.join(arguments)})"


def _plain(definition: dict[str, Any]) -> dict[str, Any]:
    """Return what differs from the defaults, as str and list alone, so that it can be rendered in Python and in SQL."""
    plain = {}
    for name, default in _DEFAULTS.items():
        value = definition.pop(name, default)
        if name in _LISTS and isinstance(value, str):
            raise TypeError(f"{name} is a list of names, {value!r} given")
        if isinstance(value, timedelta):
            value = f"{value // timedelta(microseconds=1)} microseconds"
        elif value is not None and not isinstance(value, str):
            value = list(value)
        if value != default:
            plain[name] = value
    if definition:
        raise TypeError(f"a trigger has no {', '.join(sorted(definition))}")
    return plain


def _relation(operations: Operations, operation: CreateGmanTriggerOp | DropGmanTriggerOp) -> str:
    quote = operations.impl.dialect.identifier_preparer.quote_identifier
    return ".".join(quote(name) for name in (operation.schema, operation.table_name) if name is not None)


def _literal(value: str | list[str]) -> str:
    """Return SQL for a text or an array of texts, as quote_literal() writes it: also offline there are no parameters."""
    if isinstance(value, list):
        return f"array[{', '.join(_literal(element) for element in value)}]::text[]"
    quoted = value.replace("'", "''")
    return "E'" + quoted.replace("\\", "\\\\") + "'" if "\\" in quoted else f"'{quoted}'"


def _execute(operations: Operations, statement: str) -> None:
    # text() takes :name for a parameter; a backslash before the colon is its way to say that it is none.
    operations.execute(text(statement.replace(":", "\\:")))
