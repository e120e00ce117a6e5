"""``GearmanWorker`` over ``postgear.Worker``; as in ``gearman.worker``.

postgear's worker runs in a thread, with one slot. It hands each job over to the thread that called ``work``, where all callbacks
run, one after the other, and takes the next one when that thread says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import sys
import threading
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any

from postgear.functions import Handler
from postgear.worker.job import Job
from postgear.worker.runner import Worker

from .connection_manager import GearmanConnectionManager, Host
from .errors import InvalidWorkerState

POLL_TIMEOUT_IN_SECONDS = 60.0

log = logging.getLogger("postgear.compat.gearman")

ExceptionInfo = tuple[type[BaseException] | None, BaseException | None, TracebackType | None]


class GearmanWorker(GearmanConnectionManager):
    """A worker that runs one job at a time. A server that goes away is connected to again, for as long as ``work`` runs."""

    def __init__(self, host_list: Iterable[Host] | None = None) -> None:
        super().__init__(host_list)
        self.worker_abilities: dict[Any, Callable[[Any, Any], Any]] = {}
        self.worker_client_id: str | None = None
        self._worker: Worker | None = None
        self._deliveries: queue.Queue[_Delivery | None] = queue.Queue()
        self._running: dict[bytes, _Delivery] = {}

    def register_task(self, task: Any, callback_function: Callable[[Any, Any], Any]) -> Any:
        """Do a function from here on; *callback_function* is given this worker and the job, and returns the result."""
        self.worker_abilities[task] = callback_function
        if self._worker is not None:
            self._worker.add(self._handler(task))
        return task

    def unregister_task(self, task: Any) -> Any:
        """Do a function no more."""
        if self.worker_abilities.pop(task, None) is not None and self._worker is not None:
            self._worker.remove(_text(task))
        return task

    def set_client_id(self, client_id: Any) -> Any:
        """Be shown as this by servers, from the next call of ``work`` on."""
        self.worker_client_id = None if client_id is None else _text(client_id)
        return client_id

    def work(self, poll_timeout: float | None = POLL_TIMEOUT_IN_SECONDS) -> None:
        """Run jobs until ``after_poll`` or ``after_job`` returns false.

        poll_timeout: seconds without a job after which ``after_poll`` is called all the same. Raises ServerUnavailable if no
        server can be reached when it is called.
        """
        self._establish_any()
        self._links.close()  # the worker makes connections of its own
        worker = Worker([str(address) for address in self._addresses()], client_id=self.worker_client_id)
        for task in self.worker_abilities:
            worker.add(self._handler(task))
        self._deliveries = queue.Queue()
        self._worker = worker
        thread = threading.Thread(target=self._run, args=(worker,), name="postgear gearman worker", daemon=True)
        thread.start()
        try:
            self._work(worker, poll_timeout)
        except BaseException:
            worker.stop(0.0)
            raise
        finally:
            self._worker = None
            thread.join()

    # -- to be overridden ----------------------------------------------------------------------------------------

    def after_poll(self, any_activity: bool) -> bool:
        """Tell whether to go on; called before the first job, after each, and when *poll_timeout* is over without one."""
        return True

    def after_job(self) -> bool:
        """Tell whether to go on; called after each job."""
        return True

    def on_job_execute(self, current_job: Any) -> bool:
        """Run a job: call the function's callback, then ``on_job_complete`` or ``on_job_exception``."""
        try:
            result = self.worker_abilities[current_job.task](self, current_job)
        except Exception:
            return self.on_job_exception(current_job, sys.exc_info())
        return self.on_job_complete(current_job, result)

    def on_job_exception(self, current_job: Any, exc_info: ExceptionInfo) -> bool:
        """Report a job whose callback raised as failed."""
        self.send_job_failure(current_job)
        return False

    def on_job_complete(self, current_job: Any, job_result: Any) -> bool:
        """Report a job as done."""
        self.send_job_complete(current_job, job_result)
        return True

    # -- reports -------------------------------------------------------------------------------------------------

    def send_job_status(self, current_job: Any, numerator: float, denominator: float, poll_timeout: float | None = None) -> None:
        """Say how far a job is. poll_timeout, in all of these, is for old programs: they wait only while a server is slow."""
        self._delivery(current_job).job.status(int(numerator), int(denominator))

    def send_job_data(self, current_job: Any, data: Any, poll_timeout: float | None = None) -> None:
        """Send a part of the result."""
        self._delivery(current_job).job.data(self._encode(data))

    def send_job_warning(self, current_job: Any, data: Any, poll_timeout: float | None = None) -> None:
        """Send a warning."""
        self._delivery(current_job).job.warning(self._encode(data))

    def send_job_complete(self, current_job: Any, data: Any, poll_timeout: float | None = None) -> None:
        """End a job as done."""
        self._delivery(current_job).complete(self._encode(data))

    def send_job_failure(self, current_job: Any, poll_timeout: float | None = None) -> None:
        """End a job as failed (WORK_FAIL)."""
        self._delivery(current_job).job.exception(b"")

    def send_job_exception(self, current_job: Any, data: Any, poll_timeout: float | None = None) -> None:
        """End a job as failed, and say why (WORK_EXCEPTION)."""
        self._delivery(current_job).job.exception(self._encode(data))

    # -- parts ---------------------------------------------------------------------------------------------------

    def _work(self, worker: Worker, poll_timeout: float | None) -> None:
        delivery: _Delivery | None = None
        is_going = self.after_poll(False)
        while is_going:
            if delivery is not None:
                delivery.release()
            try:
                delivery = self._deliveries.get(timeout=poll_timeout)
            except queue.Empty:
                delivery = None
                is_going = self.after_poll(False)
                continue
            if delivery is None:
                return  # the worker has ended by itself, and its thread has said why
            self._execute(delivery)
            is_going = self.after_poll(True) and self.after_job()
        if delivery is None:
            worker.stop(0.0)  # a job that was handed over at this moment goes back to its server
        else:
            worker.stop()  # before the slot is free, so that no job is taken that would have to go back
            delivery.release()

    def _execute(self, delivery: _Delivery) -> None:
        job = delivery.job
        made = self.job_class(
            self._connection_to(job.server),
            job.handle.encode("utf-8", "surrogateescape"),
            delivery.task,
            job.unique.encode("utf-8", "surrogateescape"),
            self.data_encoder.decode(job.workload),
        )
        self._running[made.handle] = delivery
        try:
            self.on_job_execute(made)
            if not delivery.is_ended:
                log.error("neither complete nor failed after on_job_execute, failed now: %r", made)
                job.exception(b"")
        finally:
            del self._running[made.handle]

    def _delivery(self, current_job: Any) -> _Delivery:
        delivery = self._running.get(current_job.handle)
        if delivery is None:
            raise InvalidWorkerState(f"this job does not run here: {current_job!r}")
        return delivery

    def _handler(self, task: Any) -> Handler[Any, Any, Any, Any]:
        async def hand_over(_payload: bytes, job: Job) -> None:
            delivery = _Delivery(job, task)
            self._deliveries.put(delivery)
            await delivery.released

        return Handler(hand_over, _text(task))

    def _run(self, worker: Worker) -> None:
        try:
            worker.run()
        finally:
            self._deliveries.put(None)


class _Delivery:
    """A job on its way through the thread that runs callbacks. Made in the worker's loop."""

    def __init__(self, job: Job, task: Any) -> None:
        self.job = job
        self.task = task
        self._is_completed = False
        self._loop = asyncio.get_running_loop()
        self.released: asyncio.Future[None] = self._loop.create_future()

    @property
    def is_ended(self) -> bool:
        """Whether its end was told, or nobody wants to know any more."""
        return self._is_completed or self.job.is_ended

    def complete(self, result: bytes) -> None:
        """Tell the result now; the slot stays taken."""
        self._is_completed = True
        with contextlib.suppress(RuntimeError):  # the loop is closed: the worker has ended, and the job with it
            self._loop.call_soon_threadsafe(self._complete, result)

    def release(self) -> None:
        """Let the slot take the next job."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._release)

    def _complete(self, result: bytes) -> None:
        if not self.job.is_ended:
            self.job.is_ended = True
            self.job.origin.complete(self.job, result)

    def _release(self) -> None:
        if not self.released.done():
            self.released.set_result(None)


def _text(name: Any) -> str:
    return name.decode("utf-8", "surrogateescape") if isinstance(name, bytes) else str(name)
