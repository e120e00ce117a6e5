"""``postgear import-gearmand``: bring jobs from gearmand's own queue tables (SQLite, MySQL, PostgreSQL) into the queue.

All three layouts have the columns unique_key, function_name, priority, data and when_to_run (gearmand 1.1.20). Priorities
are 0 high, 1 normal, 2 low, when_to_run is Unix time, 0 for at once. Rows have no order of their own: SQLite and PostgreSQL keep
them as they came, MySQL by its key.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

import psycopg
from psycopg import sql

from postgear import schema
from postgear.connecting import failed_connection
from postgear.errors import ConfigError, InvalidJob, OutboxError, QueueFull, StoreError
from postgear.newjob import PRIORITIES, encode_function, encode_unique

_BATCH_ROWS: Final = 1000
_NAMES: Final = {number: word for word, number in PRIORITIES.items()}
_COLUMNS: Final = ("unique_key", "function_name", "priority", "data", "when_to_run")


class QueuedRow(NamedTuple):
    """A row of gearmand's table."""

    unique: bytes
    function: bytes
    priority: int
    data: bytes
    when_to_run: int

    def digest(self) -> bytes:
        """Return what tells this row from any other."""
        found = hashlib.sha256()
        for part in (self.unique, self.function, b"%d" % self.priority, b"%d" % self.when_to_run, self.data):
            found.update(b"%d:" % len(part) + part)
        return found.digest()


class Source(NamedTuple):
    """A table of gearmand. *opened* gives its rows, and what deletes some of them and commits."""

    name: str
    opened: Callable[[], Any]


class Counted(NamedTuple):
    """How many jobs a function has in the table. *scheduled*: those of them with a time."""

    function: str
    priority: str
    jobs: int
    scheduled: int


class Done(NamedTuple):
    """What was done. *known*: rows imported by an earlier run. *wrong*: rows that can be no job, left where they are.

    *kept*: known rows that are not deleted, for the earlier run deleted none: they may be the same jobs, queued anew since.
    """

    imported: int
    known: int
    deleted: int
    kept: int
    wrong: list[str]


Delete = Callable[[Sequence[QueuedRow]], None]
Opened = tuple[Iterator[QueuedRow], Delete]


def source(url: str, table: str | None) -> Source:
    """Take ``sqlite:FILE``, ``mysql://…`` or ``postgresql://…``. Raises ConfigError."""
    kind, _, rest = url.partition(":")
    if kind == "sqlite":
        path = Path(unquote(rest.removeprefix("//")))
        if not path.is_file():
            raise ConfigError(f"there is no file {path}")
        return Source(str(path), lambda: _sqlite(path, table or "gearman_queue"))
    if kind in ("mysql", "mariadb"):
        return Source("MySQL", lambda: _mysql(url, table or "gearman_queue"))
    if kind in ("postgresql", "postgres"):
        return Source("PostgreSQL", lambda: _postgres(url, table or "queue"))
    raise ConfigError(f"{kind!r} given, a source is sqlite:FILE, mysql://… or postgresql://…")


def count(wanted: Source) -> list[Counted]:
    """Count the jobs of a table. Raises OutboxError, StoreError."""
    jobs: Counter[tuple[str, int]] = Counter()
    scheduled: Counter[tuple[str, int]] = Counter()
    with wanted.opened() as (rows, _):
        for row in rows:
            kind = (row.function.decode("utf-8", "backslashreplace"), row.priority)
            jobs[kind] += 1
            scheduled[kind] += row.when_to_run > 0
    return [
        Counted(function, _NAMES.get(priority, str(priority)), jobs[function, priority], scheduled[function, priority])
        for function, priority in sorted(jobs)
    ]


def run(wanted: Source, dsn: str, *, deletes: bool) -> Done:
    """Import all rows, in transactions of 1000; with *deletes* they are deleted there after the commit.

    Stopped in between, it may be run again: what is imported is recorded with it, until the row is deleted.
    Raises QueueFull, OutboxError, StoreError, SchemaError.
    """
    schema.check(schema.current(dsn))
    imported = known = deleted = kept = 0
    wrong: list[str] = []
    with wanted.opened() as (rows, delete), _queue(dsn) as queue:
        for batch in _batches(rows):
            jobs = [row for row in batch if _is_job(row, wrong)]
            if not jobs:
                continue
            digests = [row.digest() for row in jobs]
            added, staying = _store(queue, jobs, digests, deletes=deletes)
            imported += added
            known += len(jobs) - added
            if deletes:
                going = [(digest, job) for digest, job in zip(digests, jobs, strict=True) if digest not in staying]
                delete([job for _, job in going])
                deleted += len(going)
                kept += len(jobs) - len(going)
                queue.execute("delete from postgear.imported where digest = any (%b)", ([digest for digest, _ in going],))
    return Done(imported, known, deleted, kept, wrong)


def _batches(rows: Iterator[QueuedRow]) -> Iterator[list[QueuedRow]]:
    batch: list[QueuedRow] = []
    for row in rows:
        batch.append(row)
        if len(batch) == _BATCH_ROWS:
            yield batch
            batch = []
    if batch:
        yield batch


def _is_job(row: QueuedRow, wrong: list[str]) -> bool:
    try:
        encode_function(row.function)
        encode_unique(row.unique)
        if row.priority not in _NAMES:
            raise InvalidJob(f"a priority is 0 (high), 1 (normal) or 2 (low), {row.priority} given")
    except InvalidJob as error:
        wrong.append(f"function {row.function!r}, unique {row.unique!r}: {error}")
        return False
    return True


