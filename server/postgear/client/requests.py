"""What the methods of clients mean, for those that block and those that await: arguments into operations, answers into values.

Generators as in ``operations``; which servers, how long and by which driver is the client's matter.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, Generic, TypeVar

from postgear.errors import ConfigError, InvalidJob, PayloadError
from postgear.functions import Function
from postgear.newjob import NewJob, encode_function, encode_job, encode_payload, encode_unique

from . import jobs, operations
from .calls import Address, parse_servers
from .jobs import JobEnded, Told
from .operations import NORMAL, Status, Submission

AnyFunction = str | bytes | Function[Any, Any]
RunAt = datetime | float | None
Delay = float | timedelta | None
Servers = str | Sequence[str]

DEFAULT_SERVERS: Final = "127.0.0.1:4730"
DEFAULT_TIMEOUT_SECONDS: Final = 30.0
_AHEAD: Final = 10
"""Times ``in_flight``: so many results wait at most for one that must come before them."""

R = TypeVar("R")


def addresses(servers: Servers) -> list[Address]:
    """Return the addresses of ``host:port,host:port``, or of a sequence of such. Raises ConfigError."""
    text = servers if isinstance(servers, str) else ",".join(servers)
    try:
        found = parse_servers(text)
    except ValueError as error:
        raise ConfigError(f"{str(error)!r} is not HOST or HOST:PORT") from None
    if not found:
        raise ConfigError("no server is named")
    return found


def submission(job: tuple[Any, ...], reducer: AnyFunction | None = None, retries: int = 0) -> Submission:
    """Return a job as it is submitted to a server. Raises InvalidJob."""
    function, workload, unique, priority, run_at = encode_job(job)
    if priority != NORMAL and (run_at is not None or reducer is not None):
        raise InvalidJob("a job that is scheduled or reduced has normal priority at a Gearman server")
    if reducer is None:
        return Submission(function, workload, unique, priority, run_at, None, retries)
    if run_at is not None:
        raise InvalidJob("a job that is reduced cannot be scheduled at a Gearman server")
    return Submission(function, workload, unique, priority, None, encode_function(reducer), retries)


def new_job(
    function: AnyFunction, payload: object, unique: str | bytes | None, priority: str, run_at: RunAt, delay: Delay
) -> NewJob:
    """Return the job of ``submit``'s arguments. Raises InvalidJob for a delay that cannot be."""
    if delay is not None:
        seconds = delay.total_seconds() if isinstance(delay, timedelta) else delay
        if run_at is not None:
            raise InvalidJob("run_at and delay cannot both be given")
        if not isinstance(seconds, int | float) or not seconds >= 0:
            raise InvalidJob(f"a delay is 0 or more seconds, {delay!r} given")
        run_at = time.time() + seconds
    return NewJob(function, payload, unique, priority, run_at)


def do(
    function: AnyFunction,
    payload: object,
    unique: str | bytes | None,
    priority: str,
    retries: int,
    reducer: AnyFunction | None,
) -> Generator[Any, Any, Any]:
    """Run a job and return its result, decoded."""
    ended = yield from jobs.do(submission((function, payload, unique, priority), reducer, _checked_retries(retries)), _ignore)
    return decoded(function, ended)


def submit(job: tuple[Any, ...], reducer: AnyFunction | None = None) -> Generator[Any, Any, str]:
    """Submit a background job and return its handle."""
    handle = yield from operations.submit(submission(job, reducer))
    return operations.shown(handle)


def submit_many(new_jobs: Iterable[tuple[Any, ...]]) -> Generator[Any, Any, list[str]]:
    """Submit background jobs and return their handles."""
    return operations.submit_many(map(submission, new_jobs))


def status(handle: str) -> Generator[Any, Any, Status]:
    """Ask for the state of a job."""
    encoded = handle.encode("utf-8", "surrogateescape")
    if b"\0" in encoded:
        raise InvalidJob(f"{handle!r} is no handle")
    return operations.get_status(encoded)


def status_of_unique(unique: str | bytes) -> Generator[Any, Any, Status]:
    """Ask for the state of the job with this unique."""
    return operations.get_status_of_unique(encode_unique(unique))


class Mapped(Generic[R]):
    """Inputs to jobs, and the ends of jobs to results: the two sides of ``map``. Iterating over it gives the jobs.

    Results that come before their turn are held back; with too many of them no more jobs are given.
    """

    def __init__(self, function: AnyFunction, payloads: Iterable[object], in_flight: int, retries: int, *, ordered: bool) -> None:
        if in_flight < 1:
            raise ConfigError(f"in_flight must be 1 or more, {in_flight} given")
        self.operation = jobs.do_many(self, in_flight)
        self._function = function
        self._payloads = iter(payloads)
        # What is the same for all is looked at once.
        self._like = submission((function,), None, _checked_retries(retries))
        self._is_ordered = ordered
        self._most_ahead = in_flight * _AHEAD
        self._taken = 0
        self._given = 0
        self._held: dict[int, JobEnded] = {}

    def __iter__(self) -> Iterator[Submission]:
        return self

    def __next__(self) -> Submission:
        if self._is_ordered and self._taken - self._given >= self._most_ahead:
            raise StopIteration
        workload = encode_payload(next(self._payloads))
        self._taken += 1
        return self._like._replace(workload=workload)

    def results(self, told: Told) -> Iterator[R]:
        """Return the results that are due. Raises what ended a job when it is due."""
        if type(told) is not JobEnded:
            return
        if not self._is_ordered:
            yield decoded(self._function, told)
            return
        held = self._held
        held[told.position] = told
        while (ended := held.pop(self._given, None)) is not None:
            self._given += 1
            yield decoded(self._function, ended)


class Coming(deque[Submission]):
    """Jobs to be submitted; iterating over them takes them, and goes on when more have come."""

    def __iter__(self) -> Iterator[Submission]:
        return self

    def __next__(self) -> Submission:
        if not self:
            raise StopIteration
        return self.popleft()


def decoded(function: AnyFunction, ended: JobEnded) -> Any:
    """Return the result of a job as its function says. Raises JobFailed, ServerError, PayloadError."""
    if ended.error is not None:
        raise ended.error
    data = ended.result or b""
    if not isinstance(function, Function):
        return data
    try:
        return function.decode_result(data)
    except PayloadError as error:
        error.fill(handle=ended.handle)
        raise


def _checked_retries(retries: int) -> int:
    if retries < 0:
        raise ConfigError(f"retries must be 0 or more, {retries} given")
    return retries


def _ignore(_warning: bytes) -> None:
    """Warnings are told to those who ask for them, with a TaskSet."""
