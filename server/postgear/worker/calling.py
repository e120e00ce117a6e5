"""How a handler is called: hooks, payload, result, its thread or the loop, its transaction. Not when, nor what comes of it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextvars import copy_context
from functools import partial
from types import coroutine
from typing import Any, NamedTuple, TypeVar

from postgear.errors import InvalidJob, PayloadError
from postgear.newjob import encode_payload

from .job import Job
from .threads import SlotThread

log = logging.getLogger("postgear.worker")

T = TypeVar("T")
Before = Callable[[Job], Any]
After = Callable[[Job, BaseException | None], Any]


class Undeliverable(PayloadError):
    """The payload cannot be decoded, or the result not be encoded: running the job again would not help."""


class Hooks(NamedTuple):
    """What runs around every job. Plain hooks run where the handler runs, its thread or the loop; async ones in the loop."""

    before: tuple[Before, ...] = ()
    after: tuple[After, ...] = ()
    async_before: tuple[Callable[[Job], Awaitable[Any]], ...] = ()
    async_after: tuple[Callable[[Job, BaseException | None], Awaitable[Any]], ...] = ()


NO_HOOKS = Hooks()


@coroutine
def in_own_context(steps: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
    """Await a coroutine in a copy of the context, so that what one job sets in context variables is not there for the next.

    A task of its own would do the same at several times the cost.
    """
    run = copy_context().run
    send, throw = steps.send, steps.throw
    try:
        step = run(send, None)
        while True:
            try:
                value = yield step
            except GeneratorExit:
                run(steps.close)
                raise
            except BaseException as error:
                step = run(throw, error)
            else:
                step = run(send, value)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


async def call(job: Job, hooks: Hooks, thread: Callable[[], SlotThread]) -> bytes | None:
    """Run the handler of a job once and return the encoded result; None where a transaction has ended the job already.

    thread: gives the slot's thread, for a handler that is a plain function. Raises what hooks or the handler raise;
    Undeliverable.
    """
    if job.handler.is_async and hooks is NO_HOOKS:
        return await _call_async(job)
    error: BaseException | None = None
    try:
        for before in hooks.async_before:
            await before(job)
        if job.handler.is_async:
            for plain in hooks.before:
                plain(job)
            return await _call_async(job)
        return await thread().run(partial(call_blocking, job, hooks))
    except BaseException as caught:
        error = caught
        raise
    finally:
        if job.handler.is_async:
            _call_after(hooks, job, error)
        for after in hooks.async_after:
            try:
                await after(job, error)
            except Exception as caught:
                _log_hook(job, caught)


def call_blocking(job: Job, hooks: Hooks) -> bytes | None:
    """Do the same for a plain function, in the thread that is to run it; without the async hooks."""
    error: BaseException | None = None
    try:
        for before in hooks.before:
            before(job)
        if not job.handler.transactional:
            return _run(job)
        job.origin.run_transaction(job, partial(_run, job))
        return None
    except BaseException as caught:
        error = caught
        raise
    finally:
        _call_after(hooks, job, error)


def _run(job: Job) -> bytes:
    payload = _decode(job)
    handler = job.handler
    return _encode(job, handler.call(payload, job) if handler.takes_job else handler.call(payload))


async def _call_async(job: Job) -> bytes | None:
    if not job.handler.transactional:
        return await _run_async(job)
    await job.origin.run_transaction_async(job, partial(_run_async, job))
    return None


async def _run_async(job: Job) -> bytes:
    payload = _decode(job)
    handler = job.handler
    result = await (handler.call(payload, job) if handler.takes_job else handler.call(payload))
    return _encode(job, result)


def _decode(job: Job) -> Any:
    try:
        return job.handler.decode_payload(job.workload)
    except PayloadError as error:
        raise _undeliverable(job, str(error.args[0])) from error


def _encode(job: Job, result: object) -> bytes:
    if type(result) is bytes:
        return result
    try:
        return encode_payload(result)
    except InvalidJob as error:
        raise _undeliverable(job, f"the result cannot be encoded: {error}".replace("the payload", "it")) from error


def _undeliverable(job: Job, text: str) -> Undeliverable:
    error = Undeliverable(text)
    error.fill(job.server, job.function, job.handle)
    return error


def _call_after(hooks: Hooks, job: Job, error: BaseException | None) -> None:
    for after in hooks.after:
        try:
            after(job, error)
        except Exception as caught:
            _log_hook(job, caught)


def _log_hook(job: Job, error: Exception) -> None:
    # The job has run: what a hook makes of that changes nothing about it.
    log.error("after hook failed function=%s handle=%s server=%s", job.function, job.handle, job.server, exc_info=error)


def as_exception(error: BaseException) -> bytes:
    """Return what waiting clients are told about an error: ``Type: text``."""
    name = PayloadError.__name__ if isinstance(error, PayloadError) else type(error).__name__
    text = str(error)
    return (f"{name}: {text}" if text else name).encode("utf-8", "backslashreplace")
