"""The rows of an outbox: read in order, checked, deleted, set aside. The only code with SQL for them.

Rows become visible when their transaction commits, so a later id may be there before an earlier one: rows are therefore read by
their being there, never by "after the last id". A row that can be no job is set aside with its error in one transaction.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from datetime import timedelta
from functools import lru_cache
from typing import Any, Final, NamedTuple

from postgear.errors import InvalidJob
from postgear.job import coalescing_key
from postgear.newjob import encode_function, encode_unique

BATCH_BYTES: Final = 16_000_000
"""What a batch holds before it is cut short; a row more than that is a batch of its own."""
WORKLOAD_BYTES: Final = 500_000_000
"""PostgreSQL takes no message of more than 1 GB, and ends the connection at one; half of it leaves room for all else."""
_CHUNK_ROWS, _CHUNK_BYTES = 500, 1_000_000
_LAST_SECOND: Final = 253_402_300_799
_COUNT_LIMIT: Final = 100_000
_COLUMNS: Final = "`function`, unique_key, priority, run_at, until_claimed, workload, created_at"
_MICROSECONDS: Final = "cast(unix_timestamp(created_at) * 1000000 as signed)"
_SELECT: Final = (
    f"select id, {_MICROSECONDS}, `function`, unique_key, priority, run_at, until_claimed, workload from postgear_outbox"
)


class Row(NamedTuple):
    """A row as a job to be. *time*: created_at in microseconds. *key*: the coalescing key, empty for none. *run_at*: or None."""

    id: int
    time: int
    function: bytes
    key: bytes
    priority: int
    run_at: int | None
    until_claimed: bool
    workload: bytes


class Batch(NamedTuple):
    """Rows in the order of their ids; and those that can be no job, by id, each with what is wrong with it."""

    rows: list[Row]
    wrong: dict[int, str]
    is_cut: bool
    """There were more bytes than fit: the connection is spent and must be opened anew."""


def read(session: Any, limit: int, without: Collection[bytes] = ()) -> Batch:
    """Read the *limit* oldest rows that are committed, but those of the functions *without*."""
    query = _SELECT
    if without:
        query += f" where `function` not in ({', '.join(['%s'] * len(without))})"
    names = [name.decode("utf-8", "surrogateescape") for name in without]
    batch = Batch([], {}, False)
    size = 0
    cursor = session.cursor(raw=True)
    cursor.execute(f"{query} order by id limit {limit}", names)
    count = 1
    while chunk := cursor.fetchmany(count):
        for values in chunk:
            _take(batch, values)
        chunk_size = sum(len(values[-1]) for values in chunk)
        size += chunk_size
        # More at a time while rows are small: one call for each costs as much as the row, and the size of the next is not known.
        count = max(1, min(2 * count, _CHUNK_ROWS, _CHUNK_BYTES * len(chunk) // max(1, chunk_size)))
        if size > BATCH_BYTES and len(batch.rows) + len(batch.wrong) < limit:
            # Not closed: that would read the rest, which may be any size.
            return batch._replace(is_cut=True)
    cursor.close()
    return batch


def _take(batch: Batch, values: Sequence[Any]) -> None:
    number, time, function, unique, priority, run_at, until_claimed, workload = values
    row_id = int(number)
    try:
        if len(workload) > WORKLOAD_BYTES:
            raise InvalidJob(f"a workload has at most {WORKLOAD_BYTES} bytes, {len(workload)} given")
        row = Row(
            row_id,
            int(time),
            _function(bytes(function)),
            b"",
            _priority(int(priority)),
            None if run_at is None else _second(int(run_at)),
            until_claimed != b"0",
            bytes(workload),
        )
        if unique:
            row = row._replace(key=_key(bytes(unique), row))
        elif row.until_claimed:
            row = row._replace(until_claimed=False)
    except InvalidJob as error:
        batch.wrong[row_id] = str(error)
    else:
        batch.rows.append(row)


@lru_cache(10_000)
def _function(name: bytes) -> bytes:
    return encode_function(name)


def _key(unique: bytes, row: Row) -> bytes:
    if row.until_claimed:
        if b"\0" in unique:
            raise InvalidJob(f"a key has no NUL, {unique!r} given")
        return unique
    return coalescing_key(encode_unique(unique), row.workload)


def _priority(number: int) -> int:
    if not 0 <= number <= 2:
        raise InvalidJob(f"a priority is 0 (high), 1 (normal) or 2 (low), {number} given")
    return number


def _second(run_at: int) -> int:
    if not 0 <= run_at <= _LAST_SECOND:
        raise InvalidJob(f"run_at is a Unix time in seconds, {run_at} given")
    return run_at


def delete(session: Any, ids: list[int]) -> None:
    """Delete these rows; returns after commit. Rows that are gone already do not matter."""
    if ids:
        # A lookup by the key for each id. `where id in (...)` reads the whole table once the ids are a good part of it, and waits
        # then for the row of every transaction that has not ended; a range takes rows that commit between two that were moved.
        with session.cursor() as cursor:
            cursor.execute(
                "delete moved from json_table(%s, '$[*]' columns (id bigint path '$')) as given"
                " straight_join postgear_outbox as moved on moved.id = given.id",
                (json.dumps(ids),),
            )


def present(session: Any, rows: Iterable[tuple[int, int]]) -> list[int]:
    """Return the ids of those rows, given by id and time, that are there."""
    wanted = set(rows)
    if not wanted:
        return []
    with session.cursor(raw=True) as cursor:
        ids = ",".join(str(row_id) for row_id, _ in wanted)
        cursor.execute(f"select id, {_MICROSECONDS} from postgear_outbox where id in ({ids}) order by id")
        found = [(int(row_id), int(time)) for row_id, time in cursor.fetchall()]
    return [row_id for row_id, time in found if (row_id, time) in wanted]


def set_aside(session: Any, wrong: dict[int, str]) -> None:
    """Move rows to postgear_outbox_failed, each with its error; all or none, returns after commit."""
    if not wrong:
        return
    session.start_transaction()
    try:
        with session.cursor() as cursor:
            for row_id, error in wrong.items():
                cursor.execute(
                    f"insert into postgear_outbox_failed (id, {_COLUMNS}, error)"
                    f" select id, {_COLUMNS}, %s from postgear_outbox where id = %s",
                    (error[:2000], row_id),
                )
                cursor.execute("delete from postgear_outbox where id = %s", (row_id,))
        session.commit()
    except BaseException:
        if session.is_connected():
            session.rollback()
        raise


def put_back(session: Any, ids: Sequence[int] | None) -> int:
    """Move rows that were set aside to the end of the outbox, None: all; return their number. Returns after commit."""
    where = "" if ids is None else f" where id in ({','.join(map(str, ids)) or 'null'})"
    session.start_transaction()
    with session.cursor() as cursor:
        cursor.execute(f"select number from postgear_outbox_failed{where} order by number for update")
        found = ",".join(str(row[0]) for row in cursor.fetchall())
        if found:
            cursor.execute(
                f"insert into postgear_outbox ({_COLUMNS}) select {_COLUMNS} from postgear_outbox_failed"
                f" where number in ({found}) order by id, number"
            )
            cursor.execute(f"delete from postgear_outbox_failed where number in ({found})")
    session.commit()
    return found.count(",") + 1 if found else 0


class Waiting(NamedTuple):
    """What waits in an outbox. *rows*: counted up to 100,000. *oldest*: how old the oldest is, None: there is none."""

    rows: int
    oldest: timedelta | None
    failed: int


def waiting(session: Any) -> Waiting:
    """Count what waits in the outbox."""
    with session.cursor() as cursor:
        cursor.execute(
            f"select (select count(*) from (select id from postgear_outbox limit {_COUNT_LIMIT}) as counted),"
            " (select timestampdiff(microsecond, created_at, now(6)) from postgear_outbox order by id limit 1),"
            f" (select count(*) from (select id from postgear_outbox_failed limit {_COUNT_LIMIT}) as failed)"
        )
        rows, microseconds, failed = cursor.fetchone()
    oldest = None if microseconds is None else timedelta(microseconds=max(0, int(microseconds)))
    return Waiting(int(rows), oldest, int(failed))
