"""The process of ``postgear standby``: keeps the replica, listens for the primary, promotes when ``decision`` says so, serves.

Everything that blocks for long runs in a thread; the set-up runs before the loop, so that a signal can end it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any, Final, NoReturn

from postgear.config import hide_password
from postgear.errors import ConfigError, StandbyError
from postgear.logs import event
from postgear.standby import primary, promotion, setup, state
from postgear.standby.checkpoints import Checkpoints
from postgear.standby.decision import Facts, Hearing, Rules, Verdict, decide, prospect
from postgear.standby.pages import Report, pages
from postgear.standby.paths import PrimaryPath, ReplicaPath, WitnessPath
from postgear.standby.replica import Replica
from postgear.standby.serving import Serving, taken_address
from postgear.standby.state import Role, State, boot_id, boot_seconds
from postgear.standby.synchrony import Sighting, Synchrony
from postgear.web import Web

log = logging.getLogger("postgear.standby")

TICK_SECONDS: Final = 0.1
REMIND_SECONDS: Final = 30.0
"""How often the log repeats why nothing is done."""
RECORD_SECONDS: Final = 5.0
"""How old the time of the confirmation in the state file may be; it is less trusted for it, never more."""
CAUGHT_UP_BYTES: Final = 16 * 1024 * 1024
"""With so little missing the standby is made synchronous: the commits under way wait for no more than that."""
NOT_STREAMING_SECONDS: Final = 10.0
RESTART_SECONDS: Final = 2.0
STOP_SECONDS: Final = 0.5
"""How long the paths may take to end; then they are only sleeping or connecting, and are cancelled."""

_LEVELS: Final = {
    Verdict.HEARD: logging.INFO,
    Verdict.SILENT: logging.INFO,
    Verdict.PROMOTE: logging.WARNING,
    Verdict.ALREADY_PROMOTED: logging.WARNING,
}
"""How loud a verdict is; the others are ERROR: the primary is lost and nothing is done."""


@dataclass(frozen=True)
class Options:
    """What `postgear standby` was told."""

    primary: str
    """The DSN of the primary and the queue's database, as superuser."""
    data_dir: Path
    postgres_listen: str
    listen: tuple[str, ...]
    http: str | None
    """Where /live, /ready and /metrics of this process are; None: nowhere."""
    name: str
    is_synchronous: bool
    rules: Rules
    witnesses: tuple[tuple[str, int], ...]
    serve_config: str | None


class _Stopped(BaseException):
    """A signal came before the loop."""


def run(options: Options, prepare: Callable[[Replica], State] | None = None) -> int:
    """Run until SIGTERM; returns the exit code. Raises StandbyError when it cannot start.

    prepare: makes the replica where that is more than the set-up of an empty folder.
    """
    replica = Replica(options.data_dir, options.postgres_listen)
    replica.lock()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _raise_stopped)
    try:
        known = prepare(replica) if prepare is not None else _prepare(options, replica)
        replica.start()
    except _Stopped:
        if replica.cluster.exists():
            replica.stop()
        event(log, logging.INFO, "stopped before it was ready")
        return 0
    return asyncio.run(Standby(options, replica, known).run())


def _raise_stopped(_number: int, _frame: FrameType | None) -> NoReturn:
    raise _Stopped


def _prepare(options: Options, replica: Replica) -> State:
    known = state.load(options.data_dir)
    if known is None or (known.role is Role.UNFINISHED and not replica.cluster.exists()):
        return setup.set_up(replica, options.primary, options.name)
    if known.role is Role.UNFINISHED:
        raise StandbyError(f"the standby in {options.data_dir} was not made to the end; run `postgear rejoin`")
    if known.name != options.name:
        raise StandbyError(f"{options.data_dir} holds the standby {known.name}, not {options.name}: correct --standby-name")
    if not replica.cluster.exists():
        raise StandbyError(f"{options.data_dir} has lost its cluster {replica.cluster}; run `postgear rejoin`")
    if known.port != replica.port:
        known = state.change(options.data_dir, lambda known: replace(known, port=replica.port))
    detached = options.data_dir / state.DETACHED
    if detached.exists():
        known = state.change(options.data_dir, State.unconfirmed)
        detached.unlink()
    if known.role is Role.PROMOTED:
        _check_no_newer(options, known)
        if not replica.is_running():
            replica.never_follow()
    elif known.role is Role.REPLICA and not replica.is_running() and replica.is_standby():
        replica.configure(options.primary, known)
    return known


