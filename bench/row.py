"""What a row of the table is: its contestants, its figures and their targets, and how much is asked for."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from .contestants import GEARMAND_POSTGRES, POSTGEAR, SERVERS, Contestant, Place
from .programs import Figures


@dataclasses.dataclass(frozen=True)
class Target:
    """What a figure should be: at least (or at most, see Figure) *value*, times that of *against* if given.

    of: whose figure; None: that of the row's subject.
    """

    value: float
    against: Contestant | None = None
    of: Contestant | None = None


@dataclasses.dataclass(frozen=True)
class Figure:
    """One number of a row, shown as one line of the table.

    grows_with_jobs: it means nothing to divide it by that of another number of jobs.
    """

    name: str
    title: str
    unit: str
    targets: tuple[Target, ...] = ()
    less_is_better: bool = False
    grows_with_jobs: bool = False


@dataclasses.dataclass(frozen=True)
class Loads:
    """How much a row asks for.

    jobs: of the contestants that are quick at it.
    postgres_jobs: of gearmand with its Postgres queue, for which the same number would take minutes.
    seconds: how long, where it is time that is asked for.
    """

    jobs: int
    postgres_jobs: int
    seconds: float

    def of(self, contestant: Contestant) -> int:
        """Return the number of jobs for *contestant*."""
        return self.postgres_jobs if contestant is GEARMAND_POSTGRES else self.jobs


Measure = Callable[[Place, Loads], Figures]


@dataclasses.dataclass(frozen=True)
class Row:
    """One kind of work.

    contestants: those that can do it.
    subject: whose figures the targets are about and the others' are compared with.
    """

    name: str
    measure: Measure
    figures: tuple[Figure, ...]
    jobs: int = 0
    postgres_jobs: int = 0
    contestants: tuple[Contestant, ...] = SERVERS
    subject: Contestant = POSTGEAR
    seconds: float = 10.0

    def loads(self, quick: bool) -> Loads:
        """Return what to ask for; quick shortens only what is slow and does not change with its length."""
        if quick:
            return Loads(self.jobs, self.postgres_jobs // 4, min(self.seconds, 3.0))
        return Loads(self.jobs, self.postgres_jobs, self.seconds)
