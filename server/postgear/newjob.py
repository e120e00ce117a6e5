"""A job to queue, as people write it and as it travels: the rules for names, payloads, priorities and times, once.

Used by ``enqueue`` and by the clients. Payloads: bytes as they are, str as UTF-8, None as nothing, all else as JSON.
"""

from __future__ import annotations

import json
import math
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self, TypeVar, overload

from postgear.errors import InvalidJob
from postgear.functions import Function

PRIORITIES: Final = {"high": 0, "normal": 1, "low": 2}
_FUNCTION_BYTES: Final = 512
_UNIQUE_BYTES: Final = 64
_LAST_SECOND: Final = 253_402_300_799  # of the year 9999; above it somebody gave milliseconds


P = TypeVar("P")


class _Fields(NamedTuple):
    function: str | bytes | Function[Any, Any]
    payload: Any = None
    unique: str | bytes | None = None
    priority: str = "normal"
    run_at: datetime | float | None = None


class NewJob(_Fields):
    """A job for ``enqueue_many`` or ``submit_many``; a plain tuple in this order will do.

    function: 1 to 512 bytes, str as UTF-8, or a Function, whose payload type checkers then know. unique: at most 64 bytes; while
    a job of the same function and unique is queued or running, no other is added; ``-`` stands for the payload. priority: high,
    normal or low. run_at: not before this time, an aware datetime or Unix time; a fraction of a second is rounded up.
    """

    __slots__ = ()

    if TYPE_CHECKING:
        # Of the constructor alone: with the payload's type as the class's own, a list of jobs would make it Any, or one for all.
        @overload
        def __new__(
            cls,
            function: Function[P, Any],
            payload: P,
            unique: str | bytes | None = None,
            priority: str = "normal",
            run_at: datetime | float | None = None,
        ) -> Self: ...
        @overload
        def __new__(
            cls,
            function: str | bytes,
            payload: object = None,
            unique: str | bytes | None = None,
            priority: str = "normal",
            run_at: datetime | float | None = None,
        ) -> Self: ...
        def __new__(cls, *args: Any, **kwargs: Any) -> Self: ...


AnyJob = NewJob | tuple[str | bytes, *tuple[Any, ...]]
TypedJob = tuple[Function[P, Any], P, *tuple[Any, ...]]
"""A plain tuple with a Function. In types there is no list of several Functions, each with its own payload: it takes NewJob."""


class EncodedJob(NamedTuple):
    """A job as it travels. unique: empty for none. priority: 0 high, 1 normal, 2 low. run_at: Unix time, None for at once."""

    function: bytes
    workload: bytes
    unique: bytes
    priority: int
    run_at: int | None


def encode_job(job: tuple[Any, ...]) -> EncodedJob:
    """Return the job as it travels. Raises InvalidJob for one that cannot be."""
    if not isinstance(job, tuple) or not 1 <= len(job) <= len(_Fields._fields):
        raise InvalidJob(f"a job is a NewJob or a tuple like it, {type(job).__name__} given")
    function, payload, unique, priority, run_at = _Fields(*job)
    if not isinstance(priority, str) or priority not in PRIORITIES:
        raise InvalidJob(f"a priority is high, normal or low, {priority!r} given")
    return EncodedJob(
        encode_function(function),
        encode_payload(payload),
        b"" if unique is None else encode_unique(unique),
        PRIORITIES[priority],
        None if run_at is None else _epoch(run_at),
    )


def encode_function(function: str | bytes | Function[Any, Any]) -> bytes:
    """Return a function's name as it travels. Raises InvalidJob."""
    return _name("a function", function.name if isinstance(function, Function) else function, 1, _FUNCTION_BYTES)


def encode_unique(unique: str | bytes) -> bytes:
    """Return a unique as it travels. Raises InvalidJob."""
    return _name("a unique", unique, 0, _UNIQUE_BYTES)


def encode_payload(payload: object) -> bytes:
    """Return a payload, or a result, as it travels. Raises InvalidJob for what is neither bytes nor str nor JSON.

    Dataclasses, msgspec structs, pydantic models, dates, UUIDs and decimals become what msgspec or pydantic make of them.
    """
    if payload is None:
        return b""
    if isinstance(payload, bytes | bytearray | memoryview):
        return bytes(payload)
    if not isinstance(payload, str):
        try:
            # NaN and Infinity are no JSON: a worker in another language could not read them.
            payload = json.dumps(payload, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_to_builtins)
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidJob(f"the payload is neither bytes nor str nor JSON: {error}") from error
    return _utf8("a payload", payload)


def _to_builtins(value: Any) -> Any:
    if hasattr(value, "__pydantic_serializer__") and not isinstance(value, type):
        return (
            value.model_dump(mode="json")
            if hasattr(value, "model_dump")
            else value.__pydantic_serializer__.to_python(value, mode="json")
        )
    if isinstance(value, set | frozenset):
        raise TypeError(f"Object of type {type(value).__name__} has no order")
    import msgspec

    return msgspec.to_builtins(value)


def _name(what: str, name: object, least: int, most: int) -> bytes:
    if not isinstance(name, str | bytes):
        raise InvalidJob(f"{what} is str or bytes, {type(name).__name__} given")
    encoded = _utf8(what, name) if isinstance(name, str) else name
    if not least <= len(encoded) <= most:
        raise InvalidJob(f"{what} has {least} to {most} bytes, {len(encoded)} given")
    if b"\0" in encoded:
        raise InvalidJob(f"{what} has no NUL, {name!r} given")
    return encoded


def _utf8(what: str, text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidJob(f"{what} cannot be encoded: {error}") from error


def _epoch(run_at: object) -> int:
    if isinstance(run_at, datetime):
        if run_at.utcoffset() is None:
            raise InvalidJob(f"run_at needs a time zone, {run_at!r} given")
        run_at = run_at.timestamp()
    if not isinstance(run_at, int | float) or not 0 <= run_at <= _LAST_SECOND:
        raise InvalidJob(f"run_at is an aware datetime or a Unix time in seconds, {run_at!r} given")
    return math.ceil(run_at)
