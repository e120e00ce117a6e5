"""The server process: sockets, signals, start and stop. It carries bytes between connections and the Dispatcher.

Rules about jobs are in ``dispatch``, traffic with the database in ``exchange``; here is only asyncio.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import pwd
import resource
import signal
import socket
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import uvloop

from . import __version__, logs
from .admin import Admin
from .config import Config, hide_password
from .dispatch.dispatcher import Dispatcher
from .dispatch.messages import Settings
from .dispatch.peer import Peer
from .errors import ConfigError, SchemaError
from .logs import event
from .metrics import Metrics
from .server_exchange import ServerExchange
from .store.postgres import PostgresStore
from .web import Web
from .wire.connection import PacketReader
from .wire.packet import REQUEST_MAGIC

if TYPE_CHECKING:
    from .embedded import EmbeddedPostgres

log = logging.getLogger("postgear.daemon")

PENDING_MAX_JOBS: Final = 10_000
"""A connection with so many unanswered submits is not read until half are answered; two batches keep the database busy."""
QUEUED_MAX_BYTES: Final = 128 * 1024 * 1024
"""With so many workload bytes waiting for commits no submitting connection is read."""
LATE_SECONDS: Final = 0.005
"""How long the JOB_CREATED of a client that waits for its result may wait for that result: a few jobs' time on a busy server."""
RELOADABLE: Final = frozenset(
    (
        "round_robin",
        "worker_wakeup",
        "job_retries",
        "exceptions",
        "remote_shutdown",
        "max_packet_bytes",
        "output_buffer_bytes",
        "drain_seconds",
        "keepalive",
        "keepalive_idle_seconds",
        "keepalive_interval_seconds",
        "keepalive_count",
        "log_level",
        "log_format",
    )
)
"""What SIGHUP changes: for new connections where it concerns connections. The rest needs a restart."""
BIND_RETRY_SECONDS: Final = 0.2


def run(config: Config, read: Callable[[], Config] | None = None) -> int:
    """Serve until told to stop; returns the exit code. Raises PostgearError when it cannot start.

    read: reads the configuration again, for SIGHUP.
    """
    logs.configure(config.log_level, config.log_format, config.log_file)
    if config.file_descriptors:
        _limit_files(config.file_descriptors)
    return uvloop.run(_serve(config, read))


async def _serve(config: Config, read: Callable[[], Config] | None) -> int:
    server = Server(config, read)
    try:
        return await server.serve()
    finally:
        server.clean_up()


