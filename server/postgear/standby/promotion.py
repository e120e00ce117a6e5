"""The steps of a promotion, by itself and by hand. Blocking; each step may be repeated after a crash.

1. Remember that it is promoted, before anything is done: whoever comes after a crash goes on.
2. Wait for no standby: the settings came from the old primary and name this one.
3. Promote: PostgreSQL replays what it has received, ends recovery and begins a timeline of its own.
4. Forget the old primary's address; remember the timeline.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Final

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from postgear.errors import StandbyError
from postgear.logs import event
from postgear.standby import primary, state
from postgear.standby.replica import Replica
from postgear.standby.state import Role, State
from postgear.standby.synchrony import parse_names

log = logging.getLogger("postgear.standby")

_PROMOTE_SECONDS: Final = 60


def promote(replica: Replica, known: State, why: str) -> State:
    """Promote the replica, which runs, and return the state it has then. Raises StandbyError; then call it again."""
    started = time.monotonic()
    if known.role is not Role.PROMOTING:
        known = state.change(replica.data_dir, lambda known: _promoting(known, why))
        if known.role is Role.PROMOTED:
            return known  # by another process meanwhile
    with replica.connect(known) as connection:
        connection.execute("alter system set synchronous_standby_names = ''")
        connection.execute("select pg_reload_conf()")
        row = connection.execute("select pg_is_in_recovery()").fetchone()
        if row and row[0]:
            row = connection.execute("select pg_promote(true, %s)", (_PROMOTE_SECONDS,)).fetchone()
            if not (row and row[0]):
                raise StandbyError(
                    f"the replica in {replica.data_dir} was not promoted within {_PROMOTE_SECONDS} s; {replica.log_end()}"
                )
        connection.execute("alter system reset primary_conninfo")
        connection.execute("alter system reset primary_slot_name")
        connection.execute("select pg_reload_conf()")
        timeline = primary.identify(connection).timeline
    known = state.change(replica.data_dir, lambda known: replace(known, role=Role.PROMOTED, timeline=timeline))
    event(
        log,
        logging.WARNING,
        "promoted",
        why=known.why,
        timeline=timeline,
        took_seconds=round(time.monotonic() - started, 2),
        advice="it is alone until another standby joins: run `postgear rejoin` on the old primary",
    )
    return known


def _promoting(known: State, why: str) -> State:
    return known if known.role is Role.PROMOTED else replace(known, role=Role.PROMOTING, why=why)


def promote_by_hand(data_dir: Path, *, force: bool) -> list[str]:
    """Promote the replica of *data_dir* if nothing can be lost, or in any case with *force*; returns what there is to say.

    Raises StandbyError with what may be lost. A `postgear standby` that runs there begins to serve then.
    """
    known = state.load(data_dir)
    if known is None:
        raise StandbyError(f"{data_dir} holds no standby: there is no {state.FILE}")
    if known.role is Role.UNFINISHED:
        raise StandbyError(f"the standby in {data_dir} was not made to the end: there is nothing to promote")
    replica = Replica(data_dir, f"*:{known.port}")
    if known.role is Role.PROMOTED:
        return [f"it is promoted already, on timeline {known.timeline}, because: {known.why}"]
    replica.start()
    doubts = [doubt for doubt in (_primary_lives(replica, known), _not_synchronous(known)) if doubt]
    if doubts and not force:
        raise StandbyError("; ".join(doubts) + "; nothing was done, --force promotes all the same")
    notes = [f"forced: {doubt}" for doubt in doubts]
    if not doubts:
        age = time.time() - known.confirmed_time
        notes.append(
            f"its primary's commits waited for this replica when last heard, {age:.0f} s ago; unless somebody took it out of "
            "synchronous_standby_names after that, every acknowledged job is here"
        )
    promoted = promote(replica, known, "by hand, forced" if force else "by hand")
    return [*notes, f"promoted, timeline {promoted.timeline}; `postgear standby` serves on it"]


def _not_synchronous(known: State) -> str:
    if known.is_confirmed:
        return ""
    if not known.confirmed_time:
        return "this replica has never been the one that every commit waited for: what it had not received is lost"
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(known.confirmed_time))
    return f"the primary's commits have not waited for this replica since {when} UTC: what it had not received is lost"


def detach(data_dir: Path) -> str:
    """Take the standby of *data_dir* out of the primary's commits; returns what there is to say.

    In this order: it is remembered here that commits no longer wait, and only then they no longer do. Raises StandbyError; where
    only the second failed it says that the first was done.
    """
    known = state.load(data_dir)
    if known is None or known.role is not Role.REPLICA:
        raise StandbyError(f"{data_dir} holds no standby that follows a primary")
    replica = Replica(data_dir, f"*:{known.port}")
    with replica.errors():
        (data_dir / state.DETACHED).touch()
        state.sync_folder(data_dir)
    try:
        return _set_free(replica, known)
    except StandbyError as error:
        raise StandbyError(
            f"half done: this standby is detached and does not take over any more, but the primary may still wait for it: "
            f"{error}. Run `postgear detach` again, or on the primary: alter system set synchronous_standby_names = '', "
            "select pg_reload_conf(). To undo it start `postgear standby` anew"
        ) from error


def _set_free(replica: Replica, known: State) -> str:
    """Let the primary's commits go without this standby; returns what there is to say."""
    with primary.connected(_primary_dsn(replica, known)) as connection:
        row = connection.execute("select current_setting('synchronous_standby_names')").fetchone()
        if row is None or not row[0].strip():
            return "detached; the primary waited for no standby"
        if not parse_names(row[0]).always_need(known.name):
            return f"detached; the primary's synchronous_standby_names = {row[0]!r} does not depend on it and stays"
        primary.set_names(connection, "")
    return "detached; the primary commits without a standby from here on"


def _primary_dsn(replica: Replica, known: State) -> str:
    """Return where the replica's primary is, for questions."""
    with replica.connect(known) as connection:
        row = connection.execute("select current_setting('primary_conninfo')").fetchone()
    conninfo = str(row[0]) if row else ""
    return make_conninfo(conninfo, dbname=known.database, application_name=f"{known.name} by hand") if conninfo else ""


def _primary_lives(replica: Replica, known: State) -> str:
    dsn = _primary_dsn(replica, known)
    if not dsn:
        return ""
    try:
        with primary.connected(dsn) as connection:
            if primary.identify(connection).is_in_recovery:
                return ""
    except StandbyError:
        return ""
    return f"the primary still runs, at {conninfo_to_dict(dsn).get('host')}: stop it first, or its clients stay there"
