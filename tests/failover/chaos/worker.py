"""A worker over the wire: ``python -m tests.failover.chaos.worker NAME JOURNAL PORT``, until it is killed."""

from __future__ import annotations

import json
import sys
import time

from tests.failover.chaos.records import ENDED, STARTED, Journal, milliseconds
from tests.server.bytes import Peer, request

FUNCTION = b"chaos"


def token_of(workload: bytes) -> str:
    """Return the token: the workload itself, or what the trigger made of its row."""
    return str(json.loads(workload)["token"]) if workload.startswith(b"{") else workload.decode()


def run(port: int, journal: Journal) -> None:
    """Run jobs until the connection breaks."""
    with Peer("127.0.0.1", port) as peer:
        peer.socket.settimeout(None)
        peer.write(request("CAN_DO", FUNCTION) + request("GRAB_JOB"))
        while True:
            name, body = peer.packet()
            if name == "NO_JOB":
                peer.send("PRE_SLEEP")
            elif name == "NOOP":
                peer.send("GRAB_JOB")
            elif name == "JOB_ASSIGN":
                handle, _, workload = body.split(b"\0", 2)
                token = token_of(workload)
                journal.write(time.monotonic(), STARTED, token, handle.decode(), time.time())
                time.sleep(milliseconds(token) / 1000)
                # Told before it is sent: what is deleted without a record here was not run.
                journal.write(time.monotonic(), ENDED, token, handle.decode())
                peer.write(request("WORK_COMPLETE", handle, b"") + request("GRAB_JOB"))


def main(port: int, journal: Journal) -> None:
    """Run jobs until killed."""
    while True:
        try:
            run(port, journal)
        except OSError:
            time.sleep(0.05)


if __name__ == "__main__":
    main(int(sys.argv[3]), Journal(sys.argv[2]))
