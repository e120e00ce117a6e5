"""A worker in several processes: started, watched, replaced, restarted without a gap, stopped.

The processes run ``child``, each in a fresh interpreter; this one imports nothing of the application. A generation is
the processes that were started together. A restart starts another generation and, when all its processes are ready, tells
those of the one before to finish; until then the old ones work on, and they stay if the new ones do not come up.

Signals: SIGTERM and SIGINT drain with a bound, a second one ends at once; SIGHUP restarts. A process learns by its own
signals what to do (``child``), and by the end of its channel that nobody watches it any more.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, Final

from postgear.errors import PostgearError
from postgear.logs import event

from . import systemd
from .settings import Settings
from .watching import LOOK_SECONDS, Watch

log = logging.getLogger("postgear.worker")

SOON_SECONDS: Final = 10.0
"""A process that dies before it was ready for so long died soon: the next start waits."""
MESSAGE_MAX_BYTES: Final = 1024 * 1024
LONGEST_WAIT_SECONDS: Final = 30.0
GRACE_SECONDS: Final = 5.0
"""What a process may take to end after its last job, or after its drain's bound."""
UNKNOWN_DRAIN_SECONDS: Final = 30.0
"""What the bound of a process's drain is taken for until the process has told it."""
QUIT_SECONDS: Final = 1.0
"""What a process may take to end when it has to end at once."""


class StartRefused(PostgearError):
    """The first processes could not be started: the module cannot be imported, or its worker has wrong settings."""

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.exit_code = exit_code


class _Generation:
    """Processes that were started together, and what takes the place of those that died."""

    def __init__(self, number: int, processes: int) -> None:
        self.number = number
        self.failures = [0] * processes  # by place: how many in a row died soon
        self.children: list[_Child | None] = [None] * processes

    @property
    def is_ready(self) -> bool:
        """Whether there is a process in each place, and it is ready."""
        return all(child is not None and child.ready_at is not None for child in self.children)


class _Child:
    """A process. *is_expected_to_end*: it was told to, or said that it will."""

    def __init__(self, generation: _Generation, place: int, process: asyncio.subprocess.Process, channel: socket.socket) -> None:
        self.generation = generation
        self.place = place
        self.process = process
        self.channel = channel
        self.ready_at: float | None = None
        self.drain_seconds = UNKNOWN_DRAIN_SECONDS
        self.is_expected_to_end = False

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if self.process.returncode is None:
            self.process.send_signal(number)

    def kill(self) -> None:
        """End it, and what it has started in its process group."""
        if self.process.returncode is None:
            with suppress(ProcessLookupError):  # it has ended, and the loop does not know yet
                os.killpg(self.process.pid, signal.SIGKILL)

    def finish(self) -> None:
        """Have it take no more jobs, finish those it has without a bound, and end."""
        self.is_expected_to_end = True
        # One that is not ready may not have its handlers yet; if it has, it takes that for a drain with a bound.
        self.signal(signal.SIGUSR1 if self.ready_at is not None else signal.SIGTERM)


