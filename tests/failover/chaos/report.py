"""What a run prints: a line a fault, then a table a kind of fault."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from tests.failover.chaos.audit import Round


@dataclass
class Window:
    """The time from one fault to the next."""

    name: str
    began_at: float
    healed_at: float = 0.0
    ended_at: float = 0.0


@dataclass(frozen=True)
class Measured:
    """What went on in a window.

    first_ack, first_job: seconds from the fault until a job submitted after it was acknowledged, and started; None: none was.
    silence: the longest time without an ack, in seconds.
    """

    name: str
    acked: int
    done: int
    duplicates: int
    first_ack: float | None
    first_job: float | None
    silence: float


def measure(window: Window, journals: Round) -> Measured:
    """Find in the journals what went on in a window."""

    def inside(at: float) -> bool:
        return window.began_at <= at < window.ended_at

    acks = sorted(each.at for each in journals.acked if inside(each.at))
    later = {token for token, at in journals.asked_at.items() if at >= window.began_at and token not in journals.not_before}
    first_ack = min((each.at for each in journals.acked if each.asked_at >= window.began_at), default=None)
    first_job = min((each.at for each in journals.started if each.token in later), default=None)
    moments = [window.began_at, *acks, window.ended_at]
    return Measured(
        window.name,
        len(acks),
        sum(inside(at) for at, _ in journals.ended),
        sum(inside(start.at) for start in journals.second_starts()),
        None if first_ack is None else first_ack - window.began_at,
        None if first_job is None else first_job - window.began_at,
        max(after - before for before, after in pairwise(moments)),
    )


def _seconds(values: Iterable[float | None], pick: Callable[[Sequence[float]], float]) -> str:
    known = [value for value in values if value is not None]
    return f"{pick(known):6.2f}" if known else "     -"


def line(measured: Measured) -> str:
    """Return the line of one fault."""
    first = ", ".join(
        f"{what} {'never' if value is None else f'{value:.2f} s'}"
        for what, value in (("first ack", measured.first_ack), ("first job", measured.first_job))
    )
    return (
        f"{measured.name:<32} acked {measured.acked:5} done {measured.done:5} duplicates {measured.duplicates:3}"
        f"  {first}, longest without ack {measured.silence:.2f} s"
    )


def table(faults: Iterable[Measured]) -> str:
    """Return the table of all faults, a line a kind: sums, and seconds as median and maximum.

    Two at a time count as the first, that of the database, which lasts longer.
    """
    kinds = defaultdict(list)
    for each in faults:
        kinds[each.name.partition(" + ")[0]].append(each)
    lines = [
        f"{'':<16} {'':>6} {'':>7} {'':>7} {'':>6}  {'first ack, s':^14} {'first job, s':^14} {'without ack, s':^14}",
        f"{'fault':<16} {'faults':>6} {'acked':>7} {'done':>7} {'dup.':>6} " + f" {'median':>6} {'max':>6} " * 3,
    ]
    for name, group in sorted(kinds.items()):
        times = "".join(
            f" {_seconds(values, median)} {_seconds(values, max)} "
            for values in (
                [each.first_ack for each in group],
                [each.first_job for each in group],
                [each.silence for each in group],
            )
        )
        lines.append(
            f"{name:<16} {len(group):>6} {sum(each.acked for each in group):>7} {sum(each.done for each in group):>7}"
            f" {sum(each.duplicates for each in group):>6} {times}"
        )
    return "\n".join(lines)
