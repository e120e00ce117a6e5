"""``GearmanClient`` over postgear's operations; as in ``gearman.client``.

Requests submitted together are a batch: one call of ``postgear.client.links``, advanced only while somebody waits for one.
"""

from __future__ import annotations

import logging
import math
import os
import random
import time
from collections.abc import Callable, Iterable
from typing import Any

from postgear.client import operations, requests
from postgear.client.calls import deadline_after
from postgear.client.jobs import JobEnded, JobEvent, Told, do_many
from postgear.client.links import Running
from postgear.client.operations import Submission
from postgear.errors import InvalidJob, JobFailed, NotAllSubmitted, ServerError, ServerRefused, ServerTimeout, ServerUnreachable
from postgear.wire.packet import PacketType

from .connection_manager import GearmanConnection, GearmanConnectionManager, Host
from .constants import JOB_COMPLETE, JOB_CREATED, JOB_FAILED, JOB_PENDING, JOB_UNKNOWN, PRIORITY_HIGH, PRIORITY_LOW, PRIORITY_NONE
from .errors import ExceededConnectionAttempts, InvalidClientState, ProtocolError
from .job import GearmanJobRequest

RANDOM_UNIQUE_BYTES = 16
_PRIORITIES = {PRIORITY_NONE: "normal", PRIORITY_LOW: "low", PRIORITY_HIGH: "high"}
_WANTED = (PacketType.JOB_CREATED, PacketType.WORK_DATA, PacketType.WORK_STATUS, PacketType.WORK_WARNING)

log = logging.getLogger("postgear.compat.gearman")

Requests = list[GearmanJobRequest] | tuple[GearmanJobRequest, ...] | set[GearmanJobRequest]


