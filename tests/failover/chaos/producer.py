"""A producer over the wire: ``python -m tests.failover.chaos.producer NAME SEED JOURNAL LONG PORT…``, until SIGTERM.

It submits in bursts at one server and goes to the next when that fails. Some jobs have a unique of a few, some are scheduled,
some (the share LONG) are long. A submit is made once: what was refused or not answered is not repeated.
"""

from __future__ import annotations

import random
import signal
import sys
import time

from tests.failover.chaos.records import ACKED, ASKED, REFUSED, Journal
from tests.failover.chaos.worker import FUNCTION
from tests.server.bytes import Peer, request

BURST = 8
PAUSE_SECONDS = 0.1
ANSWER_SECONDS = 15.0
UNIQUES = 12


class Producer:
    """Makes and submits jobs."""

    def __init__(self, name: str, seed: str, journal: Journal, long_share: float, ports: list[int]) -> None:
        self._name = name
        self._random = random.Random(seed)
        self._round = name.partition("-")[0]
        self._journal = journal
        self._long_share = long_share
        self._ports = ports
        self._number = 0
        self.is_stopping = False

    def run(self) -> None:
        """Submit until told to stop."""
        while not self.is_stopping:
            try:
                with Peer("127.0.0.1", self._ports[0]) as peer:
                    peer.socket.settimeout(ANSWER_SECONDS)
                    while not self.is_stopping:
                        self._burst(peer)
                        time.sleep(PAUSE_SECONDS)
            except OSError:
                self._ports.append(self._ports.pop(0))
                time.sleep(PAUSE_SECONDS)

    def _burst(self, peer: Peer) -> None:
        jobs = [self._job() for _ in range(BURST)]
        asked_at = time.monotonic()
        for token, unique, run_at, _ in jobs:
            self._journal.write(asked_at, ASKED, token, unique or "-", run_at)
        peer.write(b"".join(packet for _, _, _, packet in jobs))
        for token, _, _, _ in jobs:
            name, body = peer.packet()
            if name == "JOB_CREATED":
                self._journal.write(time.monotonic(), ACKED, token, body.decode())
            else:
                self._journal.write(time.monotonic(), REFUSED, token)

    def _job(self) -> tuple[str, str, int, bytes]:
        """Return token, unique, time before which it must not start (0: none), and the packet."""
        self._number += 1
        chance = self._random.random()
        long = self._random.random() < self._long_share
        token = f"{self._name}.{self._number}.{self._random.randint(1000, 4000) if long else self._random.randint(0, 3)}"
        kind, unique, run_at = self._random.choice(["SUBMIT_JOB_BG", "SUBMIT_JOB_HIGH_BG", "SUBMIT_JOB_LOW_BG"]), "", 0
        if chance < 0.1:
            unique = f"{self._round}-u{self._random.randrange(UNIQUES)}"
        elif chance < 0.15:
            run_at = int(time.time()) + self._random.randint(1, 4)
            return token, "", run_at, request("SUBMIT_JOB_EPOCH", FUNCTION, b"", str(run_at).encode(), token.encode())
        return token, unique, run_at, request(kind, FUNCTION, unique.encode(), token.encode())


def main(name: str, seed: str, journal: str, long_share: str, *ports: str) -> None:
    """Produce until SIGTERM."""
    producer = Producer(name, seed, Journal(journal), float(long_share), [int(port) for port in ports])

    def stop(*_: object) -> None:
        producer.is_stopping = True

    signal.signal(signal.SIGTERM, stop)
    producer.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