def _check_no_newer(options: Options, known: State) -> None:
    """Refuse to run a primary that another one has taken over from."""
    try:
        with primary.connected(options.primary) as connection:
            identity = primary.identify(connection)
    except StandbyError:
        return
    if identity.is_in_recovery or identity.system_identifier != known.system_identifier:
        return
    shown = hide_password(options.primary)
    if identity.timeline > known.timeline:
        raise StandbyError(
            f"{shown} is a primary of timeline {identity.timeline}, newer than {known.timeline} in {options.data_dir}: "
            "it took over from this one; run `postgear rejoin`"
        )
    event(log, logging.WARNING, "the old primary runs", primary=shown, advice="stop it and run `postgear rejoin` there")


class Standby:
    """The loop, from a replica or a primary that runs."""

    def __init__(self, options: Options, replica: Replica, known: State) -> None:
        self._options = options
        self._replica = replica
        self._state = known
        self._dsn = replica.dsn(known)
        now = boot_seconds()
        self._hearing = Hearing(now)
        self._synchrony = Synchrony(known.name)
        if known.is_confirmed:
            is_this_boot = known.boot == boot_id()
            self._synchrony.remembered(known.confirmed_at if is_this_boot else float("-inf"), known.replayed_lsn)
        self._primary = PrimaryPath(options.primary, known.name, self._hearing.heard, self._saw)
        self._checkpoints = Checkpoints(
            options.primary, known.name, lambda: self._synchrony.awaited, lambda loaded: self._synchrony.in_force(loaded)
        )
        self._here = ReplicaPath(self._dsn, known.name, self._hearing.heard)
        self._witnesses = tuple(WitnessPath(*address) for address in options.witnesses)
        listen = [word for address in options.listen for word in ("--listen", address)]
        config = ["--config", options.serve_config] if options.serve_config else []
        self._serving = Serving(options.data_dir, ["--dsn", self._dsn, *listen, *config])
        self._sighting: Sighting | None = None
        self._recorded_at = now
        self._unwritten = False
        self._streaming_at = now
        self._told: Verdict | str | None = None
        self._remind_at = 0.0
        self._demand_at = 0.0
        self._is_promoting = False
        self._stop = asyncio.Event()
        self._web = Web(pages(self._report))

    async def run(self) -> int:
        """Watch, promote, serve; until a signal."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        if self._options.http is not None:
            try:
                await self._web.listen(self._options.http)
            except ConfigError as error:  # to have a standby is worth more than to look at it
                event(log, logging.ERROR, "no pages", reason=error)
        event(
            log,
            logging.INFO,
            "standby ready",
            role=self._state.role.value,
            name=self._state.name,
            primary=hide_password(self._options.primary),
            auto_promote=self._options.rules.auto_promote,
            data_dir=self._options.data_dir,
        )
        if self._state.role is Role.REPLICA and (taken := taken_address(self._options.listen)):
            event(log, logging.WARNING, "the server's address is taken: it could not serve after a promotion", listen=taken)
        runs = [self._primary.run(), self._checkpoints.run(), self._here.run(), *(witness.run() for witness in self._witnesses)]
        tasks = [loop.create_task(each) for each in runs]
        try:
            if self._state.role is Role.REPLICA:
                await self._watch(tasks)
        finally:
            ending = loop.create_task(self._end_paths(tasks))  # nobody waits for it while the service is away
        if not self._stop.is_set():
            await self._serve()
        await ending
        await asyncio.to_thread(self._serving.stop)
        await asyncio.to_thread(self._replica.stop)
        self._web.close()
        if self._state.role is Role.REPLICA and self._synchrony.is_confirmed:
            told = "stopped: the primary acknowledges nothing until this standby is back (postgear detach lets it go on alone)"
            event(log, logging.WARNING, told)
        else:
            event(log, logging.INFO, "stopped")
        return 0

    async def _end_paths(self, tasks: list[asyncio.Task[None]]) -> None:
        paths = (self._primary, self._checkpoints, self._here)
        for path in paths:
            path.stop()
        await asyncio.wait(tasks, timeout=STOP_SECONDS)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for path in paths:
            await path.close()

    def _report(self) -> Report:
        now = boot_seconds()
        facts, rules = self._facts(now), self._options.rules
        seen, replayed = self._sighting, self._here.replayed_lsn
        is_promoting = self._is_promoting and self._state.role is Role.REPLICA  # the state is known again when it is done
        return Report(
            name=self._state.name,
            role=Role.PROMOTING if is_promoting else self._state.role,
            is_stopping=self._stop.is_set(),
            is_serving=self._serving.is_running,
            is_auto_promote=rules.auto_promote,
            facts=facts,
            verdict=decide(facts, rules),
            prospect=prospect(facts, rules, tuple(witness.testimony(float("-inf")) for witness in self._witnesses)),
            confirmed_since=self._synchrony.confirmed_since,
            is_streaming=self._here.is_streaming,
            lag_bytes=None if seen is None or seen.is_in_recovery else max(seen.insert_lsn - replayed, 0),
        )

    # -- as a replica --------------------------------------------------------------------------------------------

    async def _watch(self, tasks: list[asyncio.Task[None]]) -> None:
        """Listen until it is time to promote, or a signal comes."""
        await self._here.ask()
        while not self._stop.is_set():
            for task in tasks:
                if task.done():
                    task.result()  # a fault of ours: say so and end
            now = boot_seconds()
            self._hearing.tick(now)
            self._record(now)
            verdict = decide(self._facts(now), self._options.rules)
            self._tell(verdict, now)
            if verdict in (Verdict.PROMOTE, Verdict.ALREADY_PROMOTED):
                return
            if not self._here.is_up:
                await self._restart()
            self._tell_of_streaming(now)
            if self._options.is_synchronous and now >= self._demand_at:
                await self._demand(now)
            await self._pause()

    def _facts(self, now: float) -> Facts:
        return Facts(
            now=now,
            heard_at=self._hearing.heard_at,
            is_demoted=self._primary.is_demoted,
            is_replica_up=self._here.is_up,
            is_in_recovery=self._here.is_in_recovery,
            is_detached=self._is_detached(),
            is_confirmed=self._synchrony.is_confirmed,
            confirmed_at=self._synchrony.confirmed_at,
            confirmed_lsn=self._synchrony.replayed_lsn,
            replayed_lsn=self._here.replayed_lsn,
            witnesses=tuple(witness.testimony(self._since()) for witness in self._witnesses),
        )

    def _since(self) -> float:
        """Return from when on witnesses count: they must have been asked well into the silence."""
        return self._hearing.heard_at + self._options.rules.loss_seconds / 2

    def _is_detached(self) -> bool:
        return (self._options.data_dir / state.DETACHED).exists()

    def _saw(self, sighting: Sighting, now: float) -> None:
        if sighting.system_identifier != self._state.system_identifier:
            self._remind("another database answers in the primary's place", now, found=sighting.system_identifier)
            return
        self._sighting = sighting
        if self._is_detached():
            self._synchrony = Synchrony(self._state.name)
        else:
            self._synchrony.saw(sighting, now)

    def _record(self, now: float) -> None:
        """Keep what is known of the primary's commits where a crash leaves it."""
        is_confirmed, confirmed_at = self._synchrony.is_confirmed, self._synchrony.confirmed_at
        is_old = now - self._recorded_at >= RECORD_SECONDS
        is_newer = is_confirmed and confirmed_at > self._state.confirmed_at
        if is_confirmed == self._state.is_confirmed and not (is_old and (is_newer or self._unwritten)):
            return
        if is_confirmed != self._state.is_confirmed:
            if is_confirmed:
                event(log, logging.INFO, "synchronous: the primary's commits wait for this replica", name=self._state.name)
            else:
                event(log, logging.WARNING, "not synchronous: the primary may commit without this replica", name=self._state.name)

        def recorded(known: State) -> State:
            return known.confirmed(confirmed_at, self._synchrony.replayed_lsn) if is_confirmed else known.unconfirmed()

        self._state = recorded(self._state)  # what is true here and now, whether or not it can be written
        self._recorded_at = now
        try:
            # A `postgear promote` may be under way: what it has written of the role stays.
            state.change(self._options.data_dir, lambda known: recorded(known) if known.role is Role.REPLICA else known)
        except StandbyError as error:
            self._remind("not remembered", now, reason=error)
            self._unwritten = True
        else:
            self._unwritten = False

    def _tell(self, verdict: Verdict, now: float) -> None:
        if verdict is Verdict.HEARD and self._told in (None, Verdict.HEARD, Verdict.SILENT):
            self._told = verdict  # a moment's silence is no news
            return
        if verdict is self._told and (verdict is Verdict.HEARD or now < self._remind_at):
            return
        fields: dict[str, Any] = {"silent_seconds": round(now - self._hearing.heard_at, 1)}
        if self._primary.reason:
            fields["reason"] = self._primary.reason
        if self._witnesses:
            said = (f"{each.address} {each.testimony(self._since()).value}" for each in self._witnesses)
            fields["witnesses"] = ", ".join(said)
        level = _LEVELS.get(verdict, logging.ERROR)
        if level == logging.ERROR:
            fields["advice"] = f"look after the primary, or run: postgear promote --data-dir {self._options.data_dir}"
        event(log, logging.DEBUG if verdict is Verdict.SILENT else level, verdict.value, **fields)
        self._told = verdict
        self._remind_at = now + REMIND_SECONDS

    def _remind(self, name: str, now: float, **fields: Any) -> None:
        """Log a fault when it is another than the last, and now and then."""
        if self._told != name or now >= self._remind_at:
            event(log, logging.ERROR, name, **fields)
            self._told = name
            self._remind_at = now + REMIND_SECONDS

    def _tell_of_streaming(self, now: float) -> None:
        if self._here.is_streaming or self._primary.reason:
            self._streaming_at = now
        elif now - self._streaming_at > NOT_STREAMING_SECONDS:
            self._streaming_at = now + REMIND_SECONDS
            advice = "if the primary no longer has the WAL that is missing here, run `postgear rejoin --base-backup`"
            event(log, logging.ERROR, "replica does not stream", reason=self._replica.log_end(), advice=advice)

    async def _demand(self, now: float) -> None:
        """Let the primary's commits wait for us, once that makes none wait for long."""
        seen = self._sighting
        if seen is None or seen.demands(self._state.name) or self._primary.reason or self._is_detached():
            return
        if seen.state != "streaming" or seen.insert_lsn - seen.flush_lsn > CAUGHT_UP_BYTES:
            return
        self._demand_at = now + REMIND_SECONDS
        try:
            await asyncio.wait_for(asyncio.to_thread(self._demand_there), 5)
        except StandbyError as error:
            event(log, logging.ERROR, "not made synchronous", reason=error)
        except TimeoutError:
            event(log, logging.ERROR, "not made synchronous", reason="the primary does not answer")

    def _demand_there(self) -> None:
        with primary.connected(self._options.primary) as connection:
            if primary.demand(connection, self._state.name):
                event(log, logging.INFO, "made synchronous", synchronous_standby_names=self._state.name)

    # -- on the way ----------------------------------------------------------------------------------------------

    async def _restart(self) -> None:
        """Start the PostgreSQL here if it does not run."""
        try:
            if not await asyncio.to_thread(self._replica.is_running):
                event(log, logging.ERROR, "the PostgreSQL here has ended, starting it again", reason=self._replica.log_end())
                await asyncio.to_thread(self._replica.start)
            await self._here.ask()
        except StandbyError as error:
            event(log, logging.ERROR, "the PostgreSQL here does not start", reason=error)
            await self._pause(RESTART_SECONDS)

    async def _serve(self) -> None:
        """Promote, unless that is done, and keep PostgreSQL and the server going until a signal."""
        while not self._stop.is_set():
            try:
                if self._state.role is not Role.PROMOTED:
                    self._is_promoting = True
                    self._state = await asyncio.to_thread(self._promote)
                if not await asyncio.to_thread(self._replica.is_running):
                    event(log, logging.ERROR, "the PostgreSQL here has ended, starting it again", reason=self._replica.log_end())
                    await asyncio.to_thread(_check_no_newer, self._options, self._state)
                    await asyncio.to_thread(self._replica.start)
                self._serving.keep(boot_seconds())
            except StandbyError as error:
                event(log, logging.ERROR, "not serving", reason=error)
                await self._pause(RESTART_SECONDS)
            await self._pause()

    def _promote(self) -> State:
        known = state.load(self._options.data_dir) or self._state
        if known.role is Role.PROMOTED:
            return known  # by `postgear promote`
        why = "by other means" if self._told is Verdict.ALREADY_PROMOTED else "the primary was lost"
        return promotion.promote(self._replica, known, why)

    async def _pause(self, seconds: float = TICK_SECONDS) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), seconds)
