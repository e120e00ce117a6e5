"""The faults, as generators: each breaks something, yields how many seconds to leave it so, and mends it.

All they choose comes from the ``Random`` they are given. What they say of themselves goes into the report's log.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeAlias

import psycopg

from tests.failover.chaos.clusters import Cluster
from tests.failover.chaos.installation import FAKETIME, LEASE_SECONDS, Installation
from tests.failover.chaos.network import DIRECTIONS

Fault: TypeAlias = Callable[[Installation, random.Random, Callable[[str], None]], Iterator[float]]
"""(what to break, choices, where to tell of them) → pauses."""

TERMINATE = (
    "select count(pg_terminate_backend(pid)) from pg_stat_activity"
    " where backend_type = 'client backend' and pid <> pg_backend_pid() and random() < %s"
)
CANCEL_WAITING = (
    "select count(pg_cancel_backend(pid)) from pg_stat_activity"
    " where wait_event = 'SyncRep' and application_name not like 'postgear %%' and random() < %s"
)


LATE_SHARE = 0.3
"""How often an old primary stays for long beside the new one."""
LEFT_ALONE_SECONDS = 20.0
"""Faults of others that come with it are mended half of that before, and a primary that commits nothing is given up in 10 s."""
LONG_HANG_SECONDS = (10.0, 22.0)
"""A direct worker gives up connections that are silent for 15 s; some seconds are over before the promotion."""


def kill_server(installation: Installation, choices: random.Random, tell: Callable[[str], None]) -> Iterator[float]:
    server = choices.choice(list(installation.servers.values()))
    tell(server.name)
    server.kill()
    yield choices.uniform(0.5, 3)
    server.start()


def stop_server(installation: Installation, choices: random.Random, tell: Callable[[str], None]) -> Iterator[float]:
    server = choices.choice(list(installation.servers.values()))
    seconds = choices.choice([2.0, LEASE_SECONDS + 1.3, LEASE_SECONDS + choices.uniform(0.5, 3)])
    tell(f"{server.name} for {seconds:.1f} s")
    server.pause()
    yield seconds
    server.go_on()


def kill_worker(installation: Installation, choices: random.Random, tell: Callable[[str], None]) -> Iterator[float]:
    for worker in choices.sample(installation.workers, choices.randint(1, 3)):
        tell(worker.name)
        worker.kill()
        yield choices.uniform(0.1, 0.5)
        worker.start()


def stop_worker(installation: Installation, choices: random.Random, tell: Callable[[str], None]) -> Iterator[float]:
    worker = choices.choice(installation.workers)
    tell(worker.name)
    worker.pause()
    yield choices.uniform(1, 5)
    worker.go_on()


def kill_primary(installation: Installation, choices: random.Random, tell: Callable[[str], None]) -> Iterator[float]:
    yield from _kill(installation.pair.primary, choices.uniform(0.2, 3), tell)


def stop_primary(installation: Installation, choices: random.Random, tell: Callable[[str], None]) -> Iterator[float]:
    yield from _pause(installation.pair.primary, choices, tell)


def kill_standby(installation: Installation, choices: random.Random, tell: Callable[[str], None]) -> Iterator[float]:
    yield from _kill(installation.pair.standby, choices.uniform(0.5, 4), tell)


def stop_standby(installation: Installation, choices: random.Random, tell: Callable[[str], None]) -> Iterator[float]:
    yield from _pause(installation.pair.standby, choices, tell)


def _kill(node: Cluster, seconds: float, tell: Callable[[str], None]) -> Iterator[float]:
    tell(node.name)
    node.kill()
    yield seconds
    node.start()


def _pause(node: Cluster, choices: random.Random, tell: Callable[[str], None]) -> Iterator[float]:
    seconds = choices.uniform(1, 2 * LEASE_SECONDS)
    tell(f"{node.name} for {seconds:.1f} s")
    node.pause()
    yield seconds
    node.go_on()


def cut(installation: Installation, choices: random.Random, tell: Callable[[str], None]) -> Iterator[float]:
    yield from _cut(installation, installation.network.names, choices, tell)


def cut_server(installation: Installation, choices: random.Random, tell: Callable[[str], None]) -> Iterator[float]:
    """Take a server from the database, or its peers from a server."""
    names = [name for name in installation.network.names if name.startswith(("server-", "producers-", "workers-"))]
    yield from _cut(installation, names, choices, tell)


def _cut(installation: Installation, names: list[str], choices: random.Random, tell: Callable[[str], None]) -> Iterator[float]:
    name, direction = choices.choice(names), choices.choice(list(DIRECTIONS))
    seconds = choices.uniform(1, 2 * LEASE_SECONDS)
    tell(f"{name} {direction} for {seconds:.1f} s")
    installation.network.cut(name, direction)
    yield seconds
    installation.network.heal(name)


def terminate_storm(installation: Installation, choices: random.Random, tell: Callable[[str], None]) -> Iterator[float]:
    """End sessions of the primary, half the time while commits wait for a standby that is cut off."""
    pair = installation.pair
    link = f"{pair.standby.name}-{pair.primary.name}"
    is_cut = choices.random() < 0.5
    tell("while the standby is cut off" if is_cut else "")
    if is_cut:
        installation.network.cut(link)
    for _ in range(choices.randint(2, 8)):
        yield choices.uniform(0.1, 0.6)
        _storm(pair.primary, choices)
    if is_cut:
        installation.network.heal(link)


def _storm(primary: Cluster, choices: random.Random) -> None:
    with suppress(psycopg.OperationalError):
        primary.query(choices.choice([TERMINATE, CANCEL_WAITING]), choices.choice([0.3, 1.0]), database="postgres")


def failover_kill(installation: Installation, choices: random.Random, tell: Callable[[str], None]) -> Iterator[float]:
    """The primary's machine is gone; the standby is promoted; another standby is made."""
    tell(f"{installation.pair.primary.name} is lost")
    installation.pair.primary.kill()
    yield choices.uniform(0.2, 2)
    yield from _promote(installation, choices)