class Supervisor:
    """The parent of a worker's processes.

    settings: what each process gets. folders: restart when a file in one of them changes.
    """

    def __init__(self, settings: Settings, processes: int, folders: Sequence[Path] = ()) -> None:
        self._settings = settings
        self._what = settings.app or settings.command or ""
        self._processes = processes
        self._folders = folders
        self._children: set[_Child] = set()
        self._attending: set[asyncio.Task[None]] = set()
        self._serving = _Generation(1, processes)
        self._coming: _Generation | None = None
        self._is_stopping = False
        self._generations = 1
        self._refused: StartRefused | None = None
        self._was_ready = False
        self._has_terminal = _terminal_is_there()
        self._loop: asyncio.AbstractEventLoop

    def run(self) -> int:
        """Run until a signal ends it; return the exit code. Raises StartRefused."""
        return asyncio.run(self._run())

    async def _run(self) -> int:
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        ignores_hangup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # nohup
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._stop)
        self._loop.add_signal_handler(signal.SIGHUP, self._hang_up, ignores_hangup)
        event(log, logging.INFO, "starting", processes=self._processes, run=self._what, pid=os.getpid())
        self._fill(self._serving)
        watching = self._loop.create_task(self._watch()) if self._folders else None
        await self._ended.wait()
        if watching:
            watching.cancel()
        if self._refused:
            raise self._refused
        event(log, logging.INFO, "stopped")
        return 0

    # -- starting ------------------------------------------------------------------------------------------------

    def _fill(self, generation: _Generation) -> None:
        for place in range(self._processes):
            self._start(generation, place)

    def _start(self, generation: _Generation, place: int) -> None:
        """Start the process of a place, unless its generation is of no more use."""
        if not self._is_stopping and generation in (self._serving, self._coming):
            task = self._loop.create_task(self._attend(generation, place))
            self._attending.add(task)
            task.add_done_callback(self._attended)

    async def _attend(self, generation: _Generation, place: int) -> None:
        """Start a process, hear what it says, and see its end."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # the current folder is looked in for the application's modules, not for ours
                "-m",
                "postgear.worker.child",
                str(theirs.fileno()),
                self._what,  # for those who look at `ps`
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                process_group=0,  # Ctrl-C is for this process only; and a group can be killed as a whole
                env={name: value for name, value in os.environ.items() if name != "NOTIFY_SOCKET"},
            )
        except OSError as error:
            ours.close()
            event(log, logging.ERROR, "process cannot start", reason=error)
            self._start_later(generation, place)
            return
        finally:
            theirs.close()
        child = _Child(generation, place, process, ours)
        self._children.add(child)
        generation.children[place] = child
        if self._is_stopping:
            child.kill()
        hearing = self._loop.create_task(self._hear(child))
        status = await process.wait()
        # What it said last. Its end may be far: a process that the child forked has the channel, too, and may live on.
        await asyncio.wait((hearing,), timeout=QUIT_SECONDS)
        hearing.cancel()
        self._end(child, status)

    def _attended(self, task: asyncio.Task[None]) -> None:
        self._attending.discard(task)
        task.result()
        if self._is_stopping and not self._attending:
            self._ended.set()

    async def _hear(self, child: _Child) -> None:
        reader, writer = await asyncio.open_connection(sock=child.channel, limit=MESSAGE_MAX_BYTES)
        try:
            writer.write(json.dumps(self._settings._asdict()).encode() + b"\n")
            while line := await reader.readline():
                word, *values = json.loads(line)
                self._HEARD[word](self, child, *values)
        except ConnectionError:
            pass  # it has ended
        finally:
            writer.close()

    def _ready(self, child: _Child, drain_seconds: float) -> None:
        child.ready_at = self._loop.time()
        child.drain_seconds = drain_seconds
        generation = child.generation
        event(log, logging.INFO, "process ready", process=child.process.pid, generation=generation.number)
        if not generation.is_ready or self._is_stopping:
            return
        if generation is self._coming:
            self._serving, self._coming = generation, None
            old = [each for each in self._children if each.generation is not generation]
            for each in old:
                each.finish()
            event(log, logging.INFO, "restarted", generation=generation.number, finishing=len(old))
            systemd.notify("READY=1")
        elif not self._was_ready:
            event(log, logging.INFO, "ready", processes=self._processes, pid=os.getpid())
            systemd.notify("READY=1")
        self._was_ready = True

    def _refuse(self, child: _Child, exit_code: int, text: str) -> None:
        """Learn that a process cannot start and ends: its module cannot be imported, or a setting is wrong."""
        if child.generation is self._coming:
            self._give_up(text)
        elif self._was_ready:
            event(log, logging.ERROR, "process cannot start", process=child.process.pid, reason=text)
        elif self._refused is None:
            self._refused = StartRefused(text, exit_code)
            self._is_stopping = True
            self._kill()

    def _retire(self, child: _Child, reason: str) -> None:
        """Learn that a process takes no more jobs, and start another at once."""
        child.is_expected_to_end = True
        event(log, logging.INFO, "process retires", process=child.process.pid, reason=reason)
        self._start(child.generation, child.place)

    def _run_ended(self, child: _Child) -> None:
        """Learn that a process runs no job any more; what else goes on in it shall not keep it for ever."""
        self._loop.call_later(GRACE_SECONDS, child.kill)

    _HEARD: ClassVar[dict[str, Callable[..., None]]] = {
        "ready": _ready,
        "retiring": _retire,
        "ended": _run_ended,
        "refused": _refuse,
    }

    # -- restarts ------------------------------------------------------------------------------------------------

    def _hang_up(self, ignores_hangup: bool) -> None:
        if self._has_terminal and not _terminal_is_there():
            # Not a wish: the terminal has gone.
            self._has_terminal = False
            if not ignores_hangup:
                self._stop()
        else:
            self._restart("SIGHUP")

    def _restart(self, reason: str) -> None:
        if self._is_stopping:
            return
        event(log, logging.INFO, "restarting", reason=reason)
        systemd.notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        self._generations += 1
        given_up, self._coming = self._coming, _Generation(self._generations, self._processes)
        if given_up is not None:  # what it would have run may be wrong, or there would be no other restart
            self._finish(given_up)
        self._fill(self._coming)

    def _give_up(self, reason: str) -> None:
        """Stay with the processes that serve: those to come did not come up."""
        assert self._coming is not None
        given_up, self._coming = self._coming, None
        self._finish(given_up)
        event(log, logging.ERROR, "not restarted, the old processes stay", reason=reason)
        systemd.notify("READY=1")

    def _finish(self, generation: _Generation) -> None:
        for child in self._children:
            if child.generation is generation:
                child.finish()

    async def _watch(self) -> None:
        """Restart when a file has changed."""
        watch = Watch(self._folders)
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if changed := await asyncio.to_thread(watch.look):
                self._restart(f"{changed} has changed")

    # -- ends ----------------------------------------------------------------------------------------------------

    def _end(self, child: _Child, status: int) -> None:
        """Learn that a process has ended."""
        self._children.discard(child)
        generation = child.generation
        how = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
        if generation.children[child.place] is child:
            generation.children[child.place] = None
        if self._refused is not None:
            return
        if child.is_expected_to_end or self._is_stopping:
            event(log, logging.INFO, "process ended", process=child.process.pid, by=how)
            return
        event(log, logging.ERROR, "process died", process=child.process.pid, by=how)
        if generation is self._coming and child.ready_at is None:
            self._give_up(f"process {child.process.pid} ended by {how} before it was ready")
        elif child.ready_at is None or self._loop.time() - child.ready_at < SOON_SECONDS:
            self._start_later(generation, child.place)
        else:
            generation.failures[child.place] = 0
            self._start(generation, child.place)

    def _start_later(self, generation: _Generation, place: int) -> None:
        """Start the process of a place after a time that grows with each failure."""
        wait = min(2.0 ** generation.failures[place], LONGEST_WAIT_SECONDS)
        generation.failures[place] += 1
        event(log, logging.WARNING, "waiting before the next start", seconds=wait, failures=generation.failures[place])
        self._loop.call_later(wait, self._start, generation, place)

    def _stop(self) -> None:
        """Have all processes finish their jobs within their bound; the second time end them at once."""
        if self._is_stopping:
            self._end_at_once()
            return
        self._is_stopping = True
        event(log, logging.INFO, "stopping", processes=len(self._children))
        systemd.notify("STOPPING=1")
        bound = max((child.drain_seconds for child in self._children), default=0.0)
        for child in self._children:
            child.signal(signal.SIGTERM)
        self._loop.call_later(bound + GRACE_SECONDS, self._end_at_once)
        if not self._attending:
            self._ended.set()

    def _end_at_once(self) -> None:
        if self._children:
            event(log, logging.WARNING, "ending at once", processes=len(self._children))
        for child in self._children:
            child.signal(signal.SIGQUIT if child.ready_at is not None else signal.SIGKILL)
        self._loop.call_later(QUIT_SECONDS, self._kill)

    def _kill(self) -> None:
        for child in self._children:
            child.kill()


def _terminal_is_there() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True
