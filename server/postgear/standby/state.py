"""What a standby remembers over a crash: what it is, and whether the primary's commits waited for it.

One JSON file in the data folder, replaced as a whole and on disk when ``save`` returns.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Final

from postgear.errors import StandbyError

FILE: Final = "standby.json"
DETACHED: Final = "detached"
"""A file whose presence means: take no part in the primary's commits, and do not promote by yourself."""
_FORMAT: Final = 1


class Role(Enum):
    """What the PostgreSQL of the data folder is."""

    REPLICA = "replica"
    PROMOTING = "promoting"
    """It was decided; a process that dies meanwhile is followed by one that goes on."""
    UNFINISHED = "unfinished"
    """It is being made from the primary's files; nothing may run on it."""
    PROMOTED = "promoted"
    """It is a primary, and never follows the old one again unless it rejoins."""


@dataclass(frozen=True)
class State:
    """The content of the file."""

    role: Role
    name: str
    """The application_name that synchronous_standby_names means, and the name of the slot."""
    system_identifier: str
    superuser: str
    """The account with which this machine asks its own PostgreSQL."""
    database: str
    """The database of the queue."""
    timeline: int
    port: int
    """Of the PostgreSQL on this machine."""
    is_confirmed: bool = False
    """Whether the primary's commits waited for this replica when it was last heard."""
    confirmed_at: float = 0.0
    """In seconds of this boot."""
    confirmed_time: float = 0.0
    """The same in Unix time, for people."""
    boot: str = ""
    """The boot that ``confirmed_at`` belongs to."""
    replayed_lsn: int = 0
    why: str = ""
    """Why it was promoted."""

    def confirmed(self, confirmed_at: float, replayed_lsn: int) -> State:
        """Return the state in which commits wait for this replica, as of *confirmed_at*."""
        time_of_it = time.time() - (boot_seconds() - confirmed_at)
        return replace(
            self,
            is_confirmed=True,
            confirmed_at=confirmed_at,
            confirmed_time=time_of_it,
            boot=boot_id(),
            replayed_lsn=replayed_lsn,
        )

    def unconfirmed(self) -> State:
        """Return the state in which they do not."""
        return replace(self, is_confirmed=False)


def load(data_dir: Path) -> State | None:
    """Read the file; None: there is none. Raises StandbyError for one that is damaged or of a later release."""
    path = data_dir / FILE
    try:
        values = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise StandbyError(f"{path} cannot be read: {error}") from error
    try:
        if values.pop("format") != _FORMAT:
            raise ValueError("it is of another release")
        return State(**(values | {"role": Role(values["role"])}))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise StandbyError(f"{path} is not the state of a standby: {error}") from error


def save(data_dir: Path, state: State) -> None:
    """Replace the file; it is on disk when this returns. Raises StandbyError."""
    with _alone(data_dir):
        _write(data_dir, state)


def change(data_dir: Path, changed: Callable[[State], State]) -> State:
    """Replace what the file says by *changed* of it and return that; no process writes in between. Raises StandbyError."""
    with _alone(data_dir):
        before = load(data_dir)
        if before is None:
            raise StandbyError(f"{data_dir / FILE} is gone")
        after = changed(before)
        if after != before:
            _write(data_dir, after)
        return after


@contextmanager
def _alone(data_dir: Path) -> Iterator[None]:
    """Keep other processes from writing: `postgear promote` does beside a `postgear standby` that runs."""
    try:
        descriptor = os.open(data_dir, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise StandbyError(f"{data_dir / FILE} cannot be written: {error}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write(data_dir: Path, state: State) -> None:
    values = {"format": _FORMAT, **asdict(state), "role": state.role.value}
    path = data_dir / FILE
    unfinished = path.with_suffix(".unfinished")
    try:
        with open(unfinished, "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            json.dump(values, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(path)
        sync_folder(data_dir)
    except OSError as error:
        raise StandbyError(f"{path} cannot be written: {error}") from error


def sync_folder(folder: Path) -> None:
    """Put the names in *folder* on disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def boot_seconds() -> float:
    """Return the time of this boot: it goes on while the machine sleeps, and nobody sets it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_id() -> str:
    """Return what tells this boot from every other."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
