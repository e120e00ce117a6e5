"""The admin text commands: ``status``, ``workers``, ``show jobs`` and their kin, as gearmand 1.1.20 answers them.

Each command is a coroutine that returns the reply; ``show``, whose reply may be long, gives it in parts. ``COMMANDS`` is the list
of the others.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final

from .dispatch.messages import Request
from .dispatch.peer import Peer
from .dispatch.workers import leading_integer
from .errors import StoreError
from .job import FunctionCount, JobState
from .wire import admin as text
from .wire.packet import FUNCTION_MAX_BYTES

if TYPE_CHECKING:
    from .daemon import Server

PAGE_JOBS: Final = 1000
SLOW_COUNT_SECONDS: Final = 0.25
COUNT_SHARE: Final = 20
"""A count that took t seconds, longer than SLOW_COUNT_SECONDS, is shown again for 20 t, or until a command changes it:
counting costs at most 5 % of a core."""

Command = Callable[["Admin", Peer, Sequence[bytes]], Awaitable[bytes]]


class Admin:
    """The commands of one server."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._counts: list[FunctionCount] = []
        self._counts_until = 0.0

    async def serve(self, request: Request) -> None:
        """Run a command line and send its reply. A database that cannot answer gives an ERR line."""
        dispatcher = self._server.dispatcher
        peer = request.peer
        words = request.arguments
        if len(words) > text.MAX_WORDS and words[0].lower() != b"version":
            dispatcher.send(peer, text.too_many_words())
            return
        name = words[0].lower()
        command = COMMANDS.get(name)
        try:
            if name == b"show":
                async for part in self._show(words):
                    dispatcher.send(peer, part)
                    await self._server.drained(peer)
            elif command is not None:
                dispatcher.send(peer, await command(self, peer, words))
            else:
                dispatcher.send(peer, text.unknown_command(words[0]))
        except StoreError as error:
            dispatcher.send(peer, text.store_error(str(error)))

    async def version(self, _peer: Peer, _words: Sequence[bytes]) -> bytes:
        """``version``."""
        return f"OK {self._server.version}\n".encode()

    async def verbose(self, _peer: Peer, _words: Sequence[bytes]) -> bytes:
        """``verbose``: the log level."""
        return f"OK {logging.getLevelName(logging.getLogger('postgear').getEffectiveLevel())}\n".encode()

    async def getpid(self, _peer: Peer, _words: Sequence[bytes]) -> bytes:
        """``getpid``."""
        return b"OK %d\n" % os.getpid()

    async def counts(self) -> list[FunctionCount]:
        """Return the durable jobs of each function: exact while that is fast, else as of a moment ago. Raises StoreError."""
        return list((await self._count()).values())

    async def _count(self) -> dict[bytes, FunctionCount]:
        """Count durable jobs: exact while that is fast, else as of a moment ago; but only a database that answers now is told of.
        A standby that has this server as its witness promotes itself once it says that the database is away.
        """
        server = self._server
        await server.exchange.settle()
        started = server.loop.time()
        if started >= self._counts_until:
            self._counts = await server.exchange.store.count_jobs()
            took = server.loop.time() - started
            self._counts_until = started + COUNT_SHARE * took if took > SLOW_COUNT_SECONDS else 0.0
        else:
            await server.exchange.store.ping()
        return {count.name: count for count in self._counts}

    async def status(self, _peer: Peer, _words: Sequence[bytes]) -> bytes:
        """``status``: name, total, running, workers. A job held here but not given out counts as queued; those that other
        servers hold count as running, for only they know."""
        counts = await self._count()
        functions = self._server.dispatcher.functions
        rows: list[tuple[bytes, int, int, int]] = []
        for name in sorted(counts.keys() | functions.keys()):
            count = counts.get(name) or FunctionCount(name, 0, 0, 0, 0, 0)
            total = count.high + count.normal + count.low + count.held
            running = count.held - count.own
            workers = 0
            if (function := functions.get(name)) is not None:
                running += function.running
                total += sum(function.foreground) + function.running_foreground
                workers = len(function.workers)
            rows.append((name, total, running, workers))
        return text.table(rows) + text.END

    async def prioritystatus(self, _peer: Peer, _words: Sequence[bytes]) -> bytes:
        """``prioritystatus``: name, queued high, normal, low, workers."""
        counts = await self._count()
        functions = self._server.dispatcher.functions
        rows: list[tuple[bytes, int, int, int, int]] = []
        for name in sorted(counts.keys() | functions.keys()):
            count = counts.get(name) or FunctionCount(name, 0, 0, 0, 0, 0)
            queued = [count.high, count.normal, count.low]
            workers = 0
            if (function := functions.get(name)) is not None:
                queued = [sum(each) for each in zip(queued, function.foreground, function.held, strict=True)]
                workers = len(function.workers)
            rows.append((name, queued[0], queued[1], queued[2], workers))
        return text.table(rows) + text.END

    async def workers(self, _peer: Peer, _words: Sequence[bytes]) -> bytes:
        """``workers``: every connection, newest first, its abilities last registered first."""
        lines = []
        for peer in reversed(self._server.dispatcher.peers):
            names = [function.name for function in reversed(peer.abilities)]
            lines.append(text.worker_line(peer.fd, peer.address.encode(), peer.client_id, names))
        return b"".join(lines) + text.END

    async def _show(self, words: Sequence[bytes]) -> AsyncIterator[bytes]:
        """``show jobs`` (handle, retries, cancelled, background) and ``show unique jobs``, in pages."""
        what = b" ".join(words[1:]).lower()
        if not what:
            yield text.unknown_command(words[0])
            return
        if what not in (b"jobs", b"unique jobs"):
            yield text.UNKNOWN_SHOW
            return
        server = self._server
        await server.exchange.settle()
        uniques = what == b"unique jobs"
        lines: list[bytes] = []
        for job in list(server.dispatcher.jobs.values()):
            if job.id or job.state is JobState.ENDED:
                continue
            retries = job.attempt - (job.state is JobState.RUNNING)
            lines.append(job.unique + b"\n" if uniques else b"%b\t%d\t%d\t0\n" % (job.handle, retries, job.cancelled))
        last, is_more = 0, True
        while is_more:
            page = await server.exchange.store.list_jobs(last, PAGE_JOBS)
            is_more = len(page) == PAGE_JOBS
            for each in page:
                last = each.id
                if uniques:
                    lines.append((b"-" if len(each.unique_key or b"") > 64 else each.unique_key or b"") + b"\n")
                else:
                    prefix = server.dispatcher.background_prefix
                    lines.append(b"%b%d\t%d\t0\t1\n" % (prefix, each.id, each.attempt - each.running))
            if not is_more:
                # Together with the last of them: gearadmin prints what has come, and would end before a part that comes later.
                lines.append(text.END)
            yield b"".join(lines)
            lines.clear()

    async def cancel(self, _peer: Peer, words: Sequence[bytes]) -> bytes:
        """``cancel job HANDLE``."""
        if len(words) < 3:
            return text.unknown_command(words[0])
        if words[1].lower() != b"job":
            return text.UNKNOWN_CANCEL
        dispatcher = self._server.dispatcher
        found = False
        if job_id := dispatcher.background_id(words[2]):
            # The database first: a job forgotten here whose row stays would be nobody's.
            await self._server.exchange.settle()
            found = await self._server.exchange.store.cancel_job(job_id)
        found = dispatcher.cancel(words[2]) or found
        self._counts_until = 0.0
        return text.OK if found else text.UNKNOWN_JOB

    async def create(self, _peer: Peer, words: Sequence[bytes]) -> bytes:
        """``create function NAME``."""
        if len(words) != 3 or words[1].lower() != b"function" or len(words[2]) > FUNCTION_MAX_BYTES:
            return text.incomplete(words[0])
        rows = await self._server.exchange.store.ensure_functions([words[2]])
        self._server.dispatcher.function(words[2])
        self._server.dispatcher.resolved(rows)
        self._counts_until = 0.0
        return text.OK

    async def drop(self, _peer: Peer, words: Sequence[bytes]) -> bytes:
        """``drop function NAME``: only without workers and jobs."""
        if len(words) != 3 or words[1].lower() != b"function":
            return text.incomplete(words[0])
        dispatcher = self._server.dispatcher
        function = dispatcher.functions.get(words[2])
        if function is not None and (function.workers or function.running or sum(function.foreground)):
            return text.FUNCTION_IN_USE
        exchange = self._server.exchange
        await exchange.settle()
        async with exchange.function_ids.asking:
            answer = await exchange.store.drop_function(words[2])
            if answer == "in use":
                return text.FUNCTION_IN_USE
            self._counts_until = 0.0
            if function is not None:
                dispatcher.forget_function(function)
        return text.OK if answer == "dropped" else text.FUNCTION_NOT_FOUND

    async def maxqueue(self, _peer: Peer, words: Sequence[bytes]) -> bytes:
        """``maxqueue NAME [LIMIT]`` or ``maxqueue NAME HIGH NORMAL LOW``; no or 0: no limit. OK also for an unknown function."""
        if len(words) < 2:
            return text.incomplete(words[0])
        numbers = [leading_integer(word) for word in words[2:5]]
        if len(numbers) <= 1:
            numbers = (numbers or [0]) * 3
        high, normal, low = [*numbers, 0, 0][:3]
        exchange = self._server.exchange
        if words[1] in self._server.dispatcher.functions:
            await exchange.store.ensure_functions([words[1]])  # seen here, but perhaps not stored yet
        if await exchange.store.set_limits(words[1], high, normal, low):
            self._server.dispatcher.resolved(await exchange.store.ensure_functions([words[1]]))
        return text.OK

    async def shutdown(self, peer: Peer, words: Sequence[bytes]) -> bytes:
        """``shutdown [graceful]``: from this machine only, unless the configuration allows it from others."""
        graceful = [word.lower() for word in words[1:]] == [b"graceful"]
        if len(words) > 1 and not graceful:
            return text.incomplete(words[0])
        if not peer.is_local and not self._server.config.remote_shutdown:
            return b"ERR NOT_ALLOWED shutdown+is+allowed+from+loopback+addresses+only\r\n"
        self._server.request_stop(graceful=graceful)
        return text.OK


COMMANDS: Final[dict[bytes, Command]] = {
    b"status": Admin.status,
    b"prioritystatus": Admin.prioritystatus,
    b"workers": Admin.workers,
    b"cancel": Admin.cancel,
    b"create": Admin.create,
    b"drop": Admin.drop,
    b"maxqueue": Admin.maxqueue,
    b"version": Admin.version,
    b"verbose": Admin.verbose,
    b"getpid": Admin.getpid,
    b"shutdown": Admin.shutdown,
}
