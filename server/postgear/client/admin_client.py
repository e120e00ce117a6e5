"""``AdminClient`` and ``AsyncAdminClient``: the text commands of one Gearman server, with typed answers."""

from __future__ import annotations

from collections.abc import Generator
from types import TracebackType
from typing import Any, Self, TypeVar

from postgear.errors import ConfigError, InvalidJob, ServerError
from postgear.newjob import encode_function

from . import requests
from .admin import FunctionStatus, JobStatus, WorkerStatus, parse_jobs, parse_status, parse_workers
from .aio import AsyncLinks
from .calls import deadline_after
from .links import Links
from .operations import admin_command
from .requests import DEFAULT_SERVERS, DEFAULT_TIMEOUT_SECONDS, AnyFunction

T = TypeVar("T")
Lines = Generator[Any, Any, list[str]]


def command(words: str | bytes) -> Lines:
    """Send a line of words, return the lines of its answer. Raises InvalidJob for what is not one line."""
    line = words.encode("utf-8", "surrogateescape") if isinstance(words, str) else words
    if not line or b"\n" in line or b"\r" in line or b"\0" in line:
        raise InvalidJob(f"{words!r} is not a line of an admin command")
    return admin_command(line)


def one(words: str | bytes) -> Generator[Any, Any, str]:
    """Send a command that is answered with one line; return it without the OK before it."""
    (line,) = yield from command(words)
    return line.removeprefix("OK").lstrip(" ")


def status() -> Generator[Any, Any, list[FunctionStatus]]:
    """Ask for the functions."""
    total = yield from command("status")
    return parse_status(total, (yield from command("prioritystatus")))


def workers() -> Generator[Any, Any, list[WorkerStatus]]:
    """Ask for the connections."""
    return parse_workers((yield from command("workers")))


def jobs() -> Generator[Any, Any, list[JobStatus]]:
    """Ask for the jobs."""
    return parse_jobs((yield from command("show jobs")))


def process_id() -> Generator[Any, Any, int]:
    """Ask for the process."""
    said = yield from one("getpid")
    if not said.isdigit():
        raise ServerError(f"the server sent what is no number: {said[:40]}")
    return int(said)


def cancel(handle: str) -> Generator[Any, Any, None]:
    """Cancel a job."""
    yield from command(b"cancel job " + _word("a handle", handle.encode("utf-8", "surrogateescape")))


def with_function(words: bytes, function: AnyFunction, *numbers: int) -> Generator[Any, Any, None]:
    """Send a command about a function."""
    name = _word("a function in an admin command", encode_function(function))
    yield from command(b" ".join((words, name, *(b"%d" % number for number in numbers))))


def shutdown(graceful: bool) -> Generator[Any, Any, None]:
    """End the server."""
    yield from command("shutdown graceful" if graceful else "shutdown")


def _word(what: str, word: bytes) -> bytes:
    if not word or len(word.split()) != 1 or word != word.strip():
        raise InvalidJob(f"{what} is one word, {word!r} given")
    return word


