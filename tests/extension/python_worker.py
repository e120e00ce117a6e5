"""A Gearman worker in a thread, for the tests of clients and of the SQL functions: a function for each thing that workers do."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType

from tests.server.bytes import Peer

Send = Callable[..., None]


class PythonWorker:
    """Runs until the end of a ``with``; what it was given is in *workloads*, in order."""

    def __init__(self, host: str, port: int) -> None:
        self._connection = Peer(host, port)
        self._connection.socket.settimeout(None)
        self.workloads: list[bytes] = []
        self.taken = threading.Semaphore(0)
        """Released for each job taken."""
        self._functions: dict[bytes, Callable[[bytes, bytes], None]] = {
            b"echo": lambda handle, workload: self._send("WORK_COMPLETE", handle, workload),
            b"length": lambda handle, workload: self._send("WORK_COMPLETE", handle, b"%d bytes" % len(workload)),
            b"fail": lambda handle, workload: self._send("WORK_FAIL", handle),
            b"raise": lambda handle, workload: self._send("WORK_EXCEPTION", handle, workload),
            b"smile": lambda handle, workload: self._send("WORK_EXCEPTION", handle, "☹ ü".encode()),
            b"warn": self._warn,
            b"chunks": self._chunks,
            b"never": lambda handle, workload: None,
            b"maybe": self._maybe,
            b"flaky": self._flaky,
        }
        for name in self._functions:
            self._connection.send("CAN_DO", name)
        # Answered after the abilities are known: a job submitted from here on finds the worker.
        self._connection.silent()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> PythonWorker:
        self._thread.start()
        return self

    def __exit__(self, kind: object, error: object, traceback: TracebackType | None) -> None:
        with suppress(OSError):  # the server may have gone first
            # The job under way is ended, else the server would give it to the next test's worker.
            self._connection.socket.shutdown(socket.SHUT_RD)
        self._thread.join(10)
        self._connection.close()

    def _run(self) -> None:
        try:
            self._send("GRAB_JOB")
            while True:
                name, body = self._connection.packet()
                if name == "NO_JOB":
                    self._send("PRE_SLEEP")
                elif name == "NOOP":
                    self._send("GRAB_JOB")
                elif name == "JOB_ASSIGN":
                    handle, function, workload = body.split(b"\0", 2)
                    self.workloads.append(workload)
                    self.taken.release()
                    self._functions[function](handle, workload)
                    self._send("GRAB_JOB")
        except OSError:
            pass  # the end of the test

    def _send(self, name: str, *arguments: bytes) -> None:
        self._connection.send(name, *arguments)

    def _warn(self, handle: bytes, workload: bytes) -> None:
        self._send("WORK_STATUS", handle, b"1", b"2")
        self._send("WORK_WARNING", handle, workload)
        self._send("WORK_COMPLETE", handle, b"done")

    def _chunks(self, handle: bytes, workload: bytes) -> None:
        for start in range(0, len(workload), 2):
            self._send("WORK_DATA", handle, workload[start : start + 2])
        self._send("WORK_COMPLETE", handle, b"!")

    def _flaky(self, handle: bytes, workload: bytes) -> None:
        """Fail twice, sending a part of the result each time."""
        self._send("WORK_DATA", handle, b"part ")
        if self.workloads.count(workload) < 3:
            self._send("WORK_EXCEPTION", handle, b"not yet")
        else:
            self._send("WORK_COMPLETE", handle, workload)

    def _maybe(self, handle: bytes, workload: bytes) -> None:
        if workload == b"bad":
            self._send("WORK_EXCEPTION", handle, b"it was bad")
        else:
            self._send("WORK_COMPLETE", handle, workload.upper())
