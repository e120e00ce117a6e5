"""``GearmanAdminClient`` over ``postgear.AdminClient``; as in ``gearman.admin_client``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from postgear.client.admin import parse_jobs, parse_workers
from postgear.client.admin_client import AdminClient
from postgear.client.calls import deadline_after
from postgear.client.operations import echo
from postgear.errors import ServerError, ServerTimeout, ServerUnreachable

from .connection_manager import GearmanConnectionManager, Host
from .errors import GearmanError, InvalidAdminClientState, ProtocolError, ServerUnavailable

DEFAULT_ADMIN_CLIENT_TIMEOUT = 10.0
ECHO_STRING = "ping? pong!"

T = TypeVar("T")


class GearmanAdminClient(GearmanConnectionManager):
    """The admin commands of one server. poll_timeout: seconds that each may take.

    Every method raises ServerUnavailable, InvalidAdminClientState when the time is up, or ProtocolError when the server
    refuses.
    """

    def __init__(self, host_list: Iterable[Host] | None = None, poll_timeout: float = DEFAULT_ADMIN_CLIENT_TIMEOUT) -> None:
        super().__init__(host_list)
        if len(self.connection_list) != 1:
            raise GearmanError(f"Only pass a single host to the constructor of {type(self).__name__}")
        self.poll_timeout = poll_timeout
        self.current_connection = self.connection_list[0]
        self._admin = AdminClient(str(self.current_connection.address))

    def shutdown(self) -> None:
        """Close the connection. It is ``send_shutdown`` that ends the server."""
        super().shutdown()
        self._admin.close()

    def ping_server(self) -> float:
        """Have the server send a text back; return the seconds that it took."""
        started = time.monotonic()
        text = ECHO_STRING.encode()
        answer = self._ask(lambda: self._links.run(self._addresses(), deadline_after(self.poll_timeout), echo(text)))
        if answer != text:
            raise InvalidAdminClientState(f"Echo string mismatch: got {answer!r}, expected {text!r}")
        return time.monotonic() - started

    def send_maxqueue(self, task: Any, max_size: Any) -> str:
        """Set how many jobs a function may have; returns ``OK``."""
        return self._line(f"maxqueue {_text(task)} {max_size}")

    def send_shutdown(self, graceful: bool = True) -> None:
        """End the server, where it lets clients do so; graceful: when no job is left."""
        self._line("shutdown graceful" if graceful else "shutdown")

    def get_status(self) -> tuple[dict[str, Any], ...]:
        """Return a dict for each function: task, queued (of which some run), running, workers."""
        rows = []
        for line in self._lines("status"):
            columns = line.rsplit("\t", 3)
            if len(columns) != 4 or not all(column.isdigit() for column in columns[1:]):
                raise ProtocolError(f"Received {len(columns)} tokens, expected 4 tokens: {columns!r}")
            queued, running, workers = map(int, columns[1:])
            rows.append({"task": columns[0], "queued": queued, "running": running, "workers": workers})
        return tuple(rows)

    def get_version(self) -> str:
        """Return what the server says: ``OK`` and its version."""
        return self._line("version")

    def get_workers(self) -> tuple[dict[str, Any], ...]:
        """Return a dict for each connection: file_descriptor, ip, client_id, tasks."""
        found = parse_workers(self._lines("workers"))
        return tuple(
            {"file_descriptor": str(each.fd), "ip": each.address, "client_id": each.client_id, "tasks": tuple(each.functions)}
            for each in found
        )

    def get_pid(self) -> str:
        """Return what the server says: ``OK`` and its process id."""
        return self._line("getpid")

    def get_jobs(self) -> tuple[dict[str, Any], ...]:
        """Return a dict for each job: handle, queued, canceled, enabled; the numbers as the server has them."""
        found = parse_jobs(self._lines("show jobs"))
        return tuple(
            {"handle": each.handle, "queued": each.retries, "canceled": int(each.ignored), "enabled": int(each.queued)}
            for each in found
        )

    def get_unique_jobs(self) -> tuple[dict[str, Any], ...]:
        """Return a dict for each job with a unique."""
        return tuple({"unique": [line]} for line in self._lines("show unique jobs"))

    def cancel_job(self, handle: Any) -> str:
        """Cancel a job; returns ``OK``."""
        return self._line(f"cancel job {_text(handle)}")

    def _line(self, words: str) -> str:
        return self._lines(words)[0]

    def _lines(self, words: str) -> list[str]:
        self._admin.timeout = self.poll_timeout
        return self._ask(lambda: self._admin.command(words))

    def _ask(self, question: Callable[[], T]) -> T:
        try:
            return question()
        except ServerUnreachable as error:
            raise self._unavailable(error) from error
        except ServerTimeout as error:
            raise InvalidAdminClientState(f"Admin client timed out after {self.poll_timeout:f} second(s)") from error
        except ServerError as error:
            kind = ServerUnavailable if type(error) is ServerError else ProtocolError
            raise kind(str(error)) from error


def _text(word: Any) -> str:
    return word.decode("utf-8", "surrogateescape") if isinstance(word, bytes) else str(word)
