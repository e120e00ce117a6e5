"""One process of a worker: what ``processes`` starts and tells what to run.

    python -P -m postgear.worker.child CHANNEL WHAT

CHANNEL is the descriptor of a socket. The first line that comes over it are the ``Settings``; its end says that the parent has
gone, and is taken as a SIGTERM. WHAT is for those who look at ``ps``. Lines that go back are JSON lists: ``["ready",
drain_seconds]``; ``["retiring", reason]`` before an end of its own will; ``["ended"]`` when no job runs any more; ``["refused",
exit_code, text]`` if it cannot start.

SIGTERM, SIGINT: take no more jobs and end within the drain's bound. SIGUSR1: the same without a bound. SIGQUIT: end at once.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import signal
import socket
import sys
from typing import Final

import uvloop

from postgear import logs
from postgear.errors import PostgearError

from . import app
from .core import AsyncWorker, StopReason, WorkerCore
from .exec_command import command_handler, kill_commands
from .settings import Settings

ENDED_AT_ONCE: Final = 1


def main(words: list[str]) -> int:
    """Run until told to end; return the exit code."""
    signal.signal(signal.SIGQUIT, _end_at_once)
    channel = socket.socket(fileno=int(words[0]))
    channel.set_inheritable(False)
    with channel.makefile("rb") as reader:
        line = reader.readline()
    if not line:
        return ENDED_AT_ONCE  # the parent has gone already
    settings = Settings(**json.loads(line))
    try:
        worker = _worker(settings)
        return uvloop.run(_run(worker, settings, channel))
    except PostgearError as error:
        _say(channel, "refused", error.exit_code, str(error))
        return error.exit_code


def _worker(settings: Settings) -> WorkerCore:
    worker: WorkerCore
    if settings.app is not None:
        worker = app.load(settings.app)
    else:
        worker = AsyncWorker()
        for function in settings.functions or ():
            worker.add(command_handler(settings.command or "", function, settings.timeout, settings.retries))
    worker.configure(
        servers=settings.servers,
        dsn=settings.dsn,
        concurrency=settings.concurrency,
        client_id=settings.client_id,
        drain_seconds=settings.drain_seconds,
    )
    if not logging.getLogger().handlers:  # or the application has its own way to log
        logs.configure(settings.log_level, settings.log_format, None)
    return worker


async def _run(worker: WorkerCore, settings: Settings, channel: socket.socket) -> int:
    loop = asyncio.get_running_loop()
    drain_seconds = worker.drain_seconds
    # Only a signal bounds the drain: when it retires, another process has its place already.
    worker.configure(drain_seconds=math.inf)

    def stop() -> None:
        worker.stop(drain_seconds)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    loop.add_signal_handler(signal.SIGUSR1, worker.stop, math.inf)
    loop.add_signal_handler(signal.SIGQUIT, _end_at_once)
    loop.add_signal_handler(signal.SIGHUP, lambda: None)  # is the parent's
    channel.setblocking(False)

    def hear() -> None:
        # It says nothing more; so this is its end.
        loop.remove_reader(channel.fileno())
        stop()

    loop.add_reader(channel.fileno(), hear)

    def stopping(reason: StopReason) -> None:
        if reason != "stopped":
            _say(channel, "retiring", reason)

    await worker.serve(
        on_ready=lambda: _say(channel, "ready", drain_seconds),
        on_stopping=stopping,
        max_jobs=settings.max_jobs,
        max_memory_bytes=settings.max_memory,
    )
    _say(channel, "ended")
    return 0


def _say(channel: socket.socket, word: str, *values: object) -> None:
    """Tell the parent; it may have gone."""
    channel.setblocking(True)
    try:
        channel.sendall(json.dumps([word, *values]).encode() + b"\n")
    except OSError:
        pass
    finally:
        channel.setblocking(False)


def _end_at_once(*_: object) -> None:
    kill_commands()
    os._exit(ENDED_AT_ONCE)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
