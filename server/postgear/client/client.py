"""``Client`` and ``AsyncClient``: jobs handed to Gearman servers over the wire. What the methods mean is in ``requests``.

Not here: sets of jobs with callbacks (``task_set``), admin commands (``admin_client``), the database (``database``).
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from postgear.errors import ServerError, ServerUnreachable
from postgear.functions import Function
from postgear.newjob import AnyJob, TypedJob

from . import operations, requests
from .aio import AsyncLinks, AsyncRunning
from .calls import Address, deadline_after
from .links import Links, Running
from .operations import Status
from .requests import DEFAULT_SERVERS, DEFAULT_TIMEOUT_SECONDS, AnyFunction, Delay, Mapped, RunAt, Servers

P = TypeVar("P")
R = TypeVar("R")
T = TypeVar("T")


class Client:
    """A client of one or several Gearman servers, for any number of threads; it connects when it is first used.

    servers: ``host:port,host:port`` or a sequence of such; the port is 4730 if left out. They are tried in this order; one that
    failed is tried last for ten seconds. timeout: seconds that a server may take to answer what is not the end of a job.

    Every method raises InvalidJob for a job that cannot be, and ServerError: ServerUnreachable (nothing was sent),
    ServerRefused, ServerTimeout, or plain when the connection was lost or the server sent what makes no sense.
    """

    def __init__(self, servers: Servers = DEFAULT_SERVERS, *, timeout: float | None = DEFAULT_TIMEOUT_SECONDS) -> None:
        self.timeout = timeout
        self._servers = requests.addresses(servers)
        self._links = Links()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, traceback: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections that no call uses; it may be used again afterwards."""
        self._links.close()

    @overload
    def do(
        self,
        function: Function[P, R],
        payload: P,
        *,
        unique: str | bytes | None = None,
        priority: str = "normal",
        timeout: float | None = None,
        retries: int = 0,
        reducer: AnyFunction | None = None,
    ) -> R: ...
    @overload
    def do(
        self,
        function: str | bytes,
        payload: object = None,
        *,
        unique: str | bytes | None = None,
        priority: str = "normal",
        timeout: float | None = None,
        retries: int = 0,
        reducer: AnyFunction | None = None,
    ) -> bytes: ...
    def do(
        self,
        function: AnyFunction,
        payload: object = None,
        *,
        unique: str | bytes | None = None,
        priority: str = "normal",
        timeout: float | None = None,
        retries: int = 0,
        reducer: AnyFunction | None = None,
    ) -> Any:
        """Run a job and return its result: bytes, or what the Function says.

        timeout: seconds; None waits for ever. retries: how often the job is submitted again when it failed or its server went
        away; without them nothing is sent twice. reducer: the function that reduces (SUBMIT_REDUCE_JOB).
        Raises JobFailed, ServerError, and PayloadError for a result that is not what the Function says.
        """
        operation = requests.do(function, payload, unique, priority, retries, reducer)
        return self._start(operation, deadline_after(timeout)).run()

    @overload
    def submit(
        self,
        function: Function[P, Any],
        payload: P,
        *,
        unique: str | bytes | None = None,
        priority: str = "normal",
        run_at: RunAt = None,
        delay: Delay = None,
        reducer: AnyFunction | None = None,
    ) -> str: ...
    @overload
    def submit(
        self,
        function: str | bytes,
        payload: object = None,
        *,
        unique: str | bytes | None = None,
        priority: str = "normal",
        run_at: RunAt = None,
        delay: Delay = None,
        reducer: AnyFunction | None = None,
    ) -> str: ...
    def submit(
        self,
        function: AnyFunction,
        payload: object = None,
        *,
        unique: str | bytes | None = None,
        priority: str = "normal",
        run_at: RunAt = None,
        delay: Delay = None,
        reducer: AnyFunction | None = None,
    ) -> str:
        """Submit a background job and return its handle; a postgear server has stored it then.

        run_at: not before this time (aware datetime or Unix time). delay: not before so many seconds, or a timedelta, from now.
        Such a job, and one with a reducer, has normal priority. Raises ServerRefused, for example for a full queue.
        """
        return self._submit(requests.new_job(function, payload, unique, priority, run_at, delay), reducer)

    @overload
    def submit_many(self, jobs: Iterable[AnyJob]) -> list[str]: ...
    @overload
    def submit_many(self, jobs: Iterable[AnyJob | TypedJob[P]]) -> list[str]: ...
    def submit_many(self, jobs: Iterable[AnyJob | TypedJob[Any]]) -> list[str]:
        """Submit background jobs without waiting for each and return their handles in the same order.

        Raises NotAllSubmitted if some were refused, or nobody knows of them; it has the handles of the others. So it does if
        *jobs* raises, or has a job that cannot be, when some were sent already; if none was, that is raised as it is.
        Type checkers take plain tuples with a Function only where all are of that Function and one length; else use NewJob.
        """
        return self._start(requests.submit_many(jobs), math.inf, self.timeout).run()

    @overload
    def map(
        self,
        function: Function[P, R],
        payloads: Iterable[P],
        *,
        in_flight: int = 100,
        ordered: bool = True,
        timeout: float | None = None,
        retries: int = 0,
    ) -> Iterator[R]: ...
    @overload
    def map(
        self,
        function: str | bytes,
        payloads: Iterable[object],
        *,
        in_flight: int = 100,
        ordered: bool = True,
        timeout: float | None = None,
        retries: int = 0,
    ) -> Iterator[bytes]: ...
    def map(
        self,
        function: AnyFunction,
        payloads: Iterable[Any],
        *,
        in_flight: int = 100,
        ordered: bool = True,
        timeout: float | None = None,
        retries: int = 0,
    ) -> Iterator[Any]:
        """Run a job for each payload, at most *in_flight* at a time, and return an iterator over the results.

        Payloads are read as jobs can be sent, results come as jobs end; ``ordered=False`` gives each at once. timeout: seconds
        for all together. What ends a job without a result is raised in its place, and ends the iterator.
        """
        mapped: Mapped[Any] = Mapped(function, payloads, in_flight, retries, ordered=ordered)
        return _results(mapped, self._start(mapped.operation, deadline_after(timeout)))

    def status(self, handle: str) -> Status:
        """Ask for the state of a job; all zero if no server knows it. The first server that knows it answers."""
        return self._ask_each(lambda: requests.status(handle))

    def status_of_unique(self, unique: str | bytes) -> Status:
        """Ask for the state of the job with this unique, of whatever function, and for how many clients wait for it."""
        return self._ask_each(lambda: requests.status_of_unique(unique))

    def echo(self, data: bytes = b"postgear") -> bytes:
        """Have the first server that answers send *data* back."""
        return self._start(operations.echo(data), deadline_after(self.timeout)).run()

    def _submit(self, job: tuple[Any, ...], reducer: AnyFunction | None) -> str:
        return self._start(requests.submit(job, reducer), deadline_after(self.timeout)).run()

    def _start(self, operation: Generator[Any, Any, T], deadline: float, patience: float | None = None) -> Running[T]:
        return self._links.start(self._addresses(), deadline, operation, patience)

    def _ask_each(self, question: Callable[[], Generator[Any, Any, Status]]) -> Status:
        found: Status | ServerError = ServerUnreachable("there is no server to ask")
        for address in self._addresses():
            try:
                found = self._links.run((address,), deadline_after(self.timeout), question())
            except ServerError as error:
                found = error if isinstance(found, ServerError) else found
            else:
                if found.known:
                    break
        if isinstance(found, ServerError):
            raise found
        return found

    def _addresses(self) -> Sequence[Address]:
        return self._servers