class Server:
    """One running server."""

    def __init__(self, config: Config, read: Callable[[], Config] | None = None) -> None:
        self.config = config
        self._read = read
        self.version = __version__
        self.loop = asyncio.get_running_loop()
        self.dispatcher = Dispatcher(_settings(config))
        self.admin = Admin(self)
        self.connections: dict[Peer, Connection] = {}
        self.exchange: ServerExchange
        self._listeners: list[asyncio.Server] = []
        self._addresses: list[str] = []
        self._embedded: EmbeddedPostgres | None = None
        self._stop = asyncio.Event()
        self._graceful = False
        self._flush_due = False
        self._is_late_due = False
        self._paused: set[Connection] = set()
        self._pid_file: Path | None = None
        metrics = Metrics(self)
        self._web = Web({"/live": metrics.live, "/ready": metrics.ready, "/metrics": metrics.metrics})

    # -- life ----------------------------------------------------------------------------------------------------

    async def serve(self) -> int:
        """Start, run and stop."""
        config = self.config
        sockets = await self._bind()
        if config.user:
            _become(config.user)
        dsn = config.dsn
        if dsn is None:
            dsn = await self._start_embedded(config.data_dir)
        for number in (signal.SIGTERM, signal.SIGINT):
            self.loop.add_signal_handler(number, self.request_stop)
        self.loop.add_signal_handler(signal.SIGUSR1, lambda: self.request_stop(graceful=True))
        self.loop.add_signal_handler(signal.SIGHUP, self._reload)
        self.exchange = ServerExchange(
            self.dispatcher,
            lambda on_notify, on_lost: PostgresStore(dsn, config.name, on_notify, on_lost),
            self.changed,
            self.flush,
            self.admin.serve,
            register=self._register,
            submit_timeout_seconds=config.submit_timeout_seconds,
            require_sync=config.require_sync,
            lease_seconds=config.lease_seconds,
        )
        stopping = self.loop.create_task(self._stop.wait())
        starting = self.loop.create_task(self.exchange.start())
        await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():  # the first attempt to connect takes its time, and nothing has begun
            starting.cancel()
            self.exchange.store.close()
            event(log, logging.INFO, "stopped")
            return 0
        try:
            starting.result()
        except SchemaError as error:
            raise SchemaError(f"{error}; run: postgear init --dsn '{hide_password(dsn)}'") from None
        for each in sockets:
            listener = await self.loop.create_server(lambda: Connection(self), sock=each, backlog=config.backlog)
            self._listeners.append(listener)
        if config.http:
            await self._web.listen(config.http)
        if config.pid_file:
            self._write_pid_file(Path(config.pid_file))
        ready = self.loop.create_task(self._announce(dsn))
        fatal = self.exchange.fatal
        ends: list[asyncio.Future[Any]] = [stopping, fatal]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if fatal.done():
            stopping.cancel()
            event(log, logging.CRITICAL, "stopping on an internal error", exception=fatal.exception())
            await self._stop_all()
            return 1
        await self._drain()
        await self._stop_all()
        event(log, logging.INFO, "stopped")
        return 0

    def _write_pid_file(self, path: Path) -> None:
        # After the listeners: whoever waits for the file may connect.
        try:
            path.write_text(f"{os.getpid()}\n")
        except OSError as error:
            raise ConfigError(f"pid_file {path}: cannot be written: {error.strerror}") from None
        self._pid_file = path

    @property
    def is_stopping(self) -> bool:
        """Whether it was told to stop."""
        return self._stop.is_set()

    def request_stop(self, *, graceful: bool = False) -> None:
        """Stop soon. Graceful: no new connections, but those there go on until no job is left in memory."""
        self._graceful = graceful
        self._stop.set()

    async def _announce(self, dsn: str) -> None:
        await self.exchange.wait_up()
        event(
            log,
            logging.INFO,
            "ready",
            listen=",".join(self._addresses),
            name=self.config.name,
            queue=self.exchange.store.queue_name,
            dsn=hide_password(dsn),
            pid=os.getpid(),
        )

    async def _bind(self) -> list[socket.socket]:
        deadline = self.loop.time() + self.config.bind_wait_seconds
        sockets = []
        for address in self.config.listen:
            host, _, port = address.rpartition(":")
            host = host.strip("[]")
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            while True:
                bound = socket.socket(family, socket.SOCK_STREAM)
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                try:
                    bound.bind((host, int(port)))
                    break
                except OSError as error:
                    bound.close()
                    if self.loop.time() >= deadline:
                        raise ConfigError(
                            f"cannot listen on {address}: {error.strerror}; choose another with --listen HOST:PORT"
                        ) from None
                    await asyncio.sleep(BIND_RETRY_SECONDS)
            bound.setblocking(False)
            self._addresses.append(f"[{host}]:{bound.getsockname()[1]}" if ":" in host else f"{host}:{bound.getsockname()[1]}")
            sockets.append(bound)
        return sockets

    async def _start_embedded(self, data_dir: str) -> str:
        # Only here: most servers have a DSN and do not need these modules.
        from . import schema
        from .embedded import EmbeddedPostgres

        embedded = EmbeddedPostgres(Path(data_dir))
        dsn = await asyncio.to_thread(embedded.start)
        self._embedded = embedded
        await asyncio.to_thread(schema.upgrade, dsn)
        return dsn

    async def _register(self, store: PostgresStore) -> None:
        addresses = ",".join(self._addresses)
        name = self.config.name
        await store.register_server(name, addresses, os.getpid(), __version__, self.config.lease_seconds)
        for address, pid in await store.same_named(name):
            advice = "give each server a --name: the handles of their foreground jobs repeat"
            event(log, logging.WARNING, "another server has this name", name=name, address=address, pid=pid, advice=advice)

    def _reload(self) -> None:
        """Open the log file anew, and take those settings that need no restart."""
        logs.reopen()
        try:
            config = self._read() if self._read is not None else self.config
        except ConfigError as error:
            event(log, logging.ERROR, "configuration not reloaded", reason=error)
            return
        changed = {each.name for each in fields(Config) if getattr(config, each.name) != getattr(self.config, each.name)}
        self.config = replace(self.config, **{name: getattr(config, name) for name in changed & RELOADABLE})
        self.dispatcher.settings = _settings(self.config)
        logs.configure(self.config.log_level, self.config.log_format, self.config.log_file)
        event(log, logging.INFO, "reloaded", changed=",".join(sorted(changed & RELOADABLE)) or "nothing")
        if changed - RELOADABLE:
            event(log, logging.WARNING, "settings that need a restart", changed=",".join(sorted(changed - RELOADABLE)))

    async def _drain(self) -> None:
        """Let acknowledgements out and workers finish, within ``drain_seconds``; a graceful stop waits as long as it takes."""
        for listener in self._listeners:
            listener.close()
        dispatcher = self.dispatcher
        event(log, logging.INFO, "stopping", graceful=self._graceful)
        if self._graceful:
            dispatcher.stop_claims()
            self.changed()
        while self._graceful and (dispatcher.jobs or not self.exchange.is_settled):
            await asyncio.sleep(0.05)  # another signal may end the patience
        dispatcher.drain()
        self.changed()
        for connection in self.connections.values():
            if not connection.peer.jobs:
                connection.stop_reading()  # or it might submit without end
        deadline = self.loop.time() + self.config.drain_seconds
        while self.loop.time() < deadline and (dispatcher.is_running or not self.exchange.is_settled):
            await asyncio.sleep(0.02)

    async def _stop_all(self) -> None:
        self.flush()
        for connection in list(self.connections.values()):
            connection.transport.close()
        self._web.close()
        await self.exchange.stop()

    def clean_up(self) -> None:
        """Remove the pid file and stop the embedded PostgreSQL."""
        if self._pid_file is not None:
            self._pid_file.unlink(missing_ok=True)
        if self._embedded is not None:
            self._embedded.stop()

    # -- traffic -------------------------------------------------------------------------------------------------

    def changed(self) -> None:
        """See to it that what the Dispatcher put out goes its way, once in this turn of the loop."""
        if not self._flush_due:
            self._flush_due = True
            self.loop.call_soon(self.flush)

    def flush(self) -> None:
        """Send what the Dispatcher put out, to connections and to the store."""
        self._flush_due = False
        dispatcher = self.dispatcher
        self.exchange.kick()
        if dispatcher.dirty:
            dirty, dispatcher.dirty = dispatcher.dirty, []
            connections = self.connections
            for peer in dirty:
                peer.dirty = False
                connection = connections.get(peer)
                if connection is not None:
                    connection.write(peer)
        if dispatcher.late and not self._is_late_due:
            self._is_late_due = True
            self.loop.call_later(LATE_SECONDS, self._flush_late)
        if self._paused:
            for connection in list(self._paused):
                if self.may_read(connection.peer, share=0.5):
                    self._paused.discard(connection)
                    connection.resume()

    def _flush_late(self) -> None:
        """Send what nothing came after."""
        self._is_late_due = False
        dispatcher = self.dispatcher
        late, dispatcher.late = dispatcher.late, []
        for peer in late:
            peer.is_late = False
            if peer.out and not peer.dirty and not peer.closed:
                peer.is_waiting_client = False  # its jobs take longer: what was late helped nobody
                self.connections[peer].write(peer)

    def may_read(self, peer: Peer, share: float = 1.0) -> bool:
        """Whether more of a connection may be read: not while much of it waits for the database."""
        if peer.pending >= PENDING_MAX_JOBS * share or peer.held:
            return False
        if peer.pending:
            return sum(batch.size_bytes for batch in self.dispatcher.submits) < QUEUED_MAX_BYTES
        return True

    def pause(self, connection: Connection) -> None:
        """Read no more of a connection until ``may_read`` says so."""
        self._paused.add(connection)

    def forget(self, connection: Connection) -> None:
        """Learn that a connection has ended."""
        self.connections.pop(connection.peer, None)
        self._paused.discard(connection)

    async def drained(self, peer: Peer) -> None:
        """Send what is out and wait until a slow reader took most of it."""
        self.changed()
        await asyncio.sleep(0)
        connection = self.connections.get(peer)
        if connection is not None:
            await connection.writable.wait()


