"""Raw sockets and literal packets for tests that talk to a running server.

Deliberately not the codec of ``postgear.wire``: these few lines are a second reading of PROTOCOL.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple, TypeVar

T = TypeVar("T")

TIMEOUT_SECONDS = 5.0
"""How long a test waits for bytes that must come."""

NAMES = [
    "0",
    "CAN_DO",
    "CANT_DO",
    "RESET_ABILITIES",
    "PRE_SLEEP",
    "UNUSED",
    "NOOP",
    "SUBMIT_JOB",
    "JOB_CREATED",
    "GRAB_JOB",
    "NO_JOB",
    "JOB_ASSIGN",
    "WORK_STATUS",
    "WORK_COMPLETE",
    "WORK_FAIL",
    "GET_STATUS",
    "ECHO_REQ",
    "ECHO_RES",
    "SUBMIT_JOB_BG",
    "ERROR",
    "STATUS_RES",
    "SUBMIT_JOB_HIGH",
    "SET_CLIENT_ID",
    "CAN_DO_TIMEOUT",
    "ALL_YOURS",
    "WORK_EXCEPTION",
    "OPTION_REQ",
    "OPTION_RES",
    "WORK_DATA",
    "WORK_WARNING",
    "GRAB_JOB_UNIQ",
    "JOB_ASSIGN_UNIQ",
    "SUBMIT_JOB_HIGH_BG",
    "SUBMIT_JOB_LOW",
    "SUBMIT_JOB_LOW_BG",
    "SUBMIT_JOB_SCHED",
    "SUBMIT_JOB_EPOCH",
    "SUBMIT_REDUCE_JOB",
    "SUBMIT_REDUCE_JOB_BACKGROUND",
    "GRAB_JOB_ALL",
    "JOB_ASSIGN_ALL",
    "GET_STATUS_UNIQUE",
    "STATUS_RES_UNIQUE",
]
"""Packet names; the place in the list is the type."""


class Packet(NamedTuple):
    """What came: a name (``REQ?`` or a number where it has none) and the body."""

    name: str
    body: bytes

    def arguments(self, count: int) -> list[bytes]:
        return self.body.split(b"\0", count - 1)


def request(name: str, *arguments: bytes) -> bytes:
    """The bytes of a packet to the server."""
    body = b"\0".join(arguments)
    return b"\0REQ" + struct.pack(">II", NAMES.index(name), len(body)) + body


class Peer:
    """One connection to the server, as a client, a worker, an administrator or all of them."""

    def __init__(self, host: str, port: int) -> None:
        self.socket = socket.create_connection((host, port), timeout=TIMEOUT_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def write(self, raw: bytes) -> None:
        """Send literal bytes."""
        self.socket.sendall(raw)

    def send(self, name: str, *arguments: bytes) -> None:
        """Send one request."""
        self.write(request(name, *arguments))

    def read(self, size: int) -> bytes:
        """Read exactly *size* bytes."""
        chunks = []
        left = size
        while left:
            chunk = self.socket.recv(min(left, 1 << 20))
            if not chunk:
                raise ConnectionError(f"closed after {b''.join(chunks)!r}, {left} bytes missing")
            chunks.append(chunk)
            left -= len(chunk)
        return b"".join(chunks)

    def packet(self) -> Packet:
        """Read one response."""
        magic, kind, length = struct.unpack(">4sII", self.read(12))
        assert magic == b"\0RES", (magic, kind, length)
        return Packet(NAMES[kind] if kind < len(NAMES) else str(kind), self.read(length))

    def expect(self, name: str, *arguments: bytes) -> None:
        """Read one response, which must be this one to the byte."""
        assert self.packet() == Packet(name, b"\0".join(arguments))

    def created(self) -> bytes:
        """Read JOB_CREATED and return its handle."""
        name, handle = self.packet()
        assert name == "JOB_CREATED", (name, handle)
        return handle

    def submit(self, name: str, *arguments: bytes) -> bytes:
        """Submit a job and return its handle."""
        self.send(name, *arguments)
        return self.created()

    def error(self) -> str:
        """Read ERROR and return its code."""
        name, body = self.packet()
        assert name == "ERROR", (name, body)
        code, text = body.split(b"\0", 1)
        assert text, "an ERROR says what is wrong"
        return code.decode()

    def silent(self) -> None:
        """Nothing has come, and nothing comes before the answer to an echo."""
        self.send("ECHO_REQ", b"\0only this\0")
        self.expect("ECHO_RES", b"\0only this\0")

    def closed(self) -> None:
        """The server closes the connection without another byte."""
        try:
            rest = self.socket.recv(4096)
        except ConnectionResetError:
            rest = b""
        assert rest == b""

    def can_do(self, *functions: bytes) -> None:
        """Register abilities and wait until the server has read them."""
        for function in functions:
            self.send("CAN_DO", function)
        self.silent()

    def sleep(self) -> None:
        """Go to sleep, and find no job waiting."""
        self.send("PRE_SLEEP")
        self.silent()

    def grab(self, name: str = "GRAB_JOB") -> list[bytes]:
        """Get a job as a worker does: grab, and sleep while there is none. Return the arguments of the assignment."""
        counts = {"JOB_ASSIGN": 3, "JOB_ASSIGN_UNIQ": 4, "JOB_ASSIGN_ALL": 5}
        self.send(name)
        while True:
            packet = self.packet()
            if packet.name == "NO_JOB":
                self.send("PRE_SLEEP")
                self.expect("NOOP")
                self.send(name)
            elif packet.name != "NOOP":
                return packet.arguments(counts[packet.name])

    def command(self, line: bytes) -> list[bytes]:
        """Send an admin line whose answer ends with a dot, and return its lines."""
        self.write(line + b"\n")
        lines = [self.line()]
        while lines[-1] != b".\n":
            lines.append(self.line())
        return lines[:-1]

    def line(self) -> bytes:
        """Read one line with its end."""
        line = bytearray()
        while not line.endswith(b"\n"):
            line += self.read(1)
        return bytes(line)

    def reply(self, line: bytes) -> bytes:
        """Send an admin line and return its one-line answer."""
        self.write(line + b"\n")
        return self.line()

    def status(self, function: bytes) -> tuple[int, ...] | None:
        """The numbers of a function in ``status``: total, running, workers; None if it is not listed."""
        rows = [row.rstrip(b"\n").split(b"\t") for row in self.command(b"status")]
        found = [tuple(map(int, row[1:])) for row in rows if row[0] == function]
        assert len(found) < 2, rows
        return found[0] if found else None

    def status_of(self, handle: bytes) -> list[bytes]:
        """The answer to GET_STATUS after the handle: known, running, numerator, denominator."""
        self.send("GET_STATUS", handle)
        name, body = self.packet()
        assert name == "STATUS_RES", (name, body)
        echoed, *numbers = body.split(b"\0")
        assert echoed == handle
        return numbers


def until(answer: Callable[[], T], wanted: T) -> None:
    """Ask again and again until *answer()* is *wanted*, for as long as a test waits."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while (got := answer()) != wanted:
        assert time.monotonic() < deadline, f"still {got!r}, not {wanted!r}"
        time.sleep(0.005)
