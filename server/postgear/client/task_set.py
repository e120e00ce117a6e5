"""``TaskSet`` and ``AsyncTaskSet``: many jobs waited for together, each with callbacks of its own.

Jobs are submitted by ``wait``, over one connection. Callbacks are called by ``wait`` too, in the order in which the packets came.
"""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar, overload

from postgear.errors import JobFailed, PayloadError, ServerError
from postgear.functions import Function
from postgear.wire.packet import PacketType

from . import jobs, requests
from .aio import AsyncRunning
from .calls import deadline_after
from .client import AsyncClient, Client
from .jobs import JobEnded, JobRetried, Told
from .links import Running
from .requests import AnyFunction, Coming

P = TypeVar("P")
R = TypeVar("R")

Callback = Callable[..., Any]
"""A TaskSet's returns nothing of interest; an AsyncTaskSet's may be a coroutine function."""
_WANTED: Final = (PacketType.JOB_CREATED, PacketType.WORK_DATA, PacketType.WORK_STATUS, PacketType.WORK_WARNING)


class Task(Generic[R]):
    """A job of a TaskSet, and what is known of it.

    handle: None until it is submitted. status: numerator and denominator that the worker told last. result: None until it is
    complete; with ``on_data`` only what came last. error: why it failed. attempts: how often it was submitted again, and one.
    """

    def __init__(self, function: AnyFunction, callbacks: dict[str, Callback | None]) -> None:
        self.function: Final = function
        self.handle: str | None = None
        self.status = (0, 0)
        self.result: R | None = None
        self.error: JobFailed | ServerError | PayloadError | None = None
        self.attempts = 1
        self.is_ended = False
        self._callbacks = callbacks
        self._data: list[bytes] = []

    def tell(self, told: Told) -> Iterator[tuple[Callback, tuple[Any, ...]]]:
        """Take in what is told; return the callbacks to call, with their arguments."""
        if isinstance(told, JobEnded):
            yield from self._end(told)
        elif isinstance(told, JobRetried):
            self.attempts += 1
            self.handle = None
            self.status = (0, 0)
            self._data.clear()
            yield from self._calls("on_retry", told.error)
        elif told.kind == PacketType.JOB_CREATED:
            self.handle = told.arguments[0].decode("utf-8", "backslashreplace")
        elif told.kind == PacketType.WORK_DATA:
            if self._callbacks["on_data"] is None:
                self._data.append(told.arguments[0])
            yield from self._calls("on_data", told.arguments[0])
        elif told.kind == PacketType.WORK_WARNING:
            yield from self._calls("on_warning", told.arguments[0])
        elif all(word.isdigit() and len(word) <= 20 for word in told.arguments):
            # Anything else is a worker's fault, which the server hands on: there is no progress that could be shown.
            numerator, denominator = (int(word) for word in told.arguments)
            self.status = (numerator, denominator)
            yield from self._calls("on_status", numerator, denominator)

    def _end(self, ended: JobEnded) -> Iterator[tuple[Callback, tuple[Any, ...]]]:
        self.is_ended = True
        if ended.error is None:
            data = b"".join((*self._data, ended.result or b""))
            self._data.clear()
            try:
                self.result = requests.decoded(self.function, ended._replace(result=data))
            except PayloadError as error:
                self.error = error
            else:
                yield from self._calls("on_complete")
                return
        else:
            self.error = ended.error
        if isinstance(self.error, JobFailed) and self.error.exception:
            yield from self._calls("on_exception")
        yield from self._calls("on_fail")

    def _calls(self, name: str, *arguments: object) -> Iterator[tuple[Callback, tuple[Any, ...]]]:
        callback = self._callbacks[name]
        if callback is not None:
            yield callback, (self, *arguments)


