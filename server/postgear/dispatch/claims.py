"""What is worth claiming from the database, and what comes of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from postgear.dispatch.peer import Function
from postgear.dispatch.workers import Workers
from postgear.job import (
    ClaimedJob,
    FunctionRow,
    Lane,
)


class Claims(Workers):
    """The claim-ahead windows."""

    def demands(self, *, poll: bool) -> list[Lane]:
        """Return what is worth claiming; *poll*: also where the database was empty at the last look."""
        self.claim_wanted = False
        if self.claims_stopped or self.suspended or self.is_behind:
            return []
        lanes = []
        for function in self.active:
            if not function.workers or not function.id:
                continue
            window = function.window()
            for priority in (0, 1, 2):
                if poll or function.backlog[priority]:
                    present = function.held[priority] + function.claiming[priority]
                    if present * 2 <= window and window:  # half a window at a time: a claim of few jobs costs nearly as much
                        lanes.append(Lane(function.id, priority, window - present))
                        function.claiming[priority] += window - present
                        function.returned[priority] = 0
                        function.stored_since_claim[priority] = False
            function.assigned_since_claim = 0
            function.missed = False
        return lanes

    def claimed(self, lanes: Sequence[Lane], jobs: Sequence[ClaimedJob], *, cut: bool = False) -> None:
        """Take claimed jobs in. *cut*: the answer was cut at its byte limit, so a short lane says nothing."""
        got: dict[tuple[int, int], int] = {}
        waking: dict[Function, int] = {}
        for row in jobs:
            lane = (row.function_id, row.priority)
            got[lane] = got.get(lane, 0) + 1
            function = self.functions_by_id[row.function_id]
            job = self._add_claimed(function, row.priority, row.id, row.attempt, row.unique_key or b"", row.reducer, row.workload)
            if job is not None:
                waking[function] = waking.get(function, 0) + 1
        for function_id, priority, wanted in lanes:
            function = self.functions_by_id[function_id]
            function.claiming[priority] -= wanted
            count = got.get((function_id, priority), 0)
            function.backlog[priority] = (
                cut or count >= wanted or function.uncommitted[priority] > 0 or function.stored_since_claim[priority]
            )
            if function.returned[priority]:
                self._give_back_younger(function, priority, function.returned[priority])
        self._offer(waking)
        self.serve_waiting()

    def _offer(self, waking: dict[Function, int]) -> None:
        """Wake workers for so many claimed jobs of each function."""
        for function, count in waking.items():
            if function.workers and not self.claims_stopped:
                self._wake(function, count)
            else:
                self._give_back(function, 0)  # the last one left, or this server stops, while the jobs were on their way

    def claim_failed(self, lanes: Sequence[Lane]) -> None:
        """Learn that a claim did not happen, or that its answer was lost."""
        for function_id, priority, wanted in lanes:
            function = self.functions_by_id[function_id]
            function.claiming[priority] -= wanted
            function.backlog[priority] = True
        self.serve_waiting()

    def stop_claims(self) -> None:
        """Take no more background jobs from the database; those held go back."""
        self.claims_stopped = True
        self.serve_waiting()
        for function in self.functions.values():
            self._give_back(function, 0)

    def drain(self) -> None:
        """Give no more jobs out."""
        self.stop_claims()
        self.draining = True

    @property
    def is_running(self) -> bool:
        """Whether any worker runs a job."""
        return any(function.running for function in self.functions.values())

    def ask_for_uniques(self) -> None:
        """Have functions with foreground submits looked up again: others may have queued jobs with a unique, or finished them."""
        for function in self.functions.values():
            if function.is_submitted_to:
                function.is_submitted_to = False
                self.unresolved.append(function)

    def resolved(self, rows: Iterable[FunctionRow]) -> None:
        """Learn ids and limits of functions."""
        for row in rows:
            function = self.functions.get(row.name)
            if function is not None:
                function.id = row.id
                function.limits = row.limits
                function.has_uniques = row.has_uniques
                function.durability = row.durability
                function.keeps_results = row.keeps_results
                self.functions_by_id[row.id] = function
        self.claim_wanted = True

    def forget_function(self, function: Function) -> None:
        """Forget a dropped function, unless jobs of it are on their way; the next use of its name starts anew."""
        in_use = function.workers or function.running or any(function.foreground)
        if not in_use and not any(function.claiming) and not any(function.uncommitted):
            self.functions.pop(function.name, None)
            self.functions_by_id.pop(function.id, None)
            self.active.pop(function, None)
            self.unresolved = [each for each in self.unresolved if each is not function]
