"""Ports for servers that tests start."""

from __future__ import annotations

import random
import socket


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody has, and that no outgoing connection takes before (or while) its server starts."""
    while True:
        port = random.randint(15000, 30000)  # below Linux's ephemeral ports; random, as test processes run side by side
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return port