class GearmanClient(GearmanConnectionManager):
    """A client of one or several servers. Jobs submitted together go to one server, any; the next if it cannot be reached.

    poll_timeout, everywhere: seconds to wait, None for ever. max_retries: how often a job that no server has acknowledged is
    submitted again; one that a server had is not, and is UNKNOWN when that server is lost. Raises ServerUnavailable when no
    server can be reached, ExceededConnectionAttempts when none took a job, ProtocolError for a job that cannot be.
    """

    def __init__(self, host_list: Iterable[Host] | None = None, random_unique_bytes: int = RANDOM_UNIQUE_BYTES) -> None:
        super().__init__(host_list)
        self.random_unique_bytes = random_unique_bytes
        self._batches: dict[GearmanJobRequest, _Batch] = {}
        """Of requests that somebody may still wait for."""

    def shutdown(self) -> None:
        """Close all connections; nothing is learnt any more of jobs that run."""
        for batch in set(self._batches.values()):
            batch.close()
        self._batches.clear()
        super().shutdown()

    def submit_job(
        self, task: Any, data: Any, unique: Any = None, priority: str | None = PRIORITY_NONE, **kwargs: Any
    ) -> GearmanJobRequest:
        """Submit a job, as ``submit_multiple_jobs`` does, and return its request."""
        job = {"task": task, "data": data, "unique": unique, "priority": priority}
        return next(iter(self.submit_multiple_jobs([job], **kwargs)))

    def submit_multiple_jobs(
        self, jobs_to_submit: Iterable[dict[str, Any]], background: bool = False, max_retries: int = 0, **kwargs: Any
    ) -> Requests:
        """Submit jobs, dicts with task, data, unique and priority, as ``submit_multiple_requests`` does."""
        made = [self._request(job, background, max_retries) for job in jobs_to_submit]
        return self.submit_multiple_requests(made, **kwargs)

    def submit_multiple_requests(
        self, job_requests: Requests, wait_until_complete: bool = True, poll_timeout: float | None = None
    ) -> Requests:
        """Submit requests and wait until servers have them, and, if *wait_until_complete*, until they have ended.

        Look at each one's state and timed_out afterwards: a wait that is too short raises nothing.
        """
        until = deadline_after(poll_timeout)
        self._wait_accepted(job_requests, until)
        if wait_until_complete and time.monotonic() < until:
            self._wait_completed(job_requests, until)
        return job_requests

    def wait_until_jobs_accepted(self, job_requests: Requests, poll_timeout: float | None = None) -> Requests:
        """Wait until servers have said that they have the jobs; those of state UNKNOWN are submitted."""
        self._wait_accepted(job_requests, deadline_after(poll_timeout))
        return job_requests

    def wait_until_jobs_completed(self, job_requests: Requests, poll_timeout: float | None = None) -> Requests:
        """Wait until the jobs have ended, except those of state UNKNOWN."""
        self._wait_completed(job_requests, deadline_after(poll_timeout))
        return job_requests

    def get_job_status(self, current_request: GearmanJobRequest, poll_timeout: float | None = None) -> GearmanJobRequest:
        """Ask for the state of a job; it is in the request's ``status``."""
        self.get_job_statuses([current_request], poll_timeout)
        return current_request

    def get_job_statuses(self, job_requests: Requests, poll_timeout: float | None = None) -> Requests:
        """Ask for the states of jobs. Raises InvalidClientState for one without a handle."""
        until = deadline_after(poll_timeout)
        for request in job_requests:
            self._ask_status(request, until)
        return job_requests

    # -- submitting ----------------------------------------------------------------------------------------------

    def _request(self, job: dict[str, Any], background: bool, max_retries: int) -> GearmanJobRequest:
        unique = job.get("unique") or os.urandom(self.random_unique_bytes).hex()
        made = self.job_class(connection=None, handle=None, task=job["task"], unique=unique, data=job["data"])
        return GearmanJobRequest(made, job.get("priority", PRIORITY_NONE), background, max_retries + 1)

    def _submit(self, job_requests: list[GearmanJobRequest], last_errors: dict[GearmanJobRequest, ServerError]) -> None:
        """Begin to submit requests; nothing is sent before they are waited for."""
        submissions = [self._submission(request) for request in job_requests]
        for request in job_requests:
            if request.connection_attempts >= request.max_connection_attempts:
                error = last_errors.get(request)
                reason = f" ({error})" if error is not None else ""
                raise ExceededConnectionAttempts(
                    f"Exceeded {request.max_connection_attempts} connection attempt(s){reason} :: {request!r}"
                ) from error
        addresses = self._addresses()
        random.shuffle(addresses)
        for background in (False, True):
            those = [request for request in job_requests if request.background is background]
            if not those:
                continue
            chosen = [each for each, request in zip(submissions, job_requests, strict=True) if request.background is background]
            operation: Any = operations.submit_many(chosen) if background else do_many(chosen, len(chosen), _WANTED)
            running = self._links.start(addresses, math.inf, operation)
            batch = _Batch(running, those, self._connection_to, self.data_encoder.decode)
            for request in those:
                request.connection_attempts += 1
                request.timed_out = False
                request.state = JOB_PENDING
                self._batches[request] = batch

    def _submission(self, request: GearmanJobRequest) -> Submission:
        job = request.job
        if request.priority not in _PRIORITIES:
            raise ProtocolError(f"a priority is PRIORITY_NONE, PRIORITY_LOW or PRIORITY_HIGH, {request.priority!r} given")
        try:
            return requests.submission((job.task, self._encode(job.data), job.unique, _PRIORITIES[request.priority]))
        except InvalidJob as error:
            raise ProtocolError(str(error)) from error

    # -- waiting -------------------------------------------------------------------------------------------------

    def _wait_accepted(self, job_requests: Requests, until: float) -> None:
        errors: dict[GearmanJobRequest, ServerError] = {}
        while True:
            unsent = [request for request in job_requests if request.state == JOB_UNKNOWN]
            if unsent:
                self._submit(unsent, errors)
            self._advance(job_requests, until, _is_pending, errors)
            unreachable = next((error for error in errors.values() if isinstance(error, ServerUnreachable)), None)
            if unreachable is not None:
                raise self._unavailable(unreachable) from unreachable
            if time.monotonic() >= until or not any(request.state == JOB_UNKNOWN for request in job_requests):
                break
        for request in job_requests:
            request.timed_out = _is_pending(request)

    def _wait_completed(self, job_requests: Requests, until: float) -> None:
        errors: dict[GearmanJobRequest, ServerError] = {}
        self._advance(job_requests, until, _is_awaited, errors)
        for request in job_requests:
            request.timed_out = not request.complete
        if errors:
            self._establish_any()

    def _advance(
        self,
        job_requests: Requests,
        until: float,
        is_wanted: Callable[[GearmanJobRequest], bool],
        errors: dict[GearmanJobRequest, ServerError],
    ) -> None:
        """Take what servers say until nothing is wanted any more, or for those that answered at once until the time is up."""
        for request in job_requests:
            batch = self._batches.get(request)
            while batch is not None and is_wanted(request) and batch.advance(until):
                pass
        for request in job_requests:
            batch = self._batches.get(request)
            if batch is not None and request in batch.errors:
                errors[request] = batch.errors[request]
            if request.complete or request.state == JOB_UNKNOWN:
                self._batches.pop(request, None)

    # -- status --------------------------------------------------------------------------------------------------

    def _ask_status(self, request: GearmanJobRequest, until: float) -> None:
        handle = request.job.handle
        if not handle:
            raise InvalidClientState(f"there is no handle to ask for: {request!r}")
        encoded = handle if isinstance(handle, bytes) else str(handle).encode()
        errors = []
        for address in self._addresses():
            try:
                found = self._links.run([address], until, operations.get_status(encoded))
            except ServerTimeout:
                request.timed_out = True
                return
            except ServerError as error:
                errors.append(error)
                continue
            request.timed_out = False
            request.status = _status(handle, found.known, found.running, found.numerator, found.denominator)
            if found.known:
                return
        if len(errors) == len(self.connection_list):
            raise self._unavailable(errors[0]) from errors[0]


