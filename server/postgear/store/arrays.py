"""PostgreSQL's binary array format, for batches of thousands of values.

psycopg's own dumpers take about ten times as long, for they ask the type of each element. Source: PG docs have no page for
it; src/backend/utils/adt/arrayfuncs.c, array_recv and array_send.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct, pack, unpack_from
from typing import Final

_HEADER: Final = Struct(">iiIii")  # dimensions, has nulls, element type, length, lower bound
_NULL: Final = b"\xff\xff\xff\xff"
_LENGTHS: Final = [pack(">i", length) for length in range(1024)]
BOOL_OID, BYTEA_OID, INT8_OID, INT2_OID, INT4_OID, FLOAT8_OID = 16, 17, 20, 21, 23, 701


def bytea_array(values: Sequence[bytes], *, empty_is_null: bool = False) -> bytes:
    """Write bytea[]; with *empty_is_null* empty values become nulls."""
    lengths = _LENGTHS
    parts = [_HEADER.pack(1, 1, BYTEA_OID, len(values), 1)]
    append = parts.append
    for value in values:
        size = len(value)
        if size:
            append(lengths[size] if size < 1024 else pack(">i", size))
            append(value)
        else:
            append(_NULL if empty_is_null else lengths[0])
    return b"".join(parts)


def sparse_bytea_array(values: dict[int, bytes], length: int) -> bytes:
    """Write bytea[] of *length*, null but at the positions of *values*."""
    parts = [_HEADER.pack(1, 1, BYTEA_OID, length, 1)]
    for position in range(length):
        value = values.get(position)
        parts.append(_NULL if value is None else pack(">i", len(value)) + value)
    return b"".join(parts)


def sparse_int8_array(values: dict[int, int], length: int) -> bytes:
    """Write bigint[] of *length*, null but at the positions of *values*."""
    parts = [_HEADER.pack(1, 1, INT8_OID, length, 1)]
    for position in range(length):
        value = values.get(position)
        parts.append(_NULL if value is None else pack(">iq", 8, value))
    return b"".join(parts)


def _interleave(code: str, size: int, oid: int, values: Sequence[float]) -> bytes:
    pairs: list[float] = [size] * (2 * len(values))
    pairs[1::2] = values
    return _HEADER.pack(1, 0, oid, len(values), 1) + pack(">" + ("i" + code) * len(values), *pairs)


def int8_array(values: Sequence[int]) -> bytes:
    """Write bigint[]."""
    return _interleave("q", 8, INT8_OID, values)


def int4_array(values: Sequence[int]) -> bytes:
    """Write integer[]."""
    return _interleave("i", 4, INT4_OID, values)


def int2_array(values: Sequence[int]) -> bytes:
    """Write smallint[]."""
    return _interleave("h", 2, INT2_OID, values)


def float8_array(values: Sequence[float]) -> bytes:
    """Write float8[]."""
    return _interleave("d", 8, FLOAT8_OID, values)


def bool_array(values: Sequence[bool]) -> bytes:
    """Write boolean[]."""
    return _interleave("?", 1, BOOL_OID, values)


def read_int8_array(data: bytes | None) -> list[int]:
    """Read bigint[] without nulls; null and empty give an empty list."""
    if data is None or len(data) < _HEADER.size:
        return []
    count: int = unpack_from(">i", data, 12)[0]
    return list(unpack_from(">" + "iq" * count, data, _HEADER.size)[1::2])
