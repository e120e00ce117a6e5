"""A network that can be cut: a TCP proxy in a process of its own, with a link for each pair that talks.

``python -m tests.failover.chaos.network SOCKET`` reads commands, a JSON object a line, from the Unix socket it makes; ``Network``
starts it and tells it what to do. A cut link loses nothing and closes nothing: bytes, new connections and ends of connections
wait until it is healed, as packets do that are sent again. So nobody learns from the kernel that the other side is gone.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from pathlib import Path
from typing import Any

from tests.failover.chaos.programs import Program, start

CHUNK_BYTES = 65536
DIRECTIONS = {"both": (False, False), "there": (False, True), "back": (True, False)}
"""What still passes a link cut so: from who connected, and to them."""


class Link:
    """One listening port and where its connections go."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.there = asyncio.Event()
        self.back = asyncio.Event()
        self.pass_only(there=True, back=True)
        self.writers: set[asyncio.StreamWriter] = set()

    def pass_only(self, *, there: bool, back: bool) -> None:
        for gate, is_open in ((self.there, there), (self.back, back)):
            if is_open:
                gate.set()
            else:
                gate.clear()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection until either side ends it."""
        self.writers.add(writer)
        target = None
        try:
            await self.there.wait()
            answers, target = await asyncio.open_connection("127.0.0.1", self.target)
            self.writers.add(target)
            pumps = [
                asyncio.ensure_future(pump(reader, target, self.there)),
                asyncio.ensure_future(pump(answers, writer, self.back)),
            ]
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for task in pumps:
                task.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
        except OSError:
            pass  # nobody listens there: closing is the answer
        finally:
            for each in (writer, target):
                if each is not None:
                    self.writers.discard(each)
                    each.close()

    def drop(self) -> None:
        """Break all connections."""
        for writer in self.writers:
            writer.transport.abort()


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: asyncio.Event) -> None:
    """Carry bytes one way while the gate is open; returns when either side has ended."""
    try:
        while True:
            await gate.wait()
            data = await reader.read(CHUNK_BYTES)
            await gate.wait()
            if not data:
                return
            writer.write(data)
            await writer.drain()
    except OSError:
        await gate.wait()


class Proxy:
    """All links, and the commands about them."""

    def __init__(self) -> None:
        self.links: dict[str, Link] = {}
        self._listeners: list[asyncio.Server] = []

    async def obey(self, command: dict[str, Any]) -> object:
        """Do what one command says; returns the answer."""
        name = command["link"]
        if "target" in command and name not in self.links:
            link = self.links[name] = Link(command["target"])
            listener = await asyncio.start_server(link.accept, "127.0.0.1", 0)
            self._listeners.append(listener)
            return listener.sockets[0].getsockname()[1]
        link = self.links[name]
        if "target" in command:
            link.target = command["target"]
            link.drop()
        if "cut" in command:
            there, back = DIRECTIONS[command["cut"]]
            link.pass_only(there=there, back=back)
        if "heal" in command:
            link.pass_only(there=True, back=True)
        return None

    async def control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Obey commands until the connection ends."""
        while line := await reader.readline():
            writer.write(json.dumps(await self.obey(json.loads(line))).encode() + b"\n")
            await writer.drain()
        writer.close()


async def serve(path: str) -> None:
    """Run the proxy until it is killed."""
    server = await asyncio.start_unix_server(Proxy().control, path)
    await server.serve_forever()


class Network:
    """The proxy as the harness sees it."""

    def __init__(self, folder: Path) -> None:
        path = folder / "network"
        self.program: Program = start(
            "network", [sys.executable, "-m", "tests.failover.chaos.network", str(path)], folder / "network.log"
        )
        self._socket = socket.socket(socket.AF_UNIX)
        while True:
            try:
                self._socket.connect(str(path))
                break
            except (FileNotFoundError, ConnectionRefusedError):
                assert self.program.process.poll() is None, (folder / "network.log").read_text()
        self._answers = self._socket.makefile("rb")
        self.names: list[str] = []

    def _tell(self, **command: object) -> Any:
        self._socket.sendall(json.dumps(command).encode() + b"\n")
        return json.loads(self._answers.readline())

    def link(self, name: str, target: int) -> int:
        """Make a link to a port of this machine; returns the port that leads there."""
        self.names.append(name)
        return int(self._tell(link=name, target=target))

    def turn(self, name: str, target: int) -> None:
        """Let a link lead elsewhere; its connections break."""
        self._tell(link=name, target=target)

    def cut(self, name: str, direction: str = "both") -> None:
        """Hold back what goes over a link, both ways or one of DIRECTIONS."""
        self._tell(link=name, cut=direction)

    def heal(self, name: str) -> None:
        """Let everything through again, and what was held back first."""
        self._tell(link=name, heal=True)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
