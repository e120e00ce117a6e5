"""Values of a result in PostgreSQL's binary format, by row and column; integers of any width."""

from __future__ import annotations

from struct import unpack

from psycopg import pq


def data(result: pq.abc.PGresult, row: int, column: int) -> bytes:
    """Return text or bytea; empty for null."""
    return result.get_value(row, column) or b""


def boolean(result: pq.abc.PGresult, row: int, column: int) -> bool:
    """Return a boolean; False for null."""
    return result.get_value(row, column) == b"\x01"


def integer_or_none(result: pq.abc.PGresult, row: int, column: int) -> int | None:
    """Return an integer; None for null."""
    value = result.get_value(row, column)
    return None if value is None else int.from_bytes(value, "big", signed=True)


def integer(result: pq.abc.PGresult, row: int, column: int) -> int:
    """Return an integer; 0 for null."""
    return integer_or_none(result, row, column) or 0


def float_or_none(result: pq.abc.PGresult, row: int, column: int) -> float | None:
    """Return a double precision; None for null."""
    value = result.get_value(row, column)
    return None if value is None else float(unpack(">d", value)[0])
