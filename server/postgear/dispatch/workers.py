"""What workers do: abilities, sleep, grabs and results."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Final

from postgear.dispatch.holding import NOOP, Holding, log_job
from postgear.dispatch.peer import Function, Peer
from postgear.job import (
    Job,
    JobEvent,
    JobState,
)
from postgear.wire.packet import FUNCTION_MAX_BYTES, HEADER, RESPONSE_MAGIC, UNIQUE_MAX_BYTES, PacketType, encode_response

NO_JOB: Final = encode_response(PacketType.NO_JOB)
UNIQUE_TOO_LARGE: Final = encode_response(PacketType.ERROR, b"ARGUMENT_TOO_LARGE", b"Unique value too large")
FUNCTION_TOO_LARGE: Final = encode_response(PacketType.ERROR, b"ARGUMENT_TOO_LARGE", b"Function name too large")


class Workers(Holding):
    """Who runs what."""

    def _can_do(self, peer: Peer, name: bytes, timeout: float) -> None:
        refusal = refusal_of(name, b"")
        if refusal is not None:
            self.send(peer, refusal)
            return
        function = self.function(name)
        peer.abilities.pop(function, None)
        peer.abilities[function] = timeout
        function.workers[peer] = None
        self.active[function] = None
        self.claim_wanted = True
        if peer.sleeping:
            function.sleepers[peer] = None
            if self._has_ready(function):
                self._wake(function, 1)

    def _cant_do(self, peer: Peer, name: bytes) -> None:
        function = self.functions.get(name)
        if function is None or function not in peer.abilities:
            return
        for job in [job for job in reversed(peer.jobs.values()) if job.function is function]:
            self._lose(job)
        self._drop_ability(peer, function)

    def _reset_abilities(self, peer: Peer, _arguments: Sequence[bytes]) -> None:
        for job in reversed(list(peer.jobs.values())):  # each goes to the front, so the oldest last
            self._lose(job)
        for function in list(peer.abilities):
            self._drop_ability(peer, function)

    def _drop_ability(self, peer: Peer, function: Function) -> None:
        del peer.abilities[function]
        function.workers.pop(peer, None)
        function.sleepers.pop(peer, None)
        if not function.workers:
            self._give_back(function, 0)
        elif self._has_ready(function):
            self._wake(function, 1)  # it may have been this worker that was woken for the job

    def _pre_sleep(self, peer: Peer, _arguments: Sequence[bytes]) -> None:
        if not self.draining:
            for function in peer.abilities:
                if self._has_ready(function):
                    self.send(peer, NOOP)
                    return
        peer.sleeping = True
        for function in peer.abilities:
            function.sleepers[peer] = None
            if True in function.backlog:
                self.claim_wanted = True

    def _grab(self, peer: Peer, packet_type: PacketType) -> None:
        job = self._next_job(peer)
        if job is not None:
            self._send_assign(peer, packet_type, job)
        elif self._may_find(peer.abilities):
            # gearmand says NO_JOB only when there is none, and some workers then wait for long: ask the database first.
            self.waiting[peer] = packet_type
            for function in peer.abilities:
                function.waiting += 1
            peer.pending += 1
            peer.pending_requests += 1
            self.claim_wanted = True
        else:
            for function in peer.abilities:
                function.missed = True
            self.send(peer, NO_JOB)

    def _next_job(self, peer: Peer) -> Job | None:
        """Take the job that this worker is to run: high over all its functions, then normal, then low; oldest first."""
        if peer.sleeping:
            self._unsleep(peer)
        if self.draining:
            return None
        # gearmand 1.1.x, connection.cc: the ability registered last is looked at first.
        functions = list(peer.abilities)
        functions.reverse()
        for priority in (0, 1, 2):
            for function in functions:
                queue = function.ready[priority]
                while queue:
                    job = queue[0]
                    if job.state is not JobState.READY:
                        queue.popleft()
                        continue
                    if job.id and (self.suspended or self.is_lease_in_doubt()):
                        break
                    queue.popleft()
                    self._assign(peer, job)
                    return job
            if self._may_find(functions, priority):
                break  # not a job of lower priority while the database may have one of this
        return None

    def _may_find(self, functions: Iterable[Function], priority: int | None = None) -> bool:
        """Whether a claim under way or to come may bring a job of these functions (of this priority)."""
        if not self.store_is_up or self.suspended or self.claims_stopped:
            return False
        if priority is None:
            return any(True in function.backlog for function in functions)
        return any(function.backlog[priority] for function in functions)

    @property
    def has_workers(self) -> bool:
        """Whether any worker can do anything."""
        return any(function.workers for function in self.active)

    def serve_waiting(self) -> None:
        """Answer the grabs that wait for the database, where it brought a job or is known to have none."""
        for peer, packet_type in list(self.waiting.items()):
            job = self._next_job(peer)
            if job is not None:
                self._send_assign(peer, packet_type, job)
            elif self._may_find(peer.abilities):
                self.claim_wanted = True
                continue
            else:
                self.send(peer, NO_JOB)
            self._wait_no_more(peer)
            self.answered(peer)

    def _wait_no_more(self, peer: Peer) -> None:
        if self.waiting.pop(peer, None) is not None:
            for function in peer.abilities:
                function.waiting -= 1

    def _assign(self, peer: Peer, job: Job) -> None:
        function = job.function
        job.move(JobEvent.ASSIGN)
        job.owner = peer
        if job.id and job.was_given_out:
            self.attempts[job.id] = job.attempt  # its row knows of the first only
        job.was_given_out = True
        peer.jobs[job.handle] = job
        function.running += 1
        priority = job.priority
        if job.id:
            held = function.held[priority] = function.held[priority] - 1
            function.assigned += 1
            function.assigned_since_claim += 1
            if function.backlog[priority] and not function.claiming[priority] and held * 2 <= function.window():
                self.claim_wanted = True
        else:
            job.attempt += 1
            function.foreground[priority] -= 1
            function.running_foreground += 1
        timeout = peer.abilities[function]
        if self.settings.round_robin:
            # The last registered is looked at first, so the chosen one goes to the front of the registrations.
            peer.abilities = {
                function: timeout,
                **{other: value for other, value in peer.abilities.items() if other is not function},
            }
        if timeout:
            self.timed[job] = self.now + timeout

    def _send_assign(self, peer: Peer, packet_type: PacketType, job: Job) -> None:
        if packet_type is PacketType.GRAB_JOB:
            kind = PacketType.JOB_ASSIGN
            body = b"%b\0%b\0%b" % (job.handle, job.function.name, job.workload)
        elif packet_type is PacketType.GRAB_JOB_UNIQ or job.reducer is None:
            kind = PacketType.JOB_ASSIGN_UNIQ
            body = b"%b\0%b\0%b\0%b" % (job.handle, job.function.name, job.unique, job.workload)
        else:
            kind = PacketType.JOB_ASSIGN_ALL
            body = b"%b\0%b\0%b\0%b\0%b" % (job.handle, job.function.name, job.unique, job.reducer, job.workload)
        self.send(peer, HEADER.pack(RESPONSE_MAGIC, kind, len(body)) + body)

    def _work_end(self, peer: Peer, handle: bytes, packet_type: PacketType, arguments: Sequence[bytes], not_found: bytes) -> None:
        job = peer.jobs.get(handle)
        if job is None:
            self.send(peer, not_found)
            return
        is_completed = packet_type is PacketType.WORK_COMPLETE
        self._has_ended(job, is_completed=is_completed, data=arguments[1] if len(arguments) > 1 else None)
        if job.listeners:
            self._tell_end(job, packet_type, arguments)
        if job.id and not job.cancelled:
            self._finish(job)
        self._end(job)

    def _tell_end(self, job: Job, packet_type: PacketType, arguments: Sequence[bytes]) -> None:
        if packet_type is not PacketType.WORK_EXCEPTION:
            self._tell(job, encode_response(packet_type, *arguments))
            return
        exception = encode_response(packet_type, *arguments)
        failure = encode_response(PacketType.WORK_FAIL, job.handle)
        for listener in job.listeners:
            self.send(listener, exception if listener.exceptions else failure)

    def _work_status(self, peer: Peer, arguments: Sequence[bytes], not_found: bytes) -> None:
        job = peer.jobs.get(arguments[0])
        if job is None:
            self.send(peer, not_found)
            return
        job.numerator = min(max(leading_integer(arguments[1]), 0), 2**63 - 1)
        job.denominator = min(max(leading_integer(arguments[2]), 0), 2**63 - 1)
        if job.id:
            self.progress[job.id] = (job.numerator, job.denominator)
        if job.listeners:
            self._tell(job, encode_response(PacketType.WORK_STATUS, *arguments))

    def _work_data(self, peer: Peer, packet_type: PacketType, arguments: Sequence[bytes], not_found: bytes) -> None:
        job = peer.jobs.get(arguments[0])
        if job is None:
            self.send(peer, not_found)
        elif job.listeners:
            self._tell(job, encode_response(packet_type, *arguments))

    def _lose(self, job: Job) -> None:
        """Take a running job from its worker: requeue it, or end it if its retries are used up or nobody wants it."""
        function = job.function
        retries = self.settings.job_retries
        if job.cancelled:
            self._end(job)
            return
        if retries >= 0 and job.attempt >= max(retries, 1):
            log_job(logging.WARNING, "job failed, retries used up", job)
            self._has_ended(job, is_completed=False, data=None)
            if job.listeners:
                self._tell(job, encode_response(PacketType.WORK_FAIL, job.handle))
            if job.id:
                self._finish(job)
            self._end(job)
            return
        log_job(logging.INFO, "job requeued", job)
        if job.id and not job.listeners:
            self.releases.append(job.id)
            self.progress.pop(job.id, None)
            self._end(job)
            self._give_back_younger(function, job.priority, job.id)
            return
        if not job.id and not job.listeners and not job.pending_joins:
            self._end(job)
            return
        job.move(JobEvent.LOSE)
        self.timed.pop(job, None)
        assert job.owner is not None
        job.owner.jobs.pop(job.handle, None)
        job.owner = None
        job.numerator = job.denominator = 0
        function.running -= 1
        if job.id:
            job.attempt += 1  # a foreground client waits for it here, so it stays
            log_job(logging.INFO, "possible duplicate", job)
            function.held[job.priority] += 1
        else:
            function.running_foreground -= 1
            function.foreground[job.priority] += 1
        function.ready[job.priority].appendleft(job)
        self._wake(function, 1)


def refusal_of(name: bytes, unique: bytes) -> bytes | None:
    if len(name) > FUNCTION_MAX_BYTES:
        return FUNCTION_TOO_LARGE
    if len(unique) > UNIQUE_MAX_BYTES:
        return UNIQUE_TOO_LARGE
    return None


def leading_integer(text: bytes) -> int:
    """Read a number as C's strtoll does: leading blanks, sign and digits; 0 if there is none."""
    text = text.strip()[:40]
    end = 1 if text[:1] in (b"-", b"+") else 0
    while end < len(text) and text[end : end + 1].isdigit():
        end += 1
    digits = text[:end]
    return int(digits) if digits.lstrip(b"+-") else 0
