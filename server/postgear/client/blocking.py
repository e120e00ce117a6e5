"""One blocking connection to a Gearman server: packets and admin commands, nothing more.

Not here: what an exchange means (which packets answer which), reconnecting, several servers.
Not for several threads at once. Standard library only.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from postgear.errors import ServerError, UnknownJob
from postgear.wire.connection import Message, PacketReader
from postgear.wire.packet import RESPONSE_MAGIC, encode_request

MAX_ANSWER_BYTES = 2**32
"""Whatever the header can say: the server decides how long a result may be."""
RECEIVE_BYTES = 256 * 1024
LIST_COMMANDS = ("status", "prioritystatus", "workers", "show")
"""The admin commands that answer with lines up to a lone ``.``."""


class Connection:
    """A connection, opened at once and closed by ``close`` or the end of a ``with``.

    timeout_seconds: the longest wait for the connection and for each answer; None waits for ever; may be changed.
    Every method raises ServerError if the server cannot be reached, goes away or does not answer in time; its
    ``__cause__`` is then the OSError, if there was one. The connection is of no more use after that.
    """

    def __init__(self, address: tuple[str, int], timeout_seconds: float | None = 10.0) -> None:
        self.address = address
        self.timeout_seconds = timeout_seconds
        self._reader = PacketReader(RESPONSE_MAGIC, MAX_ANSWER_BYTES)
        self._messages: deque[Message] = deque()
        try:
            self._socket = socket.create_connection(address, timeout_seconds)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            raise self._error(f"cannot be reached: {error.strerror or error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, traceback: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; more than once is fine."""
        self._socket.close()

    def send(self, packet_type: int, *arguments: bytes) -> None:
        """Send one packet; returns when the kernel has taken it."""
        self._send(encode_request(packet_type, *arguments))

    def receive(self) -> tuple[int, Sequence[bytes]]:
        """Return the next packet as its type and arguments; ERROR is returned like any other."""
        while not self._messages:
            self._messages.extend(self._reader.feed(self._receive()))
        packet_type, arguments = self._messages.popleft()
        if packet_type < 0:
            raise self._error(f"sent what is no Gearman packet: {b' '.join(arguments).decode('utf-8', 'replace')}")
        return packet_type, arguments

    def admin(self, line: str) -> str | list[str]:
        """Send an admin command; return its line of answer, or a list of lines for those that answer with many.

        Bytes that are not UTF-8 are shown as ``\\xff``. All packets must have been received before.
        Raises UnknownJob or ServerError for an answer that begins with ERR.
        """
        if "\n" in line:
            raise ValueError(line)
        self._send(line.encode("utf-8") + b"\r\n")
        answer = bytearray()
        while not answer.endswith(b"\n"):
            answer += self._receive()
        many = line.split(" ")[0].lower() in LIST_COMMANDS and not (answer.startswith(b"ERR ") and b"\t" not in answer)
        while many and not (answer == b".\n" or answer.endswith(b"\n.\n")):
            answer += self._receive()
        text = answer.decode("utf-8", "backslashreplace")
        if many:
            return [each.rstrip("\r") for each in text.split("\n")[:-2]]
        text = text.rstrip("\r\n")
        if text.startswith("ERR UNKNOWN_JOB"):
            raise UnknownJob(f"server {self._where()}: there is no job {line.rpartition(' ')[2]}: it has ended, or never was")
        if text.startswith("ERR"):
            raise self._error(f"{line}: {text[3:].strip().replace('+', ' ')}")
        return text

    def _send(self, data: bytes) -> None:
        try:
            self._socket.settimeout(self.timeout_seconds)
            self._socket.sendall(data)
        except OSError as error:
            raise self._error(self._reason(error)) from error

    def _receive(self) -> bytes:
        try:
            self._socket.settimeout(self.timeout_seconds)
            data = self._socket.recv(RECEIVE_BYTES)
        except OSError as error:
            raise self._error(self._reason(error)) from error
        if not data:
            raise self._error("closed the connection")
        return data

    def _reason(self, error: OSError) -> str:
        if isinstance(error, TimeoutError):
            return f"no answer within {self.timeout_seconds:g} s"
        return f"the connection was lost: {error.strerror or error}"

    def _error(self, text: str) -> ServerError:
        return ServerError(f"server {self._where()}: {text}")

    def _where(self) -> str:
        host, port = self.address
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
