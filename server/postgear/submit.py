"""``postgear submit``: one job handed in, its result written to standard output.

Data and results go to standard output as they come; progress, warnings and failure to standard error.
"""

from __future__ import annotations

import math
import sys
import time
from typing import Final, NamedTuple

from postgear.client import operations
from postgear.client.calls import Address
from postgear.client.jobs import JobEnded, JobEvent, Told, do_many
from postgear.client.links import Links, Running
from postgear.errors import ConfigError, JobFailed, ServerError, ServerRefused, ServerTimeout
from postgear.wire.packet import PacketType

JOB_FAILED: Final = 1
LATEST: Final = 253402300799
"""The end of the year 9999, beyond which no server takes a time."""
ANSWER_SECONDS: Final = 10.0
"""How long the server may take to say that it has the job."""
_PRIORITIES: Final = {"high": operations.HIGH, "normal": operations.NORMAL, "low": operations.LOW}
_WANTED: Final = (PacketType.JOB_CREATED, PacketType.WORK_DATA, PacketType.WORK_STATUS, PacketType.WORK_WARNING)


class Submission(NamedTuple):
    """A job to submit.

    unique: empty for none, ``-`` for the workload itself. priority: high, normal or low.
    not_before: Unix time; such a job is a background job of normal priority, Gearman has no other.
    """

    function: bytes
    unique: bytes
    workload: bytes
    priority: str
    background: bool
    not_before: int | None


def epoch(at: int | None, delay_seconds: float | None) -> int | None:
    """Return the Unix time at which a job may start, None for at once; a delay is never cut short.

    Says on standard error that a time is in the past: that is no error, the job may just start.
    """
    when = at if delay_seconds is None else math.ceil(time.time() + delay_seconds)
    if when is not None and when > LATEST:
        raise ConfigError(f"{when} as Unix time is beyond the year 9999")
    if at is not None and at < time.time():
        print(f"postgear: --at {at} is in the past, the job may start at once", file=sys.stderr)
    return when


def run(address: tuple[str, int], job: Submission, timeout_seconds: float | None) -> int:
    """Submit *job*; in the background print its handle, else wait for its end. Return the exit code.

    Raises ServerError if the server refuses it, cannot be reached or is silent for *timeout_seconds*.
    """
    if not job.function:
        raise ConfigError("the function's name is empty")
    if b"\0" in job.function + job.unique:
        raise ConfigError("a function or unique with a NUL cannot be sent")
    if job.not_before is not None and job.priority != "normal":
        raise ConfigError(f"--priority {job.priority} with --at or --delay: a scheduled job has normal priority")
    background = job.background or job.not_before is not None
    sent = operations.Submission(job.function, job.workload, job.unique, _PRIORITIES[job.priority], job.not_before)
    where = (Address(*address),)
    links = Links(wants_exceptions=not background)
    deadline = time.monotonic() + ANSWER_SECONDS
    try:
        if background:
            print(operations.shown(links.run(where, deadline, operations.submit(sent))))
            return 0
        return _wait(links.start(where, math.inf, do_many((sent,), 1, _WANTED), timeout_seconds), deadline)
    except ServerRefused as error:
        raise ServerError(f"the job was refused: {error.code} {error.text}") from None
    except ServerTimeout as error:
        if background or timeout_seconds is None:
            raise
        late = ServerError(f"no answer within {timeout_seconds:g} s; no worker for {operations.shown(job.function)}?")
        late.fill(error.server)
        raise late from None
    except ServerError as error:
        error.function = error.handle = ""  # who typed the command knows them
        raise
    finally:
        links.close()


def _wait(running: Running[None], deadline: float) -> int:
    """Write what comes for the job until its end; the first word about it must come by *deadline*. Return the exit code."""
    first = running.advance(deadline)
    if first is None:
        running.close()
        silent = ServerError("did not say that it has the job")
        silent.fill(running.call.server)
        raise silent
    code = _write(first)
    for told in running.told():
        code = _write(told)
    return code


def _write(told: Told) -> int:
    if isinstance(told, JobEnded):
        if isinstance(told.error, JobFailed):
            said = operations.shown(told.error.exception)
            print("postgear: the job failed" + (f": {said}" if said else ""), file=sys.stderr)
            return JOB_FAILED
        if told.error is not None:
            raise told.error
        _write_data(told.result or b"")
    elif isinstance(told, JobEvent):
        words = [operations.shown(word) for word in told.arguments]
        if told.kind == PacketType.WORK_DATA:
            _write_data(told.arguments[0])
        elif told.kind == PacketType.WORK_STATUS:
            print(f"postgear: {words[0]}/{words[1]} done", file=sys.stderr)
        elif told.kind == PacketType.WORK_WARNING:
            print(f"postgear: warning: {words[0]}", file=sys.stderr)
    return 0


def _write_data(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
