"""``postgear submit``: one job handed in, its result written to standard output.

Data and results go to standard output as they come; progress, warnings and failure to standard error.
"""

from __future__ import annotations

import math
import sys
import time
from typing import Final, NamedTuple

from postgear.client.blocking import Connection
from postgear.errors import ConfigError, ServerError
from postgear.wire.packet import PacketType

JOB_FAILED: Final = 1
LATEST: Final = 253402300799
"""The end of the year 9999, beyond which no server takes a time."""
_SUBMIT: Final = {
    (False, "high"): PacketType.SUBMIT_JOB_HIGH,
    (False, "normal"): PacketType.SUBMIT_JOB,
    (False, "low"): PacketType.SUBMIT_JOB_LOW,
    (True, "high"): PacketType.SUBMIT_JOB_HIGH_BG,
    (True, "normal"): PacketType.SUBMIT_JOB_BG,
    (True, "low"): PacketType.SUBMIT_JOB_LOW_BG,
}


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
    with Connection(address) as connection:
        if not background:
            connection.send(PacketType.OPTION_REQ, b"exceptions")
            connection.receive()
        if job.not_before is not None:
            when = b"%d" % job.not_before
            connection.send(PacketType.SUBMIT_JOB_EPOCH, job.function, job.unique, when, job.workload)
        else:
            connection.send(_SUBMIT[background, job.priority], job.function, job.unique, job.workload)
        packet_type, arguments = connection.receive()
        if packet_type != PacketType.JOB_CREATED:
            raise ServerError(f"the job was refused: {_text(b' '.join(arguments))}")
        if background:
            print(_text(arguments[0]))
            return 0
        connection.timeout_seconds = timeout_seconds
        try:
            return _wait(connection)
        except ServerError as error:
            if isinstance(error.__cause__, TimeoutError):  # the server is there: it has answered before
                raise ServerError(f"{error}; no worker for {_text(job.function)}?") from None
            raise


def _wait(connection: Connection) -> int:
    """Write what comes for the job until its last packet."""
    while True:
        packet_type, arguments = connection.receive()
        if packet_type in (PacketType.WORK_DATA, PacketType.WORK_COMPLETE):
            sys.stdout.buffer.write(arguments[1])
            sys.stdout.buffer.flush()
            if packet_type == PacketType.WORK_COMPLETE:
                return 0
        elif packet_type == PacketType.WORK_STATUS:
            print(f"postgear: {_text(arguments[1])}/{_text(arguments[2])} done", file=sys.stderr)
        elif packet_type == PacketType.WORK_WARNING:
            print(f"postgear: warning: {_text(arguments[1])}", file=sys.stderr)
        elif packet_type == PacketType.WORK_EXCEPTION:
            print(f"postgear: the job failed: {_text(arguments[1])}", file=sys.stderr)
            return JOB_FAILED
        elif packet_type == PacketType.WORK_FAIL:
            print("postgear: the job failed", file=sys.stderr)
            return JOB_FAILED
        elif packet_type == PacketType.ERROR:
            raise ServerError(f"the server answered {_text(b' '.join(arguments))}")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")