class AsyncClient:
    """``Client`` for asyncio: the same methods, awaited; ``map`` returns an asynchronous iterator.

    For one event loop. A call that is cancelled closes its connection; of a job that was submitted nobody knows then whether it
    runs. max_connections: more calls at the same time wait for each other; ``map`` and a TaskSet are one call each.
    """

    def __init__(
        self, servers: Servers = DEFAULT_SERVERS, *, timeout: float | None = DEFAULT_TIMEOUT_SECONDS, max_connections: int = 100
    ) -> None:
        self.timeout = timeout
        self._servers = requests.addresses(servers)
        self._links = AsyncLinks(max_connections=max_connections)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: object, error: object, traceback: TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        """Be Client.close."""
        self._links.close()

    @overload
    async def do(
        self,
        function: Function[P, R],
        payload: P,
        *,
        unique: str | bytes | None = None,
        priority: str = "normal",
        timeout: float | None = None,
        retries: int = 0,
        reducer: AnyFunction | None = None,
    ) -> R: ...
    @overload
    async def do(
        self,
        function: str | bytes,
        payload: object = None,
        *,
        unique: str | bytes | None = None,
        priority: str = "normal",
        timeout: float | None = None,
        retries: int = 0,
        reducer: AnyFunction | None = None,
    ) -> bytes: ...
    async def do(
        self,
        function: AnyFunction,
        payload: object = None,
        *,
        unique: str | bytes | None = None,
        priority: str = "normal",
        timeout: float | None = None,
        retries: int = 0,
        reducer: AnyFunction | None = None,
    ) -> Any:
        """Be Client.do."""
        operation = requests.do(function, payload, unique, priority, retries, reducer)
        return await (await self._start(operation, deadline_after(timeout))).run()

    @overload
    async def submit(
        self,
        function: Function[P, Any],
        payload: P,
        *,
        unique: str | bytes | None = None,
        priority: str = "normal",
        run_at: RunAt = None,
        delay: Delay = None,
        reducer: AnyFunction | None = None,
    ) -> str: ...
    @overload
    async def submit(
        self,
        function: str | bytes,
        payload: object = None,
        *,
        unique: str | bytes | None = None,
        priority: str = "normal",
        run_at: RunAt = None,
        delay: Delay = None,
        reducer: AnyFunction | None = None,
    ) -> str: ...
    async def submit(
        self,
        function: AnyFunction,
        payload: object = None,
        *,
        unique: str | bytes | None = None,
        priority: str = "normal",
        run_at: RunAt = None,
        delay: Delay = None,
        reducer: AnyFunction | None = None,
    ) -> str:
        """Be Client.submit."""
        return await self._submit(requests.new_job(function, payload, unique, priority, run_at, delay), reducer)

    @overload
    async def submit_many(self, jobs: Iterable[AnyJob]) -> list[str]: ...
    @overload
    async def submit_many(self, jobs: Iterable[AnyJob | TypedJob[P]]) -> list[str]: ...
    async def submit_many(self, jobs: Iterable[AnyJob | TypedJob[Any]]) -> list[str]:
        """Be Client.submit_many."""
        return await (await self._start(requests.submit_many(jobs), math.inf, self.timeout)).run()

    @overload
    def map(
        self,
        function: Function[P, R],
        payloads: Iterable[P],
        *,
        in_flight: int = 100,
        ordered: bool = True,
        timeout: float | None = None,
        retries: int = 0,
    ) -> AsyncIterator[R]: ...
    @overload
    def map(
        self,
        function: str | bytes,
        payloads: Iterable[object],
        *,
        in_flight: int = 100,
        ordered: bool = True,
        timeout: float | None = None,
        retries: int = 0,
    ) -> AsyncIterator[bytes]: ...
    def map(
        self,
        function: AnyFunction,
        payloads: Iterable[Any],
        *,
        in_flight: int = 100,
        ordered: bool = True,
        timeout: float | None = None,
        retries: int = 0,
    ) -> AsyncIterator[Any]:
        """Be Client.map."""
        mapped: Mapped[Any] = Mapped(function, payloads, in_flight, retries, ordered=ordered)
        return _results_async(mapped, lambda: self._start(mapped.operation, deadline_after(timeout)))

    async def status(self, handle: str) -> Status:
        """Be Client.status."""
        return await self._ask_each(lambda: requests.status(handle))

    async def status_of_unique(self, unique: str | bytes) -> Status:
        """Be Client.status_of_unique."""
        return await self._ask_each(lambda: requests.status_of_unique(unique))

    async def echo(self, data: bytes = b"postgear") -> bytes:
        """Be Client.echo."""
        return await (await self._start(operations.echo(data), deadline_after(self.timeout))).run()

    async def _submit(self, job: tuple[Any, ...], reducer: AnyFunction | None) -> str:
        return await (await self._start(requests.submit(job, reducer), deadline_after(self.timeout))).run()

    async def _start(self, operation: Generator[Any, Any, T], deadline: float, patience: float | None = None) -> AsyncRunning[T]:
        return self._links.start(await self._addresses(), deadline, operation, patience)

    async def _ask_each(self, question: Callable[[], Generator[Any, Any, Status]]) -> Status:
        found: Status | ServerError = ServerUnreachable("there is no server to ask")
        for address in await self._addresses():
            try:
                found = await self._links.run((address,), deadline_after(self.timeout), question())
            except ServerError as error:
                found = error if isinstance(found, ServerError) else found
            else:
                if found.known:
                    break
        if isinstance(found, ServerError):
            raise found
        return found

    async def _addresses(self) -> Sequence[Address]:
        return self._servers


def _results(mapped: Mapped[T], running: Running[None]) -> Iterator[T]:
    for told in running.told():
        yield from mapped.results(told)


async def _results_async(mapped: Mapped[T], start: Callable[[], Awaitable[AsyncRunning[None]]]) -> AsyncIterator[T]:
    running = await start()
    try:
        while not running.is_ended:
            told = await running.advance()
            if told is not None:
                for result in mapped.results(told):
                    yield result
    finally:
        running.close()
