"""A whole Gearman worker in one loop: sleep until woken, take jobs, answer them.

    python -m examples.worker HOST:PORT FUNCTION

Prints the title of each article it is given. It speaks packets, so that the protocol can be seen.
"""

from __future__ import annotations

import json
import socket
import sys
import time

from postgear.wire.connection import PacketReader
from postgear.wire.packet import RESPONSE_MAGIC, PacketType, encode_request

WORK_SECONDS = 0.02
"""What the pretended work takes."""


def index(workload: bytes) -> bytes:
    """Do the job: the result goes to the client, if one waits."""
    time.sleep(WORK_SECONDS)
    article = json.loads(workload)
    print(f"{article['id']}\t{article['title']}", flush=True)
    return b"indexed"


def run(address: tuple[str, int], function: str) -> None:
    """Work until the server goes away. A job whose worker dies goes to another one."""
    reader = PacketReader(RESPONSE_MAGIC)
    with socket.create_connection(address) as connection:

        def send(packet: PacketType, *arguments: bytes) -> None:
            connection.sendall(encode_request(packet, *arguments))

        send(PacketType.CAN_DO, function.encode())
        send(PacketType.GRAB_JOB)
        while received := connection.recv(65536):
            for packet, arguments in reader.feed(received):
                if packet == PacketType.JOB_ASSIGN:
                    handle, _, workload = arguments
                    send(PacketType.WORK_COMPLETE, handle, index(workload))
                    send(PacketType.GRAB_JOB)
                elif packet == PacketType.NO_JOB:
                    send(PacketType.PRE_SLEEP)
                elif packet == PacketType.NOOP:
                    send(PacketType.GRAB_JOB)


if __name__ == "__main__":
    host, _, port = sys.argv[1].rpartition(":")
    try:
        run((host, int(port)), sys.argv[2])
    except KeyboardInterrupt:
        sys.exit(130)
