"""Make the replica of a primary by pg_basebackup, with a slot of its own. Blocking."""

from __future__ import annotations

import logging
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Final

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from postgear.config import hide_password
from postgear.errors import StandbyError
from postgear.logs import event
from postgear.standby import primary, state
from postgear.standby.primary import Identity
from postgear.standby.replica import Replica
from postgear.standby.state import Role, State

log = logging.getLogger("postgear.standby")

_SLOT_FREE_SECONDS: Final = 70
"""The primary notices within wal_sender_timeout (60 s) that who used the slot is gone."""


def with_password(dsn: str) -> tuple[str, dict[str, str]]:
    """Return *dsn* without its password, and the environment that holds it: command lines are read by everybody."""
    parameters = conninfo_to_dict(dsn)
    password = parameters.pop("password", None)
    return make_conninfo("", **parameters), {} if password is None else {"PGPASSWORD": str(password)}


def set_up(replica: Replica, dsn: str, name: str) -> State:
    """Make the replica in its empty folder and return its first state, which is saved. Interrupted, it begins anew."""
    if replica.cluster.exists():
        raise StandbyError(
            f"{replica.cluster} is there, but {state.FILE} is not: that is no replica made by `postgear standby`; "
            "run `postgear rejoin` to make it one of this primary, or name another folder"
        )
    with primary.connected(dsn) as connection:
        made = first_state(replica, primary.identify(connection), name)
    with replica.errors():
        replica.postmaster.make_data_dir()
    state.save(replica.data_dir, replace(made, role=Role.UNFINISHED))
    base_backup(replica, dsn, name)
    state.save(replica.data_dir, made)
    return made


def first_state(replica: Replica, identity: Identity, name: str) -> State:
    """Return the state of a replica of the primary *identity*, with nothing confirmed."""
    return State(
        role=Role.REPLICA,
        name=name,
        system_identifier=identity.system_identifier,
        superuser=identity.superuser,
        database=identity.database,
        timeline=identity.timeline,
        port=replica.port,
    )


def check_primary(identity: Identity, dsn: str) -> None:
    """Raise StandbyError unless *identity* is a primary."""
    if identity.is_in_recovery:
        raise StandbyError(f"{hide_password(dsn)} is a standby itself; --primary must name the primary")


def base_backup(replica: Replica, dsn: str, name: str) -> None:
    """Copy the primary into the cluster's place; what is there goes aside as ``postgres.replaced`` once the copy is complete."""
    started = time.monotonic()
    unfinished = replica.data_dir / "postgres.unfinished"
    with replica.errors():
        replica.postmaster.make_data_dir()
        if unfinished.exists():
            shutil.rmtree(unfinished)
    with primary.connected(dsn) as connection:
        identity = primary.identify(connection)
        check_primary(identity, dsn)
        primary.create_slot(connection, name)
        hba_rules = primary.hba_rules(connection)
        settings = primary.settings_file(connection)
        deadline = time.monotonic() + _SLOT_FREE_SECONDS
        while primary.is_slot_active(connection, name):
            if time.monotonic() > deadline:
                raise StandbyError(f"another standby uses the primary's slot {name}: name this one with --standby-name")
            time.sleep(0.2)
    event(log, logging.INFO, "base backup begun", primary=hide_password(dsn), slot=name, folder=replica.cluster)
    with replica.errors():
        unfinished.mkdir(mode=0o700)
        replica.postmaster.own(unfinished)
        programs = replica.postmaster.find(str(identity.major_version), "pg_basebackup")
        plain, password = with_password(make_conninfo(dsn, application_name=f"{name} base backup"))
        command = [str(programs / "pg_basebackup"), "-D", str(unfinished), "-d", plain, "-X", "stream", "-S", name]
        # Its application_name is another: it must not be taken for the synchronous standby.
        replica.postmaster.run([*command, "--checkpoint=fast", "--no-password"], password)
        if not (unfinished / "postgresql.conf").exists():
            replica.write(unfinished / "postgresql.conf", settings)
        replica.write_hba(hba_rules)
        replica.configure(dsn, first_state(replica, identity, name), unfinished)
        _replace(replica, unfinished)
    event(log, logging.INFO, "base backup complete", took_seconds=round(time.monotonic() - started, 1))


def _replace(replica: Replica, made: Path) -> None:
    place = replica.cluster
    if place.is_symlink():
        place.unlink()
    elif place.exists():
        replaced = place.with_name("postgres.replaced")
        if replaced.exists():
            shutil.rmtree(replaced)
        place.rename(replaced)
        event(log, logging.WARNING, "old cluster set aside", folder=replaced, advice="delete it when nobody misses anything")
    made.rename(place)
    state.sync_folder(replica.data_dir)
