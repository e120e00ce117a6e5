"""The slots of a worker: each is a coroutine that takes the next job, runs its handler in place and tells how it ended.

Here are time (timeouts, pauses before another run), failure and loss. How a handler is called is in ``calling``.

A thread cannot be stopped: where its handler takes too long, or its job is lost, the job ends and the slot stays taken until
the thread is done.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Sequence
from enum import Enum
from threading import get_ident
from types import TracebackType
from typing import Final

from postgear.errors import JobLost, StoreInDoubt
from postgear.wire.packet import PacketType

from .calling import Hooks, Undeliverable, as_exception, call, in_own_context, log
from .job import Job
from .sources import Handlers, Source
from .threads import SlotThread

RETRY_MAX_SECONDS: Final = 300.0
CANCEL_SECONDS: Final = 2.0
"""How long async handlers may take to end when the worker closes over them."""


class _Cause(Enum):
    """Why a slot's coroutine was cancelled by us."""

    TIMEOUT = "timeout"
    LOST = "lost"
    DRAIN = "drain"


class _Slot:
    __slots__ = ("again_seconds", "cause", "is_cancelled", "is_pausing", "number", "task", "thread")

    def __init__(self, number: int) -> None:
        self.number = number
        self.task: asyncio.Task[None]
        self.thread: SlotThread | None = None
        self.cause: _Cause | None = None
        self.is_cancelled = False  # by us; any further cancellation is the end of the worker
        self.is_pausing = False  # between two runs of a job that failed
        self.again_seconds: float | None = None  # after a timeout: when to run the job again, None: not

    def begin(self) -> None:
        self.cause = self.again_seconds = None

    def cancel(self, cause: _Cause) -> None:
        if self.cause is None:
            self.cause = cause
            self.is_cancelled = True
            self.task.cancel()

    def resume(self) -> None:
        """Go on after ``cancel``. Raises CancelledError where that was not all."""
        if self.is_cancelled:
            self.is_cancelled = False
            self.task.uncancel()
        if self.task.cancelling():
            raise asyncio.CancelledError

    def get_thread(self) -> SlotThread:
        if self.thread is None:
            self.thread = SlotThread(f"postgear-slot-{self.number}")
        return self.thread


