"""The jobs in memory: how they come, wait, end, are cancelled and given back."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final

from postgear.dispatch.peer import Function, Peer
from postgear.dispatch.state import State
from postgear.job import (
    Ending,
    Job,
    JobEvent,
    JobState,
)
from postgear.wire.packet import PacketType, encode_response

log = logging.getLogger("postgear.dispatch")

NOOP: Final = encode_response(PacketType.NOOP)


class Holding(State):
    """Jobs that are held here: foreground ones, and background ones that this server has claimed."""

    def _add_claimed(
        self,
        function: Function,
        priority: int,
        job_id: int,
        attempt: int,
        key: bytes,
        reducer: bytes | None,
        workload: bytes,
    ) -> Job | None:
        handle = b"%b%d" % (self.background_prefix, job_id)
        if handle in self.jobs:
            return None
        job = Job(handle, function, priority, key, workload, reducer, job_id, attempt)
        if attempt > 1:
            log_job(logging.INFO, "possible duplicate", job)
        self.jobs[handle] = job
        if key:
            function.has_uniques = True
            self.uniques.setdefault((function, key), job)
        function.held[priority] += 1
        function.ready[priority].append(job)
        return job

    def _has_ready(self, function: Function) -> bool:
        """Whether ``_next_job`` would find one."""
        for queue in function.ready:
            while queue and queue[0].state is not JobState.READY:
                queue.popleft()
            if queue and not (queue[0].id and (self.suspended or self.is_lease_in_doubt())):
                return True
        return False

    def _wake(self, function: Function, jobs: int) -> None:
        """Send NOOP to sleeping workers: all of them, or ``worker_wakeup`` for each of *jobs*; one NOOP a sleep."""
        if not function.sleepers or self.draining:
            return
        peers = list(function.sleepers)
        if self.settings.worker_wakeup:
            del peers[self.settings.worker_wakeup * jobs :]
        for peer in peers:
            self._unsleep(peer)
            self.send(peer, NOOP)

    def _unsleep(self, peer: Peer) -> None:
        peer.sleeping = False
        for function in peer.abilities:
            function.sleepers.pop(peer, None)

    def _tell(self, job: Job, data: bytes) -> None:
        for listener in job.listeners:
            self.send(listener, data)

    def _end(self, job: Job) -> None:
        """Forget a job, wherever it is."""
        function = job.function
        if job.state is JobState.RUNNING:
            function.running -= 1
            if not job.id:
                function.running_foreground -= 1
            assert job.owner is not None
            job.owner.jobs.pop(job.handle, None)
        elif job.id:
            function.held[job.priority] -= 1
        else:
            function.foreground[job.priority] -= 1
        job.move(JobEvent.END)
        self.timed.pop(job, None)
        job.owner = None
        job.workload = b""
        self.jobs.pop(job.handle, None)
        if job.durable_handle is not job.handle:
            self.jobs.pop(job.durable_handle, None)
        self._free_unique(job)
        for listener in job.listeners:
            listener.listening.pop(job, None)
            listener.is_waiting_client = not listener.listening
        job.listeners = []

    def _free_unique(self, job: Job) -> None:
        key = (job.function, job.unique_key)
        if job.unique_key and self.uniques.get(key) is job:
            del self.uniques[key]

    def _end_unwanted(self, job: Job) -> None:
        """End a foreground job that waits for a worker while nobody waits for it any more."""
        if not job.listeners and not job.id and not job.pending_joins and job.state is JobState.READY:
            self._end(job)

    def _has_ended(self, job: Job, *, is_completed: bool, data: bytes | None) -> None:
        """Note the outcome of a job: its row, if it has or gets one, goes with it."""
        job.has_outcome = True
        # Where its row is being written, its function may not be known yet.
        if (job.function.keeps_results or job.pending_joins) and not job.cancelled:
            job.ending = Ending(is_completed, data)

    def _finish_row(self, job: Job, job_id: int) -> None:
        if job.ending is None or not job.function.keeps_results:
            self.finishes.append(job_id)
        else:
            self.results[job_id] = job.ending

    def _finish(self, job: Job) -> None:
        self._finish_row(job, job.id)
        self.progress.pop(job.id, None)
        if job.unique_key:
            key = (job.function, job.unique_key)
            self.finishing[key] = job.id

    def finished(self, ids: Iterable[int]) -> None:
        """Learn that finished jobs have left the database."""
        if self.finishing:
            gone = set(ids)
            self.finishing = {key: job_id for key, job_id in self.finishing.items() if job_id not in gone}

    def cancel(self, handle: bytes, job_id: int = 0) -> bool:
        """Cancel a job in memory by its handle or row id: clients get WORK_FAIL, a running worker's result is dropped."""
        job = self.jobs.get(handle) or self.jobs.get(b"%b%d" % (self.background_prefix, job_id))
        if job is None:
            return False
        job.has_outcome = True
        self._tell(job, encode_response(PacketType.WORK_FAIL, job.handle))
        for listener in job.listeners:
            listener.listening.pop(job, None)
            listener.is_waiting_client = not listener.listening
        job.listeners = []
        if job.durable_handle is not job.handle:
            self.finishes.append(job.id)  # the database is only asked to cancel by the handle of the row
        if job.state is JobState.RUNNING:
            job.cancelled = True
            self._free_unique(job)  # what is submitted from now on is another job
        else:
            self._end(job)
        return True

    def _give_back(self, function: Function, keep: int) -> None:
        """Release claimed jobs that were not given out, newest first, down to *keep* a priority."""
        for priority in (0, 1, 2):
            queue = function.ready[priority]
            excess = function.held[priority] - keep
            if excess <= 0:
                continue
            kept: list[Job] = []
            while queue and excess > 0:
                job = queue.pop()
                if job.state is JobState.READY and job.id and not job.listeners:
                    self._put_back(job)
                    function.backlog[priority] = True
                    excess -= 1
                elif job.state is JobState.READY:
                    kept.append(job)
            queue.extend(reversed(kept))

    def _give_back_younger(self, function: Function, priority: int, job_id: int) -> None:
        """Release the held jobs of a lane that came after a job which goes back itself, so that it is claimed before them."""
        function.backlog[priority] = True
        function.returned[priority] = min(function.returned[priority] or job_id, job_id)
        for job in list(function.ready[priority]):
            if job.state is JobState.READY and job.id > job_id and not job.listeners:
                self._put_back(job)

    def _put_back(self, job: Job) -> None:
        (self.releases if job.was_given_out else self.unused).append(job.id)
        self._end(job)

    def held_ids(self) -> list[int]:
        """Return the ids of all claimed jobs in memory."""
        return [job.id for job in self.jobs.values() if job.id]

    def drop_held(self, ids: Iterable[int]) -> None:
        """Forget claimed jobs that the database no longer counts as this server's."""
        for job_id in ids:
            job = self.jobs.get(b"%b%d" % (self.background_prefix, job_id))
            if job is not None:
                self._tell(job, encode_response(PacketType.WORK_FAIL, job.handle))
                self._end(job)

    def forget_lease(self) -> None:
        """Drop every claimed job: the lease was lost, they belong to others. Results of running ones come too late."""
        for job in list(self.jobs.values()):
            if job.id and job.state is not JobState.ENDED:  # one that became durable stands there twice
                log_job(logging.WARNING, "job lost with its lease", job)
                self._tell(job, encode_response(PacketType.WORK_FAIL, job.handle))
                self._end(job)
        self.finishes.clear()
        self.results.clear()
        self.finishing.clear()
        self.releases.clear()
        self.unused.clear()
        self.attempts.clear()
        self.progress.clear()
        self.reopen_backlogs()

    def reopen_backlogs(self) -> None:
        """Look at the database again for every function: something was queued by others."""
        for function in self.functions.values():
            function.backlog = [True, True, True]
        self.claim_wanted = True


def log_job(level: int, name: str, job: Job) -> None:
    fields = {"handle": job.handle, "function": job.function.name, "attempt": job.attempt}
    log.log(level, name, extra={"fields": fields})
