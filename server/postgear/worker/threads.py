"""Threads for handlers that are plain functions: one a slot, made when it is first needed.

Not a ThreadPoolExecutor: Python waits for its threads at exit, and so for a handler that hangs. These are daemons.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")


class SlotThread:
    """One thread that runs one call at a time."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._calls: SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any]] | None] = SimpleQueue()
        Thread(target=self._work, name=name, daemon=True).start()

    def run(self, call: Callable[[], T]) -> asyncio.Future[T]:
        """Run *call* in the thread, with the context variables of whoever asks; the future has what it returns or raises."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._calls.put((partial(contextvars.copy_context().run, call), future))
        return future

    def end(self) -> None:
        """End the thread, after what it runs."""
        self._calls.put(None)

    def _work(self) -> None:
        while (item := self._calls.get()) is not None:
            call, future = item
            result, error = None, None
            try:
                result = call()
            except BaseException as caught:
                # A future takes no StopIteration, for in a coroutine it would look like its end.
                error = RuntimeError("the handler raised StopIteration") if isinstance(caught, StopIteration) else caught
            try:
                self._loop.call_soon_threadsafe(_settle, future, result, error)
            except RuntimeError:
                return  # the loop is closed: nobody waits any more
            del item, call, future, result, error  # nothing of the last job stays while the thread waits


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.cancelled():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
