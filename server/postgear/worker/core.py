"""Workers: what they can do, how they start and stop. What happens to a job meanwhile is in ``slots``."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import math
import os
import resource
import socket
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeVar, cast

from postgear.client.calls import Address, parse_servers
from postgear.errors import ConfigError, InvalidJob
from postgear.functions import Decorator, Handler
from postgear.newjob import encode_function

from .calling import NO_HOOKS, Hooks, log
from .slots import JobSlots
from .sources import Handlers, Source
from .wire_source import KEEPALIVE_SECONDS, WireSource

StopReason = Literal["stopped", "max_jobs", "max_memory"]
Hook = TypeVar("Hook", bound=Callable[..., Any])
AnyHandler = Handler[Any, Any, Any, Any]

DEFAULT_SERVERS: Final = "127.0.0.1:4730"
MEMORY_CHECK_SECONDS: Final = 1.0


class WorkerCore:
    """What ``Worker`` and ``AsyncWorker`` have in common.

    servers: ``host:port,host:port`` or a sequence of such; all of them are asked for jobs. dsn: take jobs straight from this
    database. Neither: 127.0.0.1:4730. concurrency: how many jobs run at a time. client_id: how servers show this worker; by
    default host and process. drain_seconds: how long running jobs may take to end after ``stop``; what takes longer goes back to
    the queue. keepalive_seconds: how long a server may be silent before it is asked whether it is there; after three times that
    without an answer it is left. exceptions: whether clients are told why a job failed (WORK_EXCEPTION) or only that it did
    (WORK_FAIL). Raises ConfigError.
    """

    def __init__(
        self,
        servers: str | Sequence[str] | None = None,
        *,
        dsn: str | None = None,
        concurrency: int = 1,
        client_id: str | None = None,
        drain_seconds: float = 30.0,
        keepalive_seconds: float = KEEPALIVE_SECONDS,
        exceptions: bool = True,
    ) -> None:
        self.servers: tuple[Address, ...] = ()
        self.dsn: str | None = None
        self.concurrency = 1
        self.client_id: str | None = None
        self.drain_seconds = 30.0
        self.keepalive_seconds = KEEPALIVE_SECONDS
        self.exceptions: Final = exceptions
        self._handlers: Handlers = {}
        self._hooks = NO_HOOKS
        self._lock = threading.Lock()  # for what other threads may change
        self._run: _Run | None = None
        self._stop_wanted: float | None = None  # before the run has begun: after how many seconds
        self._done_before = self._failed_before = 0  # by earlier runs

        self.configure(
            servers=servers if servers is not None or dsn is not None else DEFAULT_SERVERS,
            dsn=dsn,
            concurrency=concurrency,
            client_id=client_id,
            drain_seconds=drain_seconds,
            keepalive_seconds=keepalive_seconds,
        )

    def configure(
        self,
        *,
        servers: str | Sequence[str] | None = None,
        dsn: str | None = None,
        concurrency: int | None = None,
        client_id: str | None = None,
        drain_seconds: float | None = None,
        keepalive_seconds: float | None = None,
    ) -> None:
        """Replace what the worker was made with, for its next run; None leaves a value as it is.

        Where *servers* or *dsn* is given, jobs are taken from these alone. Raises ConfigError.
        """
        if concurrency is not None and concurrency < 1:
            raise ConfigError(f"concurrency {concurrency} given, must be 1 or more")
        if client_id is not None and (not client_id or len(client_id.encode()) > 127 or set(client_id) & set("\0\n\r")):
            raise ConfigError(f"client_id has 1 to 127 bytes in one line, {client_id!r} given")
        if drain_seconds is not None and drain_seconds < 0:
            raise ConfigError(f"drain_seconds {drain_seconds:g} given, must be 0 or more")
        if keepalive_seconds is not None and keepalive_seconds <= 0:
            raise ConfigError(f"keepalive_seconds {keepalive_seconds:g} given, must be above 0")
        if servers is not None or dsn is not None:
            for handler in self._handlers.values():
                _check_handler(handler, dsn)
            self.servers = _addresses(servers)
            self.dsn = dsn
        self.concurrency = self.concurrency if concurrency is None else concurrency
        self.client_id = self.client_id if client_id is None else client_id
        self.drain_seconds = self.drain_seconds if drain_seconds is None else drain_seconds
        self.keepalive_seconds = self.keepalive_seconds if keepalive_seconds is None else keepalive_seconds

    # -- what it can do ------------------------------------------------------------------------------------------

    def function(
        self, name: str | None = None, *, timeout: float | None = None, retries: int = 0, transactional: bool = False
    ) -> Decorator:
        """Make the decorated callable the handler of a function, by default of its own name; it becomes a ``Handler``.

        timeout: seconds that a run may take, None for no bound. retries: how often a job that failed runs again, after 1, 2, 4 …
        seconds. transactional: the handler's own writes and the end of the job are one transaction; needs ``dsn``.
        """

        def decorate(call: Any) -> Any:
            handler: AnyHandler = Handler(call, name, timeout=timeout, retries=retries, transactional=transactional)
            self.add(handler)
            return handler

        return cast(Decorator, decorate)

    def add(self, handler: AnyHandler) -> None:
        """Do a function from here on; replaces its handler if there is one. From any thread. Raises ConfigError."""
        try:
            encode_function(handler)
        except InvalidJob as error:
            raise ConfigError(f"function {handler.name!r}: {error}") from None
        _check_handler(handler, self.dsn)
        with self._lock:
            self._handlers = {**self._handlers, handler.name: handler}
            self._changed()

    def remove(self, name: str) -> None:
        """Do a function no more; jobs of it that run go on. From any thread. Raises ConfigError for one that is not done."""
        with self._lock:
            if name not in self._handlers:
                raise ConfigError(f"function {name}: there is no handler to remove")
            self._handlers = {other: handler for other, handler in self._handlers.items() if other != name}
            self._changed()

    @property
    def handlers(self) -> Handlers:
        """What this worker can do, by name."""
        return self._handlers

    def before(self, hook: Hook) -> Hook:
        """Call the decorated callable with each job before its handler; what it raises fails the job. It may be async."""
        with self._lock:
            if inspect.iscoroutinefunction(hook):
                self._hooks = self._hooks._replace(async_before=(*self._hooks.async_before, hook))
            else:
                self._hooks = self._hooks._replace(before=(*self._hooks.before, hook))
            self._changed()
        return hook

    def after(self, hook: Hook) -> Hook:
        """Call the decorated callable with each job and its error or None, after each run; what it raises is logged only."""
        with self._lock:
            if inspect.iscoroutinefunction(hook):
                self._hooks = self._hooks._replace(async_after=(*self._hooks.async_after, hook))
            else:
                self._hooks = self._hooks._replace(after=(*self._hooks.after, hook))
            self._changed()
        return hook

    def _changed(self) -> None:
        if self._run is not None:
            self._run.call(self._run.change, self._handlers, self._hooks)

    # -- life ----------------------------------------------------------------------------------------------------

    def stop(self, drain_seconds: float | None = None) -> None:
        """Stop soon: take no more jobs, let those that run end within *drain_seconds* (by default the worker's). From any thread.

        drain_seconds: may be math.inf. A second call can only shorten the time. Before ``run`` it makes that return at once.
        """
        seconds = self.drain_seconds if drain_seconds is None else drain_seconds
        with self._lock:
            if self._run is None:
                self._stop_wanted = seconds
            else:
                self._run.call(self._run.stop, "stopped", seconds)

    @property
    def jobs_done(self) -> int:
        """How many jobs were completed, over all runs."""
        return self._done_before + (self._run.slots.done_count if self._run is not None else 0)

    @property
    def jobs_failed(self) -> int:
        """How many jobs were reported as failed, over all runs."""
        return self._failed_before + (self._run.slots.failed_count if self._run is not None else 0)

    @property
    def jobs_running(self) -> int:
        """How many jobs run at this moment."""
        return self._run.slots.running_count if self._run is not None else 0

    async def serve(
        self,
        *,
        on_ready: Callable[[], None] | None = None,
        on_stopping: Callable[[StopReason], None] | None = None,
        max_jobs: int | None = None,
        max_memory_bytes: int | None = None,
    ) -> StopReason:
        """Be ``AsyncWorker.run`` for whoever has a loop of their own. on_stopping: called when no more jobs are taken."""
        with self._lock:
            if self._run is not None:
                raise ConfigError("the worker runs already")
            run = self._run = _Run(self, on_ready, on_stopping, max_jobs, max_memory_bytes)
            if self._stop_wanted is not None:
                run.stop("stopped", self._stop_wanted)
        try:
            return await run.serve()
        finally:
            with self._lock:
                self._run = self._stop_wanted = None
                self._done_before += run.slots.done_count
                self._failed_before += run.slots.failed_count

    def _sources(self, slots: JobSlots) -> list[Source]:
        client_id = self.client_id or f"{socket.gethostname()}-{os.getpid()}"[:127]
        sources: list[Source] = [WireSource(address, slots, client_id, self.keepalive_seconds) for address in self.servers]
        if self.dsn is not None:
            from .database_source import DatabaseSource  # workers of servers alone do without psycopg

            sources.append(DatabaseSource(slots, self.dsn, client_id))
        return sources


class _Run:
    """One run of a worker, from its start to its end. Made inside the loop."""

    def __init__(
        self,
        worker: WorkerCore,
        on_ready: Callable[[], None] | None,
        on_stopping: Callable[[StopReason], None] | None,
        max_jobs: int | None,
        max_memory_bytes: int | None,
    ) -> None:
        if max_jobs is not None and max_jobs < 1:
            raise ConfigError(f"max_jobs {max_jobs} given, must be 1 or more")
        self._loop = asyncio.get_running_loop()
        self._stopping: asyncio.Future[StopReason] = self._loop.create_future()
        self._overdue: asyncio.Future[None] = self._loop.create_future()
        self._on_stopping = on_stopping
        self._max_memory_bytes = max_memory_bytes
        self._drain_seconds = worker.drain_seconds
        self.slots = JobSlots(
            worker.concurrency,
            worker.handlers,
            worker._hooks,
            exceptions=worker.exceptions,
            max_jobs=max_jobs,
            on_ready=on_ready or (lambda: None),
            on_enough=lambda: self.stop("max_jobs", worker.drain_seconds),
            on_interrupt=lambda: self.stop("stopped", worker.drain_seconds),
        )
        self.slots.sources = worker._sources(self.slots)

    def call(self, what: Callable[..., None], *arguments: Any) -> None:
        """Call something in the run's loop, from any thread."""
        with contextlib.suppress(RuntimeError):  # where the loop is closed, the run has ended
            self._loop.call_soon_threadsafe(what, *arguments)

    def change(self, handlers: Handlers, hooks: Hooks) -> None:
        """Take what the worker can do now."""
        self.slots.hooks = hooks
        if self.slots.handlers is not handlers:
            self.slots.handlers = handlers
            for source in self.slots.sources:
                source.abilities_changed()

    def stop(self, reason: StopReason, drain_seconds: float) -> None:
        """Begin to stop; running jobs are given so much time."""
        if not self._stopping.done():
            self._stopping.set_result(reason)
            for source in self.slots.sources:
                source.stop_taking()
            self.slots.drain()
            if self._on_stopping is not None:
                self._on_stopping(reason)
        if drain_seconds < math.inf:
            self._loop.call_later(drain_seconds, self._give_up)

    async def serve(self) -> StopReason:
        """Bring jobs and run them until told to stop."""
        sources = self.slots.sources
        tasks = [asyncio.create_task(source.run(), name=f"postgear source {source.name}") for source in sources]
        watch = [asyncio.create_task(self._watch_memory())] if self._max_memory_bytes is not None else []
        try:
            ends: list[asyncio.Future[Any]] = [self._stopping, *tasks, *self.slots.tasks]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            self._raise_faults(tasks)
            reason = self._stopping.result()
            log.info("stopping reason=%s running=%d", reason, self.slots.running_count)
            await self._drain(sources)
            return reason
        finally:
            for task in watch:
                task.cancel()
            await self.slots.close()
            for source in sources:
                await source.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, *watch, return_exceptions=True)

    async def _drain(self, sources: Sequence[Source]) -> None:
        if not await self._in_time(self.slots.wait_idle()):
            log.warning("running jobs go back to the queue running=%d", self.slots.running_count)
        elif not await self._in_time(*(source.settle() for source in sources)):
            log.warning("not every server has confirmed the results")

    async def _in_time(self, *waits: Any) -> bool:
        """Wait for all of these, or until time is up; return whether they ended."""
        waiting: asyncio.Future[Any] = asyncio.gather(*waits)
        await asyncio.wait([waiting, cast("asyncio.Future[Any]", self._overdue)], return_when=asyncio.FIRST_COMPLETED)
        if waiting.done():
            waiting.result()
            return True
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        return False

    def _raise_faults(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        for task in (*tasks, *self.slots.tasks):
            if task.done() and not task.cancelled():
                task.result()

    def _give_up(self) -> None:
        if not self._overdue.done():
            self._overdue.set_result(None)

    async def _watch_memory(self) -> None:
        while _memory_bytes() <= cast(int, self._max_memory_bytes):
            await asyncio.sleep(MEMORY_CHECK_SECONDS)
        self.stop("max_memory", self._drain_seconds)


class AsyncWorker(WorkerCore):
    """A worker in an event loop that is there already; ``async with`` runs it meanwhile."""

    _task: asyncio.Task[StopReason] | None = None

    async def run(
        self,
        *,
        on_ready: Callable[[], None] | None = None,
        max_jobs: int | None = None,
        max_memory_bytes: int | None = None,
    ) -> StopReason:
        """Take jobs and run them until ``stop``, or until *max_jobs* were run or the process needs more memory than this.

        Returns why it stopped. on_ready: called when it is connected for the first time and can take jobs. Cancelled, it ends
        at once: running jobs go back to the queue. Raises ConfigError if it runs already.
        """
        return await self.serve(on_ready=on_ready, max_jobs=max_jobs, max_memory_bytes=max_memory_bytes)

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self.run(), name="postgear worker")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        if task is not None:
            if not task.done():
                self.stop()
            await task


def _check_handler(handler: AnyHandler, dsn: str | None) -> None:
    if handler.transactional and dsn is None:
        raise ConfigError(f"function {handler.name}: transactional needs a worker with a dsn")


def _addresses(servers: str | Sequence[str] | None) -> tuple[Address, ...]:
    if servers is None:
        return ()
    text = servers if isinstance(servers, str) else ",".join(servers)
    try:
        addresses = parse_servers(text)
    except ValueError as error:
        raise ConfigError(f"servers: {error} is not HOST:PORT") from None
    if not addresses:
        raise ConfigError("servers: none given")
    return tuple(dict.fromkeys(addresses))


def _memory_bytes() -> int:
    """Return how much memory the process has in use; where that cannot be told, how much it had at most."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
