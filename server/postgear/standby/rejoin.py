"""Make an old primary the standby of the one that took over: by pg_rewind, or by a fresh base backup. Blocking.

What the old primary wrote after the two parted is given up; nobody was told that it was kept, if this was a synchronous pair.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from postgear.config import hide_password
from postgear.errors import EmbeddedError, StandbyError
from postgear.logs import event
from postgear.standby import primary, setup, state
from postgear.standby.primary import Identity
from postgear.standby.replica import Replica
from postgear.standby.state import Role, State

log = logging.getLogger("postgear.standby")


def rejoin(replica: Replica, dsn: str, name: str, *, fresh: bool = False, cluster: Path | None = None) -> State:
    """Make the cluster of *replica* a standby of the primary *dsn*; stops it if it runs. Returns its state, which is saved.

    fresh: by a base backup in any case. cluster: the folder of an old primary that postgear did not make, to be used from now on.
    Raises StandbyError, having changed nothing, if *dsn* is not a primary that the cluster can follow.
    """
    if cluster is not None:
        _adopt(replica, cluster)
    with primary.connected(dsn) as connection:
        identity = primary.identify(connection)
        setup.check_primary(identity, dsn)
        settings = primary.settings_file(connection)
        hba_rules = primary.hba_rules(connection)
        if replica.cluster.exists():
            _check(replica, identity, dsn)
            # At once: a fast stop would wait for the standby that is no more, and what it has not got is given up anyway.
            replica.stop("immediate")
        made = setup.first_state(replica, identity, name)
        state.save(replica.data_dir, replace(made, role=Role.UNFINISHED))
        (replica.data_dir / state.DETACHED).unlink(missing_ok=True)
        why_fresh = "asked for" if fresh else _why_no_rewind(replica)
        if not why_fresh:
            connection.execute("checkpoint")  # pg_rewind reads the source's timeline from its last one
            primary.create_slot(connection, name)
            _write_settings(replica, settings)  # where it was not made by us they may be elsewhere, and pg_rewind starts it
            why_fresh = _rewind(replica, dsn)
    if why_fresh:
        event(log, logging.WARNING, "rejoining by a base backup", why=why_fresh)
        setup.base_backup(replica, dsn, name)
    else:
        _write_settings(replica, settings)
        replica.write_hba(hba_rules)
        replica.configure(dsn, made)
    state.save(replica.data_dir, made)
    event(
        log,
        logging.INFO,
        "rejoined",
        primary=hide_password(dsn),
        timeline=identity.timeline,
        how="base backup" if why_fresh else "rewind",
    )
    return made


def _adopt(replica: Replica, cluster: Path) -> None:
    if not (cluster / "PG_VERSION").exists():
        raise StandbyError(f"{cluster} is no folder of a PostgreSQL cluster")
    with replica.errors():
        replica.postmaster.make_data_dir()
        if replica.cluster.is_symlink() and replica.cluster.resolve() == cluster.resolve():
            return
        if replica.cluster.exists():
            raise StandbyError(f"{replica.data_dir} has a cluster of its own: leave out --cluster, or name another folder")
        replica.cluster.symlink_to(cluster.resolve())


def _check(replica: Replica, identity: Identity, dsn: str) -> None:
    before = state.load(replica.data_dir)
    if before is not None and before.role is Role.UNFINISHED:
        return  # an earlier try was interrupted: its files may be of both
    control = replica.control()
    found = control.get("Database system identifier")
    if found != identity.system_identifier:
        raise StandbyError(
            f"{replica.cluster} is another database system ({found}) than {hide_password(dsn)} ({identity.system_identifier}): "
            "name an empty folder"
        )
    timeline = int(control.get("Latest checkpoint's TimeLineID", "0"))
    was_primary = not replica.is_standby()
    if timeline > identity.timeline or (was_primary and timeline == identity.timeline):
        raise StandbyError(
            f"{hide_password(dsn)} is on timeline {identity.timeline}, {replica.cluster} on {timeline}: it did not take over "
            "from this one, so nothing was done; promote it first, or is --primary the wrong one?"
        )


def _why_no_rewind(replica: Replica) -> str:
    if not replica.cluster.exists():
        return "there is no cluster in the folder"
    control = replica.control()
    if control.get("wal_log_hints setting") != "on" and control.get("Data page checksum version", "0") == "0":
        return "pg_rewind needs wal_log_hints or data checksums, and it had neither"
    return ""


def _write_settings(replica: Replica, settings: str) -> None:
    path = replica.cluster / "postgresql.conf"
    with replica.errors():
        if not path.exists():
            replica.write(path, settings)


def _rewind(replica: Replica, dsn: str) -> str:
    """Take the cluster back to where the two parted; returns why that cannot be."""
    plain, password = setup.with_password(dsn)
    with replica.errors():
        programs = replica.postmaster.programs("pg_rewind")
        command = [str(programs / "pg_rewind"), "--target-pgdata", str(replica.cluster), "--source-server", plain]
        try:
            said = replica.postmaster.run(command, password)
        except EmbeddedError as error:
            return str(error)
    for line in said.splitlines():
        if line.startswith("pg_rewind: "):  # the rest is what the cluster itself logs while it recovers
            event(log, logging.INFO, "pg_rewind", said=line.removeprefix("pg_rewind: "))
    return ""
