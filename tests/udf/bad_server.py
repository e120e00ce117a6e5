"""Gearman servers that do not do what a server does: each connection is treated as its script says."""

from __future__ import annotations

import random
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Self

Treat = Callable[[socket.socket], None]


def packet(kind: int, body: bytes, length: int | None = None) -> bytes:
    """A response; *length* may lie about the body."""
    return struct.pack(">4sII", b"\0RES", kind, len(body) if length is None else length) + body


def read_packet(connection: socket.socket) -> tuple[int, bytes]:
    """Receive a request."""
    header = _read(connection, 12)
    kind, length = struct.unpack(">II", header[4:])
    return kind, _read(connection, length)


def _read(connection: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        received = connection.recv(length - len(data))
        if not received:
            raise ConnectionError
        data += received
    return data


def greeted(connection: socket.socket) -> None:
    """Answer the greeting as a good server does."""
    kind, body = read_packet(connection)
    assert (kind, body) == (26, b"exceptions")
    connection.sendall(packet(27, body))


def answering(data: bytes, then: Treat | None = None) -> Treat:
    """Be good at first, answer the submission with *data*, and then close the connection or do something else."""

    def treat(connection: socket.socket) -> None:
        greeted(connection)
        read_packet(connection)
        connection.sendall(data)
        if then is not None:
            then(connection)

    return treat


def wait_for_the_end(connection: socket.socket) -> None:
    """Say nothing more."""
    with suppress(OSError):
        while connection.recv(65536):
            pass


def dripping(data: bytes, seconds: float = 0.02) -> Treat:
    """Send *data* byte by byte."""

    def treat(connection: socket.socket) -> None:
        for byte in data:
            connection.sendall(bytes([byte]))
            time.sleep(seconds)

    return treat


def flooding(data: bytes) -> Treat:
    """Send *data* again and again."""

    def treat(connection: socket.socket) -> None:
        while True:
            connection.sendall(data * 1000)

    return treat


def random_answers(seed: int) -> Treat:
    """Answer what comes with packets that are good, wrong, cut or made of noise."""
    dice = random.Random(seed)

    def treat(connection: socket.socket) -> None:
        while True:
            kind, body = read_packet(connection)
            if kind == 26 and dice.random() < 0.9:
                connection.sendall(packet(27, body))
            else:
                connection.sendall(random_answer(dice))
            if dice.random() < 0.2:
                return

    return treat


def random_answer(dice: random.Random) -> bytes:
    """Some bytes that a broken server might send."""
    handle = dice.choice([b"H:x:1", b"", b"H" * 63, b"H" * 64, b"\0\0\0", b"H:\xff"])
    data = dice.randbytes(dice.choice([0, 1, 50, 5000, 70_000]))
    created = packet(8, handle)
    ended = packet(dice.choice([13, 14, 25, 28, 29, 12]), handle + dice.choice([b"", b"\0"]) + data)
    answer = dice.choice(
        [
            created + ended,
            created + ended + packet(13, handle + b"\0" + data),
            created + created,
            packet(19, b"CODE\0" + data),
            packet(20, handle + b"\0" + b"\0".join(dice.choice([b"1", b"-9", b"9" * 40, b"x", b""]) for _ in range(4))),
            packet(dice.randrange(2**32), data),
            packet(8, handle, dice.choice([0, 2**31, 2**32 - 1, 100])),
            created + packet(13, handle + b"\0", dice.choice([2**32 - 1, 2**30, 10**6])),
            data,
            b"OK " + data + b"\n",
        ]
    )
    return answer[: dice.randrange(len(answer) + 1)] if dice.random() < 0.3 else answer


class BadServer:
    """Listens until the end of a ``with``; *treat* gets each connection, in a thread, and closes it by returning."""

    host = "127.0.0.1"

    def __init__(self, treat: Treat) -> None:
        self._treat = treat
        self._listener = socket.create_server((self.host, 0))
        self.port: int = self._listener.getsockname()[1]
        self.address = f"{self.host}:{self.port}"
        self.connections = 0
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                self._open.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError, AssertionError):
            self._treat(connection)
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        connection.close()