class JobSlots:
    """The slots of one run of a worker; what ``sources.Slots`` says.

    exceptions: whether it is told why a job failed. max_jobs: how many jobs may be taken, None for no bound. on_ready: called
    once, when the first source is ready. on_enough: called when max_jobs were taken. on_interrupt: called when a handler raised
    KeyboardInterrupt.
    """

    def __init__(
        self,
        count: int,
        handlers: Handlers,
        hooks: Hooks,
        *,
        exceptions: bool,
        max_jobs: int | None,
        on_ready: Callable[[], None],
        on_enough: Callable[[], None],
        on_interrupt: Callable[[], None],
    ) -> None:
        self.handlers = handlers
        self.hooks = hooks
        self.sources: Sequence[Source] = ()
        self.done_count = 0
        self.failed_count = 0
        self._exceptions = exceptions
        self._left = max_jobs
        self._on_ready: Callable[[], None] | None = on_ready
        self._on_enough = on_enough
        self._on_interrupt = on_interrupt
        self._loop = asyncio.get_running_loop()
        self._thread_id = get_ident()
        self._free = count
        self._reserved = 0
        self._assigned: deque[Job] = deque()  # jobs that no coroutine has begun yet
        self._running: dict[Job, _Slot] = {}
        self._waiting: list[asyncio.Future[Job]] = []  # of coroutines without a job
        self._first_source = 0
        self._is_draining = False
        self._is_closed = False
        self._idle: asyncio.Future[None] = self._loop.create_future()
        self._slots = [_Slot(number) for number in range(1, count + 1)]
        for slot in self._slots:
            slot.task = self._loop.create_task(self._serve(slot), name=f"postgear slot {slot.number}")

    # -- for sources ---------------------------------------------------------------------------------------------

    def reserve(self, wanted: int) -> int:
        """See ``sources.Slots``."""
        if self._is_draining:
            return 0
        count = min(wanted, self._free)
        if self._left is not None:
            count = min(count, self._left)
            self._left -= count
        self._free -= count
        self._reserved += count
        return count

    def release(self, count: int) -> None:
        """See ``sources.Slots``."""
        self._reserved -= count
        if self._left is not None:
            self._left += count
        self._freed(count)

    def assign(self, job: Job) -> None:
        """See ``sources.Slots``."""
        self._reserved -= 1
        while self._waiting:
            waiter = self._waiting.pop()
            if not waiter.done():
                waiter.set_result(job)
                break
        else:
            self._assigned.append(job)
        if self._left == 0 and not self._reserved:
            self._on_enough()

    def lose(self, job: Job) -> None:
        """See ``sources.Slots``."""
        if job.is_ended:
            return
        job.is_ended = True
        self._log(logging.WARNING, "job lost", job)
        slot = self._running.get(job)
        if slot is not None and (job.handler.is_async or slot.is_pausing):
            slot.cancel(_Cause.LOST)

    def ready(self) -> None:
        """See ``sources.Slots``."""
        on_ready, self._on_ready = self._on_ready, None
        if on_ready is not None:
            on_ready()

    def report(self, job: Job, kind: PacketType, arguments: tuple[bytes, ...]) -> None:
        """See ``sources.Slots``."""
        if get_ident() == self._thread_id:
            self._report(job, kind, arguments)
            return
        reporting = self._report_and_wait(job, kind, arguments)
        try:
            future = asyncio.run_coroutine_threadsafe(reporting, self._loop)
        except RuntimeError:
            reporting.close()  # the loop is closed: the worker has ended, and the job with it
        else:
            self._wait(future)

    def _wait(self, future: concurrent.futures.Future[None]) -> None:
        while not self._loop.is_closed():
            with contextlib.suppress(TimeoutError, concurrent.futures.CancelledError):
                return future.result(1.0)
            if future.cancelled():
                return None
        return None  # what was under way when the loop was closed is never answered

    # -- for the worker ------------------------------------------------------------------------------------------

    @property
    def running_count(self) -> int:
        """How many jobs run at this moment."""
        return len(self._running)

    def pull(self) -> None:
        """Let the sources take what slots are free, another one first each time."""
        sources = self.sources
        count = len(sources)
        if count == 1:
            sources[0].pull()
            return
        if not count:
            return
        first = self._first_source = (self._first_source + 1) % count
        for place in range(first, first + count):
            if not self._free:
                return
            sources[place % count].pull()

    def drain(self) -> None:
        """Take no more jobs. Those that wait for another run go back to the queue."""
        self._is_draining = True
        for slot in list(self._running.values()):
            if slot.is_pausing:
                slot.cancel(_Cause.DRAIN)
        self._check_idle()

    async def wait_idle(self) -> None:
        """Wait, after ``drain``, until no job runs and none is on its way."""
        await asyncio.shield(self._idle)

    async def close(self) -> None:
        """Cancel what still runs; threads are left to themselves."""
        self._is_draining = self._is_closed = True
        for job in [*self._assigned, *self._running]:
            job.is_ended = True
        for task in self.tasks:
            task.cancel()
        _, stubborn = await asyncio.wait(self.tasks, timeout=CANCEL_SECONDS)
        if stubborn:
            log.error("handlers ignore that they are cancelled: %s", ", ".join(map(repr, self._running)))
        for slot in self._slots:
            if slot.thread is not None:
                slot.thread.end()

    @property
    def tasks(self) -> list[asyncio.Task[None]]:
        """The slots' coroutines; only a fault in this module ends one before ``close``."""
        return [slot.task for slot in self._slots]

    # -- one slot ------------------------------------------------------------------------------------------------

    async def _serve(self, slot: _Slot) -> None:
        assigned = self._assigned
        running = self._running
        while not self._is_closed:
            if assigned:
                job = assigned.popleft()
            else:
                waiter = self._loop.create_future()
                self._waiting.append(waiter)
                job = await waiter
            if not job.is_ended:  # it may have been lost since it was assigned
                running[job] = slot
                try:
                    await self._run(slot, job)
                finally:
                    del running[job]
            self._freed(1)

    async def _run(self, slot: _Slot, job: Job) -> None:
        """Run a job until it has ended or is to be left to others."""
        while True:
            slot.begin()
            seconds = job.handler.timeout
            timer = None if seconds is None else self._loop.call_later(seconds, self._timed_out, slot, job)
            again_seconds: float | None = None
            try:
                result = await in_own_context(call(job, self.hooks, slot.get_thread))
                if not job.is_ended and slot.cause is None:
                    self._complete(job, result)
            except GeneratorExit:
                raise
            except BaseException as error:
                # A CancelledError may be the handler's own, from something that it awaited.
                if not job.is_ended and slot.cause is None and not slot.task.cancelling():
                    again_seconds = self._fail(job, error)
            finally:
                if timer is not None:
                    timer.cancel()
            slot.resume()
            if slot.again_seconds is not None:
                again_seconds = slot.again_seconds
            if again_seconds is None or not await self._pause(slot, again_seconds):
                return
            job.attempt = (job.attempt or 1) + 1

    async def _pause(self, slot: _Slot, seconds: float) -> bool:
        """Wait before a job runs again; whether it is to."""
        if self._is_draining:
            return False
        slot.begin()
        slot.is_pausing = True
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            slot.resume()
            return False
        finally:
            slot.is_pausing = False
        return True

    def _timed_out(self, slot: _Slot, job: Job) -> None:
        if job.is_ended or slot.cause is not None:
            return
        error = TimeoutError(f"the handler took longer than {job.handler.timeout:g} s")
        slot.again_seconds = self._fail(job, error)
        if job.handler.is_async:
            slot.cancel(_Cause.TIMEOUT)
        else:
            slot.cause = _Cause.TIMEOUT
            self._log(logging.WARNING, "thread still runs after the timeout, its slot stays taken", job)

    # -- the end of a job ----------------------------------------------------------------------------------------

    def _complete(self, job: Job, result: bytes | None) -> None:
        job.is_ended = True
        self.done_count += 1
        if result is not None:
            job.origin.complete(job, result)

    def _fail(self, job: Job, error: BaseException) -> float | None:
        """End a run that failed; return after how many seconds the job is to run again here, None if it is not."""
        if isinstance(error, KeyboardInterrupt):
            # Not the job's fault: it is not ended, and goes back to the queue when the worker has stopped.
            self._log(logging.WARNING, "job interrupted", job)
            self._on_interrupt()
            return None
        if isinstance(error, JobLost | StoreInDoubt) and job.handler.transactional:
            job.is_ended = True
            self._log(logging.WARNING, "job lost" if isinstance(error, JobLost) else "job in doubt", job, error)
            return None
        number = job.attempt or 1
        if number <= job.handler.retries and not isinstance(error, Undeliverable):
            seconds = min(2.0 ** (number - 1), RETRY_MAX_SECONDS)
            self._log(logging.WARNING, f"job failed, runs again in {seconds:g} s", job, error)
            if not job.origin.retry(job, seconds):
                return seconds
            job.is_ended = True
            return None
        self._log(logging.ERROR, "job failed", job, error)
        self._end_failed(job, as_exception(error))
        return None

    def _end_failed(self, job: Job, exception: bytes) -> None:
        job.is_ended = True
        self.failed_count += 1
        job.origin.fail(job, exception if self._exceptions else b"")

    def _report(self, job: Job, kind: PacketType, arguments: tuple[bytes, ...]) -> None:
        if job.is_ended:
            return
        if kind is PacketType.WORK_EXCEPTION:
            self._log(logging.WARNING, "job failed by its handler", job)
            self._end_failed(job, arguments[0])
        else:
            job.origin.report(job, kind, arguments)

    async def _report_and_wait(self, job: Job, kind: PacketType, arguments: tuple[bytes, ...]) -> None:
        self._report(job, kind, arguments)
        if job.origin.is_congested:
            await job.origin.drained()

    def _freed(self, count: int) -> None:
        self._free += count
        if self._is_draining:
            self._check_idle()
        else:
            self.pull()

    def _check_idle(self) -> None:
        if self._free == len(self._slots) and not self._idle.done():
            self._idle.set_result(None)

    def _log(self, level: int, what: str, job: Job, error: BaseException | None = None) -> None:
        text = "%s function=%s handle=%s server=%s"
        values: list[object] = [what, job.function, job.handle, job.server]
        if error is not None:
            text += " error=%s"
            values.append(as_exception(error).decode())
        if error is not None and not isinstance(error, Undeliverable) and error.__traceback__ is not None:
            log.log(level, text, *values, exc_info=(type(error), error, _own_frames(error.__traceback__)))
        else:
            log.log(level, text, *values)


def _own_frames(traceback: TracebackType) -> TracebackType:
    """Return the part of a traceback from the handler on; all of it where no handler was reached."""
    part: TracebackType | None = traceback
    while part is not None:
        if not part.tb_frame.f_globals.get("__name__", "").startswith(__package__):
            return part
        part = part.tb_next
    return traceback
