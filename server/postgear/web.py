"""HTTP for load balancers and Prometheus: ``GET /live``, ``/ready`` and ``/metrics``, on an address of its own (``--http``).

By hand on asyncio: three fixed pages and no input but a path are less than what a web framework brings along. It speaks HTTP/1.1
with one request a connection, and to anything else it says 4xx.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from .errors import ConfigError
from .logs import event

log = logging.getLogger("postgear.web")

Page = Callable[[], Awaitable[tuple[int, str]]]
"""Returns status and text."""

REQUEST_SECONDS: Final = 5.0
"""How long a client may take to ask, and the page to come."""
REQUEST_MAX_BYTES: Final = 8192
_REASONS: Final = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}


class Web:
    """The pages by their paths."""

    def __init__(self, pages: Mapping[str, Page]) -> None:
        self._pages = pages
        self._server: asyncio.Server | None = None

    async def listen(self, address: str) -> None:
        """Listen on HOST:PORT, and log on which port where that is 0. Raises ConfigError."""
        host, _, port = address.rpartition(":")
        try:
            self._server = await asyncio.start_server(self._serve, host.strip("[]"), int(port), limit=REQUEST_MAX_BYTES)
        except OSError as error:
            raise ConfigError(f"cannot listen on {address}: {error.strerror}; choose another with --http HOST:PORT") from None
        event(log, logging.INFO, "http listens", address=f"{host}:{self._server.sockets[0].getsockname()[1]}")

    def close(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                status, text = await self._answer(head)
                body = text.encode()
                writer.write(
                    f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
                    f"Content-Length: {len(body)}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n".encode()
                )
                if not head.startswith(b"HEAD "):
                    writer.write(body)
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # whoever asked is gone, or does not speak HTTP
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, head: bytes) -> tuple[int, str]:
        words = head.split(b"\r\n", 1)[0].split(b" ")
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            return 400, "not HTTP\n"
        if words[0] not in (b"GET", b"HEAD"):
            return 405, "only GET\n"
        page = self._pages.get(words[1].split(b"?", 1)[0].decode("latin-1"))
        if page is None:
            return 404, "there are " + ", ".join(self._pages) + "\n"
        return await page()
