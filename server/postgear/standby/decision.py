"""May this replica be promoted by itself? Pure: facts and a time go in, a verdict comes out.

Times are seconds of one clock that no administrator sets and that goes on while the machine sleeps (CLOCK_BOOTTIME).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum


class Verdict(Enum):
    """What is to be done, and why not more. The values are the words of the log."""

    HEARD = "primary heard"
    SILENT = "primary silent"
    DEMOTED = "primary answers, but as a standby"
    REPLICA_AWAY = "primary lost, and the replica here does not run"
    ALREADY_PROMOTED = "replica was promoted"
    DETACHED = "primary lost, and this standby was detached"
    NOT_SYNCHRONOUS = "primary lost, and this replica was not its synchronous standby"
    STALE = "primary lost, and too long ago it said that its commits wait for this replica"
    BEHIND = "primary lost, and this replica has less than it had"
    ISOLATED = "primary lost, and so are all witnesses: this machine is the one cut off"
    WITNESSED = "primary lost from here, and a witness still reaches the database"
    NOT_ASKED = "primary lost, this replica may be promoted"
    PROMOTE = "primary lost, promoting"


class Witnessed(Enum):
    """What a witness says."""

    UNREACHABLE = "unreachable"
    REACHABLE = "reachable"
    """It answers, or at least takes connections; it knows nothing of the database or finds it away."""
    REACHES_DATABASE = "reaches the database"


@dataclass(frozen=True)
class Rules:
    """The operator's."""

    auto_promote: bool
    loss_seconds: float
    """The primary is lost when no path has heard of it for so long."""
    trust_seconds: float
    """How long what the primary said of its settings is believed after it was last heard: who takes this standby out of
    them by hand must have waited for so long."""


@dataclass(frozen=True)
class Facts:
    """What is known at one moment."""

    now: float
    heard_at: float
    """When any path last heard of the primary; the start of the process before that."""
    is_demoted: bool
    """The primary's address answers, but as a standby."""
    is_replica_up: bool
    is_in_recovery: bool
    is_detached: bool
    is_confirmed: bool
    confirmed_at: float
    confirmed_lsn: int
    replayed_lsn: int
    witnesses: tuple[Witnessed, ...]


def decide(facts: Facts, rules: Rules) -> Verdict:
    """Say what is to be done. Every condition of a promotion by itself is here; the first that is not met is the answer."""
    silent_seconds = facts.now - facts.heard_at
    checks = (
        (facts.is_replica_up and not facts.is_in_recovery, Verdict.ALREADY_PROMOTED),
        (facts.is_demoted, Verdict.DEMOTED),
        (silent_seconds <= rules.loss_seconds / 2, Verdict.HEARD),
        (silent_seconds <= rules.loss_seconds, Verdict.SILENT),
        (not facts.is_replica_up, Verdict.REPLICA_AWAY),
        (facts.is_detached, Verdict.DETACHED),
        (not facts.is_confirmed, Verdict.NOT_SYNCHRONOUS),
        (not 0 <= facts.now - facts.confirmed_at <= rules.trust_seconds, Verdict.STALE),
        (facts.replayed_lsn < facts.confirmed_lsn, Verdict.BEHIND),
        (_is_isolated(facts.witnesses), Verdict.ISOLATED),
        (Witnessed.REACHES_DATABASE in facts.witnesses, Verdict.WITNESSED),
        (not rules.auto_promote, Verdict.NOT_ASKED),
    )
    return next((verdict for holds, verdict in checks if holds), Verdict.PROMOTE)


def prospect(facts: Facts, rules: Rules, said: tuple[Witnessed, ...]) -> Verdict:
    """Say what would be done if the primary were gone from this moment on; while it is lost, what is done.

    said: what the witnesses said last. A database that one reaches by way of the primary would be out of its reach, too.
    """
    if facts.now - facts.heard_at > rules.loss_seconds:
        return decide(facts, rules)
    witnesses = tuple(Witnessed.REACHABLE if each is Witnessed.REACHES_DATABASE else each for each in said)
    return decide(replace(facts, heard_at=float("-inf"), witnesses=witnesses), rules)


def _is_isolated(witnesses: tuple[Witnessed, ...]) -> bool:
    return bool(witnesses) and all(testimony is Witnessed.UNREACHABLE for testimony in witnesses)


class Hearing:
    """When the primary was last heard of, by whatever path.

    A process that was stopped itself has heard nobody meanwhile, which says nothing of the primary: after a gap it listens anew.
    """

    GAP_SECONDS = 1.0

    def __init__(self, now: float) -> None:
        self.heard_at = now
        self._ticked_at = now

    def heard(self, now: float) -> None:
        """Learn that the primary lives."""
        self.heard_at = max(self.heard_at, now)

    def tick(self, now: float) -> None:
        """To be called several times a second."""
        if now - self._ticked_at > self.GAP_SECONDS:
            self.heard_at = now
        self._ticked_at = now
