"""What must hold after each round, told from the journals, the audit tables of the database and the servers' logs.

Checked when the queue has drained, so that "accounted for" means done. A job is named by its handle, a wish for one by its token;
several wishes with one unique may be one job.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from tests.failover.chaos import records
from tests.failover.chaos.clusters import Cluster
from tests.failover.chaos.worker import token_of

FLAG = re.compile(r" possible duplicate handle=(\S+)")
FAULT_OF_OURS = re.compile(r"^.*(?:Traceback| CRITICAL | ERROR \S+ request failed).*$", re.MULTILINE)
EXAMPLES = 5
"""How many cases of a broken invariant are printed."""


class Acked(NamedTuple):
    token: str
    handle: str
    asked_at: float
    at: float


class Started(NamedTuple):
    token: str
    handle: str
    at: float
    time_of_day: float


@dataclass
class Round:
    """What the journals of one round say."""

    asked_at: dict[str, float] = field(default_factory=dict)
    unique: dict[str, str] = field(default_factory=dict)
    not_before: dict[str, float] = field(default_factory=dict)
    acked: list[Acked] = field(default_factory=list)
    rolled_back: set[str] = field(default_factory=set)
    started: list[Started] = field(default_factory=list)
    ended: list[tuple[float, str]] = field(default_factory=list)

    @classmethod
    def read(cls, journals: Iterable[Path]) -> Round:
        """Read the journals."""
        this = cls()
        for journal in journals:
            for at, kind, fields in records.read(journal):
                this._add(at, kind, fields)
        this.started.sort(key=lambda start: start.at)
        return this

    def _add(self, at: float, kind: str, fields: list[str]) -> None:
        token = fields[0]
        if kind == records.ASKED:
            self.asked_at[token] = at
            if fields[1] != "-":
                self.unique[token] = fields[1]
            if fields[2] != "0":
                self.not_before[token] = float(fields[2])
        elif kind == records.ACKED:
            self.acked.append(Acked(token, fields[1], self.asked_at[token], at))
        elif kind == records.ROLLED_BACK:
            self.rolled_back.add(token)
        elif kind == records.STARTED:
            self.started.append(Started(token, fields[1], at, float(fields[2])))
        elif kind == records.ENDED:
            self.ended.append((at, fields[1]))

    def second_starts(self) -> list[Started]:
        """Return the starts of jobs that had been started before."""
        seen: set[str] = set()
        seconds = []
        for start in self.started:
            if start.handle in seen:
                seconds.append(start)
            seen.add(start.handle)
        return seconds


class Inserted(NamedTuple):
    handle: str
    token: str
    key: str
    at: float


class Completed(NamedTuple):
    handle: str
    token: str
    attempt: int
    holder: str | None
    deleted_by: str
    at: float


class Store:
    """What the database says of the jobs of a round."""

    def __init__(self, primary: Cluster) -> None:
        self.inserted = [
            Inserted(f"H:chaos:{number}", token_of(bytes(workload)), bytes(key or b"").decode(), at)
            for number, workload, key, at in primary.query(
                "select id, workload, key, extract(epoch from at)::float8 from chaos.inserted order by id"
            )
        ]
        self.completed = [
            Completed(f"H:chaos:{number}", token_of(bytes(workload)), attempt, holder, deleted_by, at)
            for number, workload, attempt, holder, deleted_by, at in primary.query(
                "select id, workload, attempt, lease.name, deleted_by, extract(epoch from at)::float8"
                " from chaos.completed left join chaos.lease using (lease)"
            )
        ]
        self.queued = {f"H:chaos:{number}" for (number,) in primary.query("select id from postgear.job")}
        self.effects = Counter(handle for (handle,) in primary.query("select handle from chaos.effect"))
        self.produced = {
            token for (token,) in primary.query("select token from chaos.produced union all select token from chaos.article")
        }

    @staticmethod
    def clear(primary: Cluster) -> None:
        """Forget the round; leases live on."""
        primary.query("truncate chaos.produced, chaos.article, chaos.inserted, chaos.completed, chaos.effect")


def broken_invariants(journals: Round, store: Store, server_logs: Iterable[str], worker_logs: Iterable[str]) -> Iterator[str]:
    """Yield a line for each invariant that does not hold, with some cases."""
    checks = (_acked_is_done, _done_was_committed, _completed_once, _effects_once, _second_start_is_flagged, _uniques, _schedule)
    logs = list(server_logs)
    flags = Counter(handle for log in (*logs, *worker_logs) for handle in FLAG.findall(log))
    for check in checks:
        for what, cases in check(journals, store, flags):
            found = list(cases)
            if found:
                yield f"{what}: {len(found)}, for example {', '.join(map(str, found[:EXAMPLES]))}"
    for log in logs:
        if found := FAULT_OF_OURS.findall(log):
            yield f"a server logged a fault of its own: {found[:EXAMPLES]}"


Cases = Iterator[tuple[str, Iterable[object]]]


def _acked_is_done(journals: Round, store: Store, flags: Counter[str]) -> Cases:
    known = {each.handle for each in store.completed} | store.queued
    yield "acked jobs lost", (each for each in journals.acked if each.handle not in known | {"-"})
    # A trigger's job has no handle here; its row is in the database, and so must be the job.
    tokens = {each.token for each in store.completed} | {each.token for each in store.inserted if each.handle in store.queued}
    by_trigger = (each for each in journals.acked if each.handle == "-")
    yield "acked rows without their job", (each for each in by_trigger if each.token not in tokens)
    token_by_handle = {each.handle: each.token for each in store.inserted}
    yield (
        "handles of other jobs",
        (
            each
            for each in journals.acked
            if each.token not in journals.unique and each.handle in token_by_handle and token_by_handle[each.handle] != each.token
        ),
    )


def _done_was_committed(journals: Round, store: Store, flags: Counter[str]) -> Cases:
    inserted = {each.token for each in store.inserted}
    yield "started but never asked for", (each for each in journals.started if each.token not in journals.asked_at)
    yield "started but not in the database", (each for each in journals.started if each.token not in inserted)
    yield "rolled back but in the queue", inserted & journals.rolled_back
    of_sql = {token for token in inserted if "-sql" in token and token not in journals.unique}
    yield "jobs without their row", of_sql - store.produced
    yield "rows without their job", store.produced - of_sql


def _completed_once(journals: Round, store: Store, flags: Counter[str]) -> Cases:
    yield (
        "jobs completed more than once",
        (handle for handle, count in Counter(each.handle for each in store.completed).items() if count > 1),
    )
    yield (
        "wishes that became more than one job",
        (token for token, count in Counter(each.token for each in store.inserted).items() if count > 1),
    )
    yield (
        "completions accepted from who did not hold the job",
        (each for each in store.completed if each.holder is None or not each.deleted_by.startswith(f"postgear {each.holder} ")),
    )
    ran = {handle for _, handle in journals.ended}
    yield "deleted without having run", (each for each in store.completed if each.handle not in ran)


def _effects_once(journals: Round, store: Store, flags: Counter[str]) -> Cases:
    ended_here = {each.handle for each in store.completed if each.deleted_by.endswith(" handler")}
    yield "effects more than once", (handle for handle, count in store.effects.items() if count > 1)
    yield "effects of jobs that others ended", set(store.effects) - ended_here
    yield "ended without their effect", ended_here - set(store.effects)


def _second_start_is_flagged(journals: Round, store: Store, flags: Counter[str]) -> Cases:
    again = Counter(each.handle for each in journals.second_starts())
    yield (
        "second starts not flagged",
        (f"{handle} {count + 1} starts" for handle, count in again.items() if flags[handle] < count),
    )
    starts = {handle: count + 1 for handle, count in again.items()}
    done_at: dict[str, int] = {each.handle: each.attempt for each in store.completed}
    # What a server that was away still starts after the job is done, others have flagged; the row is gone by then.
    yield "flagged in no attempt", (handle for handle in starts if handle in done_at and done_at[handle] < 2)


def _uniques(journals: Round, store: Store, flags: Counter[str]) -> Cases:
    gone_at = {each.handle: each.at for each in store.completed}
    by_key = defaultdict(list)
    for each in store.inserted:
        if each.key:
            by_key[each.key].append(each)
    for key, jobs in by_key.items():
        yield (
            f"two live jobs of unique {key}",
            (
                f"{later.handle} while {earlier.handle}"
                for earlier, later in pairwise(sorted(jobs, key=lambda job: job.at))
                if later.at < gone_at.get(earlier.handle, float("inf"))
            ),
        )


def _schedule(journals: Round, store: Store, flags: Counter[str]) -> Cases:
    yield (
        "started before its time",
        (each for each in journals.started if each.time_of_day < journals.not_before.get(each.token, 0.0)),
    )