class _Batch:
    """Requests submitted together, and what servers say of them.

    errors: why a request is UNKNOWN. connection_to: finds the connection that stands for a server.
    """

    def __init__(
        self,
        running: Running[Any],
        job_requests: list[GearmanJobRequest],
        connection_to: Callable[[str], GearmanConnection | None],
        decode: Callable[[bytes], Any],
    ) -> None:
        self.errors: dict[GearmanJobRequest, ServerError] = {}
        self._running = running
        self._requests = job_requests
        self._connection_to = connection_to
        self._decode = decode

    def close(self) -> None:
        """End it; what is not known will not be."""
        self._running.close()

    def advance(self, until: float) -> bool:
        """Take in what is told next; false when *until* came first, or there is nothing more to come."""
        try:
            told = self._running.advance(until)
        except NotAllSubmitted as error:
            self._submitted(error.handles, error.errors)
            return False
        if told is not None:
            self._take(told)
            return True
        if self._running.is_ended and self._running.answer is not None:
            self._submitted(self._running.answer, {})
        return False

    def _take(self, told: Told) -> None:
        request = self._requests[told.position]
        if isinstance(told, JobEnded):
            self._end(request, told)
        elif isinstance(told, JobEvent):
            self._event(request, told)

    def _event(self, request: GearmanJobRequest, told: JobEvent) -> None:
        job = request.job
        if told.kind == PacketType.JOB_CREATED:
            job.connection = self._connection_to(self._running.call.server)
            job.handle = told.arguments[0]
            request.state = JOB_CREATED
        elif told.kind == PacketType.WORK_DATA:
            request.data_updates.append(self._decode(told.arguments[0]))
        elif told.kind == PacketType.WORK_WARNING:
            request.warning_updates.append(self._decode(told.arguments[0]))
        else:
            request.status = _status(job.handle, True, True, *map(_number, told.arguments))

    def _end(self, request: GearmanJobRequest, told: JobEnded) -> None:
        error = told.error
        if error is None:
            request.result = self._decode(told.result or b"")
            request.state = JOB_COMPLETE
        elif isinstance(error, JobFailed):
            if error.exception:
                request.exception = self._decode(error.exception)
            request.state = JOB_FAILED
        else:
            self._lost(request, error)

    def _submitted(self, handles: list[str | None], errors: dict[int, ServerError]) -> None:
        connection = self._connection_to(self._running.call.server)
        for position, request in enumerate(self._requests):
            handle = handles[position]
            if handle is None:
                self._lost(request, errors[position])
            else:
                request.job.connection = connection
                request.job.handle = handle.encode("utf-8", "backslashreplace")
                request.state = JOB_CREATED

    def _lost(self, request: GearmanJobRequest, error: ServerError) -> None:
        request.state = JOB_UNKNOWN
        self.errors[request] = error
        if isinstance(error, ServerRefused):
            log.error("Received error from server: %s", error)


def _is_pending(request: GearmanJobRequest) -> bool:
    return request.state == JOB_PENDING


def _is_awaited(request: GearmanJobRequest) -> bool:
    return not request.complete and request.state != JOB_UNKNOWN


def _status(handle: Any, known: bool, running: bool, numerator: int, denominator: int) -> dict[str, Any]:
    return {
        "handle": handle,
        "known": known,
        "running": running,
        "numerator": numerator,
        "denominator": denominator,
        "time_received": time.time(),
    }


def _number(word: bytes) -> int:
    """Return what a worker told, which may be anything: no more is known then than that it runs."""
    return int(word) if word.isdigit() and len(word) <= 20 else 0
