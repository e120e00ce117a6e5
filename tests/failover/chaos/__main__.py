"""``./dev chaos``: break a running postgear in all ways, again and again, and see whether it keeps its promises.

Ends with exit code 1 at the first round in which an invariant does not hold, and leaves the logs of that run.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.failover.chaos.audit import Round, Store, broken_invariants
from tests.failover.chaos.broken import BREAKS
from tests.failover.chaos.faults import DATABASE_FAULTS, FAULTS, LEFT_ALONE_SECONDS, OTHER_FAULTS, Kind, impossible
from tests.failover.chaos.installation import Installation
from tests.failover.chaos.report import Measured, Window, line, measure, table

FAULTS_PER_ROUND = 8
LONG_SHARE = 0.005
DRAIN_SECONDS = 60.0
WARM_UP_SECONDS = 1.5
SETTLE_SECONDS = (1.5, 4.0)
"""How long all is well between two faults."""
TOGETHER = 0.3
"""How often a fault of the database comes with another one."""


class Chaos:
    """One run."""

    def __init__(self, installation: Installation, choices: random.Random, wanted: Sequence[str]) -> None:
        self._installation = installation
        self._choices = choices
        self._kinds = {name: FAULTS[name] for name in wanted if name not in impossible(installation)}
        self._measured: list[Measured] = []
        self._round = 0
        self._began_at = time.monotonic()
        self.acked = 0

    def _tell(self, text: str) -> None:
        print(f"{time.monotonic() - self._began_at:7.1f}  {text}", flush=True)

    def _draw(self) -> list[str]:
        name = self._one_of(self._kinds)
        names = [name]
        others = {other: kind for other, kind in self._kinds.items() if other in OTHER_FAULTS}
        if name in DATABASE_FAULTS and others and self._choices.random() < TOGETHER:
            names.append(self._one_of(others))
        return names

    def _one_of(self, kinds: dict[str, Kind]) -> str:
        return self._choices.choices(list(kinds), [kind.weight for kind in kinds.values()])[0]

    def _inject(self, names: list[str]) -> Window:
        """Make faults at the same time and mend them; returns when all is well and has been for a while."""
        window = Window(" + ".join(names), time.monotonic())
        pending: list[tuple[float, Iterator[float]]] = []
        for name in names:
            fault = FAULTS[name].fault(
                self._installation,
                self._choices,
                lambda what, name=name: self._tell(f"{name}: {what}".rstrip(": ")),  # type: ignore[misc]
            )
            pending.append((time.monotonic(), fault))
        while pending:
            due, fault = pending.pop(min(range(len(pending)), key=lambda index: pending[index][0]))
            time.sleep(max(due - time.monotonic(), 0))
            try:
                pending.append((time.monotonic() + next(fault), fault))
            except StopIteration:
                continue
        self._installation.pair.wait_until_followed("sync")
        window.healed_at = time.monotonic()
        time.sleep(self._choices.uniform(*SETTLE_SECONDS))
        window.ended_at = time.monotonic()
        return window

    def round(self, faults: int, until: float) -> list[str]:
        """Make some faults while jobs come and go, let the queue drain, and return what does not hold."""
        installation = self._installation
        self._round += 1
        installation.start_round(self._round)
        time.sleep(WARM_UP_SECONDS)
        windows: list[Window] = []
        while len(windows) < faults and (not windows or time.monotonic() < until):
            windows.append(self._inject(self._draw()))
        installation.stop_producers()
        took = self._drain()
        journals = Round.read(installation.journals)
        store = Store(installation.pair.primary)
        for window in windows:
            self._measured.append(measure(window, journals))
            self._tell(line(self._measured[-1]))
        logs = [
            [each.log_path.read_text() for each in programs] for programs in (installation.servers.values(), installation.workers)
        ]
        broken = list(broken_invariants(journals, store, *logs))
        if took is None:
            broken.append(f"not drained within {DRAIN_SECONDS:.0f} s: {len(store.queued)} jobs, e.g. {sorted(store.queued)[:5]}")
        broken += [f"{name} was still at the old primary after {LEFT_ALONE_SECONDS:.0f} s" for name in installation.strays]
        broken += [
            f"{program.name} ended by itself with {program.process.returncode}"
            for program in installation.servers.values()
            if program.process.poll() is not None
        ]
        self.acked += len(journals.acked)
        drained = "" if took is None else f"drained in {took:.1f} s, "
        self._tell(
            f"round {self._round}: {len(journals.acked)} acked, {len(store.completed)} done, "
            f"{len(journals.second_starts())} duplicates, {drained}{len(broken)} broken invariants"
        )
        if not broken:
            installation.stop_workers()
            Store.clear(installation.pair.primary)
        return broken

    def _drain(self) -> float | None:
        """Wait until the queue is empty; returns the seconds that took, None if it took too long."""
        began_at = time.monotonic()
        while self._installation.pair.primary.query("select exists (select from postgear.job)") != [(False,)]:
            if time.monotonic() > began_at + DRAIN_SECONDS:
                return None
            time.sleep(0.1)
        return time.monotonic() - began_at

    def report(self) -> str:
        """Return the table of all faults so far."""
        return table(self._measured)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./dev chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="begin no fault after this time (default: %(default)s)")
    parser.add_argument("--seed", help="what all choices come from (default: a new one, which is printed)")
    parser.add_argument("--faults", help=f"only these, with commas between: {', '.join(FAULTS)}")
    parser.add_argument(
        "--per-round", type=int, default=FAULTS_PER_ROUND, help="faults between two checks (default: %(default)s)"
    )
    parser.add_argument(
        "--long", type=float, default=LONG_SHARE, help="share of jobs over the wire that take 1 to 4 s (default: %(default)s)"
    )
    parser.add_argument("--break", dest="broken", choices=sorted(BREAKS), help="run servers with this fault built in: must fail")
    parser.add_argument("--keep", action="store_true", help="leave the logs also when all held")
    arguments = parser.parse_args()
    if unknown := set(arguments.faults.split(",") if arguments.faults else ()) - set(FAULTS):
        parser.error(f"no such fault: {', '.join(sorted(unknown))}")
    return arguments


def main() -> int:
    """Run; returns the exit code: 0 if all held, 1 if not."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    seed = arguments.seed or str(random.randrange(1_000_000))
    print(f"seed {seed}, {arguments.minutes:g} minutes{f', broken: {arguments.broken}' if arguments.broken else ''}", flush=True)
    # Not a folder that only root may enter: PostgreSQL does not run as root.
    folder = Path(tempfile.mkdtemp(prefix="postgear-chaos-"))
    folder.chmod(0o755)
    installation = Installation(folder, seed, arguments.broken, arguments.long)
    broken: list[str] = []
    try:
        for name, reason in impossible(installation).items():
            print(f"left out: {name}: {reason}")
        chaos = Chaos(installation, random.Random(seed), arguments.faults.split(",") if arguments.faults else list(FAULTS))
        until = time.monotonic() + arguments.minutes * 60
        while not broken and time.monotonic() < until:
            broken = chaos.round(arguments.per_round, until)
        print(f"\n{chaos.report()}\n")
    finally:
        installation.remove()
    if broken:
        print(f"BROKEN (seed {seed}; logs in {folder}):", *broken, sep="\n  ")
        return 1
    if arguments.keep:
        print(f"logs in {folder}")
    else:
        shutil.rmtree(folder)
    print(f"all invariants held (seed {seed}): {chaos.acked} jobs acked, none lost")
    return 0


if __name__ == "__main__":
    sys.exit(main())
