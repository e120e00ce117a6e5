"""A Gearman worker in a thread, for the tests of the SQL functions: each function does one thing a worker can do."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType

from postgear.client.blocking import Connection
from postgear.errors import ServerError
from postgear.wire.packet import PacketType

Send = Callable[..., None]


class PythonWorker:
    """Runs until the end of a ``with``; what it was given is in *workloads*, in order."""

    def __init__(self, host: str, port: int) -> None:
        self._connection = Connection((host, port), timeout_seconds=None)
        self.workloads: list[bytes] = []
        self.taken = threading.Semaphore(0)
        """Released for each job taken."""
        self._functions: dict[bytes, Callable[[bytes, bytes], None]] = {
            b"echo": lambda handle, workload: self._send(PacketType.WORK_COMPLETE, handle, workload),
            b"length": lambda handle, workload: self._send(PacketType.WORK_COMPLETE, handle, b"%d bytes" % len(workload)),
            b"fail": lambda handle, workload: self._send(PacketType.WORK_FAIL, handle),
            b"raise": lambda handle, workload: self._send(PacketType.WORK_EXCEPTION, handle, workload),
            b"smile": lambda handle, workload: self._send(PacketType.WORK_EXCEPTION, handle, "☹ ü".encode()),
            b"warn": self._warn,
            b"chunks": self._chunks,
            b"never": lambda handle, workload: None,
            b"maybe": self._maybe,
        }
        for name in self._functions:
            self._connection.send(PacketType.CAN_DO, name)
        # Answered after the abilities are known: a job submitted from here on finds the worker.
        self._connection.send(PacketType.ECHO_REQ, b"")
        self._connection.receive()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> PythonWorker:
        self._thread.start()
        return self

    def __exit__(self, kind: object, error: object, traceback: TracebackType | None) -> None:
        with suppress(OSError):  # the server may have gone first
            self._connection._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._connection.close()

    def _run(self) -> None:
        try:
            self._send(PacketType.GRAB_JOB)
            while True:
                packet_type, arguments = self._connection.receive()
                if packet_type == PacketType.NO_JOB:
                    self._send(PacketType.PRE_SLEEP)
                elif packet_type == PacketType.NOOP:
                    self._send(PacketType.GRAB_JOB)
                elif packet_type == PacketType.JOB_ASSIGN:
                    handle, function, workload = arguments
                    self.workloads.append(workload)
                    self.taken.release()
                    self._functions[function](handle, workload)
                    self._send(PacketType.GRAB_JOB)
        except (ServerError, OSError):
            pass  # the end of the test

    def _send(self, packet_type: int, *arguments: bytes) -> None:
        self._connection.send(packet_type, *arguments)

    def _warn(self, handle: bytes, workload: bytes) -> None:
        self._send(PacketType.WORK_STATUS, handle, b"1", b"2")
        self._send(PacketType.WORK_WARNING, handle, workload)
        self._send(PacketType.WORK_COMPLETE, handle, b"done")

    def _chunks(self, handle: bytes, workload: bytes) -> None:
        for start in range(0, len(workload), 2):
            self._send(PacketType.WORK_DATA, handle, workload[start : start + 2])
        self._send(PacketType.WORK_COMPLETE, handle, b"!")

    def _maybe(self, handle: bytes, workload: bytes) -> None:
        if workload == b"bad":
            self._send(PacketType.WORK_EXCEPTION, handle, b"it was bad")
        else:
            self._send(PacketType.WORK_COMPLETE, handle, workload.upper())
