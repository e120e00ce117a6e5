"""The queue in memory: what was submitted or enqueued, and running it by a worker's handlers. ``memory`` brings jobs here."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeVar

from postgear.errors import ConfigError
from postgear.functions import Function, Handler
from postgear.newjob import PRIORITIES, EncodedJob, encode_function, encode_payload, encode_unique
from postgear.wire.packet import PacketType
from postgear.worker.calling import Hooks, Undeliverable, as_exception, call, call_blocking
from postgear.worker.core import WorkerCore
from postgear.worker.job import Job
from postgear.worker.slots import RETRY_MAX_SECONDS

_PRIORITY_NAMES: Final = {number: name for name, number in PRIORITIES.items()}
T = TypeVar("T")


class _Any:
    def __repr__(self) -> str:
        return "ANY"


ANY: Final[Any] = _Any()
"""Stands for whatever it may be."""


@dataclass(eq=False)
class QueuedJob:
    """A job in the queue in memory.

    run_at: Unix time, None for at once. state: queued, running, done or failed. ended_at: Unix time, for the last two.
    result: bytes, when it is done. error: what its handler raised last. data, warnings: what it reported; progress: numerator and
    denominator.
    """

    handle: str
    function: str
    workload: bytes
    unique: str = ""
    priority: str = "normal"
    run_at: float | None = None
    reducer: str = ""
    attempt: int = 1
    state: str = "queued"
    ended_at: float | None = None
    result: bytes | None = None
    error: BaseException | None = None
    data: list[bytes] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    progress: tuple[int, int] = (0, 0)

    @property
    def payload(self) -> Any:
        """The workload as JSON, else as text, else as bytes."""
        try:
            return json.loads(self.workload)
        except ValueError:
            pass
        try:
            return self.workload.decode()
        except UnicodeDecodeError:
            return self.workload

    def __str__(self) -> str:
        words = [f"{self.function!r}, {self.payload!r}"]
        words += [f"unique={self.unique!r}"] if self.unique else []
        words += [f"priority={self.priority!r}"] if self.priority != "normal" else []
        words += [f"run_at={self.run_at!r}"] if self.run_at is not None else []
        return f"{self.state}: {', '.join(words)}"


class MemoryQueue:
    """Jobs in memory. Handlers run in the thread that asks for it, one after the other, without their timeouts.

    jobs: those queued, in the order in which they run. ended: those done or failed.
    """

    def __init__(self) -> None:
        self.ended: list[QueuedJob] = []
        self._queued: list[QueuedJob] = []
        self._running: list[QueuedJob] = []
        self._number = 0
        self._inline: WorkerCore | None = None
        self._connection: Any = None
        self._lock = threading.RLock()

    @property
    def jobs(self) -> list[QueuedJob]:
        """The jobs that are queued, scheduled ones included."""
        with self._lock:
            return sorted(self._queued, key=lambda job: PRIORITIES[job.priority])

    def clear(self) -> None:
        """Forget all jobs."""
        with self._lock:
            self._queued.clear()
            self.ended.clear()

    # -- what is in it -------------------------------------------------------------------------------------------

    def assert_enqueued(
        self,
        function: str | bytes | Function[Any, Any],
        payload: Any = ANY,
        *,
        unique: str | bytes | None = ANY,
        priority: str = ANY,
        run_at: float | None = ANY,
    ) -> QueuedJob:
        """Return the first job that was enqueued like this, queued or ended; what is left out may be anything.

        payload: compared as it travels; JSON whatever its spaces and the order of its keys. Raises AssertionError, with a list of
        what was enqueued.
        """
        matching = self._matching(function, payload, unique, priority, run_at)
        if not matching:
            wanted = f"{_name(function)!r}, {payload!r}"
            for word, value in (("unique", unique), ("priority", priority), ("run_at", run_at)):
                wanted += f", {word}={value!r}" if value is not ANY else ""
            raise AssertionError(f"not enqueued: {wanted}; {self._listed()}")
        return matching[0]

    def assert_not_enqueued(
        self,
        function: str | bytes | Function[Any, Any],
        payload: Any = ANY,
        *,
        unique: str | bytes | None = ANY,
        priority: str = ANY,
        run_at: float | None = ANY,
    ) -> None:
        """Raise AssertionError if a job was enqueued like this."""
        matching = self._matching(function, payload, unique, priority, run_at)
        if matching:
            raise AssertionError(f"enqueued: {matching[0]}")

    # -- running it ----------------------------------------------------------------------------------------------

    def run(self, worker: WorkerCore, *, scheduled: bool = False, raises: bool = True, connection: Any = None) -> list[QueuedJob]:
        """Run the queued jobs that *worker* has handlers for, also those that these enqueue, once each; return those that ran.

        scheduled: also those whose time has not come, as of jobs that failed and are tried again. raises: raise what a handler
        raises; else it is the job's ``error``. connection: what handlers with ``transactional=True`` find as
        ``job.connection``; nothing is committed.
        """
        ran: list[QueuedJob] = []
        while (job := self._take(worker, scheduled, ran)) is not None:
            ran.append(job)
            self._run(job, worker, connection)
            if raises and job.error is not None:
                raise job.error
        return ran

    async def run_async(
        self, worker: WorkerCore, *, scheduled: bool = False, raises: bool = True, connection: Any = None
    ) -> list[QueuedJob]:
        """Be ``run`` in the event loop that runs, which async handlers may need."""
        ran: list[QueuedJob] = []
        while (job := self._take(worker, scheduled, ran)) is not None:
            ran.append(job)
            await self._run_async(job, worker, connection)
            if raises and job.error is not None:
                raise job.error
        return ran

    def inline(self, worker: WorkerCore | None, *, connection: Any = None) -> None:
        """From here on run each job when it is submitted, if *worker* has a handler for it; None: no more.

        What the handler of a background job raises comes out where it was submitted. Jobs that are waited for (``do``, ``map``,
        TaskSet) need this: in this queue nobody else runs them.
        """
        self._inline = worker
        self._connection = connection

    # -- for what brings jobs ------------------------------------------------------------------------------------

    def submit(self, job: EncodedJob, reducer: bytes = b"") -> QueuedJob:
        """Queue a job, or return the one of the same function and unique that has not ended."""
        function, unique = _shown(job.function), _shown(job.unique)
        if unique == "-":
            unique = _shown(job.workload) if job.workload else ""
        with self._lock:
            if unique:
                for other in (*self._queued, *self._running):
                    if (other.function, other.unique) == (function, unique):
                        return other
            self._number += 1
            queued = QueuedJob(
                f"H:memory:{self._number}",
                function,
                job.workload,
                unique,
                _PRIORITY_NAMES[job.priority],
                job.run_at,
                _shown(reducer),
            )
            self._queued.append(queued)
            return queued

    def enqueue(self, jobs: Iterable[EncodedJob]) -> list[str]:
        """Queue background jobs, run them if that is wanted, and return their handles."""
        queued = [self.submit(job) for job in jobs]
        for job in queued:
            self.run_inline(job)
        return [job.handle for job in queued]

    async def enqueue_async(self, jobs: Iterable[EncodedJob]) -> list[str]:
        """Be ``enqueue``."""
        queued = [self.submit(job) for job in jobs]
        for job in queued:
            await self.run_inline_async(job)
        return [job.handle for job in queued]

    def find(self, handle: str = "", unique: str = "") -> QueuedJob | None:
        """Return a job that has not ended, by one of these."""
        with self._lock:
            jobs = (*self._queued, *self._running)
            return next((job for job in jobs if handle == job.handle or (unique and unique == job.unique)), None)

    def find_ended(self, handle: str) -> QueuedJob | None:
        """Return a job that has ended."""
        with self._lock:
            return next((job for job in self.ended if job.handle == handle), None)

    def cancel(self, handle: str) -> bool:
        """Take a job out of the queue; false: there is none."""
        with self._lock:
            before = len(self._queued)
            self._queued = [job for job in self._queued if job.handle != handle]
            return len(self._queued) < before

    def run_inline(self, job: QueuedJob, *, is_awaited: bool = False) -> None:
        """Run a job that was just submitted, if it is to run now. is_awaited: a client waits for its result, and gets the error.

        Raises ConfigError where somebody waits and nobody runs it.
        """
        worker = self._inline_worker(job, is_awaited)
        if worker is not None:
            self._run(job, worker, self._connection, again_at_once=True)
            if job.error is not None and job.state == "failed" and not is_awaited:
                raise job.error

    async def run_inline_async(self, job: QueuedJob, *, is_awaited: bool = False) -> None:
        """Be ``run_inline``."""
        worker = self._inline_worker(job, is_awaited)
        if worker is not None:
            await self._run_async(job, worker, self._connection, again_at_once=True)
            if job.error is not None and job.state == "failed" and not is_awaited:
                raise job.error

    # -- parts ---------------------------------------------------------------------------------------------------

    def _inline_worker(self, job: QueuedJob, is_awaited: bool) -> WorkerCore | None:
        with self._lock:
            worker = self._inline
            if worker is None or job.function not in worker.handlers:
                if is_awaited:
                    self.cancel(job.handle)
                    raise ConfigError(f"function {job.function}: nobody runs it; say postgear_queue.inline(worker)")
                return None
            if job not in self._queued or job.run_at is not None:
                return None
            self._begin(job)
            return worker

    def _take(self, worker: WorkerCore, scheduled: bool, ran: list[QueuedJob]) -> QueuedJob | None:
        with self._lock:
            now = time.time()
            for job in self.jobs:
                is_due = scheduled or job.run_at is None or job.run_at <= now
                if is_due and job.function in worker.handlers and job not in ran:
                    self._begin(job)
                    return job
            return None

    def _begin(self, job: QueuedJob) -> None:
        self._queued.remove(job)
        self._running.append(job)
        job.state = "running"
        job.error = None

    def _run(self, queued: QueuedJob, worker: WorkerCore, connection: Any, *, again_at_once: bool = False) -> None:
        run = _Run(queued, worker, connection)
        while True:
            if run.is_plain:
                run.take(lambda: call_blocking(run.job, run.hooks))
            else:
                _wait_for(run.take_async())
            if not self._ended(queued, run, again_at_once):
                return

    async def _run_async(self, queued: QueuedJob, worker: WorkerCore, connection: Any, *, again_at_once: bool = False) -> None:
        run = _Run(queued, worker, connection)
        while True:
            await run.take_async()
            if not self._ended(queued, run, again_at_once):
                return

    def _ended(self, queued: QueuedJob, run: _Run, again_at_once: bool) -> bool:
        """Settle what comes of a job after a run; whether it runs again now."""
        error = queued.error
        is_again = error is not None and queued.attempt <= run.handler.retries and not isinstance(error, Undeliverable)
        if is_again and not run.job.is_ended:
            seconds = min(2.0 ** (queued.attempt - 1), RETRY_MAX_SECONDS)
            queued.attempt += 1
            run.job.attempt = queued.attempt
            if again_at_once:
                queued.error = None
                return True
            with self._lock:
                queued.run_at = time.time() + seconds
                queued.state = "queued"
                self._running.remove(queued)
                self._queued.append(queued)
            return False
        run.job.is_ended = True
        with self._lock:
            queued.state = "done" if queued.result is not None else "failed"
            queued.ended_at = time.time()
            self._running.remove(queued)
            self.ended.append(queued)
        return False

    def _matching(self, function: Any, payload: Any, unique: Any, priority: Any, run_at: Any) -> list[QueuedJob]:
        name = _name(function)
        workload = None if payload is ANY else encode_payload(payload)
        key = unique if unique is ANY or unique is None else _shown(encode_unique(unique))
        with self._lock:
            return [
                job
                for job in (*self.ended, *self._running, *self.jobs)
                if job.function == name
                and (workload is None or _is_same(job.workload, workload))
                and (key is ANY or job.unique == (key or ""))
                and (priority is ANY or job.priority == priority)
                and (run_at is ANY or job.run_at == run_at)
            ]

    def _listed(self) -> str:
        everything = [*self.ended, *self._running, *self.jobs]
        return "enqueued were:\n" + "\n".join(f"  {job}" for job in everything) if everything else "nothing was"


class _Run:
    """A job in the hands of a worker's handler; its Origin, too (see ``worker.sources``)."""

    name = "memory"
    is_congested = False

    def __init__(self, queued: QueuedJob, worker: WorkerCore, connection: Any) -> None:
        self.handler: Handler[Any, Any, Any, Any] = worker.handlers[queued.function]
        self.hooks: Hooks = worker._hooks
        self._queued = queued
        self._connection = connection
        self.job = Job(
            self.handler,
            queued.handle,
            queued.workload,
            self.report,
            self,
            unique=queued.unique,
            reducer=queued.reducer,
            attempt=queued.attempt,
        )

    @property
    def is_plain(self) -> bool:
        """Whether nothing of it is asynchronous."""
        return not (self.handler.is_async or self.hooks.async_before or self.hooks.async_after)

    def take(self, run: Callable[[], bytes | None]) -> None:
        """Keep what comes of a run."""
        try:
            result = run()
        except Exception as error:
            self._failed(error)
        else:
            self._done(result)

    async def take_async(self) -> None:
        """Run and keep what comes of it."""
        try:
            result = await call(self.job, self.hooks, _Here)  # type: ignore[arg-type]
        except Exception as error:
            self._failed(error)
        else:
            self._done(result)

    def _done(self, result: bytes | None) -> None:
        if not self.job.is_ended and result is not None:
            self._queued.result = result

    def _failed(self, error: Exception) -> None:
        if not self.job.is_ended:
            self._queued.error = error

    # -- sources.Origin ------------------------------------------------------------------------------------------

    async def drained(self) -> None:
        """See ``sources.Origin``."""

    def report(self, job: Job, kind: PacketType, arguments: tuple[bytes, ...]) -> None:
        """Keep what the handler reports."""
        if job.is_ended:
            return
        if kind is PacketType.WORK_STATUS:
            self._queued.progress = (int(arguments[0]), int(arguments[1]))
        elif kind is PacketType.WORK_DATA:
            self._queued.data.append(arguments[0])
        elif kind is PacketType.WORK_WARNING:
            self._queued.warnings.append(_shown(arguments[0]))
        else:
            self._queued.error = ReportedFailure(_shown(arguments[0]))
            job.is_ended = True

    def complete(self, job: Job, result: bytes) -> None:
        """See ``sources.Origin``."""
        self._done(result)

    def fail(self, job: Job, exception: bytes) -> None:
        """See ``sources.Origin``."""
        self._failed(ReportedFailure(_shown(exception)))

    def retry(self, job: Job, delay_seconds: float) -> bool:
        """See ``sources.Origin``."""
        return False

    def run_transaction(self, job: Job, call: Callable[[], bytes]) -> None:
        """See ``sources.Origin``. What the handler writes is in the transaction of the test."""
        job.connection = self._given_connection()
        self._queued.result = call()

    async def run_transaction_async(self, job: Job, call: Callable[[], Awaitable[bytes]]) -> None:
        """Do the same for an async handler."""
        job.connection = self._given_connection()
        self._queued.result = await call()

    def _given_connection(self) -> Any:
        if self._connection is None:
            raise ConfigError(f"function {self.handler.name}: it is transactional; give run() or inline() a connection")
        return self._connection


class ReportedFailure(Exception):
    """A handler ended its job by ``job.exception``; the text is what it said."""


class _Here:
    """In the place of a slot's thread: the thread that is here."""

    async def run(self, call: Callable[[], T]) -> T:
        return call()


def exception_of(job: QueuedJob) -> bytes:
    """Return what clients are told about a job that failed."""
    error = job.error
    if isinstance(error, ReportedFailure):
        return str(error).encode("utf-8", "backslashreplace")
    return b"" if error is None else as_exception(error)


def _wait_for(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine to its end, also inside of a loop that cannot go on meanwhile."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(coroutine)
        return
    thread = threading.Thread(target=partial(asyncio.run, coroutine))
    thread.start()
    thread.join()


def _name(function: str | bytes | Function[Any, Any]) -> str:
    return _shown(encode_function(function))


def _shown(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")


def _is_same(workload: bytes, other: bytes) -> bool:
    if workload == other:
        return True
    try:
        return bool(json.loads(workload) == json.loads(other))
    except ValueError:
        return False
