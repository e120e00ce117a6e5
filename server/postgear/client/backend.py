"""The client inside a PostgreSQL backend: what the extension's PL/Python functions do.

``plpy`` is an argument, so that this file is an ordinary module here; ``pg_extension/build.py`` embeds it, and what it
imports, into the extension's script. One Backend lives as long as the session and keeps its connections.

Every error leaves as an SQL error with a SQLSTATE of docs/sql.md. Standard library only, relative imports, Python 3.9.
"""

from __future__ import annotations

import codecs
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from ..errors import JobFailed, PostgearError, ServerError, ServerRefused, ServerTimeout, ServerUnreachable
from ..wire.packet import FUNCTION_MAX_BYTES, HANDLE_MAX_BYTES, UNIQUE_MAX_BYTES, PacketType
from .calls import Address, parse_servers
from .jobs import JobEnded, JobEvent, do, do_many
from .links import Links, Running
from .operations import NORMAL, Status, Submission, admin_line, echo, get_status, submit

DEFAULT_TIMEOUT_SECONDS: Final = 30.0
DEFAULT_IN_FLIGHT: Final = 100
IN_FLIGHT_MAX: Final = 10_000

_SETTINGS: Final = """
select pg_catalog.current_setting('gman.servers', true) as servers,
    pg_catalog.current_setting('gman.function_servers', true) as function_servers,
    pg_catalog.date_part('epoch',
        case when pg_catalog.length(pg_catalog.current_setting('gman.timeout', true)) operator(pg_catalog.>) 0
            then pg_catalog.current_setting('gman.timeout', true)::pg_catalog.interval end) as timeout
"""

_QUEUE_JOB: Final = "select postgear.queue_job($1, $2, $3, $4, $5) as handle"
_QUEUE_JOB_TYPES: Final = ("bytea", "bytea", "bytea", "int2", "timestamptz")
_EPOCH: Final = "select pg_catalog.ceil(pg_catalog.date_part('epoch', $1))::pg_catalog.int8 as epoch"

_SQLSTATES: Final = (
    (JobFailed, "38000"),  # external_routine_exception
    (ServerTimeout, "HYT00"),  # ODBC's "timeout expired"
    (ServerUnreachable, "08001"),  # sqlclient_unable_to_establish_sqlconnection
    (ServerError, "08006"),  # connection_failure
)
_REFUSALS: Final = {
    "QUEUE_ERROR": "53400",  # configuration_limit_exceeded, as postgear.submit_job raises for a full queue
    "ARGUMENT_TOO_LARGE": "22001",  # string_data_right_truncation
}


class Ended(NamedTuple):
    """A row of gman_do_many."""

    ordinality: int
    result: bytes | None
    error: str | None


class Checked(NamedTuple):
    """A row of gman_servers_check."""

    server: str
    reachable: bool
    version: str | None
    milliseconds: float | None
    error: str | None