class Connection(asyncio.Protocol):
    """One accepted connection."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.reader = PacketReader(REQUEST_MAGIC, server.config.max_packet_bytes)
        self.transport: asyncio.Transport
        self.peer: Peer
        self.writable = asyncio.Event()
        self.writable.set()
        self._reading = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Part of asyncio.Protocol."""
        self.transport = transport = cast(asyncio.Transport, transport)  # uvloop's are not subclasses
        config = self.server.config
        connected = transport.get_extra_info("socket")
        peer_name = transport.get_extra_info("peername")  # None: it was reset before it was accepted
        host = peer_name[0] if peer_name else "-"
        if config.keepalive:
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in (
                (socket.TCP_KEEPIDLE, config.keepalive_idle_seconds),
                (socket.TCP_KEEPINTVL, config.keepalive_interval_seconds),
                (socket.TCP_KEEPCNT, config.keepalive_count),
            ):
                if value:
                    connected.setsockopt(socket.IPPROTO_TCP, option, value)
        is_local = peer_name is not None and ipaddress.ip_address(host.partition("%")[0]).is_loopback
        self.peer = Peer(connected.fileno(), host, is_local=is_local)
        self.server.connections[self.peer] = self
        self.server.dispatcher.connected(self.peer)

    def data_received(self, data: bytes) -> None:
        """Part of asyncio.Protocol."""
        server = self.server
        messages = self.reader.feed(data)
        if not messages:
            return
        server.dispatcher.now = server.loop.time()
        server.dispatcher.receive(self.peer, messages)
        if (self.peer.pending or self.peer.held) and not server.may_read(self.peer):
            self.stop_reading()
            server.pause(self)
        server.flush()

    def connection_lost(self, error: Exception | None) -> None:
        """Part of asyncio.Protocol."""
        self.writable.set()
        self.server.forget(self)
        self.server.dispatcher.closed(self.peer)
        self.server.changed()

    def pause_writing(self) -> None:
        """The peer reads slowly: do not read from it either. Part of asyncio.Protocol."""
        self.writable.clear()
        self.stop_reading()

    def resume_writing(self) -> None:
        """Part of asyncio.Protocol."""
        self.writable.set()
        self.server.pause(self)
        self.server.changed()

    def resume(self) -> None:
        """Read on."""
        if self.writable.is_set() and not self._reading and not self.transport.is_closing():
            self._reading = True
            self.transport.resume_reading()

    def stop_reading(self) -> None:
        """Read no more until ``resume``."""
        if self._reading and not self.transport.is_closing():
            self._reading = False
            self.transport.pause_reading()

    def write(self, peer: Peer) -> None:
        """Send what the Dispatcher has for this connection; drop the connection when it does not read."""
        out, peer.out = peer.out, []
        transport = self.transport
        if transport.is_closing():
            return
        unsent = transport.get_write_buffer_size()  # before this write: a single packet may be of any size
        transport.write(out[0] if len(out) == 1 else b"".join(out))
        if unsent > self.server.config.output_buffer_bytes:
            event(log, logging.WARNING, "slow reader dropped", address=peer.address, fd=peer.fd, unsent_bytes=unsent)
            transport.abort()
        elif peer.closing:
            transport.close()


def _settings(config: Config) -> Settings:
    return Settings(
        server_name=config.name,
        handle_prefix=config.handle_prefix,
        round_robin=config.round_robin,
        worker_wakeup=config.worker_wakeup,
        job_retries=config.job_retries,
        exceptions=config.exceptions,
    )


def _limit_files(count: int) -> None:
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, max(count, hard)))
    except (ValueError, OSError) as error:
        raise ConfigError(f"file_descriptors: cannot raise the limit to {count}: {error}") from None


def _become(user: str) -> None:
    try:
        entry = pwd.getpwnam(user)
        if os.getuid() == entry.pw_uid:
            return
        os.setgroups([])
        os.setgid(entry.pw_gid)
        os.setuid(entry.pw_uid)
    except KeyError:
        raise ConfigError(f"user: there is no user {user!r}") from None
    except OSError as error:
        raise ConfigError(f"user: cannot become {user!r}: {error.strerror}; only root can") from None
