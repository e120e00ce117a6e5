"""The table of a run, for people."""

from __future__ import annotations

from typing import Final

from rich.console import Console
from rich.table import Table

from .contestants import GEARMAND, GEARMAND_POSTGRES, Contestant
from .queues import GMAN_PLPYTHON, GRAPHILE
from .results import Results
from .row import Figure, Row, Target

_MINIMUM_WIDTH: Final = 180  # columns; a narrower terminal wraps lines, which is better than cut numbers
_SHORT: Final = {
    GEARMAND.name: "memory",
    GEARMAND_POSTGRES.name: "Postgres",
    GMAN_PLPYTHON.name: "PL/Python",
    GRAPHILE.name: "graphile",
}


def console() -> Console:
    """Return a console wide enough for the table, whatever it is connected to."""
    usual = Console()
    return Console(width=max(usual.width, _MINIMUM_WIDTH), highlight=False)


def table(results: Results, rows: list[Row], contestants: list[Contestant], repeats: int) -> Table:
    """Return the medians, with the ratio of the subject to each other contestant in brackets, and the verdicts.

    rows: one or more, all of one subject.
    """
    subject = rows[0].subject.title
    title = f"median of {repeats}; (n×) = the figure of {subject} divided by this one"
    shown = Table(title=title, title_justify="left")
    shown.add_column("work", no_wrap=True)
    shown.add_column("unit", no_wrap=True)
    for contestant in contestants:
        shown.add_column(contestant.title, justify="right", no_wrap=True)
    shown.add_column("target", no_wrap=True)
    shown.add_column("reached", no_wrap=True)
    for row in rows:
        for figure in row.figures:
            cells = [_cell(results, row, figure, contestant) for contestant in contestants]
            targets = "\n".join(_target(figure, target) for target in figure.targets)
            verdicts = "\n".join(_verdict(results.reached(row, figure, target)) for target in figure.targets)
            shown.add_row(figure.title, figure.unit, *cells, targets, verdicts)
    return shown


def _cell(results: Results, row: Row, figure: Figure, contestant: Contestant) -> str:
    value = results.median(row, contestant, figure.name)
    if value is None:
        return "[red]failed[/]" if any(f.startswith(f"{row.name} {contestant.name}:") for f in results.failures) else "–"
    ratio = results.ratio(row, figure, contestant) if contestant is not row.subject else None
    jobs = results.median(row, contestant, "jobs")
    if figure.grows_with_jobs and jobs is not None and jobs != row.jobs:
        return f"{number(value)} (at {jobs:,.0f})"
    return number(value) + (f" ({number(ratio)}×)" if ratio is not None else "")


def _target(figure: Figure, target: Target) -> str:
    of = f"{_short(target.of)} " if target.of is not None else ""
    sign = "≤" if figure.less_is_better else "≥"
    if target.against is None:
        return f"{of}{sign} {target.value:g} {figure.unit}"
    return f"{of}{sign} {target.value:g} × {_short(target.against)}"


def _short(contestant: Contestant) -> str:
    return _SHORT.get(contestant.name, contestant.name)


def _verdict(reached: bool | None) -> str:
    return {None: "–", True: "[green]yes[/]", False: "[red]no[/]"}[reached]


def number(value: float) -> str:
    """Write a number with three digits or more, as many as tell something."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
