"""The jobs of a direct worker: claimed from the database, held for a moment, given to free slots, ended.

It is to a worker what the Dispatcher is to a server, and the loops of ``exchange`` see both as a ``JobHolder``; but there are no
connections, packets or sleeping peers here, only the slots of one worker. It opens no socket, reads no clock, awaits nothing.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from postgear.functions import Handler
from postgear.job import PAYLOAD_KEY_BYTES, ClaimedJob, Ending, FunctionRow, Lane
from postgear.job_holder import TICK_SECONDS
from postgear.logs import event

from .job import Job
from .sources import Origin, Slots

log = logging.getLogger("postgear.worker")

WINDOW_MAX_JOBS: Final = 2000
"""Most jobs held: some hundredths of a second of the fastest handlers, and a batch size beyond which SQL gains little."""
CLAIM_AHEAD_SECONDS: Final = 0.25
"""As many jobs are held as the slots take in this time: far above a round trip to the database, far below a review."""
REVIEW_TICKS: Final = 20
"""Every so many ticks (2 s) held jobs that no slot asked for go back."""


class DeskFunction:
    """A function that this worker can do.

    id: 0 until the database has been asked. backlog: by priority, whether the database may have more queued jobs.
    """

    __slots__ = ("backlog", "handler", "id", "name")

    def __init__(self, name: bytes, handler: Handler[Any, Any, Any, Any]) -> None:
        self.name = name
        self.handler = handler
        self.id = 0
        self.backlog = [True, True, True]


class Desk:
    """The jobs of one worker's lease; see ``job_holder.JobHolder``. *changed* is called when there is something for the loops.

    running: the jobs in slots, by id. A job of another attempt may take the place of one that timed out.
    """

    def __init__(self, slots: Slots, origin: Origin, changed: Callable[[], None]) -> None:
        self._slots = slots
        self._origin = origin
        self._changed = changed
        self.now = 0.0
        self.finishes: list[int] = []
        self.results: dict[int, Ending] = {}
        self.releases: list[int] = []
        self.unused: list[int] = []
        self.postponed: dict[int, float] = {}
        self.attempts: dict[int, int] = {}  # stays empty: every delivery here is a claim, which counts it
        self.progress: dict[int, tuple[int, int]] = {}
        self.claim_wanted = False
        self.claim_limit: int | None = None
        self.is_behind = False
        self.suspended = False
        self.is_lease_in_doubt: Callable[[], bool] = lambda: False
        self.store_is_up = False
        self.unresolved: list[Any] = []
        self.functions: dict[bytes, DeskFunction] = {}
        self.running: dict[int, Job] = {}
        self._functions_by_id: dict[int, DeskFunction] = {}
        self._keeping: set[str] = set()  # functions that keep results; also some that are gone, for jobs of theirs may run
        self._held: tuple[deque[ClaimedJob], ...] = (deque(), deque(), deque())  # by priority, in the order of the claims
        self._held_count = 0
        self._is_claiming = False
        self._has_backlog = False  # any function, any priority
        self._reserved = 0  # slots, while a claim is under way that may have jobs for them
        self._low_water = 0  # with so few jobs held it is time for a claim
        self._turn = 0  # which function comes first in a claim
        self._handle_prefix = "H:?:"
        self._rate = 0.0  # jobs that end, per second
        self._ended = 0  # since the last tick
        self._ended_since_claim = 0
        self._ended_since_review = 0
        self._ticks = 0
        self._stopped = False
        self.abilities_changed()

    # -- for the worker ------------------------------------------------------------------------------------------

    def abilities_changed(self) -> None:
        """Take the slots' handlers as they are now; held jobs of functions that are gone go back."""
        handlers = {name.encode(): handler for name, handler in self._slots.handlers.items()}
        for name, handler in handlers.items():
            function = self.functions.get(name)
            if function is None:
                function = self.functions[name] = DeskFunction(name, handler)
                self.unresolved.append(function)
            function.handler = handler
        for name in [name for name in self.functions if name not in handlers]:
            function = self.functions.pop(name)
            self._functions_by_id.pop(function.id, None)
            self._keep(lambda row, gone=function.id: row.function_id != gone)  # type: ignore[misc]
        self._want_claim()

    def pull(self) -> None:
        """Learn that slots have become free."""
        if self._held_count and not (self.suspended or self.is_lease_in_doubt()):
            self._give(self._slots.reserve(self._held_count))
        if self._held_count <= self._low_water and self._has_backlog and not self._is_claiming and not self._stopped:
            self._want_claim()

    def stop_taking(self) -> None:
        """Take no more jobs; those held go back."""
        self._stopped = True
        self._release_slots()
        self._keep(lambda _row: False)
        self._changed()

    def holds(self, job: Job) -> bool:
        """Whether the job is still this delivery's, as far as is known here. May be asked from any thread."""
        return self.running.get(job.id) is job

    def forget(self, job: Job) -> bool:
        """Take a job out of those that run; False: it was lost before."""
        if self.running.get(job.id) is not job:
            return False
        del self.running[job.id]
        self.progress.pop(job.id, None)
        self._ended += 1
        self._ended_since_claim += 1
        return True

    def keeps_result(self, job: Job) -> bool:
        """Whether it is to be stored how this job ends. May be asked from any thread."""
        return job.function in self._keeping

    def end(self, job: Job, *, is_completed: bool, data: bytes | None) -> None:
        """End a job; nothing if it was lost. data: as in ``Ending``."""
        if self.forget(job):
            if self.keeps_result(job):
                self.results[job.id] = Ending(is_completed, data)
            else:
                self.finishes.append(job.id)
            if len(self.finishes) + len(self.results) == 1:
                self._changed()

    def put_back(self, job: Job, at: float) -> None:
        """Put a job back into the queue, to be run again not before *at*, in the loop's seconds; nothing if it was lost."""
        if self.forget(job):
            if at > self.now:
                self.postponed[job.id] = at
            else:
                self.releases.append(job.id)
            self._changed()

    def report_progress(self, job: Job, numerator: int, denominator: int) -> None:
        """Remember how far a job is; nothing if it was lost."""
        if self.running.get(job.id) is job:
            self.progress[job.id] = (numerator, denominator)

    # -- for the loops -------------------------------------------------------------------------------------------

    @property
    def has_workers(self) -> bool:
        """See ``JobHolder``."""
        return bool(self.functions) and not self._stopped

    def set_queue_name(self, queue_name: str) -> None:
        """See ``JobHolder``."""
        self._handle_prefix = f"H:{queue_name}:"

    def resolved(self, rows: Iterable[FunctionRow]) -> None:
        """See ``JobHolder``."""
        for row in rows:
            function = self.functions.get(row.name)
            if function is not None:
                function.id = row.id
                self._functions_by_id[row.id] = function
                if row.keeps_results:
                    self._keeping.add(function.handler.name)
                else:
                    self._keeping.discard(function.handler.name)
        self.reopen_backlogs()

    def demands(self, *, poll: bool) -> list[Lane]:
        """See ``JobHolder``. Reserves the slots that are free, so that other sources bring no jobs for them meanwhile."""
        self.claim_wanted = False
        if self._stopped or self.suspended or self.is_behind:
            return []
        self._reserved += self._slots.reserve(WINDOW_MAX_JOBS)
        self._give_reserved()
        # The second term doubles the window with each claim while the slots keep up, until the rate is known.
        drained = max(int(self._rate * CLAIM_AHEAD_SECONDS), 2 * self._ended_since_claim)
        window = min(self._reserved + drained, WINDOW_MAX_JOBS)
        self._low_water = window // 2
        if poll and not window:
            self._open_backlogs()  # nobody looked, so there may be jobs when a slot becomes free
        lanes: list[Lane] = []
        present = 0
        for priority, held in enumerate(self._held):
            present += len(held)  # jobs that come before those of the lane
            if present * 2 > window or not window:  # half a window at a time: a claim of few jobs costs nearly as much
                break
            functions = [each for each in self.functions.values() if each.id and (poll or each.backlog[priority])]
            if not functions:
                continue
            if not lanes:
                self.claim_limit = window - present
            first = self._turn % len(functions)
            share = -(-(window - present) // max(sum(each.backlog[priority] for each in functions), 1))
            lanes += [Lane(each.id, priority, share) for each in functions[first:] + functions[:first]]
        if lanes:
            self._turn += 1
            self._is_claiming = True
            self._ended_since_claim = 0
        else:
            self._release_slots()
        return lanes

    def claimed(self, lanes: Sequence[Lane], jobs: Sequence[ClaimedJob], *, cut: bool = False) -> None:
        """See ``JobHolder``."""
        self._is_claiming = False
        got: dict[tuple[int, int], int] = {}
        for row in jobs:
            lane = (row.function_id, row.priority)
            got[lane] = got.get(lane, 0) + 1
            if self._stopped or row.function_id not in self._functions_by_id:
                self.unused.append(row.id)
            else:
                self._held[row.priority].append(row)
                self._held_count += 1
        is_full = cut or (self.claim_limit is not None and len(jobs) >= self.claim_limit)
        for function_id, priority, wanted in lanes:
            function = self._functions_by_id.get(function_id)
            if function is not None and not is_full:
                function.backlog[priority] = got.get((function_id, priority), 0) >= wanted
        self._has_backlog = any(any(function.backlog) for function in self.functions.values())
        self._give_reserved()
        self._release_slots()
        if self._held_count <= self._low_water and self._has_backlog:
            self.claim_wanted = True

    def claim_failed(self, lanes: Sequence[Lane]) -> None:
        """See ``JobHolder``."""
        self._is_claiming = False
        self._open_backlogs()
        self._release_slots()

    def reopen_backlogs(self) -> None:
        """See ``JobHolder``. Held jobs are given out again, too, if they were held back."""
        self._open_backlogs()
        self.pull()
        self.claim_wanted = True

    def serve_waiting(self) -> None:
        """See ``JobHolder``. Nobody waits here."""

    def held_ids(self) -> list[int]:
        """See ``JobHolder``."""
        return [*self.running, *(row.id for queue in self._held for row in queue)]

    def drop_held(self, ids: Iterable[int]) -> None:
        """See ``JobHolder``."""
        gone = set(ids)
        self._drop(gone)
        for job_id in gone:
            self._lose(job_id)

    def forget_lease(self) -> None:
        """See ``JobHolder``."""
        self.drop_held(self.held_ids())
        self.finishes.clear()
        self.results.clear()
        self.releases.clear()
        self.unused.clear()
        self.postponed.clear()
        self.progress.clear()

    def cancel(self, handle: bytes, job_id: int = 0) -> bool:
        """See ``JobHolder``. Only the row's id is looked at."""
        if job_id in self.running:
            self._lose(job_id)
            return True
        return self._drop({job_id}) > 0

    def finished(self, ids: Iterable[int]) -> None:
        """See ``JobHolder``. Nothing is remembered of them."""

    def tick(self) -> None:
        """See ``JobHolder``."""
        self._ticks += 1
        self._rate = (self._rate + self._ended / TICK_SECONDS) / 2
        if self._rate < 1.0:
            self._rate = 0.0
        self._ended_since_review += self._ended
        self._ended = 0
        if self._ticks % REVIEW_TICKS == 0:
            excess = self._held_count - max(self._ended_since_review, int(self._rate * CLAIM_AHEAD_SECONDS))
            self._ended_since_review = 0
            for queue in reversed(self._held):
                while queue and excess > 0:
                    self.unused.append(queue.pop().id)
                    self._held_count -= 1
                    self._has_backlog = True
                    excess -= 1

    # -- parts ---------------------------------------------------------------------------------------------------

    def _give_reserved(self) -> None:
        count = 0 if self.suspended or self.is_lease_in_doubt() else min(self._reserved, self._held_count)
        self._reserved -= count
        self._give(count)

    def _give(self, count: int) -> None:
        """Run so many of the held jobs in slots reserved for them: by priority, in the order in which they were claimed."""
        self._held_count -= count
        functions, running, prefix = self._functions_by_id, self.running, self._handle_prefix
        slots, report, origin = self._slots, self._slots.report, self._origin
        high, normal, low = self._held
        for _ in range(count):
            row = (high or normal or low).popleft()
            job_id, function_id, _priority, attempt, key, reducer, workload = row
            job = Job(
                functions[function_id].handler,
                f"{prefix}{job_id}",
                workload,
                report,
                origin,
                unique="" if key is None else _unique(key),
                reducer="" if reducer is None else reducer.decode("utf-8", "surrogateescape"),
                attempt=attempt,
                job_id=job_id,
            )
            running[job_id] = job
            if attempt > 1:
                event(log, logging.INFO, "possible duplicate", handle=job.handle, function=job.function, attempt=attempt)
            slots.assign(job)

    def _want_claim(self) -> None:
        if not self.claim_wanted:
            self.claim_wanted = True
            self._changed()

    def _open_backlogs(self) -> None:
        for function in self.functions.values():
            function.backlog = [True, True, True]
        self._has_backlog = bool(self.functions)

    def _release_slots(self) -> None:
        if self._reserved:
            reserved, self._reserved = self._reserved, 0
            self._slots.release(reserved)

    def _keep(self, is_wanted: Callable[[ClaimedJob], bool]) -> None:
        """Let the other held jobs go back to the queue, as if they had never been claimed."""
        unwanted = [row.id for queue in self._held for row in queue if not is_wanted(row)]
        self._drop(set(unwanted))
        self.unused += unwanted

    def _drop(self, ids: set[int]) -> int:
        """Forget held jobs; returns how many there were."""
        before = self._held_count
        if ids and before:
            self._held = tuple(deque(row for row in queue if row.id not in ids) for queue in self._held)
            self._held_count = sum(map(len, self._held))
        return before - self._held_count

    def _lose(self, job_id: int) -> None:
        job = self.running.pop(job_id, None)
        if job is not None:
            self.progress.pop(job_id, None)
            self._slots.lose(job)


def _unique(key: bytes) -> str:
    """Return the unique as its client gave it."""
    return "-" if len(key) == PAYLOAD_KEY_BYTES else key.decode("utf-8", "surrogateescape")
