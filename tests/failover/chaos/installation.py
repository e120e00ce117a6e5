"""What is put to the test: two servers, two clusters, a PgBouncer, workers, producers, and a link between any two of them."""

from __future__ import annotations

import glob
import os
import shutil
import sys
import time
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo

from postgear import schema
from tests.failover.chaos.clusters import DATABASE, Pair, account
from tests.failover.chaos.network import Network
from tests.failover.chaos.programs import Program, hide_mounts, start
from tests.ports import free_port

SERVERS = ("a", "b")
WORKERS_PER_SERVER = 3
DIRECT_WORKERS = 2
LEASE_SECONDS = 4.0
READY_SECONDS = 60.0
QUEUE = "chaos"
DISK_SIZE = "700M"
"""Of each cluster: what it needs at most is half of that."""
PGBOUNCER = shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"
FAKETIME = next(iter(glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")), None)

AUDIT = """
create schema chaos;
create table chaos.produced (token text);
create table chaos.article (token text);
create table chaos.inserted (id bigint, workload bytea, key bytea, at timestamptz);
create table chaos.completed (
    id bigint, workload bytea, attempt smallint, lease bigint, deleted_by text, at timestamptz
);
create table chaos.effect (handle text);
create table chaos.lease (lease bigint, name text);
create function chaos.note() returns trigger language plpgsql security definer as $$
begin
    if tg_table_name = 'server' then
        insert into chaos.lease values (new.lease, new.name);
    elsif tg_op = 'INSERT' then
        insert into chaos.inserted values (new.id, new.workload, new.unique_key, clock_timestamp());
    else
        insert into chaos.completed values (old.id, old.workload, old.attempt, old.lease,
            current_setting('application_name'), clock_timestamp());
    end if;
    return null;
end $$;
create trigger note after insert or delete on postgear.job for each row execute function chaos.note();
create trigger note after insert on postgear.server for each row execute function chaos.note();
select postgear.create_trigger('chaos.article', 'chaos');
"""
"""Tables that tell what happened to jobs. They are replicated with the queue, so they are what a survivor knows."""


class Installation:
    """All of it, running from the constructor on; *break_name* is one of ``broken.BREAKS``, *long_share* of the jobs are long."""

    def __init__(self, folder: Path, seed: str, break_name: str | None, long_share: float) -> None:
        self.folder = folder
        self.seed = seed
        self.pair = Pair(folder, DISK_SIZE if hide_mounts() else None)
        self.network = Network(folder)
        self.servers: dict[str, Program] = {}
        self.workers: list[Program] = []
        self.producers: list[Program] = []
        self.journals: list[Path] = []
        self.strays: list[str] = []
        """Who was found to have stayed at an old primary."""
        self._break = break_name
        self._long_share = str(long_share)
        self._ports: dict[str, int] = {}
        self.bouncer: Program | None = None
        try:
            self._start()
        except BaseException:
            self.remove()
            raise

    def _start(self) -> None:
        n1, n2 = self.pair.nodes
        n1.upstream_port = self.network.link("n1-n2", n2.port)
        n2.upstream_port = self.network.link("n2-n1", n1.port)
        self.pair.start()
        schema.upgrade(self.pair.primary.dsn, queue=QUEUE)
        with psycopg.connect(self.pair.primary.dsn, autocommit=True) as connection:
            connection.execute(AUDIT)
        for name in SERVERS:
            port = free_port()
            self._start_server(name, port)
            for peer in ("producers", "workers"):
                self._ports[f"{peer}-{name}"] = self.network.link(f"{peer}-{name}", port)
        self._sql_dsn = self._dsn("sql")
        self._worker_dsn = self._dsn("direct")
        self._start_bouncer()
        for name in SERVERS:
            self.wait_until_ready(name)

    def _dsn(self, name: str) -> str:
        """Return the DSN that leads a program over links of its own to whichever node is the primary."""
        ports = [self.network.link(f"{name}-{node.name}", node.port) for node in self.pair.nodes]
        return (
            f"host=127.0.0.1,127.0.0.1 port={ports[0]},{ports[1]} user=postgres dbname={DATABASE} connect_timeout=3"
            " target_session_attrs=read-write"
        )

    def clock_path(self, server: str) -> Path:
        """Return the file that says how wrong a server's clock is."""
        return self.folder / f"clock-{server}"

    def _start_server(self, name: str, port: int) -> None:
        module = ["-m", "tests.failover.chaos.broken", self._break] if self._break else ["-m", "postgear"]
        command = [sys.executable, *module, "serve", "--dsn", self._dsn(f"server-{name}"), "--name", name]
        command += ["--listen", f"127.0.0.1:{port}", "--lease-seconds", str(LEASE_SECONDS)]
        environment = {}
        if FAKETIME:
            self.clock_path(name).write_text("+0\n")
            environment = {
                "LD_PRELOAD": FAKETIME,
                "FAKETIME_TIMESTAMP_FILE": str(self.clock_path(name)),
                "FAKETIME_CACHE_DURATION": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",  # steps of the clock leave it alone in reality, too
            }
        self.servers[name] = start(f"server-{name}", command, self.folder / f"server-{name}.log", environment)

    def wait_until_ready(self, server: str) -> None:
        """Wait until a server that was just started serves."""
        program = self.servers[server]
        deadline = time.monotonic() + READY_SECONDS
        while " ready " not in program.log():
            assert program.process.poll() is None, f"server {server} ended by itself:\n{program.log()}"
            assert time.monotonic() < deadline, f"server {server} is not ready after {READY_SECONDS} s:\n{program.log()}"
            time.sleep(0.05)

    def _start_bouncer(self) -> None:
        if not Path(PGBOUNCER).exists():
            return
        folder = self.folder / "bouncer"
        folder.mkdir()
        port = free_port()
        link = self.network.link("bouncer-primary", self.pair.primary.port)
        (folder / "users.txt").write_text('"postgres" ""\n')
        (folder / "pgbouncer.ini").write_text(
            f"[databases]\n* = host=127.0.0.1 port={link} user=postgres\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
            f"auth_type = any\nauth_file = {folder}/users.txt\npidfile = {folder}/pid\nlogfile = {folder}/log\n"
            "pool_mode = transaction\ndefault_pool_size = 2\nserver_login_retry = 1\nquery_wait_timeout = 10\n"
        )
        os.chown(folder, account().pw_uid, -1)
        self.bouncer = start(
            "bouncer", [PGBOUNCER, "-q", str(folder / "pgbouncer.ini")], self.folder / "bouncer.log", user=account().pw_uid
        )
        self._pooled_dsn = make_conninfo("", host="127.0.0.1", port=port, user="postgres", dbname=DATABASE)

    def turn_bouncer(self) -> None:
        """Let PgBouncer find the primary, as an operator does after a failover."""
        if self.bouncer is not None:
            self.network.turn("bouncer-primary", self.pair.primary.port)

    def note_strays(self) -> None:
        """Remember which servers and direct workers hold no living lease at the primary."""
        rows = self.pair.primary.query("select name from postgear.server where renewed_at > clock_timestamp() - interval '4 s'")
        wanted = {*self.servers, *(worker.name for worker in self.workers if "-direct" in worker.name)}
        self.strays += sorted(wanted - {name for (name,) in rows})

    def start_round(self, number: int) -> None:
        """Start workers and producers with new journals; tokens and uniques are of this round alone."""
        self.journals = []
        self.workers = [
            self._start_program("worker", f"r{number}-worker-{name}{index}", str(self._ports[f"workers-{name}"]))
            for name in SERVERS
            for index in range(WORKERS_PER_SERVER)
        ]
        self.workers += [
            self._start_program("direct_worker", f"r{number}-direct{index}", self._worker_dsn) for index in range(DIRECT_WORKERS)
        ]
        ports = [str(self._ports[f"producers-{name}"]) for name in SERVERS]
        self.producers = [
            self._start_program("producer", f"r{number}-wire0", self._long_share, *ports),
            self._start_program("producer", f"r{number}-wire1", self._long_share, *reversed(ports)),
            self._start_program("sql_producer", f"r{number}-sql0", self._sql_dsn),
        ]
        if self.bouncer is not None:
            self.producers.append(self._start_program("sql_producer", f"r{number}-sql1", self._pooled_dsn))

    def _start_program(self, module: str, name: str, *arguments: str) -> Program:
        journal = self.folder / f"{name}.journal"
        journal.touch()
        self.journals.append(journal)
        seed = [] if "worker" in module else [f"{self.seed}/{name}"]
        command = [sys.executable, "-m", f"tests.failover.chaos.{module}", name, *seed, str(journal), *arguments]
        return start(name, command, self.folder / f"{name}.log")

    def stop_producers(self) -> None:
        """Let producers end what they are at."""
        for producer in self.producers:
            producer.process.terminate()
        for producer in self.producers:
            producer.finish(20)

    def stop_workers(self) -> None:
        """Kill the workers and remove the journals of the round, which have been read."""
        for worker in self.workers:
            worker.kill()
        for journal in self.journals:
            journal.unlink()

    def remove(self) -> None:
        """Kill everything and remove the folder."""
        bouncer = [] if self.bouncer is None else [self.bouncer]
        for program in (*self.producers, *self.workers, *self.servers.values(), *bouncer, self.network.program):
            program.kill()
        self.pair.remove()
