"""A seeded simulation: several Dispatchers on one queue in memory, with clients, workers and every kind of loss.

Each step is one event: a packet, a store call begun, carried out or answered, time, a loss. After each step the state is
checked, and ``drain`` ends it all: every job must have been finished or cancelled. Raises Violation.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from postgear.dispatch.dispatcher import Dispatcher
from postgear.dispatch.messages import Settings
from postgear.dispatch.peer import Function, Peer
from postgear.job import Job, JobState
from postgear.store.memory import MemoryFunction, MemoryJob, MemoryQueue, MemoryStore
from postgear.wire.packet import PacketType, encode_request

from .simulated_server import LEASE_SECONDS, Actor, Call, Expected, Server, run

FUNCTIONS = (b"f", b"g", b"h")
KEEPING = b"g"
UNIQUES = (b"", b"", b"j", b"k", b"-")
BACKGROUND = (PacketType.SUBMIT_JOB_HIGH_BG, PacketType.SUBMIT_JOB_BG, PacketType.SUBMIT_JOB_LOW_BG)
FOREGROUND = (PacketType.SUBMIT_JOB_HIGH, PacketType.SUBMIT_JOB, PacketType.SUBMIT_JOB_LOW)
PREFIX = b"H:test:"


class Violation(Exception):
    """A promise was broken."""


@dataclass
class Row:
    """What became of a row."""

    function: bytes
    unique_key: bytes
    workload: bytes
    run_at: float
    finished: int = 0
    cancelled: bool = False


class Simulation:
    """One run. Raises Violation."""

    def __init__(self, seed: int, server_count: int = 3) -> None:
        self.random = random.Random(seed)
        self.queue = MemoryQueue(now=1000.0)
        self.rows: dict[int, Row] = {}
        self.deliveries: list[tuple[Job, int]] = []
        self.completed: set[int | tuple[bytes, bytes]] = set()  # ids and (function, key) of jobs that workers completed
        self.cancelled: set[int | tuple[bytes, bytes]] = set()
        self.queue.functions[KEEPING] = MemoryFunction(1, KEEPING, keep_seconds=1e9)
        self.tokens = 0
        self.retries = self.random.choice((-1, -1, 3))
        self.servers = [self.start_server(number) for number in range(server_count)]

    # -- servers and their sessions ----------------------------------------------------------------------------------

    def start_server(self, number: int) -> Server:
        settings = Settings(
            server_name=f"s{number}{self.random.randrange(10**6)}",
            worker_wakeup=self.random.choice((0, 1)),
            round_robin=self.random.random() < 0.3,
            job_retries=self.retries,
        )
        notifications: list[str] = []
        store = MemoryStore(self.queue, notifications.append)
        server = Server(Dispatcher(settings), store, self.queue, self.random, notifications=notifications)
        server.dispatcher.now = self.queue.now
        server.connect()
        return server

    def disconnect(self, server: Server) -> None:
        """Break all sessions; of the calls under way some are carried out all the same."""
        calls, server.calls = server.calls, {}
        for call in calls.values():
            if not call.is_done and self.random.random() < 0.5:
                self.carry_out(server, call)
        server.store.close()
        server.is_up = server.dispatcher.store_is_up = False
        server.dispatcher.serve_waiting()
        server.notifications.clear()
        for call in calls.values():
            call.lose()

    def kill(self, server: Server) -> None:
        """Kill a server; another one starts."""
        self.disconnect(server)
        self.servers[self.servers.index(server)] = self.start_server(len(self.servers))

    def carry_out(self, server: Server, call: Call) -> None:
        leases = {job.id: job.lease for job in self.queue.jobs.values()}
        call.result = call.carry_out()
        call.is_done = True
        for job_id in leases.keys() - self.queue.jobs.keys():
            row = self.rows[job_id]
            if row.cancelled:
                continue
            row.finished += 1
            if leases[job_id] != server.store.lease:
                raise Violation(f"job {job_id} was finished by a server that did not hold it")
            done = job_id in self.completed or (row.function, row.unique_key) in self.completed
            if not done and self.retries < 0:
                raise Violation(f"job {job_id} was finished, but no worker completed it")
            is_cancelled = job_id in self.cancelled or (row.function, row.unique_key) in self.cancelled
            if row.function == KEEPING and not is_cancelled and job_id not in self.queue.results:
                raise Violation(f"nothing is kept of job {job_id}")
        self.note_rows()

    def note_rows(self) -> None:
        keys = Counter((job.function_id, job.unique_key) for job in self.queue.jobs.values() if job.unique_key)
        if keys and max(keys.values()) > 1:
            raise Violation(f"two live jobs with one unique: {keys}")
        names = {function.id: function.name for function in self.queue.functions.values()}
        for job in reversed(self.queue.jobs.values()):
            if job.id in self.rows:
                break
            self.rows[job.id] = Row(names[job.function_id], job.unique_key or b"", job.workload, job.run_at or 0.0)

    # -- what may happen ---------------------------------------------------------------------------------------------

    def step(self) -> None:
        """Let one thing happen."""
        server = self.random.choice(self.servers)
        self.random.choices(
            (self.session_step, self.client_step, self.worker_step, self.time_step, self.lease_step, self.loss_step, self.cancel),
            (40, 16, 28, 5, 5, 2, 1),
        )[0](server)
        self.deliver(server)
        self.check(server)

    def session_step(self, server: Server) -> None:
        if server.notifications and self.random.random() < 0.5:
            word, _, rest = server.notifications.pop(0).partition(" ")
            if word == "cancel":
                server.dispatcher.cancel(b"", int(rest))
            else:
                server.dispatcher.reopen_backlogs()
            return
        session = self.random.choice(("submit", "finish", "claim", "claim", "ask"))
        call = server.calls.get(session)
        if call is None:
            server.begin(session)
        elif not call.is_done:
            self.carry_out(server, call)
        else:
            server.answer(session)

    def client_step(self, server: Server) -> None:
        clients = [actor for actor in server.actors.values() if not actor.peer.abilities]
        if len(clients) < 2:
            clients.append(Actor(server))
        client = self.random.choice(clients)
        if self.random.random() < 0.04:
            client.close()
            return
        client.send(*(self.packet(client) for _ in range(self.random.choice((1, 1, 1, 3)))))

    def packet(self, client: Actor) -> bytes:
        """Make a client's packet and note the reply it must get."""
        self.tokens += 1
        token = b"%d" % self.tokens
        function, unique = self.random.choice(FUNCTIONS), self.random.choice(UNIQUES)
        if unique == b"-":
            token = self.random.choice((b"same", b""))
        priority = self.random.randrange(3)
        kind = self.random.choices(("background", "foreground", "epoch", "echo", "status"), (10, 5, 2, 1, 1))[0]
        if kind == "echo":
            client.expected.append(Expected(PacketType.ECHO_RES, workload=token))
            return encode_request(PacketType.ECHO_REQ, token)
        if kind == "status":
            handle = PREFIX + b"%d" % self.random.choice([*self.rows, 10**6])
            client.expected.append(Expected(PacketType.STATUS_RES, workload=handle))
            return encode_request(PacketType.GET_STATUS, handle)
        client.expected.append(Expected(PacketType.JOB_CREATED, function, unique, token))
        if kind == "epoch":
            run_at = b"%d" % (self.queue.now + self.random.choice((-5, 1, 5, 20)))
            return encode_request(PacketType.SUBMIT_JOB_EPOCH, function, unique, run_at, token)
        return encode_request((BACKGROUND if kind == "background" else FOREGROUND)[priority], function, unique, token)

    def worker_step(self, server: Server) -> None:
        workers = [actor for actor in server.actors.values() if actor.peer.abilities]
        if len(workers) < 2 and self.random.random() < 0.3:
            self.start_worker(server, self.random.sample(FUNCTIONS, self.random.randint(1, 3)))
        elif workers:
            worker = self.random.choice(workers)
            luck = self.random.random()
            if luck < 0.03:
                worker.close()
            elif luck < 0.04:
                worker.send(encode_request(PacketType.CANT_DO, self.random.choice(FUNCTIONS)))
                worker.running = [handle for handle in worker.running if handle in worker.peer.jobs]
            elif luck < 0.9:
                self.work(worker)

    def start_worker(self, server: Server, functions: Sequence[bytes]) -> None:
        worker = Actor(server)
        for name in functions:
            timeout = encode_request(PacketType.CAN_DO_TIMEOUT, name, b"1500")
            worker.send(timeout if self.random.random() < 0.3 else encode_request(PacketType.CAN_DO, name))

    def work(self, worker: Actor, *, quickly: bool = False) -> None:
        """Let a worker do what it would do next."""
        if worker.running:
            handle = worker.running[0]
            luck = 1.0 if quickly else self.random.random()
            if luck < 0.2:
                worker.send(encode_request(PacketType.WORK_STATUS, handle, b"1", b"2"))
            elif luck > 0.5:
                worker.running.remove(handle)
                job = worker.peer.jobs.get(handle)
                if job is not None:
                    self.completed |= {job.id, (job.function.name, job.unique_key)}
                fails = encode_request(PacketType.WORK_FAIL, handle)
                worker.send(fails if self.random.random() < 0.1 else encode_request(PacketType.WORK_COMPLETE, handle, b""))
        elif worker.sleeping or worker.peer in worker.server.dispatcher.waiting:
            return
        elif worker.wants_sleep:
            worker.wants_sleep = False
            worker.sleeping = True
            worker.send(encode_request(PacketType.PRE_SLEEP))
        else:
            self.grab(worker)

    def grab(self, worker: Actor) -> None:
        dispatcher, abilities = worker.server.dispatcher, worker.peer.abilities
        ready = [job for job in dispatcher.jobs.values() if job.state is JobState.READY and job.function in abilities]
        before = set(worker.peer.jobs.values())
        worker.send(encode_request(PacketType.GRAB_JOB_ALL))
        given = set(worker.peer.jobs.values()) - before
        if not worker.server.is_lease_in_doubt():
            best = min((job.priority for job in ready), default=None)
            if best is not None and not given and worker.peer not in dispatcher.waiting:
                raise Violation("a worker got no job though there was one")
            if any(job.priority != best for job in given):
                raise Violation("a job went before one of higher priority")

    def note_delivery(self, server: Server, job: Job) -> None:
        self.deliveries.append((job, job.attempt))
        row = self.rows.get(job.id)
        if row is not None and row.run_at > self.queue.now:
            raise Violation(f"job {job.id} ran before its time")
        if job.id and server.is_lease_in_doubt():
            raise Violation(f"job {job.id} was given out while the lease is in doubt")

    def time_step(self, _server: Server) -> None:
        self.pass_time(self.random.choice((0.1, 0.1, 0.1, 0.5, 1.0)), self.servers)

    def pass_time(self, seconds: float, servers: Sequence[Server]) -> None:
        self.queue.now += seconds
        for server in servers:
            server.dispatcher.now = self.queue.now
            if server.is_lease_in_doubt():
                server.dispatcher.suspended = True
            server.dispatcher.tick()
            self.deliver(server)

    def lease_step(self, server: Server) -> None:
        if not server.is_up:
            server.connect()
        elif self.random.random() < 0.4:
            if run(server.store.reap_leases()):
                server.dispatcher.reopen_backlogs()
        else:
            self.renew(server)

    def renew(self, server: Server) -> None:
        if not run(server.store.renew_lease(sleeping=self.random.random() < 0.3)):
            self.disconnect(server)
            return
        server.renewed_at = self.queue.now
        server.dispatcher.ask_for_uniques()
        if server.dispatcher.suspended:
            server.dispatcher.suspended = False
            server.dispatcher.reopen_backlogs()

    def loss_step(self, server: Server) -> None:
        luck = self.random.random()
        if luck < 0.15:
            self.kill(server)
        elif luck < 0.5:
            self.hang(max(self.servers, key=lambda server: sum(len(peer.jobs) for peer in server.actors)))
        elif server.is_up:
            self.disconnect(server)

    def hang(self, hung: Server) -> None:
        """Let a server stand still until others have taken its lease and jobs; it goes on and does not know."""
        others = [server for server in self.servers if server is not hung]
        for _ in range(int(LEASE_SECONDS) + 2):
            self.pass_time(1.0, others)
            for server in others:
                if server.is_up:
                    self.renew(server)
                if server.is_up:
                    run(server.store.reap_leases())
                    server.dispatcher.reopen_backlogs()
                for happen in (self.session_step, self.worker_step):
                    happen(server)
                    self.deliver(server)
        hung.dispatcher.now = self.queue.now

    def cancel(self, server: Server) -> None:
        """Cancel a job by a handle that this server knows, or by a row's id."""
        handles = [*server.dispatcher.jobs, *(PREFIX + b"%d" % job_id for job_id in self.queue.jobs)]
        if handles and server.is_up:
            handle = self.random.choice(handles)
            job = server.dispatcher.jobs.get(handle)
            job_id = server.dispatcher.background_id(handle)
            if job is not None and job.state is not JobState.ENDED:
                self.completed |= {job.id, (job.function.name, job.unique_key)}  # nobody needs to complete it any more
                self.cancelled |= {job.id, *([(job.function.name, job.unique_key)] if job.unique_key else [])}
            server.dispatcher.cancel(handle)
            if job_id in self.queue.jobs:
                self.rows[job_id].cancelled = True
                run(server.store.cancel_job(job_id))

    # -- what must hold ----------------------------------------------------------------------------------------------

    def deliver(self, server: Server) -> None:
        """Bring the Dispatcher's bytes to clients and workers, and its requests to the sessions."""
        dispatcher = server.dispatcher
        server.requests += dispatcher.requests
        dispatcher.requests = []
        dirty, dispatcher.dirty = dispatcher.dirty + dispatcher.late, []
        dispatcher.late = []
        for peer in dirty:
            peer.is_late = False
            data = b"".join(peer.out)
            peer.out.clear()
            peer.dirty = False
            actor = server.actors.get(peer)
            if actor is not None:
                for kind, arguments in actor.replies.feed(data):
                    self.receive(actor, PacketType(kind), arguments)

    def receive(self, actor: Actor, kind: PacketType, arguments: Sequence[bytes]) -> None:
        if kind is PacketType.NOOP:
            if not actor.sleeping:
                raise Violation("a NOOP came to a worker that does not sleep")
            actor.sleeping = False
        elif kind is PacketType.NO_JOB:
            actor.wants_sleep = True
        elif kind in (PacketType.JOB_ASSIGN_UNIQ, PacketType.JOB_ASSIGN_ALL):
            actor.running.append(arguments[0])
            if (job := actor.peer.jobs.get(arguments[0])) is not None:
                self.note_delivery(actor.server, job)
        elif kind in (PacketType.WORK_COMPLETE, PacketType.WORK_FAIL):
            actor.waiting[arguments[0]] -= 1
            if actor.waiting[arguments[0]] < 0:
                raise Violation(f"a client got the end of {arguments[0]!r}, for which it does not wait")
        elif kind is PacketType.ERROR and arguments[0] == b"JOB_NOT_FOUND":
            pass
        elif kind is not PacketType.WORK_STATUS:
            self.match(actor, kind, arguments)

    def match(self, actor: Actor, kind: PacketType, arguments: Sequence[bytes]) -> None:
        """Compare a reply with the one that is due."""
        expected = actor.expected.pop(0)
        if kind is PacketType.ERROR:
            return
        if kind is not expected.kind:
            raise Violation(f"{kind.name} came where {expected} was due")
        if kind is not PacketType.JOB_CREATED:
            if arguments[0] != expected.workload:
                raise Violation(f"{kind.name} {arguments[0]!r} came where {expected} was due")
            return
        handle = arguments[0]
        job = actor.server.dispatcher.jobs.get(handle)
        row = self.rows.get(int(handle[len(PREFIX) :])) if handle.startswith(PREFIX) else None
        subject = job or row
        if subject is None:
            raise Violation(f"{handle!r} was acknowledged, but there is no such job")
        joins = expected.unique != b"" and expected.unique in (subject.unique_key, subject.unique_key[:1])
        if subject.workload != expected.workload and not joins:
            raise Violation(f"the reply for {handle!r} came where {expected} was due")
        if job is not None and job.handle == handle and job.listeners.count(actor.peer) > actor.waiting[handle]:
            actor.waiting[handle] += 1

    def check(self, server: Server) -> None:
        """Compare the counters with what they count."""
        dispatcher = server.dispatcher
        jobs = set(dispatcher.jobs.values())
        batches = [*dispatcher.submits, *(call.batch for call in server.calls.values() if call.batch is not None)]
        if server.retry is not None:
            batches.append(server.retry)
        claiming: Counter[tuple[Function, int]] = Counter()
        joins: Counter[Job] = Counter()
        pending: Counter[Peer] = Counter()
        for batch in batches:
            pending.update(batch.peers)
            joins.update(batch.joins.values())
            for position, claim in enumerate(batch.claims):
                if claim and position not in batch.joins:
                    claiming[batch.functions[position], batch.priorities[position]] += 1
        for call in server.calls.values():
            for lane in call.lanes:
                claiming[dispatcher.functions_by_id[lane.function_id], lane.priority] += lane.wanted
        ready = Counter((job.function, job.priority, bool(job.id)) for job in jobs if job.state is JobState.READY)
        running = Counter((job.function, bool(job.id)) for job in jobs if job.state is JobState.RUNNING)
        for function in dispatcher.functions.values():
            expect(function.running, running[function, True] + running[function, False], "running", function)
            expect(function.running_foreground, running[function, False], "running_foreground", function)
            if (function.workers or any(function.held)) and function not in dispatcher.active:
                raise Violation(f"{function.name!r} has workers or held jobs and is not looked at")
            for priority in (0, 1, 2):
                expect(function.held[priority], ready[function, priority, True], "held", function)
                expect(function.foreground[priority], ready[function, priority, False], "foreground", function)
                expect(function.claiming[priority], claiming[function, priority], "claiming", function)
                queued = Counter(job for job in function.ready[priority] if job.state is JobState.READY)
                waiting = sum(ready[function, priority, durable] for durable in (True, False))
                expect(sorted(queued.values()), [1] * waiting, "ready", function)
        for job in jobs:
            expect(job.pending_joins, joins[job], "pending_joins", job.function)
            if job.state is JobState.ENDED or (job.state is JobState.RUNNING) != (job.owner is not None):
                raise Violation(f"{job.handle!r} stands among the jobs in a wrong state")
        live = Counter((job.function, job.unique_key) for job in jobs if job.unique_key and not job.id and not job.cancelled)
        if live and max(live.values()) > 1:
            raise Violation(f"two foreground jobs with one unique: {live}")
        for peer in dispatcher.peers:
            if peer.pending - peer.pending_requests != pending[peer]:
                raise Violation(f"a connection has {peer.pending} replies under way, {pending[peer]} are in batches")

    def drain(self, *, everywhere: bool) -> None:
        """Let everything end: workers at every server, or at the first one only."""
        for server in self.servers:
            for actor in list(server.actors.values()):
                if actor.peer.abilities or (server is not self.servers[0] and not everywhere):
                    actor.close()
            if everywhere or server is self.servers[0]:
                self.start_worker(server, FUNCTIONS)
        for _ in range(600):
            for server in self.servers:
                if not server.is_up:
                    server.connect()
                self.renew(server)
                if server.is_up:
                    run(server.store.reap_leases())
                for _ in range(12):
                    self.session_step(server)
                    self.deliver(server)
                for actor in list(server.actors.values()):
                    for _ in range(6 if actor.peer.abilities else 0):
                        self.work(actor, quickly=True)
                        self.deliver(server)
                self.check(server)
            self.pass_time(0.5, self.servers)
            if not self.queue.jobs and all(self.is_idle(server) for server in self.servers):
                break
        self.check_end()

    def is_idle(self, server: Server) -> bool:
        dispatcher = server.dispatcher
        return not (
            dispatcher.jobs or dispatcher.submits or server.calls or server.requests or server.retry or not server.is_settled
        )

    def check_end(self) -> None:
        left: list[MemoryJob] = list(self.queue.jobs.values())
        if left:
            raise Violation(f"jobs are left that nobody gets: {left}")
        for job_id in self.queue.results:
            if not self.rows[job_id].finished:
                raise Violation(f"a result is kept of job {job_id}, which was not finished")
        for job_id, row in self.rows.items():
            if row.finished + row.cancelled != 1 and not (row.finished == 1 and row.cancelled):
                raise Violation(f"job {job_id} was finished {row.finished} times: {row}")
        first = Counter(job.id for job, attempt in self.deliveries if job.id and attempt <= 1)
        if first and max(first.values()) > 1:
            raise Violation(f"a second delivery was not marked as such: {first.most_common(1)}")
        for server in self.servers:
            if not self.is_idle(server):
                raise Violation(f"a server has work left: {server}")
            for function in server.dispatcher.functions.values():
                counters = function.held + function.foreground + function.claiming
                expect((counters, function.running), ([0] * 9, 0), "counters at the end", function)
            for actor in server.actors.values():
                if actor.expected or +actor.waiting:
                    raise Violation(f"a client still waits for {actor.expected} {+actor.waiting}")


def expect(found: object, due: object, name: str, function: Function) -> None:
    if found != due:
        raise Violation(f"{name} of {function.name!r} is {found!r}, should be {due!r}")


def simulate(seed: int, steps: int) -> Simulation:
    """Run one simulation to its end. Raises Violation with the seed."""
    simulation = Simulation(seed)
    done = 0
    try:
        for done in range(steps):  # noqa: B007
            simulation.step()
        simulation.drain(everywhere=seed % 2 == 0)
    except Exception as error:
        raise Violation(f"seed {seed}, step {done}: {type(error).__name__}: {error}") from error
    return simulation
