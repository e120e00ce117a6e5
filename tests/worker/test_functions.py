"""Functions with types: what a handler's annotations say."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import partial, wraps
from typing import TYPE_CHECKING, Any

import msgspec
import pydantic
import pytest

from postgear.errors import ConfigError, PayloadError
from postgear.functions import Function, Handler

if TYPE_CHECKING:
    from postgear.worker.job import Job


@dataclass
class Point:
    x: int
    y: int = 0


class Struct(msgspec.Struct):
    x: int


class Model(pydantic.BaseModel):
    x: int


def bare(payload):  # type: ignore[no-untyped-def]
    return payload


def of_bytes(payload: bytes) -> bytes:
    return payload


def of_str(payload: str) -> str:
    return payload


def of_dict(payload: dict[str, int]) -> list[int]:
    return [*payload.values()]


def of_dataclass(payload: Point) -> Point:
    return payload


def of_struct(payload: Struct) -> Struct:
    return payload


def of_model(payload: Model) -> Model:
    return payload


def of_optional(payload: Point | None, job: Job) -> None:
    """Job is imported for type checkers alone."""


async def of_time(payload: datetime) -> datetime:
    return payload


class Callable_:
    def __call__(self, payload: Point, job: Any = None) -> int:
        return payload.x

    def method(self, payload: str) -> int:
        return len(payload)


@wraps(of_dataclass)
def wrapped(*arguments: Any, **named: Any) -> Any:
    return of_dataclass(*arguments, **named)


@pytest.mark.parametrize(
    ("call", "workload", "payload"),
    [
        (bare, b"\xff", b"\xff"),
        (of_bytes, b"\xff", b"\xff"),
        (of_str, "ü".encode(), "ü"),
        (of_dict, b'{"a":1}', {"a": 1}),
        (of_dataclass, b'{"x":1}', Point(1)),
        (of_struct, b'{"x":1}', Struct(1)),
        (of_model, b'{"x":1}', Model(x=1)),
        (of_optional, b"", None),
        (of_optional, b'{"x":1,"y":2}', Point(1, 2)),
        (of_time, b'"2026-11-21T10:00:00Z"', datetime.fromisoformat("2026-11-21T10:00:00Z")),
        (Callable_(), b'{"x":1}', Point(1)),
        (Callable_().method, b"abc", "abc"),
        (wrapped, b'{"x":1}', Point(1)),
        (partial(of_str), b"abc", "abc"),
    ],
)
def test_payloads_are_read_by_annotation(call: Any, workload: bytes, payload: object) -> None:
    assert Handler(call, "f").decode_payload(workload) == payload


@pytest.mark.parametrize(
    ("call", "workload"), [(of_str, b"\xff"), (of_dict, b"{"), (of_dataclass, b'{"x":"1"}'), (of_model, b"{}"), (of_struct, b"")]
)
def test_a_payload_that_is_not_what_the_function_takes_is_an_error(call: Any, workload: bytes) -> None:
    with pytest.raises(PayloadError, match=r"(?s)^the payload cannot be decoded: .* \(function index\)$"):
        Handler(call, "index").decode_payload(workload)


def test_a_result_is_read_like_a_payload() -> None:
    function = Function("index", Point, Point)
    assert function.decode_result(b'{"x":1}') == Point(1)
    with pytest.raises(PayloadError, match=r"^the result cannot be decoded: .* \(function index\)$"):
        function.decode_result(b"[]")


def with_defaults(payload: bytes, factor: int = 2, *, verbose: bool = False) -> bytes:
    return payload * factor


def with_optional_job(payload: bytes, job: Job | None = None) -> bytes:
    return payload


@pytest.mark.parametrize(
    ("call", "takes_job"), [(of_bytes, False), (of_optional, True), (with_defaults, False), (with_optional_job, True)]
)
def test_the_second_parameter_is_the_job_unless_it_has_a_default(call: Any, takes_job: bool) -> None:
    assert Handler(call, "f").takes_job is takes_job


def no_parameter() -> None: ...


def three(payload: bytes, job: Any, more: int) -> None: ...


def needs_named(payload: bytes, *, more: int) -> None: ...


def of_nonsense(payload: NoSuchType) -> None: ...  # type: ignore[name-defined]  # noqa: F821


def of_what_json_is_not(payload: Point | Struct) -> None: ...


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (no_parameter, "takes the payload"),
        (three, "takes the payload"),
        (needs_named, "takes the payload"),
        (of_nonsense, "function f: the annotation NoSuchType cannot be resolved"),
        (of_what_json_is_not, "JSON cannot be read into"),
    ],
)
def test_what_cannot_be_a_handler_is_refused(call: Any, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        Handler(call, "f")


def test_a_handler_is_called_like_what_it_was_made_of() -> None:
    assert Handler(with_defaults, "f")(b"a", 3, verbose=True) == b"aaa"
    assert Handler(of_bytes).name == "of_bytes"
    assert Handler(of_time).is_async
    assert not Handler(of_bytes).is_async