def _store(
    queue: psycopg.Connection[tuple[Any, ...]], jobs: Sequence[QueuedRow], digests: list[bytes], *, deletes: bool
) -> tuple[int, set[bytes]]:
    """Queue what is not known; return the number of jobs queued, and the digests of rows that must not be deleted."""
    try:
        row = queue.execute(
            "select added, kept from postgear.import_jobs(%b, %b, %b, %b, %b::smallint[], %b::bigint[], %b)",
            (
                digests,
                [job.function for job in jobs],
                [job.data for job in jobs],
                [job.unique for job in jobs],
                [job.priority for job in jobs],
                [job.when_to_run or None for job in jobs],
                deletes,
            ),
        ).fetchone()
    except psycopg.errors.ConfigurationLimitExceeded as error:
        functions = {job.function for job in jobs}
        raise QueueFull(b", ".join(sorted(functions)).decode("utf-8", "backslashreplace")) from error
    assert row is not None
    return int(row[0]), set(row[1] or ())


@contextmanager
def _queue(dsn: str) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    try:
        with psycopg.connect(dsn, autocommit=True, client_encoding="utf8") as connection:
            connection.execute(
                "select set_config('synchronous_commit', 'on', false) where current_setting('synchronous_commit') = 'off'"
            )
            yield connection
    except psycopg.OperationalError as error:
        raise failed_connection(error) from error
    except psycopg.Error as error:
        raise StoreError(str(error).strip()) from error


@contextmanager
def _sqlite(path: Path, table: str) -> Iterator[Opened]:
    import sqlite3

    name = '"' + table.replace('"', '""') + '"'
    try:
        connection = sqlite3.connect(path.resolve().as_uri() + "?mode=rw", uri=True)
        try:
            connection.text_factory = bytes
            # All ids first, for rows are deleted while others are read.
            found = [row[0] for row in connection.execute(f"select rowid from {name} order by rowid")]

            def rows() -> Iterator[QueuedRow]:
                for rowid in found:
                    (row,) = connection.execute(f"select {', '.join(_COLUMNS)} from {name} where rowid = ?", (rowid,))
                    yield _row(row)

            def delete(some: Sequence[QueuedRow]) -> None:
                with connection:
                    connection.executemany(
                        f"delete from {name} where cast(unique_key as blob) = ? and cast(function_name as blob) = ?",
                        [(row.unique, row.function) for row in some],
                    )

            yield rows(), delete
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise OutboxError(f"{path}: {error}") from error


@contextmanager
def _mysql(url: str, table: str) -> Iterator[Opened]:
    from postgear.outbox.connecting import connection, parse

    address = parse(url)
    name = "`" + table.replace("`", "``") + "`"
    with connection(address) as reading, connection(address) as deleting:
        with reading.cursor() as cursor:
            cursor.execute(f"show full columns from {name} where field = 'unique_key'")
            found = cursor.fetchone()
        # gearmand's bytes, as they are: its table may be in latin1 whatever they are in.
        charset = "binary" if found is None or not found[2] else str(found[2]).partition("_")[0]

        def rows() -> Iterator[QueuedRow]:
            cursor = reading.cursor(raw=True)  # unbuffered: a table may be larger than memory
            columns = "cast(unique_key as binary), cast(function_name as binary), priority, data, when_to_run"
            cursor.execute(f"select {columns} from {name} order by priority, when_to_run")
            while chunk := cursor.fetchmany(100):
                yield from map(_row, chunk)
            cursor.close()

        def delete(some: Sequence[QueuedRow]) -> None:
            deleting.start_transaction()
            with deleting.cursor() as cursor:
                for row in some:
                    cursor.execute(
                        f"delete from {name} where unique_key = convert(x'{row.unique.hex()}' using {charset})"
                        f" and function_name = convert(x'{row.function.hex()}' using {charset})"
                    )
            deleting.commit()

        yield rows(), delete


@contextmanager
def _postgres(url: str, table: str) -> Iterator[Opened]:
    name = sql.Identifier(*table.split("."))
    columns = sql.SQL(", ").join(map(sql.Identifier, _COLUMNS))
    with _queue(url) as connection, _queue(url) as deleting, connection.transaction():

        def rows() -> Iterator[QueuedRow]:
            with connection.cursor("gearmand_rows") as cursor:
                cursor.execute(sql.SQL("select {} from {} order by ctid").format(columns, name))
                yield from map(_row, cursor)

        def delete(some: Sequence[QueuedRow]) -> None:
            keys = [row.unique.decode("utf-8", "surrogateescape") for row in some]
            functions = [row.function.decode("utf-8", "surrogateescape") for row in some]
            deleting.execute(
                sql.SQL(
                    "delete from {} using unnest(%s::text[], %s::text[]) as done (unique_key, function_name)"
                    " where {}.unique_key = done.unique_key and {}.function_name = done.function_name"
                ).format(name, name, name),
                (keys, functions),
            )

        yield rows(), delete


def _row(values: Sequence[Any]) -> QueuedRow:
    unique, function, priority, data, when_to_run = values
    # gearmand's column in MySQL has 32 bits: a time after 2038 is negative there.
    return QueuedRow(_bytes(unique), _bytes(function), int(priority), _bytes(data), int(when_to_run or 0) % 2**32)


def _bytes(value: Any) -> bytes:
    if value is None:
        return b""
    return value.encode() if isinstance(value, str) else bytes(value)
