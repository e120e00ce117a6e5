"""Functions as Python sees them: a name, the types of payload and result, and for workers what runs it.

The types come from annotations. A payload annotated ``bytes``, or not at all, is given as it came; ``str`` is decoded as
UTF-8; anything else is read as JSON into that type by msgspec, or by pydantic for its models.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, Generic, ParamSpec, Protocol, TypeVar, get_type_hints, overload

from postgear.errors import ConfigError, PayloadError

if TYPE_CHECKING:
    from postgear.worker.job import Job

P = TypeVar("P")
R = TypeVar("R")
T = TypeVar("T")
S = ParamSpec("S")


class Function(Generic[P, R]):
    """A function by name, with the types of its payload and its result; where its code is does not matter.

    ``index = Function("index", Article, str)``; then ``client.do(index, article)`` takes an Article and returns a str.
    """

    @overload
    def __init__(self: Function[bytes, bytes], name: str) -> None: ...
    @overload
    def __init__(self, name: str, payload: type[P], result: type[R]) -> None: ...
    def __init__(self, name: str, payload: Any = bytes, result: Any = bytes) -> None:
        self.name: Final = name
        self.payload_type: Final = payload
        self.result_type: Final = result
        self._read_payload = _decoder(payload)
        self._read_result = _decoder(result)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    def decode_payload(self, workload: bytes) -> P:
        """Return the payload that *workload* stands for. Raises PayloadError."""
        return self._decode("payload", self._read_payload, workload)  # type: ignore[no-any-return]

    def decode_result(self, data: bytes) -> R:
        """Return the result that *data* stands for. Raises PayloadError."""
        return self._decode("result", self._read_result, data)  # type: ignore[no-any-return]

    def _decode(self, what: str, read: Callable[[bytes], Any] | None, data: bytes) -> Any:
        if read is None:
            return data
        try:
            return read(data)
        except ValueError as error:  # msgspec's, pydantic's and Unicode's errors are of this kind
            wrong = PayloadError(f"the {what} cannot be decoded: {error}")
            wrong.fill(function=self.name)
            raise wrong from error


class Handler(Function[P, R], Generic[P, R, S, T]):
    """A function with the code that runs it: what ``worker.function`` makes of a callable. It may be called like that callable.

    timeout: seconds a run may take, None for no bound. retries: how often a job that failed is run again.
    transactional: the handler's own writes and the job's completion are one transaction; only straight on the database.
    """

    def __init__(
        self,
        call: Callable[S, T],
        name: str | None = None,
        *,
        timeout: float | None = None,
        retries: int = 0,
        transactional: bool = False,
    ) -> None:
        signature = inspect.signature(call)
        parameters = list(signature.parameters.values())
        positional = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
        name = getattr(call, "__name__", "") if name is None else name
        others = [*positional[2:], *(each for each in parameters if each.kind is each.KEYWORD_ONLY)]
        if not positional or any(each.default is each.empty for each in others):
            raise ConfigError(f"function {name}: its handler takes the payload, or the payload and the job")
        if timeout is not None and timeout <= 0:
            raise ConfigError(f"function {name}: timeout {timeout} given, must be above 0")
        if retries < 0:
            raise ConfigError(f"function {name}: retries {retries} given, must be 0 or more")
        payload, result = positional[0].annotation, signature.return_annotation
        super().__init__(name, _resolved(call, name, payload), _resolved(call, name, result))
        self.call: Final = call
        # A second parameter with a default is the handler's own, unless it has this name.
        self.takes_job: Final = len(positional) > 1 and (
            positional[1].default is inspect.Parameter.empty or positional[1].name == "job"
        )
        self.is_async: Final = inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(getattr(call, "__call__", None))  # noqa: B004
        self.timeout: Final = timeout
        self.retries: Final = retries
        self.transactional: Final = transactional

    def __call__(self, *args: S.args, **kwargs: S.kwargs) -> T:
        return self.call(*args, **kwargs)


class Decorator(Protocol):
    """Makes a Handler of a callable: plain or async, of the payload or of the payload and the job."""

    @overload
    def __call__(self, call: Callable[[P], Awaitable[R]], /) -> Handler[P, R, [P], Awaitable[R]]: ...
    @overload
    def __call__(self, call: Callable[[P, Job], Awaitable[R]], /) -> Handler[P, R, [P, Job], Awaitable[R]]: ...
    @overload
    def __call__(self, call: Callable[[P], R], /) -> Handler[P, R, [P], R]: ...
    @overload
    def __call__(self, call: Callable[[P, Job], R], /) -> Handler[P, R, [P, Job], R]: ...


def _resolved(call: Callable[..., Any], function: str, annotation: Any) -> Any:
    """Return the type that an annotation stands for; bytes where there is none. Others of the callable may be unknown here."""
    if annotation is inspect.Parameter.empty:
        return bytes
    names = getattr(inspect.unwrap(call), "__globals__", None)
    if names is None:
        names = getattr(type(call).__call__, "__globals__", {})
    holder = SimpleNamespace(__annotations__={"kind": annotation})
    try:
        return get_type_hints(holder, names)["kind"]
    except (NameError, AttributeError, SyntaxError, TypeError) as error:
        raise ConfigError(f"function {function}: the annotation {annotation} cannot be resolved: {error}") from error


def _decoder(kind: Any) -> Callable[[bytes], Any] | None:
    """Return what reads bytes into a type; None where they stay as they are. Raises ConfigError for a type nobody can read."""
    if kind is bytes:
        return None
    if kind is str:
        return bytes.decode
    if kind is None or kind is type(None):
        return lambda _data: None
    if isinstance(kind, type) and hasattr(kind, "model_validate_json"):
        return kind.model_validate_json  # type: ignore[no-any-return]
    import msgspec

    try:
        decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(kind)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"JSON cannot be read into {kind!r}: {error}") from error
    # An empty workload is what None is sent as.
    return lambda data: decoder.decode(data or b"null")
