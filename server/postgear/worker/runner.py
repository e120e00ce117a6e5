"""The blocking worker: a loop of its own, and the signals that stop it."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable

import uvloop

from postgear.errors import ConfigError

from . import app
from .core import StopReason, WorkerCore
from .settings import Settings


class Worker(WorkerCore):
    """A worker whose ``run`` blocks: the whole program, or one of its threads."""

    def run(
        self,
        *,
        processes: int = 1,
        on_ready: Callable[[], None] | None = None,
        max_jobs: int | None = None,
        max_memory_bytes: int | None = None,
    ) -> StopReason:
        """Take jobs and run them until ``stop``, or until *max_jobs* were run or the process needs more memory than this.

        In the main thread SIGTERM and SIGINT stop it, a second one at once. Returns why it stopped. on_ready: called when it is
        connected for the first time and can take jobs. Raises ConfigError if it runs already.

        processes: more than one are started and looked after as by ``postgear worker``: each imports the module that has this
        worker as one of its names, so that ``run`` must be called under ``if __name__ == "__main__":``. This process runs no jobs
        then, only signals stop it, and what has been enough for a process has it replaced.
        """
        if app.is_importing:
            raise ConfigError('run() was called while the module is imported; put it under: if __name__ == "__main__"')
        if processes != 1:
            return self._run_processes(processes, on_ready, max_jobs, max_memory_bytes)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(self._run_with_signals(on_ready, max_jobs, max_memory_bytes))

    def _run_processes(
        self, processes: int, on_ready: Callable[[], None] | None, max_jobs: int | None, max_memory_bytes: int | None
    ) -> StopReason:
        if processes < 1:
            raise ConfigError(f"processes {processes} given, must be 1 or more")
        if on_ready is not None:
            raise ConfigError("on_ready cannot be called for several processes")
        if threading.current_thread() is not threading.main_thread():
            raise ConfigError("several processes can be started from the main thread only")
        from .processes import Supervisor

        settings = Settings(app=app.name_of(self), max_jobs=max_jobs, max_memory=max_memory_bytes, log_level="WARNING")
        Supervisor(settings, processes).run()
        return "stopped"

    async def _run_with_signals(
        self, on_ready: Callable[[], None] | None, max_jobs: int | None, max_memory_bytes: int | None
    ) -> StopReason:
        loop = asyncio.get_running_loop()
        handled = (signal.SIGTERM, signal.SIGINT) if threading.current_thread() is threading.main_thread() else ()
        signalled = False

        def stop() -> None:
            nonlocal signalled
            self.stop(0.0 if signalled else None)
            signalled = True

        for number in handled:
            loop.add_signal_handler(number, stop)
        try:
            return await self.serve(on_ready=on_ready, max_jobs=max_jobs, max_memory_bytes=max_memory_bytes)
        finally:
            for number in handled:
                loop.remove_signal_handler(number)