class AdminClient:
    """The admin commands of one Gearman server, ``host:port``; it connects when it is first used. For any number of threads.

    Every method raises ServerError if the server cannot be reached, goes away, does not answer within *timeout* seconds, or
    answers ERR (ServerRefused).
    """

    def __init__(self, server: str = DEFAULT_SERVERS, *, timeout: float | None = DEFAULT_TIMEOUT_SECONDS) -> None:
        self.timeout = timeout
        self._server = requests.addresses(server)
        if len(self._server) != 1:
            raise ConfigError(f"an AdminClient is for one server, {server!r} given")
        self._links = Links(wants_exceptions=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, traceback: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections that no call uses; it may be used again afterwards."""
        self._links.close()

    def command(self, words: str) -> list[str]:
        """Send any command as it stands; return the lines of its answer, without the last ``.`` where there may be many."""
        return self._run(command(words))

    def version(self) -> str:
        """Return the server's version."""
        return self._run(one("version"))

    def log_level(self) -> str:
        """Return the server's log level (``verbose``)."""
        return self._run(one("verbose"))

    def process_id(self) -> int:
        """Return the id of the server's process (``getpid``)."""
        return self._run(process_id())

    def status(self) -> list[FunctionStatus]:
        """Return the functions with their jobs and workers (``status`` and ``prioritystatus``), sorted by name."""
        return self._run(status())

    def workers(self) -> list[WorkerStatus]:
        """Return the connections with their abilities (``workers``)."""
        return self._run(workers())

    def jobs(self) -> list[JobStatus]:
        """Return the jobs that the server holds (``show jobs``)."""
        return self._run(jobs())

    def uniques(self) -> list[str]:
        """Return the uniques of the jobs that the server holds (``show unique jobs``), one a job, empty for none."""
        return self._run(command("show unique jobs"))

    def cancel(self, handle: str) -> None:
        """Cancel a job. Raises UnknownJob if there is none."""
        self._run(cancel(handle))

    def create_function(self, function: AnyFunction) -> None:
        """Make a function known before a worker or a job does."""
        self._run(with_function(b"create function", function))

    def drop_function(self, function: AnyFunction) -> None:
        """Forget a function. Raises ServerRefused if it is in use, or not known."""
        self._run(with_function(b"drop function", function))

    def set_limits(self, function: AnyFunction, *limits: int) -> None:
        """Set how many jobs a function may have (``maxqueue``): one number for all priorities, or high, normal, low; 0: any."""
        self._run(with_function(b"maxqueue", function, *limits))

    def shutdown(self, *, graceful: bool = False) -> None:
        """End the server, where it lets clients do so; graceful: when no job is left."""
        self._run(shutdown(graceful))

    def _run(self, operation: Generator[Any, Any, T]) -> T:
        return self._links.run(self._server, deadline_after(self.timeout), operation)


class AsyncAdminClient:
    """``AdminClient`` for asyncio: the same methods, awaited."""

    def __init__(self, server: str = DEFAULT_SERVERS, *, timeout: float | None = DEFAULT_TIMEOUT_SECONDS) -> None:
        self.timeout = timeout
        self._server = requests.addresses(server)
        if len(self._server) != 1:
            raise ConfigError(f"an AsyncAdminClient is for one server, {server!r} given")
        self._links = AsyncLinks(wants_exceptions=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: object, error: object, traceback: TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        """Be AdminClient.close."""
        self._links.close()

    async def command(self, words: str) -> list[str]:
        """Be AdminClient.command."""
        return await self._run(command(words))

    async def version(self) -> str:
        """Be AdminClient.version."""
        return await self._run(one("version"))

    async def log_level(self) -> str:
        """Be AdminClient.log_level."""
        return await self._run(one("verbose"))

    async def process_id(self) -> int:
        """Be AdminClient.process_id."""
        return await self._run(process_id())

    async def status(self) -> list[FunctionStatus]:
        """Be AdminClient.status."""
        return await self._run(status())

    async def workers(self) -> list[WorkerStatus]:
        """Be AdminClient.workers."""
        return await self._run(workers())

    async def jobs(self) -> list[JobStatus]:
        """Be AdminClient.jobs."""
        return await self._run(jobs())

    async def uniques(self) -> list[str]:
        """Be AdminClient.uniques."""
        return await self._run(command("show unique jobs"))

    async def cancel(self, handle: str) -> None:
        """Be AdminClient.cancel."""
        await self._run(cancel(handle))

    async def create_function(self, function: AnyFunction) -> None:
        """Be AdminClient.create_function."""
        await self._run(with_function(b"create function", function))

    async def drop_function(self, function: AnyFunction) -> None:
        """Be AdminClient.drop_function."""
        await self._run(with_function(b"drop function", function))

    async def set_limits(self, function: AnyFunction, *limits: int) -> None:
        """Be AdminClient.set_limits."""
        await self._run(with_function(b"maxqueue", function, *limits))

    async def shutdown(self, *, graceful: bool = False) -> None:
        """Be AdminClient.shutdown."""
        await self._run(shutdown(graceful))

    async def _run(self, operation: Generator[Any, Any, T]) -> T:
        return await self._links.run(self._server, deadline_after(self.timeout), operation)
