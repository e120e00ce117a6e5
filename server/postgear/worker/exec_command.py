"""Shell commands as functions: the workload is a command's standard input, its standard output is the result.

What a command writes to standard error goes to the worker's, and the end of it is told when the command fails.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from typing import Any, Final

from postgear.errors import PostgearError
from postgear.functions import Handler

from .job import Job

TOLD_BYTES: Final = 2000
"""How much of a failed command's standard error is told."""
END_SECONDS: Final = 2.0
"""How long a command that has to end may take before it is killed."""
_CHUNK_BYTES: Final = 65536
_groups: Final[set[int]] = set()
"""The process groups of the commands that run."""


class CommandFailed(PostgearError):
    """A command ended with an exit status that is not 0, or by a signal."""


def command_handler(command: str, function: str, timeout: float | None = None, retries: int = 0) -> Handler[Any, Any, Any, Any]:
    """Return a handler that runs *command* by ``/bin/sh -c``; it raises CommandFailed.

    The command finds POSTGEAR_FUNCTION, POSTGEAR_HANDLE and POSTGEAR_UNIQUE in its environment. timeout: seconds, after which
    it is ended, with all that it has started in its process group.
    """

    async def run(workload: bytes, job: Job) -> bytes:
        names = {"POSTGEAR_FUNCTION": job.function, "POSTGEAR_HANDLE": job.handle, "POSTGEAR_UNIQUE": job.unique}
        return await run_command(command, workload, names)

    return Handler(run, function, timeout=timeout, retries=retries)


async def run_command(command: str, workload: bytes, environment: dict[str, str]) -> bytes:
    """Run *command* and return what it writes to standard output; cancelled, it ends the command. Raises CommandFailed."""
    process = await asyncio.create_subprocess_exec(
        "/bin/sh",
        "-c",
        command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        env=os.environ | environment,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    _groups.add(process.pid)
    feeding = asyncio.ensure_future(_feed(process.stdin, workload))
    telling = asyncio.ensure_future(_pass_on(process.stderr))
    try:
        output = await process.stdout.read()
        told = await telling
        status = await process.wait()
    except BaseException:
        await _end(process)
        raise
    finally:
        feeding.cancel()
        telling.cancel()
        _groups.discard(process.pid)
    if status:
        how = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
        text = told.decode("utf-8", "backslashreplace").strip()
        raise CommandFailed(f"{how}: {text}" if text else how)
    return output


def kill_commands() -> None:
    """Kill all commands that run; for a process that ends at once."""
    for group in _groups:
        _kill(group, signal.SIGKILL)


async def _feed(stdin: asyncio.StreamWriter, workload: bytes) -> None:
    with suppress(ConnectionError):  # it does not want to read it, or not all
        stdin.write(workload)
        await stdin.drain()
    stdin.close()


async def _pass_on(stderr: asyncio.StreamReader) -> bytes:
    """Pass standard error on and return its end."""
    told = b""
    while data := await stderr.read(_CHUNK_BYTES):
        sys.stderr.buffer.write(data)
        sys.stderr.buffer.flush()
        told = (told + data)[-TOLD_BYTES:]
    return told


async def _end(process: asyncio.subprocess.Process) -> None:
    _kill(process.pid, signal.SIGTERM)
    with suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), END_SECONDS)
    _kill(process.pid, signal.SIGKILL)  # what is left of the group


def _kill(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, number)
