"""``postgear map``: a job for each line, many at a time, a line of output for each result.

Input is read as it comes, and results are written as they come: it works in the middle of a pipeline, and for input of any size.
Failures are told on standard error and do not end it; a server that cannot be reached does.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from postgear.client.calls import Address
from postgear.client.jobs import JobEnded, do_many
from postgear.client.links import Links
from postgear.client.operations import Submission
from postgear.errors import ServerTimeout, ServerUnreachable

if TYPE_CHECKING:
    from rich.progress import Progress

FAILED: Final = 1
LOOK_SECONDS: Final = 0.02
"""While more jobs could be sent: how often to look whether there are lines for them."""
SHOW_SECONDS: Final = 0.1
"""How often the progress is drawn."""
_AHEAD: Final = 10
"""Times *in_flight*: so many results wait at most for one that must come before them."""


class Wanted(NamedTuple):
    """What to map. priority: 0 high, 1 normal, 2 low. timeout_seconds: the longest wait for the next result; None: for ever.

    separator: between inputs and between results. reads_files: an input names a file, whose content is the workload.
    """

    function: bytes
    in_flight: int
    is_ordered: bool
    separator: bytes
    priority: int = 1
    retries: int = 0
    timeout_seconds: float | None = None
    reads_files: bool = False


class Inputs(Protocol):
    """Where inputs come from."""

    @property
    def is_ended(self) -> bool:
        """Whether all have been taken."""

    def take(self) -> bytes | None:
        """Return the next one, or None if there is none at the moment."""

    def wait(self) -> bool:
        """Wait until there is one to take; false if there will be none."""


class Words:
    """Inputs that are all there."""

    def __init__(self, words: Sequence[bytes]) -> None:
        self._words = iter(words)
        self._next = next(self._words, None)

    @property
    def is_ended(self) -> bool:
        """Whether all have been taken."""
        return self._next is None

    def take(self) -> bytes | None:
        """Return the next one, or None if there is none."""
        word, self._next = self._next, next(self._words, None)
        return word

    def wait(self) -> bool:
        """Whether there is one to take."""
        return self._next is not None


def run(addresses: Sequence[Address], wanted: Wanted, inputs: Inputs, what: str, total: Total | None = None) -> int:
    """Run a job for each input and write the results to standard output; return the exit code: 1 if any job failed.

    what: the name of an input in messages: ``line``. Raises ServerUnreachable, and ServerTimeout after
    ``wanted.timeout_seconds`` without a result.
    """
    with _progress(total) as shown:
        mapping = _Mapping(wanted, inputs, what, shown)
        links = Links()
        try:
            while inputs.wait():
                mapping.run(links, addresses)
        finally:
            links.close()
            mapping.give_held()
            sys.stdout.buffer.flush()
    if mapping.failed:
        print(f"postgear: {mapping.failed} of {mapping.ended} failed", file=sys.stderr)
    return FAILED if mapping.failed else 0


class Total(NamedTuple):
    """How much there is to do, where that is known: a number of inputs, or bytes of them."""

    inputs: int | None = None
    size_bytes: int | None = None


class _Mapping:
    """Inputs on their way to results. Iterating over it gives the jobs that can be sent now."""

    def __init__(self, wanted: Wanted, inputs: Inputs, what: str, shown: _Shown) -> None:
        self.ended = 0
        self.failed = 0
        self._wanted = wanted
        self._inputs = inputs
        self._what = what
        self._shown = shown
        self._taken = 0
        self._given = 0  # results that were written, or failures told
        self._held: dict[int, bytes | str] = {}  # results and failures that wait for one before them, by number
        self._sent = 0  # by this call of ``run``
        self._under_way: dict[int, tuple[int, int]] = {}  # by position among those: number, size
        self._write = sys.stdout.buffer.write

    def __iter__(self) -> Iterator[Submission]:
        return self

    def __next__(self) -> Submission:
        wanted = self._wanted
        while not (wanted.is_ordered and self._taken - self._given >= _AHEAD * wanted.in_flight):
            text = self._inputs.take()
            if text is None:
                break
            self._taken += 1
            number = self._taken
            if wanted.reads_files:
                try:
                    with open(text, "rb") as file:
                        workload = file.read()
                except OSError as error:
                    self._end(number, len(text), f"cannot be read: {error.strerror}: {os.fsdecode(text)}")
                    continue
            else:
                workload = text
            self._under_way[self._sent] = number, len(text)
            self._sent += 1
            return Submission(wanted.function, workload, b"", wanted.priority, None, None, wanted.retries)
        raise StopIteration

    def run(self, links: Links, addresses: Sequence[Address]) -> None:
        """Run jobs until none is under way and no input is there."""
        wanted = self._wanted
        patience = wanted.timeout_seconds or math.inf
        self._sent = 0
        running = links.start(addresses, math.inf, do_many(self, wanted.in_flight))
        last = time.monotonic()
        try:
            while not running.is_ended:
                told = running.advance(-math.inf)
                if told is None and not running.is_ended:
                    # Nothing has come: time for what is slow, and then to wait.
                    sys.stdout.buffer.flush()
                    self._shown.show(self.ended, self.failed)
                    now = time.monotonic()
                    if now - last >= patience:
                        function = wanted.function.decode("utf-8", "backslashreplace")
                        raise ServerTimeout(f"no result within {patience:g} s; no worker for {function}?")
                    has_room = len(self._under_way) < wanted.in_flight and not self._inputs.is_ended
                    told = running.advance(min(last + patience, now + LOOK_SECONDS if has_room else now + SHOW_SECONDS))
                if isinstance(told, JobEnded):
                    if isinstance(told.error, ServerUnreachable):
                        raise told.error
                    last = time.monotonic()
                    number, size = self._under_way.pop(told.position)
                    self._end(number, size, (told.result or b"") if told.error is None else str(told.error))
                    if self.ended % wanted.in_flight == 0:
                        self._shown.show(self.ended, self.failed)
        finally:
            running.close()
            self._shown.show(self.ended, self.failed)

    def give_held(self) -> None:
        """Give the results that wait for others that will not come."""
        for number, result in sorted(self._held.items()):
            self._give(number, result)
        self._held.clear()

    def _end(self, number: int, size_bytes: int, result: bytes | str) -> None:
        """Take a result, or the text of a failure, and give what is due."""
        self.ended += 1
        self._shown.size_bytes += size_bytes + 1
        if not self._wanted.is_ordered:
            self._give(number, result)
            return
        self._held[number] = result
        while (due := self._held.pop(self._given + 1, None)) is not None:
            self._give(self._given + 1, due)

    def _give(self, number: int, result: bytes | str) -> None:
        self._given += 1
        if isinstance(result, bytes):
            self._write(result.removesuffix(b"\n") + self._wanted.separator)
        else:
            self.failed += 1
            self._shown.tell(f"postgear: {self._what} {number}: {result}")


class _Shown:
    """The progress, where nobody looks at it."""

    size_bytes = 0
    """Of the inputs whose jobs have ended."""

    def __enter__(self) -> _Shown:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, ended: int, failed: int) -> None:
        """Show how far it is."""

    def tell(self, text: str) -> None:
        """Tell of a failure."""
        print(text, file=sys.stderr)


class _Bar(_Shown):
    """The progress as a bar on a terminal; it stays when it is done."""

    def __init__(self, progress: Progress, total: Total | None) -> None:
        self._progress = progress
        self._total = total or Total()
        size = self._total.inputs if self._total.inputs is not None else self._total.size_bytes
        self._row = progress.add_task("", total=size, counts="", rate="")
        self._started = self._shown_at = time.monotonic()
        self._last = (0, 0)

    def __enter__(self) -> _Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._show(*self._last)
        self._progress.stop()

    def show(self, ended: int, failed: int) -> None:
        """Show how far it is, unless that was just shown."""
        self._last = ended, failed
        if time.monotonic() - self._shown_at >= SHOW_SECONDS:
            self._show(ended, failed)

    def tell(self, text: str) -> None:
        """Tell of a failure, above the bar."""
        from rich.text import Text

        self._progress.console.print(Text(text), soft_wrap=True)

    def _show(self, ended: int, failed: int) -> None:
        self._shown_at = now = time.monotonic()
        self._progress.update(
            self._row,
            completed=self.size_bytes if self._total.inputs is None else ended,
            counts=f"{ended} done" + (f", [red]{failed} failed[/red]" if failed else ""),
            rate=f"{ended / max(now - self._started, 0.001):.0f}/s",
            refresh=True,
        )


def _progress(total: Total | None) -> _Shown:
    """Return what shows the progress: a bar if standard error is a terminal and results go elsewhere."""
    if not sys.stderr.isatty() or sys.stdout.isatty():
        return _Shown()
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = [BarColumn(), TextColumn("{task.percentage:>3.0f}%")] if total is not None else []
    progress = Progress(
        *columns,
        TextColumn("{task.fields[counts]}"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(elapsed_when_finished=True) if total is not None else TimeElapsedColumn(),
        console=Console(stderr=True),
        auto_refresh=False,
    )
    return _Bar(progress, total)
