"""A whole Gearman worker in one loop: sleep until woken, take jobs, answer them.

    python -m examples.worker HOST:PORT FUNCTION

Prints the title of each article it is given. It speaks packets, so that the protocol can be seen.
"""

from __future__ import annotations

import json
import sys
import time

from postgear.client.blocking import Connection
from postgear.wire.packet import PacketType

WORK_SECONDS = 0.02
"""What the pretended work takes."""


def index(workload: bytes) -> bytes:
    """Do the job: the result goes to the client, if one waits."""
    time.sleep(WORK_SECONDS)
    article = json.loads(workload)
    print(f"{article['id']}\t{article['title']}", flush=True)
    return b"indexed"


def run(address: tuple[str, int], function: str) -> None:
    """Work for ever. A job whose worker dies goes to another one."""
    with Connection(address, timeout_seconds=None) as connection:
        connection.send(PacketType.CAN_DO, function.encode())
        connection.send(PacketType.GRAB_JOB)
        while True:
            packet, arguments = connection.receive()
            if packet == PacketType.JOB_ASSIGN:
                handle, _, workload = arguments
                connection.send(PacketType.WORK_COMPLETE, handle, index(workload))
                connection.send(PacketType.GRAB_JOB)
            elif packet == PacketType.NO_JOB:
                connection.send(PacketType.PRE_SLEEP)
            elif packet == PacketType.NOOP:
                connection.send(PacketType.GRAB_JOB)


if __name__ == "__main__":
    host, _, port = sys.argv[1].rpartition(":")
    try:
        run((host, int(port)), sys.argv[2])
    except KeyboardInterrupt:
        sys.exit(130)