class Backend:
    """The operations of the SQL functions; arguments as PL/Python passes them, None for SQL's null."""

    def __init__(self, plpy: Any) -> None:
        self._plpy = plpy
        self._plans: dict[str, Any] = {}
        self._links = Links(self._tick)
        self._sums: dict[int, tuple[str, list[Submission]]] = {}
        self._last_sum = 0
        self._codec: str | None = None
        # PL/Python puts the class's name before the message; as part of no module it reads "postgear: ...".
        nothing = dict.fromkeys(
            ("detail", "hint", "schema_name", "table_name", "column_name", "datatype_name", "constraint_name")
        )
        self._sql_error: Callable[[str], Any] = type("postgear", (plpy.Error,), {"__module__": "__main__", **nothing})

    def wait(
        self, function: bytes | None, workload: bytes | None, unique: bytes | None, priority: int, timeout: float | None
    ) -> bytes:
        """Run a job and return its result."""
        job = self._job(function, workload, unique, priority)
        addresses, deadline = self._where(job.function, timeout)
        with self._errors():
            return self._links.run(addresses, deadline, do(job, self._warn)).result or b""

    def send(
        self, function: bytes | None, workload: bytes | None, unique: bytes | None, priority: int, run_at: str | None
    ) -> str:
        """Submit a background job to the servers set for its function, else to the queue here; return its handle.

        run_at: a timestamptz as the session writes it.
        """
        job = self._job(function, workload, unique, priority)
        if not self._servers_set(job.function):
            handle: str = self._row(_QUEUE_JOB, *_QUEUE_JOB_TYPES)(*job[:4], run_at)["handle"]
            return handle
        epoch = None if run_at is None else self._row(_EPOCH, "timestamptz")(run_at)["epoch"]
        if epoch is not None and priority != NORMAL:
            raise self._error("0A000", "a scheduled job has normal priority at a Gearman server")
        deadline = self._deadline(None)
        with self._errors():
            answer = self._links.run(self._addresses(job.function), deadline, submit(job._replace(run_at=epoch)))
        return answer.decode("ascii", "backslashreplace")

    def wait_many(
        self,
        function: bytes | None,
        workloads: Sequence[bytes | None] | None,
        uniques: Sequence[bytes | None] | None,
        in_flight: int | None,
        timeout: float | None,
    ) -> Iterator[Ended]:
        """Run a job for each workload and return an iterator over their ends, as they come.

        Of what PL/Python's iterators raise only a DETAIL remains, so that all that can be wrong before the first job is raised
        here, and a connection that ends on the way is the error of each job that had not ended.
        """
        workloads = workloads or ()
        if uniques and len(uniques) != len(workloads):
            raise self._error("22023", f"{len(workloads)} workloads, but {len(uniques)} uniques")
        jobs = [
            self._job(function, workload, unique, NORMAL)
            for workload, unique in zip(workloads, uniques or [None] * len(workloads))
        ]
        return (
            Ended(ended.position + 1, ended.result, None if ended.error is None else self._showable(str(ended.error)))
            for ended in self._run_many(jobs, in_flight, timeout)
        )

    def sum_add(self, number: int | None, function: bytes | None, workload: bytes | None, unique: bytes | None) -> int:
        """Remember a job for the sum with this number, a new one for None; return the number.

        The jobs are kept here, not in the aggregate's state: PostgreSQL would copy that for every row.
        """
        transaction = self._row("select pg_catalog.transaction_timestamp()::pg_catalog.text as started")()["started"]
        job = self._job(function, workload, unique, NORMAL)
        if number is None:
            # Sums of transactions that are over came to no end.
            self._sums = {number: entry for number, entry in self._sums.items() if entry[0] == transaction}
            self._last_sum += 1
            number = self._last_sum
            self._sums[number] = (transaction, [])
        self._sums[number][1].append(job)
        return number

    def sum_end(self, number: int | None) -> int | None:
        """Run the jobs of a sum and return the sum of the integers that the results begin with; None without jobs."""
        if number is None:
            return None
        total = 0
        for ended in self._run_many(self._sums.pop(number)[1], None, None):
            with self._errors():
                if ended.error is not None:
                    raise ended.error
            total += self._leading_integer(ended.result or b"")
        return total

    def status(self, handle: str) -> tuple[bool, bool, int, int]:
        """Ask the servers set for the state of a job; the first that knows it answers."""
        status = Status(False, False, 0, 0)
        for address in self._servers_for_handle(handle):
            with self._errors():
                status = self._links.run((address,), self._deadline(None), get_status(handle.encode()))
            if status.known:
                break
        return status[:4]

    def cancel(self, handle: str) -> bool:
        """Ask the servers set to cancel a job; true if one of them knew it."""
        for address in self._servers_for_handle(handle):
            with self._errors():
                answer = self._links.run((address,), self._deadline(None), admin_line(b"cancel job " + handle.encode()))
            if answer.startswith(b"OK"):
                return True
        return False

    def check(self) -> list[Checked]:
        """Connect to each server that would be used."""
        return [self._check_one(address, self._deadline(None)) for address in self._addresses(b"")]

    def _check_one(self, address: Address, deadline: float) -> Checked:
        started = time.monotonic()
        try:
            self._links.run((address,), deadline, echo())
            milliseconds = round((time.monotonic() - started) * 1000, 3)
            version = self._links.run((address,), deadline, admin_line(b"version")).decode("ascii", "replace")
        except ServerError as error:
            return Checked(str(address), False, None, None, str(error))
        return Checked(str(address), True, version[3:] if version.startswith("OK ") else version, milliseconds, None)

    def normalize_servers(self, text: str) -> str:
        """Return a list of servers as gman.servers keeps it."""
        return ",".join(map(str, self._parse(text)))

    def _run_many(self, jobs: Sequence[Submission], in_flight: int | None, timeout: float | None) -> Iterator[JobEnded]:
        """Open a link and return an iterator over the ends of *jobs*, in the order in which they end."""
        in_flight = DEFAULT_IN_FLIGHT if in_flight is None else in_flight
        if not 0 < in_flight <= IN_FLIGHT_MAX:
            raise self._error("22023", f"in_flight must be between 1 and {IN_FLIGHT_MAX}, {in_flight} given")
        if not jobs:
            return iter(())
        addresses, deadline = self._where(jobs[0].function, timeout)
        running = self._links.start(addresses, deadline, do_many(jobs, in_flight, (PacketType.WORK_WARNING,)))
        with self._errors():
            running.open()
        return self._ends(running)

    def _ends(self, running: Running[None]) -> Iterator[JobEnded]:
        for told in running.told():
            if isinstance(told, JobEnded):
                yield told
            elif isinstance(told, JobEvent):
                self._warn(told.arguments[0])

    def _job(self, function: bytes | None, workload: bytes | None, unique: bytes | None, priority: int) -> Submission:
        if function is None:
            raise self._error("22004", "the function must not be null")
        if len(function) > FUNCTION_MAX_BYTES:
            raise self._error("22001", f"a function name may have {FUNCTION_MAX_BYTES} bytes, this one has {len(function)}")
        unique = unique or b""
        if len(unique) > UNIQUE_MAX_BYTES:
            raise self._error("22001", f"a unique may have {UNIQUE_MAX_BYTES} bytes, this one has {len(unique)}")
        return Submission(function, workload or b"", unique, priority)

    def _where(self, function: bytes, timeout: float | None) -> tuple[list[Address], float]:
        return self._addresses(function), self._deadline(timeout)

    def _deadline(self, timeout: float | None) -> float:
        if timeout is None:
            timeout = self._row(_SETTINGS)()["timeout"]
        if timeout is None:
            timeout = DEFAULT_TIMEOUT_SECONDS
        if not timeout > 0:
            raise self._error("22023", f"a timeout must be more than 0 seconds, {timeout:g} given")
        return time.monotonic() + timeout

    def _addresses(self, function: bytes) -> list[Address]:
        """Return the servers for a function: set for it, else set for all, else those of this database's queue."""
        text = self._servers_set(function)
        if text:
            return self._parse(text)
        if not self._row("select pg_catalog.to_regproc('postgear.live_servers') is not null as found")()["found"]:
            raise self._error(
                "08001", "no Gearman server is set, and this database has no queue", "Set gman.servers, see gman_servers_set()."
            )
        text = self._row("select pg_catalog.string_agg(found, ',') as found from postgear.live_servers() as found")()["found"]
        if not text:
            raise self._error(
                "08001",
                "gman.servers is not set, and no server of this database's queue runs",
                "Start one with `postgear serve`, or set gman.servers, see gman_servers_set().",
            )
        return self._parse(text)

    def _servers_set(self, function: bytes) -> str | None:
        settings = self._row(_SETTINGS)()
        servers: str | None = settings["servers"]
        if settings["function_servers"]:
            try:
                servers = json.loads(settings["function_servers"]).get(function.decode("utf-8", "replace"), servers)
            except (ValueError, AttributeError):
                raise self._error("22023", "gman.function_servers is not a JSON object of function names") from None
        return servers

    def _servers_for_handle(self, handle: str) -> list[Address]:
        # A line of an admin command must not become two.
        if not (handle.isascii() and handle.isprintable()) or " " in handle or not 0 < len(handle) <= HANDLE_MAX_BYTES:
            return []
        return self._addresses(b"")

    def _parse(self, text: str) -> list[Address]:
        try:
            return parse_servers(text)
        except ValueError as error:
            raise self._error("22023", f'"{error}" is not HOST or HOST:PORT') from None

    def _leading_integer(self, result: bytes) -> int:
        """Return the integer that a result begins with, as C's atoi reads it; a result without one is an error."""
        words = result.split(None, 1)
        digits = words[0] if words else b""
        sign, digits = (digits[:1], digits[1:]) if digits[:1] in (b"+", b"-") else (b"", digits)
        end = next((index for index, byte in enumerate(digits) if not 48 <= byte <= 57), len(digits))
        if not end:
            raise self._error("22P02", f"the result of a job is no integer: {result[:40].decode('utf-8', 'backslashreplace')}")
        return int(sign + digits[:end])

    def _row(self, query: str, *types: str) -> Callable[..., Any]:
        """Return a function that runs a query, planned once a session, and returns its row."""
        plan = self._plans.get(query)
        if plan is None:
            plan = self._plans[query] = self._plpy.prepare(query, types)
        return lambda *arguments: plan.execute(arguments)[0]

    def _tick(self) -> None:
        """Let PostgreSQL see a cancel request, a statement timeout or the end of the session."""
        self._row("select pg_catalog.pg_sleep(0)")()

    def _warn(self, text: bytes) -> None:
        self._plpy.notice(self._showable(text.decode("utf-8", "backslashreplace")))

    def _showable(self, text: str) -> str:
        """Replace what the database's encoding has not, so that a message is not lost to an error about it."""
        if self._codec is None:
            encoding = self._row("select pg_catalog.getdatabaseencoding()::pg_catalog.text as name")()["name"]
            encoding = "UTF8" if encoding == "SQL_ASCII" else encoding.replace("WIN", "cp")
            try:
                self._codec = codecs.lookup(encoding).name
            except LookupError:
                self._codec = "ascii"
        return text.encode(self._codec, "backslashreplace").decode(self._codec)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except PostgearError as error:
            if isinstance(error, ServerRefused):
                sqlstate = _REFUSALS.get(error.code, "08P01")
            else:
                sqlstate = next(state for kind, state in _SQLSTATES if isinstance(error, kind))
            raise self._error(sqlstate, str(error)) from None

    def _error(self, sqlstate: str, message: str, hint: str | None = None) -> Exception:
        error = self._sql_error(self._showable(message))
        error.sqlstate = sqlstate
        error.hint = hint
        assert isinstance(error, Exception)
        return error
