"""The Dispatcher: every rule about who gets which job. Its top: the table of handlers, and time.

It is one object in layers, a file each: ``state`` (what it knows, connections), ``holding`` (the jobs in memory), ``workers``,
``claims``, ``clients`` and this. Each layer calls only those below it.

Events are method calls: ``connected``, ``receive``, ``closed`` (connections); ``submitted``, ``submit_failed``, ``claimed``,
``joined`` (answers of the store); ``tick`` (time). It never raises for what a peer sends.

Order: replies of one connection come in the order of its packets. A background submit is answered after its commit, so a
connection that has submits under way may only go on submitting; other packets of it are held until they are answered.
Source of behaviour where PROTOCOL is silent: gearmand 1.1.20 and 2.0, seen on the wire; differences stand in docs/differences.md.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from postgear.dispatch.clients import Clients
from postgear.dispatch.holding import log_job
from postgear.dispatch.messages import RequestKind, Settings
from postgear.dispatch.peer import Peer
from postgear.dispatch.state import Handler
from postgear.dispatch.workers import leading_integer
from postgear.job_holder import TICK_SECONDS
from postgear.wire import connection as wire
from postgear.wire.packet import PacketType, encode_response

UNKNOWN_OPTION: Final = encode_response(PacketType.ERROR, b"UNKNOWN_OPTION", b"Server does not recognize given option")
TIMEOUT_MIN_SECONDS: Final = 1.0  # gearmand raises shorter ones
CLIENT_ID_MAX_BYTES: Final = 127
REVIEW_TICKS: Final = 20
"""Every so many ticks (2 s) claimed jobs that no worker asked for go back."""
_ERROR_TEXTS: Final = {
    PacketType.WORK_STATUS: b"Job given in work result not found",
    PacketType.WORK_COMPLETE: b"Job given in work result not found",
    PacketType.WORK_FAIL: b"Job given in work result not found",
    PacketType.WORK_DATA: b"Job does not exist on server",
    PacketType.WORK_WARNING: b"Job does not exist on server",
    PacketType.WORK_EXCEPTION: b"An exception was received for a job that does not exist",
}


class Dispatcher(Clients):
    """The rules. ``now`` is monotonic seconds, set by the shell before it calls.

    dirty: peers with something in ``out``, to be drained and cleared by the shell; late: those where it may wait a moment.
    submits: batches to be stored, oldest first; the last is still open.
    finishes, releases (given out), unused (never given out): ids for the store. results: finishes of functions that keep them.
    postponed: none, for a server does not put off what a worker had. claim_limit: none, for the lanes say all.
    requests: what connections wait for. unresolved: functions whose id is not known. progress: newest report by id.
    attempts: how often jobs were given out by now, by id, where that happened again from memory.
    claim_wanted: something changed that makes a claim worth while.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._handlers = self._make_handlers()

    def closed(self, peer: Peer) -> None:
        """Forget a connection: requeue what it runs, drop what only it waited for."""
        peer.closed = True
        peer.held = None
        self.peers.pop(peer, None)
        self._wait_no_more(peer)
        for job in reversed(list(peer.jobs.values())):  # each goes to the front, so the oldest last
            self._lose(job)
        for function in list(peer.abilities):
            self._drop_ability(peer, function)
        for job in list(peer.listening):
            job.listeners = [listener for listener in job.listeners if listener is not peer]
            self._end_unwanted(job)
        peer.listening.clear()

    def tick(self) -> None:
        """Do what time asks for; called every TICK_SECONDS."""
        self._ticks += 1
        for job in [job for job, deadline in self.timed.items() if deadline <= self.now]:
            log_job(logging.INFO, "job timed out", job)
            self._lose(job)
        self.serve_waiting()
        review = self._ticks % REVIEW_TICKS == 0
        for function in list(self.active):
            if function.assigned or function.rate:
                function.rate = (function.rate + function.assigned / TICK_SECONDS) / 2
                if function.rate < 1.0:
                    function.rate = 0.0
                function.assigned_since_review += function.assigned
                function.assigned = 0
            if function.sleepers and self._has_ready(function):
                self._wake(function, 1)  # those woken for the job did not come
            if review:
                if sum(function.held):
                    keep = max(function.assigned_since_review, function.window()) if function.workers else 0
                    self._give_back(function, keep)
                function.assigned_since_review = 0
                if not function.workers and not function.rate and not any(function.held):
                    del self.active[function]

    def _option(self, peer: Peer, arguments: Sequence[bytes]) -> None:
        if arguments[0].lower() == b"exceptions":
            peer.exceptions = True
            self.send(peer, encode_response(PacketType.OPTION_RES, arguments[0]))
        else:
            self.send(peer, UNKNOWN_OPTION)

    def _set_client_id(self, peer: Peer, arguments: Sequence[bytes]) -> None:
        peer.client_id = arguments[0][:CLIENT_ID_MAX_BYTES] or b"-"

    def _fatal(self, peer: Peer, arguments: Sequence[bytes]) -> None:
        self.send(peer, encode_response(PacketType.ERROR, *arguments))
        peer.closing = True

    def _fatal_text(self, peer: Peer, arguments: Sequence[bytes]) -> None:
        code, text = arguments
        self.send(peer, b"ERR %b %b\r\n" % (code, text.replace(b" ", b"+")))
        peer.closing = True

    def _text(self, peer: Peer, line: bytes) -> None:
        words = line.split()
        if not words or line[:1].isspace():
            words.insert(0, b"")  # as in gearmand, a leading blank is an empty first word
        self._ask(RequestKind.ADMIN, peer, None, *words)

    def _make_handlers(self) -> dict[int, Handler]:
        def submit(priority: int) -> Handler:
            return lambda peer, a: self._submit_foreground(peer, priority, a[0], a[1], a[2], None)

        def submit_background(priority: int) -> Handler:
            return lambda peer, a: self._submit_background(peer, priority, a[0], a[1], a[2])

        def error(packet_type: PacketType) -> bytes:
            return encode_response(PacketType.ERROR, b"JOB_NOT_FOUND", _ERROR_TEXTS[packet_type])

        not_found = error(PacketType.WORK_COMPLETE)
        no_such_job = error(PacketType.WORK_DATA)
        no_exception_job = error(PacketType.WORK_EXCEPTION)
        return {
            wire.TEXT: lambda peer, a: self._text(peer, a[0]),
            wire.INVALID: lambda peer, a: self.send(peer, encode_response(PacketType.ERROR, *a)),
            wire.FATAL: self._fatal,
            wire.FATAL_TEXT: self._fatal_text,
            PacketType.SUBMIT_JOB: submit(1),
            PacketType.SUBMIT_JOB_HIGH: submit(0),
            PacketType.SUBMIT_JOB_LOW: submit(2),
            PacketType.SUBMIT_JOB_BG: submit_background(1),
            PacketType.SUBMIT_JOB_HIGH_BG: submit_background(0),
            PacketType.SUBMIT_JOB_LOW_BG: submit_background(2),
            PacketType.SUBMIT_JOB_EPOCH: self._submit_epoch,
            PacketType.SUBMIT_REDUCE_JOB: lambda peer, a: self._submit_foreground(peer, 1, a[0], a[1], a[4], a[2]),
            PacketType.SUBMIT_REDUCE_JOB_BACKGROUND: lambda peer, a: self._submit_background(
                peer, 1, a[0], a[1], a[4], reducer=a[2]
            ),
            PacketType.CAN_DO: lambda peer, a: self._can_do(peer, a[0], 0.0),
            PacketType.CAN_DO_TIMEOUT: lambda peer, a: self._can_do(peer, a[0], _timeout_seconds(a[1])),
            PacketType.CANT_DO: lambda peer, a: self._cant_do(peer, a[0]),
            PacketType.RESET_ABILITIES: self._reset_abilities,
            PacketType.PRE_SLEEP: self._pre_sleep,
            PacketType.GRAB_JOB: lambda peer, _a: self._grab(peer, PacketType.GRAB_JOB),
            PacketType.GRAB_JOB_UNIQ: lambda peer, _a: self._grab(peer, PacketType.GRAB_JOB_UNIQ),
            PacketType.GRAB_JOB_ALL: lambda peer, _a: self._grab(peer, PacketType.GRAB_JOB_ALL),
            PacketType.WORK_COMPLETE: lambda peer, a: self._work_end(peer, a[0], PacketType.WORK_COMPLETE, a, not_found),
            PacketType.WORK_FAIL: lambda peer, a: self._work_end(
                peer, a[0].rstrip(b"\0"), PacketType.WORK_FAIL, (a[0].rstrip(b"\0"),), not_found
            ),
            PacketType.WORK_EXCEPTION: lambda peer, a: self._work_end(peer, a[0], PacketType.WORK_EXCEPTION, a, no_exception_job),
            PacketType.WORK_STATUS: lambda peer, a: self._work_status(peer, a, not_found),
            PacketType.WORK_DATA: lambda peer, a: self._work_data(peer, PacketType.WORK_DATA, a, no_such_job),
            PacketType.WORK_WARNING: lambda peer, a: self._work_data(peer, PacketType.WORK_WARNING, a, no_such_job),
            PacketType.GET_STATUS: self._get_status,
            PacketType.GET_STATUS_UNIQUE: self._get_status_unique,
            PacketType.ECHO_REQ: lambda peer, a: self.send(peer, encode_response(PacketType.ECHO_RES, *a)),
            PacketType.OPTION_REQ: self._option,
            PacketType.SET_CLIENT_ID: self._set_client_id,
        }


def _timeout_seconds(text: bytes) -> float:
    """Read CAN_DO_TIMEOUT's milliseconds; 0: none. Shorter than a second is raised to one, as gearmand does."""
    milliseconds = leading_integer(text)
    return max(milliseconds / 1000, TIMEOUT_MIN_SECONDS) if milliseconds > 0 else 0.0
