"""A way to PostgreSQL that swallows notifications, as poolers do: answers pass, NotificationResponse does not."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Final

from psycopg.conninfo import conninfo_to_dict, make_conninfo

NOTIFICATION: Final = b"A"
"""NotificationResponse (PG docs, message formats). All that a server sends has a type, and a length of four bytes."""


class SwallowingProxy:
    """Listens on a port of 127.0.0.1 and connects to the Unix socket of *dsn*. ``dsn`` leads through it."""

    def __init__(self, dsn: str) -> None:
        parameters = conninfo_to_dict(dsn)
        self._target = f"{parameters['host']}/.s.PGSQL.{parameters.get('port', 5432)}"
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self.swallows = True
        self.swallowed = 0
        port = self._listener.getsockname()[1]
        # Encryption is asked for, and answered, by bytes that are no messages.
        self.dsn = make_conninfo(dsn, host="127.0.0.1", port=port, sslmode="disable", gssencmode="disable")
        threading.Thread(target=self._accept, daemon=True).start()

    def break_connections(self) -> None:
        """End all connections; new ones are taken."""
        ended, self._sockets = self._sockets, []
        for each in ended:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def close(self) -> None:
        """End it."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.break_connections()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.socket(socket.AF_UNIX)
            far.connect(self._target)
            self._sockets += (near, far)
            threading.Thread(target=self._ask, args=(near, far), daemon=True).start()
            threading.Thread(target=self._answer, args=(far, near), daemon=True).start()

    def _ask(self, near: socket.socket, far: socket.socket) -> None:
        with suppress(OSError):
            while data := near.recv(65536):
                far.sendall(data)
            far.shutdown(socket.SHUT_WR)

    def _answer(self, far: socket.socket, near: socket.socket) -> None:
        with suppress(OSError), far.makefile("rb") as answers:
            while len(head := answers.read(5)) == 5:
                message = head + answers.read(int.from_bytes(head[1:]) - 4)
                if head[:1] == NOTIFICATION and self.swallows:
                    self.swallowed += 1
                else:
                    near.sendall(message)
        with suppress(OSError):
            near.shutdown(socket.SHUT_RDWR)
