"""``postgear status --watch``: each function's jobs and workers, again and again, and how fast they change.

Gearman's answer has no counters of what was done. What can be said is how the number of a function's jobs changes, and from
that when there will be none.
"""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from postgear.client.admin import FunctionStatus
from postgear.errors import ServerError
from postgear.tables import cell

if TYPE_CHECKING:
    from rich.table import Table

RATE_SECONDS: Final = 15.0
"""Changes are taken over so long, or over two answers if that is longer."""
_LINES_AROUND: Final = 5
"""What the table on a terminal has besides its rows."""


class Watched(NamedTuple):
    """A function at one moment. change_per_second: of *total*, None where it is not known yet. empty_in_seconds: None: never."""

    function: str
    high: int
    normal: int
    low: int
    running: int
    workers: int
    total: int
    change_per_second: float | None
    empty_in_seconds: float | None


class Rates:
    """How the number of each function's jobs changes."""

    def __init__(self) -> None:
        self._answers: deque[tuple[float, dict[str, int]]] = deque()

    def watch(self, now: float, functions: Sequence[FunctionStatus]) -> list[Watched]:
        """Take the answer of a moment (monotonic seconds) and return it with the changes."""
        while len(self._answers) > 1 and self._answers[1][0] <= now - RATE_SECONDS:
            self._answers.popleft()
        rows = []
        for each in functions:
            change = empty = None
            if self._answers and now > self._answers[0][0]:
                then, totals = self._answers[0]
                change = (each.total - totals.get(each.function, 0)) / (now - then)
                empty = each.total / -change if change < 0 and each.total else None
            rows.append(Watched(*each, change, empty))
        self._answers.append((now, {each.function: each.total for each in functions}))
        return rows


def watch(ask: Callable[[], Sequence[FunctionStatus]], where: str, seconds: float, *, as_json: bool) -> int:
    """Ask every *seconds* and show it until Ctrl-C: a table on a terminal, else lines, or a line of JSON each time.

    Raises ServerError if the first answer does not come; later ones that do not are told, and it goes on.
    """
    rates = Rates()
    first = ask()
    show = _show_json if as_json else _Lines().show
    try:
        if sys.stdout.isatty() and not as_json:
            return _watch_on_terminal(ask, first, rates, where, seconds)
        functions: Sequence[FunctionStatus] = first
        while True:
            show(rates.watch(time.monotonic(), functions))
            sys.stdout.flush()
            functions = _ask_until_answered(ask, seconds)
    except KeyboardInterrupt:
        return 0


def _ask_until_answered(ask: Callable[[], Sequence[FunctionStatus]], seconds: float) -> Sequence[FunctionStatus]:
    while True:
        time.sleep(seconds)
        try:
            return ask()
        except ServerError as error:
            print(f"postgear: {error}", file=sys.stderr)


def _show_json(rows: Sequence[Watched]) -> None:
    print(json.dumps({"time": _now().isoformat(), "functions": [row._asdict() for row in rows]}, ensure_ascii=False))


class _Lines:
    """Lines in columns, a head above the first ones."""

    def __init__(self) -> None:
        self._has_head = False

    def show(self, rows: Sequence[Watched]) -> None:
        """Print the functions of a moment; a line for none."""
        if not self._has_head:
            self._print("time", "function", *Watched._fields[1:7], "change/s", "empty in")
            self._has_head = True
        now = f"{_now():%H:%M:%S}"
        for row in rows:
            self._print(now, *_cells(row))
        if not rows:
            print(f"{now}  no functions")

    def _print(self, now: str, function: str, *numbers: str) -> None:
        print(f"{now:8}  {function:<20}  {'  '.join(f'{number:>7}' for number in numbers)}".rstrip())


def _watch_on_terminal(
    ask: Callable[[], Sequence[FunctionStatus]], first: Sequence[FunctionStatus], rates: Rates, where: str, seconds: float
) -> int:
    from rich.console import Console
    from rich.live import Live

    console = Console()
    rows = rates.watch(time.monotonic(), first)
    about = f"{where}   every {seconds:g} s, Ctrl-C ends"
    with Live(console=console, auto_refresh=False) as live:
        live.update(_table(rows, f"{_now():%H:%M:%S}   {about}", console.height), refresh=True)
        while True:
            time.sleep(seconds)
            try:
                rows, problem = rates.watch(time.monotonic(), ask()), ""
            except ServerError as error:
                problem = f"\n{error}"
            live.update(_table(rows, f"{_now():%H:%M:%S}   {about}{problem}", console.height), refresh=True)


def _table(rows: Sequence[Watched], title: str, height: int) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    room = max(height - _LINES_AROUND, 1)
    shown = sorted(sorted(rows, key=lambda row: row.total, reverse=True)[:room])
    hidden = len(rows) - len(shown)
    table = Table(
        box=SIMPLE_HEAD,
        pad_edge=False,
        title=Text(title),
        title_justify="left",
        title_style="dim",
        caption=f"and {hidden} with fewer jobs" if hidden else None,
        caption_justify="left",
    )
    table.add_column("function", overflow="fold")
    for column in (*Watched._fields[1:7], "change/s", "empty in"):
        table.add_column(column, justify="right")
    for row in shown:
        cells = [Text(word) for word in _cells(row)]
        if row.total and not row.workers:
            cells[5].stylize("bold red")  # jobs that nobody runs
        if row.running:
            cells[4].stylize("green")
        table.add_row(*cells, style=None if row.total else "dim")
    return table


def _cells(row: Watched) -> list[str]:
    change = "" if row.change_per_second is None else f"{row.change_per_second:+.1f}" if row.change_per_second else "0"
    empty = "" if row.empty_in_seconds is None else _duration(row.empty_in_seconds)
    return [cell(row.function), *map(str, row[1:7]), change, empty]


def _duration(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _now() -> datetime:
    return datetime.now().astimezone()
