"""Does every commit of the primary wait for this standby? Pure: what the primary said goes in, a verdict comes out.

The "sync" of PostgreSQL's views is not enough. With ``FIRST 1 (here, there)`` this standby is "sync" while it is connected, and
as soon as it is cut off the primary goes on with the other. Only settings that leave no commit without this standby count, and
only once the primary's checkpointer has read them: commits wait or not by what that one has told them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_WAITING: Final = frozenset(("on", "remote_apply", "remote_write"))
"""The values of synchronous_commit with which a commit waits until the standby has it."""
_SYNCHRONOUS: Final = frozenset(("sync", "quorum"))
_TOKEN: Final = re.compile(r"""\s*(?:"((?:[^"]|"")*)"|([(),*])|([^\s"(),*]+))""")


@dataclass(frozen=True)
class StandbyNames:
    """``synchronous_standby_names``, read: a commit waits for *number* of *names*."""

    number: int
    names: tuple[str, ...]

    def always_need(self, name: str) -> bool:
        """Whether no commit goes without the standby *name*; upper and lower case are the same, as for PostgreSQL."""
        return "*" not in self.names and name.lower() in self.names and self.number >= len(self.names)


def parse_names(text: str) -> StandbyNames:
    """Read ``synchronous_standby_names``; raises ValueError for what PostgreSQL would not take. Source: PG, syncrep_gram.y."""
    tokens = _tokens(text)
    words = [word.upper() if not quoted else "" for word, quoted in tokens]
    if not tokens:
        return StandbyNames(0, ())
    start = 1 if words[0] in ("FIRST", "ANY") and len(words) > 2 and words[2] == "(" else 0
    if len(words) > start + 1 and words[start + 1] == "(":
        number, inside = words[start], tokens[start + 2 : -1]
        if not number.isdigit() or words[-1] != ")":
            raise ValueError(text)
        return StandbyNames(int(number), _names(text, inside))
    return StandbyNames(1, _names(text, tokens))


def _tokens(text: str) -> list[tuple[str, bool]]:
    """Split into words and signs, each with whether it was quoted."""
    tokens: list[tuple[str, bool]] = []
    place = 0
    rest = text.rstrip()
    while place < len(rest):
        match = _TOKEN.match(rest, place)
        if match is None:
            raise ValueError(text)
        quoted = match[1] is not None
        tokens.append((match[1].replace('""', '"') if quoted else match[2] or match[3], quoted))
        place = match.end()
    return tokens


def _names(text: str, tokens: list[tuple[str, bool]]) -> tuple[str, ...]:
    names, commas = tokens[::2], tokens[1::2]
    if len(names) != len(commas) + 1 or any(comma != (",", False) for comma in commas):
        raise ValueError(text)
    if any(not quoted and name in ("(", ")", ",") for name, quoted in names):
        raise ValueError(text)
    return tuple(name.lower() for name, _ in names)


@dataclass(frozen=True)
class Sighting:
    """One answer of the primary. LSNs are bytes of WAL."""

    is_in_recovery: bool
    system_identifier: str
    timeline: int
    standby_names: str
    """synchronous_standby_names."""
    synchronous_commit: str
    settings_loaded: str
    """When it last read its configuration, and when its checkpointer was started: while this is the same so are its settings."""
    insert_lsn: int
    """The end of its WAL at this moment."""
    senders: int
    """How many standbys of our name are connected."""
    state: str | None = None
    """What it does for us, "streaming" when all is well; None where we are not connected."""
    sync_state: str | None = None
    flush_lsn: int = 0
    """What of its WAL we have on disk, as it knows."""
    replay_lsn: int = 0

    def demands(self, name: str) -> bool:
        """Whether its settings let no commit go without the standby *name*."""
        try:
            names = parse_names(self.standby_names)
        except ValueError:
            return False
        return not self.is_in_recovery and self.synchronous_commit in _WAITING and names.always_need(name)


class Synchrony:
    """Whether all that the primary has acknowledged is on our disk, and since when we know."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._settings_loaded = ""
        self._in_force = ""
        self._target_lsn: int | None = None
        self.awaited = ""
        """The ``settings_loaded`` of a demand that the primary's checkpointer may not have read yet; empty: there is none."""
        self.is_confirmed = False
        self.confirmed_at = 0.0
        """When the primary last said so, in the caller's clock."""
        self.confirmed_since = 0.0
        """When it was first known, since when it has been so without a break."""
        self.replayed_lsn = 0
        """What we had replayed then, at least: a replica with less is not the one that was confirmed."""

    def saw(self, sighting: Sighting, now: float) -> None:
        """Take an answer of the primary.

        Commits from before the demand was in force did not wait. So it counts from the second answer after that on, when the
        end of the WAL at the first is on our disk.
        """
        demands = sighting.demands(self._name) and sighting.senders <= 1
        if not demands or sighting.settings_loaded != self._settings_loaded:
            self.is_confirmed = False
            self._target_lsn = None
            self._settings_loaded = sighting.settings_loaded
        self.awaited = sighting.settings_loaded if demands and sighting.settings_loaded != self._in_force else ""
        if not demands or self.awaited:
            return
        if sighting.senders == 1 and sighting.sync_state in _SYNCHRONOUS:
            if self._target_lsn is None:
                self._target_lsn = sighting.insert_lsn
            elif sighting.flush_lsn >= self._target_lsn:
                if not self.is_confirmed:
                    self.confirmed_since = now
                self.is_confirmed = True
                self.replayed_lsn = max(self.replayed_lsn, sighting.replay_lsn)
        if self.is_confirmed:
            # Without a sender, too: its commits wait for us.
            self.confirmed_at = now

    def in_force(self, settings_loaded: str) -> None:
        """Learn that the primary's checkpointer has read the settings of *settings_loaded*."""
        self._in_force = settings_loaded

    def remembered(self, confirmed_at: float, replayed_lsn: int) -> None:
        """Take over what an earlier process knew."""
        self.is_confirmed = True
        self.confirmed_at = self.confirmed_since = confirmed_at
        self.replayed_lsn = replayed_lsn
