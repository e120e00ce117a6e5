"""A TCP connection to the tests' PostgreSQL that can be cut: the server sees its end, PostgreSQL does not."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Self

from psycopg.conninfo import conninfo_to_dict, make_conninfo


class Wire:
    """Forwards between ``dsn`` and the database of *dsn*, until ``cut`` and anew after it."""

    def __init__(self, dsn: str) -> None:
        parameters = conninfo_to_dict(dsn)
        self._database = f"{parameters['host']}/.s.PGSQL.{parameters.get('port', 5432)}"
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.dsn = make_conninfo(dsn, host="127.0.0.1", port=self._listener.getsockname()[1])
        self._server_ends: list[socket.socket] = []
        self._database_ends: list[socket.socket] = []
        self._cut = 0
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept(), which a close would not
        self._accepting.join()
        self._listener.close()
        for end in (*self._server_ends, *self._database_ends):
            end.close()

    def cut(self) -> None:
        """End the connections there are, for the server only."""
        for end in self._server_ends[self._cut :]:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._cut = len(self._server_ends)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                server_end, _ = self._listener.accept()
                self._server_ends.append(server_end)
                database_end = socket.socket(socket.AF_UNIX)
                self._database_ends.append(database_end)
                database_end.connect(self._database)
                for source, sink in ((server_end, database_end), (database_end, server_end)):
                    threading.Thread(target=_forward, args=(source, sink), daemon=True).start()


def _forward(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