def failover_cut(installation: Installation, choices: random.Random, tell: Callable[[str], None]) -> Iterator[float]:
    """The standby loses the primary, which all others still reach, and is promoted: there are two for a while."""
    pair = installation.pair
    link = f"{pair.standby.name}-{pair.primary.name}"
    tell(f"{pair.primary.name} lives on")
    installation.network.cut(link)
    for _ in range(choices.randint(1, 3)):
        yield choices.uniform(0.5, 1.5)
        if choices.random() < 0.7:
            _storm(pair.primary, choices)
    yield from _promote(installation, choices, _left_alone(installation, choices))
    installation.network.heal(link)


def _left_alone(installation: Installation, choices: random.Random) -> Iterator[float]:
    """Leave the old primary at work; when that was long, everybody has to have left it."""
    if choices.random() >= LATE_SHARE:
        return
    yield LEFT_ALONE_SECONDS
    installation.note_strays()


def failover_zombie(installation: Installation, choices: random.Random, tell: Callable[[str], None]) -> Iterator[float]:
    """The primary hangs, the standby is promoted, then the old one goes on until it is fenced."""
    old = installation.pair.primary
    tell(f"{old.name} comes back")
    old.pause()
    yield choices.uniform(1, LEASE_SECONDS)
    yield from _promote(installation, choices, _come_back(old, choices))


def _come_back(old: Cluster, choices: random.Random) -> Iterator[float]:
    """Go on, sometimes so late that its clients have left it."""
    if choices.random() < LATE_SHARE:
        yield choices.uniform(*LONG_HANG_SECONDS)
    old.go_on()