class _Tasks:
    """What both kinds have: tasks that are added, and what is told of them."""

    def __init__(self, in_flight: int = 100) -> None:
        self.tasks: list[Task[Any]] = []
        self._in_flight = in_flight
        self._coming = Coming()
        self._first = 0  # the place in tasks of the first one of the call under way

    @overload
    def add(
        self,
        function: Function[P, R],
        payload: P,
        *,
        unique: str | bytes | None = None,
        priority: str = "normal",
        retries: int = 0,
        reducer: AnyFunction | None = None,
        on_data: Callback | None = None,
        on_status: Callback | None = None,
        on_warning: Callback | None = None,
        on_complete: Callback | None = None,
        on_fail: Callback | None = None,
        on_exception: Callback | None = None,
        on_retry: Callback | None = None,
    ) -> Task[R]: ...
    @overload
    def add(
        self,
        function: str | bytes,
        payload: object = None,
        *,
        unique: str | bytes | None = None,
        priority: str = "normal",
        retries: int = 0,
        reducer: AnyFunction | None = None,
        on_data: Callback | None = None,
        on_status: Callback | None = None,
        on_warning: Callback | None = None,
        on_complete: Callback | None = None,
        on_fail: Callback | None = None,
        on_exception: Callback | None = None,
        on_retry: Callback | None = None,
    ) -> Task[bytes]: ...
    def add(
        self,
        function: AnyFunction,
        payload: object = None,
        *,
        unique: str | bytes | None = None,
        priority: str = "normal",
        retries: int = 0,
        reducer: AnyFunction | None = None,
        on_data: Callback | None = None,
        on_status: Callback | None = None,
        on_warning: Callback | None = None,
        on_complete: Callback | None = None,
        on_fail: Callback | None = None,
        on_exception: Callback | None = None,
        on_retry: Callback | None = None,
    ) -> Task[Any]:
        """Add a job, also from a callback while others run. ``wait`` submits it. Raises InvalidJob.

        Callbacks are given the task, and: on_data and on_warning the bytes, on_status numerator and denominator, on_retry the
        error because of which the job is submitted again. on_fail is called for every job that ends without a result, for one
        whose worker said why (``task.error.exception``) after on_exception.
        """
        job = requests.submission((function, payload, unique, priority), reducer, retries)
        callbacks = {
            "on_data": on_data,
            "on_status": on_status,
            "on_warning": on_warning,
            "on_complete": on_complete,
            "on_fail": on_fail,
            "on_exception": on_exception,
            "on_retry": on_retry,
        }
        task: Task[Any] = Task(function, callbacks)
        self.tasks.append(task)
        self._coming.append(job)
        return task

    def _operation(self) -> Any:
        self._first = len(self.tasks) - len(self._coming)
        return jobs.do_many(self._coming, self._in_flight, _WANTED)

    def _tell(self, told: Told) -> Iterator[tuple[Callback, tuple[Any, ...]]]:
        return self.tasks[self._first + told.position].tell(told)


class TaskSet(_Tasks):
    """Jobs waited for together. in_flight: how many run at the same time, at most. For one thread.

    Several sets may use one client. A set that is not waited for to its end should be closed, or used in a ``with``.
    """

    def __init__(self, client: Client, in_flight: int = 100) -> None:
        super().__init__(in_flight)
        self._client = client
        self._running: Running[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, traceback: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Leave the jobs that were submitted and have not ended to themselves: they never end here."""
        if self._running is not None:
            self._running.close()

    def wait(self, timeout: float | None = None) -> bool:
        """Submit what was added and return true when all have ended, false after *timeout* seconds; waiting may then go on.

        Nothing that happens to a job is raised: it is the task's ``error``. What a callback raises is; waiting may go on.
        """
        until = deadline_after(timeout)
        while self._coming or not (self._running is None or self._running.is_ended):
            if self._running is None or self._running.is_ended:
                self._running = self._client._start(self._operation(), math.inf)
            told = self._running.advance(until)
            if told is not None:
                for callback, arguments in self._tell(told):
                    callback(*arguments)
            if time.monotonic() >= until:
                break
        return all(task.is_ended for task in self.tasks)


class AsyncTaskSet(_Tasks):
    """``TaskSet`` for asyncio; callbacks may be coroutine functions, which are awaited in their turn."""

    def __init__(self, client: AsyncClient, in_flight: int = 100) -> None:
        super().__init__(in_flight)
        self._client = client
        self._running: AsyncRunning[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: object, error: object, traceback: TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        """Be TaskSet.close."""
        if self._running is not None:
            self._running.close()

    async def wait(self, timeout: float | None = None) -> bool:
        """Be TaskSet.wait. One that is cancelled closes the set."""
        until = deadline_after(timeout)
        while self._coming or not (self._running is None or self._running.is_ended):
            if self._running is None or self._running.is_ended:
                self._running = await self._client._start(self._operation(), math.inf)
            told = await self._running.advance(until)
            if told is not None:
                for callback, arguments in self._tell(told):
                    called = callback(*arguments)
                    if inspect.isawaitable(called):
                        await called
            if time.monotonic() >= until:
                break
        return all(task.is_ended for task in self.tasks)
