"""A server that says what a test has it say, right or wrong."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress

from tests.server.bytes import NAMES

OPTION = b"\0RES" + struct.pack(">II", NAMES.index("OPTION_RES"), 10) + b"exceptions"
"""The answer to what a client asks first."""


def response(name: str, *arguments: bytes) -> bytes:
    """The bytes of a packet of a server."""
    body = b"\0".join(arguments)
    return b"\0RES" + struct.pack(">II", NAMES.index(name), len(body)) + body


class ScriptedPeer:
    """Answers each packet with the next of *answers*, None: not at all; then stays silent, or else closes the connection.

    Every connection is played the same. *received* are the packets that came, of all connections.
    """

    def __init__(self, *answers: bytes | None, stay: bool) -> None:
        self._answers = answers
        self._stay = stay
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.received: list[tuple[str, bytes]] = []
        self.connections = 0
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._open.append(connection)
                self.connections += 1
                threading.Thread(target=self._play, args=(connection,), daemon=True).start()

    def _play(self, connection: socket.socket) -> None:
        with suppress(OSError, struct.error):
            for answer in self._answers:
                self._receive(connection)
                if answer is not None:
                    connection.sendall(answer)
            while self._stay and self._receive(connection):
                pass
            connection.shutdown(socket.SHUT_RDWR)

    def _receive(self, connection: socket.socket) -> bool:
        header = connection.recv(12, socket.MSG_WAITALL)
        _, kind, length = struct.unpack(">4sII", header)
        body = connection.recv(length, socket.MSG_WAITALL) if length else b""
        self.received.append((NAMES[kind], body))
        return bool(header)