def switchover(installation: Installation, choices: random.Random, tell: Callable[[str], None]) -> Iterator[float]:
    """The primary is stopped in order, and the standby, which has everything, promoted."""
    tell(f"from {installation.pair.primary.name}")
    installation.pair.primary.stop()
    yield 0.1
    yield from _promote(installation, choices)


def _promote(installation: Installation, choices: random.Random, before_fencing: Iterable[float] = ()) -> Iterator[float]:
    pair = installation.pair
    pair.promote()
    installation.turn_bouncer()
    yield from before_fencing
    yield choices.uniform(0.5, 3)
    pair.standby.kill()
    yield choices.uniform(0, 2)
    for node in pair.nodes:  # or the copy would wait for ever
        other = next(each for each in pair.nodes if each is not node)
        installation.network.heal(f"{node.name}-{other.name}")
    pair.rejoin()


def restart_bouncer(installation: Installation, choices: random.Random, tell: Callable[[str], None]) -> Iterator[float]:
    assert installation.bouncer is not None
    tell("")
    installation.bouncer.kill()
    yield choices.uniform(0.1, 2)
    installation.bouncer.start()


def disk_full(installation: Installation, choices: random.Random, tell: Callable[[str], None]) -> Iterator[float]:
    """No byte is free for tables, and half the time none for the log either, which ends all sessions."""
    primary = installation.pair.primary
    is_log_full = choices.random() < 0.5
    tell(f"{primary.name}{', its log, too' if is_log_full else ''}")
    free = primary.fill_disk()
    if is_log_full:
        for _ in range(10):  # those that are there already are used first
            with suppress(psycopg.OperationalError):
                primary.query("select pg_switch_wal()", database="postgres")
            yield 0.1
    yield choices.uniform(2, 5)
    free()
    yield 0.5
    if not primary.is_running():
        tell(f"{primary.name} gave up and is started")
        primary.start()


def step_clock(installation: Installation, choices: random.Random, tell: Callable[[str], None]) -> Iterator[float]:
    name = choices.choice(list(installation.servers))
    for seconds in (choices.choice([3600, -3600, 60, -60]), 0):
        tell(f"server-{name} is {seconds:+} s off")
        installation.clock_path(name).write_text(f"{seconds:+}\n")
        yield choices.uniform(2, 5)


@dataclass(frozen=True)
class Kind:
    """A fault, and how often it is drawn."""

    fault: Fault
    weight: int = 2


DATABASE_FAULTS = {
    "kill-primary": Kind(kill_primary, 3),
    "stop-primary": Kind(stop_primary),
    "kill-standby": Kind(kill_standby),
    "stop-standby": Kind(stop_standby),
    "terminate-storm": Kind(terminate_storm, 3),
    "failover-kill": Kind(failover_kill, 4),
    "failover-cut": Kind(failover_cut, 4),
    "failover-zombie": Kind(failover_zombie, 3),
    "switchover": Kind(switchover),
    "disk-full": Kind(disk_full),
    "cut": Kind(cut, 4),
}
"""At most one of these at a time, as the promise is: the pair survives one loss."""

OTHER_FAULTS = {
    "kill-server": Kind(kill_server, 3),
    "stop-server": Kind(stop_server, 3),
    "kill-worker": Kind(kill_worker),
    "stop-worker": Kind(stop_worker),
    "cut-server": Kind(cut_server, 4),
    "restart-bouncer": Kind(restart_bouncer, 1),
    "step-clock": Kind(step_clock),
}
"""These may come together with one of the database."""

FAULTS = DATABASE_FAULTS | OTHER_FAULTS


def impossible(installation: Installation) -> dict[str, str]:
    """Return the faults that cannot be made here, each with the reason."""
    reasons = {}
    if not installation.pair.primary.is_mounted:
        reasons["disk-full"] = "no file system of its own for each cluster: only root can mount one"
    if FAKETIME is None:
        reasons["step-clock"] = "libfaketime is not installed"
    if installation.bouncer is None:
        reasons["restart-bouncer"] = "pgbouncer is not installed"
    return reasons
