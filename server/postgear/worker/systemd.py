"""What systemd wants to know of a service with ``Type=notify``; without systemd nothing happens."""

from __future__ import annotations

import os
import socket


def notify(*assignments: str) -> None:
    """Tell systemd, best effort: ``READY=1``, ``RELOADING=1``, ``STOPPING=1`` … (systemd docs, sd_notify)."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]  # not in the file system
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.sendto("\n".join(assignments).encode(), address)
    except OSError:
        pass  # a supervisor that does not listen is no reason to stop working
